package mls

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"unsafe"
)

// site is one place in a message: a field, or an element of a list.
type site struct {
	path  string
	value reflect.Value
}

// sitesOf lists every place below v, which must be addressable. Lists and optional
// structures are places themselves, besides what is in them.
func sitesOf(path string, v reflect.Value) (out []site) {
	if !v.CanSet() { // unexported fields
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out = append(out, site{path, v})
			return append(out, sitesOf(path, v.Elem())...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, sitesOf(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case reflect.Slice:
		out = append(out, site{path, v})
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				out = append(out, sitesOf(fmt.Sprintf("%s[%d]", path, i), v.Index(i))...)
			}
		}
	case reflect.Array, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		out = append(out, site{path, v})
	}
	return out
}

// mutator changes one place in a message at random, by a rule or by what is found
// at a place of the same type in another message.
type mutator struct {
	rng  *rand.Rand
	pool map[reflect.Type][]reflect.Value
}

// learn offers what is in a message for swaps. The message must not change any more.
func (m *mutator) learn(a *authenticatedContent) {
	if m.pool == nil {
		m.pool = map[reflect.Type][]reflect.Value{}
	}
	for _, s := range sitesOf("", reflect.ValueOf(a).Elem()) {
		m.pool[s.value.Type()] = append(m.pool[s.value.Type()], s.value)
	}
}

// change changes one place of a, and says which.
func (m *mutator) change(a *authenticatedContent) string {
	sites := sitesOf("", reflect.ValueOf(a).Elem())
	s := sites[m.rng.IntN(len(sites))]
	if others := m.pool[s.value.Type()]; len(others) > 0 && m.rng.IntN(4) == 0 {
		s.value.Set(others[m.rng.IntN(len(others))])
		return s.path + " of another message"
	}
	switch s.value.Kind() {
	case reflect.Pointer:
		s.value.SetZero()
		return s.path + " left out"
	case reflect.Slice:
		if s.value.Type().Elem().Kind() == reflect.Uint8 {
			return s.path + m.changeBytes(s.value)
		}
		return s.path + m.changeList(s.value)
	case reflect.Array:
		e := s.value.Index(m.rng.IntN(s.value.Len()))
		e.SetUint(e.Uint() ^ 1<<m.rng.IntN(8))
		return s.path + " with a bit flipped"
	}
	return s.path + m.changeNumber(s.value)
}

func (m *mutator) changeBytes(v reflect.Value) string {
	b := append([]byte(nil), v.Bytes()...)
	var what string
	switch n := m.rng.IntN(6); {
	case n == 0 || len(b) == 0:
		b, what = append(b, byte(m.rng.Uint32())), " with a byte more"
	case n == 1:
		b, what = b[:len(b)-1], " with a byte less"
	case n == 2:
		b, what = nil, " empty"
	case n == 3:
		b, what = randomBytes(len(b)), " at random"
	default:
		i := m.rng.IntN(len(b))
		b[i] ^= 1 << m.rng.IntN(8)
		what = fmt.Sprintf(" with a bit of byte %d flipped", i)
	}
	v.SetBytes(b)
	return what
}

func (m *mutator) changeList(v reflect.Value) string {
	n := v.Len()
	if n == 0 {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		return " with an empty element"
	}
	i, j := m.rng.IntN(n), m.rng.IntN(n)
	list := reflect.AppendSlice(reflect.Zero(v.Type()), v)
	switch m.rng.IntN(4) {
	case 0:
		v.Set(reflect.AppendSlice(list.Slice(0, i), list.Slice(i+1, n)))
		return fmt.Sprintf(" without element %d", i)
	case 1:
		v.Set(reflect.Append(list, list.Index(i)))
		return fmt.Sprintf(" with element %d twice", i)
	case 2:
		v.SetZero()
		return " empty"
	}
	reflect.Swapper(list.Interface())(i, j)
	v.Set(list)
	return fmt.Sprintf(" with elements %d and %d swapped", i, j)
}

func (m *mutator) changeNumber(v reflect.Value) string {
	x := v.Uint()
	switch m.rng.IntN(6) {
	case 0:
		x++
	case 1:
		x--
	case 2:
		x = 0
	case 3:
		x = ^uint64(0)
	case 4:
		x = m.rng.Uint64N(16)
	default:
		x ^= 1 << m.rng.IntN(v.Type().Bits())
	}
	v.SetUint(x & (^uint64(0) >> (64 - v.Type().Bits())))
	return fmt.Sprintf(" = %d", v.Uint())
}
