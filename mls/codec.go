package mls

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Limits of the codec. A structure is never larger than the bytes that carry it,
// so these bound memory as well; nothing in the wire format nests recursively, so
// the depth of decoding is fixed by the types.
const (
	// MaxMessageSize is the largest MLSMessage, tree or state that is decoded, in bytes.
	MaxMessageSize = 64 << 20
	// maxVarint is the largest length that RFC 9420 §2.1.2 can express.
	maxVarint = 1<<30 - 1
	// maxOpaque bounds every byte string that a caller hands in, so that no sum of
	// a few of them reaches maxVarint.
	maxOpaque = 1 << 26
)

// reader decodes the presentation language of RFC 8446 §3 as RFC 9420 §2.1
// profiles it. The first error sticks, every later read yields zero values, and
// byte strings alias the input.
type reader struct {
	b   []byte
	err error
}

// decode runs f over b and insists that f consumes it to the last byte.
func decode(b []byte, what string, f func(*reader)) error {
	if len(b) > MaxMessageSize {
		return fmt.Errorf("%w: %s of %d bytes, limit %d", ErrTooLarge, what, len(b), MaxMessageSize)
	}
	r := &reader{b: b}
	f(r)
	if r.err == nil && len(r.b) > 0 {
		r.fail("trailing bytes")
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

func (r *reader) fail(what string) {
	r.failWith(ErrMalformed, what)
}

func (r *reader) failWith(kind error, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", kind, what)
	}
	r.b = nil
}

func (r *reader) done() bool { return r.err != nil || len(r.b) == 0 }

// take returns the next n bytes. Its capacity ends with it, so that appending to
// one field can never overwrite the next.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.fail("shorter than its length says")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// varint reads a length (RFC 9420 §2.1.2): two bits of size, and always in the
// fewest bytes.
func (r *reader) varint() int {
	first := r.uint8()
	if r.err != nil {
		return 0
	}
	prefix := first >> 6
	if prefix == 3 {
		r.fail("length with reserved prefix")
		return 0
	}
	v := int(first & 0x3f)
	for range 1<<prefix - 1 {
		v = v<<8 | int(r.uint8())
	}
	if r.err == nil && prefix > 0 && v < 1<<(8<<(prefix-1)-2) {
		r.fail("length not in its shortest form")
	}
	return v
}

// opaque reads opaque<V>. An empty one is nil.
func (r *reader) opaque() []byte {
	n := r.varint()
	if n == 0 {
		return nil
	}
	return r.take(n)
}

// optional reads the presence octet of an optional value.
func (r *reader) optional() bool {
	switch r.uint8() {
	case 0:
		return false
	case 1:
		return true
	}
	r.fail("presence octet is neither 0 nor 1")
	return false
}

// vector reads a vector<V> of structures, calling f until its bytes are used up.
func (r *reader) vector(f func(*reader)) {
	body := r.opaque()
	rest := r.b
	for r.b = body; !r.done(); {
		f(r)
	}
	if r.err == nil {
		r.b = rest
	}
}

// list reads a vector<V> into a slice.
func list[T any](r *reader, f func(*reader) T) []T {
	var out []T
	r.vector(func(r *reader) { out = appendDoubling(out, f(r)) })
	return out
}

// appendDoubling appends like append, and always doubles: all the arrays of a long
// list together stay below four times what is in it, where append comes to six.
func appendDoubling[T any](s []T, v T) []T {
	if len(s) == cap(s) {
		s = slices.Grow(s, max(1, len(s)))
	}
	return append(s, v)
}

func appendUint16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func appendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendVarint writes a length in its shortest form. Callers bound what they
// encode (see maxOpaque), so a longer one is a fault of the engine.
func appendVarint(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, uint8(n)) //nolint:gosec // checked.
	case n < 1<<14:
		return appendUint16(b, uint16(n)|1<<14) //nolint:gosec // checked.
	case n <= maxVarint:
		return appendUint32(b, uint32(n)|2<<30) //nolint:gosec // checked.
	}
	panic("mls: length beyond the varint") //nolint:forbidigo // no input is that long, see maxOpaque and MaxMessageSize.
}

func varintSize(n int) int {
	switch {
	case n < 1<<6:
		return 1
	case n < 1<<14:
		return 2
	}
	return 4
}

func appendOpaque(b, v []byte) []byte {
	return append(appendVarint(b, len(v)), v...)
}

func appendOptional(b []byte, present bool) []byte {
	if present {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendVector writes what f appends as a vector<V>. The body is encoded in place
// and moved once by the size of its header.
func appendVector(b []byte, f func([]byte) []byte) []byte {
	start := len(b)
	b = f(b)
	n := len(b) - start
	var header [4]byte
	h := appendVarint(header[:0], n)
	b = append(b, h...)
	copy(b[start+len(h):], b[start:start+n])
	copy(b[start:], h)
	return b
}

// encodable is what every wire structure offers: append its encoding.
type encodable interface{ append(b []byte) []byte }

func appendList[T encodable](b []byte, items []T) []byte {
	return appendVector(b, func(b []byte) []byte {
		for _, it := range items {
			b = it.append(b)
		}
		return b
	})
}

func encode(v encodable) []byte { return v.append(nil) }
