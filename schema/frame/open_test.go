package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"
)

// walk follows every pointer of a message and returns how many bytes it could read before the limits stopped it.
func walk(msg *capnp.Message) uint64 {
	root, err := msg.Root()
	if err != nil {
		return 0
	}
	return walkPtr(root)
}

func walkPtr(p capnp.Ptr) uint64 {
	if s := p.Struct(); s.IsValid() {
		return walkStruct(s)
	}
	l := p.List()
	if !l.IsValid() {
		return 0
	}
	if data := p.Data(); data != nil {
		return uint64(len(data))
	}
	var n uint64
	for i := range l.Len() {
		n += walkStruct(l.Struct(i))
	}
	return n
}

func walkStruct(s capnp.Struct) uint64 {
	n := uint64(s.Size().DataSize)
	for i := range s.Size().PointerCount {
		if p, err := s.Ptr(i); err == nil {
			n += wordSize + walkPtr(p)
		}
	}
	return n
}

func words(w ...uint64) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// single makes a frame of one segment.
func single(body []byte) []byte { return append(table(uint32(len(body)/wordSize)), body...) }

// structPtr points to a struct that begins offset words after the pointer's end.
func structPtr(offset int32, dataWords, pointers uint16) uint64 {
	return uint64(uint32(offset)<<2) | uint64(dataWords)<<32 | uint64(pointers)<<48
}

// listPtr points to a list of n elements of a size class (0: void, 2: bytes, 6: pointers, 7: structs, n in words).
func listPtr(offset int32, class uint8, n uint32) uint64 {
	return 1 | uint64(uint32(offset)<<2) | uint64(class)<<32 | uint64(n)<<35
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		frame []byte
	}{
		{"nothing", nil},
		{"half a word", make([]byte, 4)},
		{"no whole number of words", make([]byte, 12)},
		{"a table that ends early", table(1, 1, 1)[:8]},
		{"a body that ends early", single(make([]byte, 16))[:16]},
		{"bytes after the body", append(single(make([]byte, 16)), make([]byte, 8)...)},
		{"a frame after the frame", append(single(make([]byte, 16)), single(make([]byte, 16))...)},
		{"too many segments", frameOf(repeat(MaxSegments+1, 1)...)},
		{"a table whose sum wraps round", append(table(1<<31, 1<<31), make([]byte, 8)...)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Open(c.frame); !errors.Is(err, ErrMalformed) {
				t.Errorf("%v, want ErrMalformed", err)
			}
		})
	}
}

// depth follows the first pointer of each struct and returns how many structs it reached.
func depth(msg *capnp.Message) (int, error) {
	p, err := msg.Root()
	for n := 0; ; n++ {
		if err != nil || !p.IsValid() {
			return n, err
		}
		p, err = p.Struct().Ptr(0)
	}
}

// chain makes a message of n structs, each inside the one before.
func chain(n int) []byte {
	var body []byte
	for range n {
		body = append(body, words(structPtr(0, 0, 1))...)
	}
	return single(append(body, make([]byte, wordSize)...))
}

func TestOpenLimitsDepth(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, DepthLimit, DepthLimit + 1, 1000} {
		msg, err := Open(chain(n))
		if err != nil {
			t.Fatal(err)
		}
		switch got, err := depth(msg); {
		case n <= DepthLimit && (err != nil || got != n):
			t.Errorf("%d nested structs: %d were read, error %v", n, got, err)
		case n > DepthLimit && (got != DepthLimit || err == nil || !strings.Contains(err.Error(), "depth")):
			t.Errorf("%d nested structs: %d were read, error %v; want the depth limit after %d", n, got, err, DepthLimit)
		}
	}
}

func TestOpenLimitsTraversal(t *testing.T) {
	t.Parallel()
	const fan = 500
	// Many pointers to one list of bytes: without a limit, fan times its length could be read.
	var shared []byte
	shared = append(shared, words(listPtr(0, 6, fan))...)
	for i := range fan {
		shared = append(shared, words(listPtr(int32(fan-1-i), 2, 4096))...)
	}
	shared = append(shared, make([]byte, 4096)...)
	// A struct whose pointers all point back at itself: without limits, the walk is exponential.
	loop := words(structPtr(0, 0, 4), structPtr(-1, 0, 4), structPtr(-2, 0, 4), structPtr(-3, 0, 4), structPtr(-4, 0, 4))
	// Lists of elements without size: without a charge for each, a word makes half a billion of them.
	void := words(listPtr(0, 0, 1<<29-1))
	empty := words(listPtr(0, 7, 0), structPtr(1<<29-1, 0, 0))
	for name, body := range map[string][]byte{"shared": shared, "loop": loop, "void list": void, "empty structs": empty} {
		frame := single(body)
		msg, err := Open(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := walk(msg); got > uint64(len(frame)+traversalSlack) {
			t.Errorf("%s: %d bytes of a frame of %d could be read", name, got, len(frame))
		}
	}
	for name, body := range map[string][]byte{"void list": void, "empty structs": empty} {
		msg, err := Open(single(body))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := msg.Root(); err == nil {
			t.Errorf("%s: a list of %d elements could be read", name, p.List().Len())
		}
	}
}

func TestOpenReadsTheWholeOfAnHonestMessage(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte{0x5a}, 1<<20)
	frame, err := Build(len(payload)+64, func(seg *capnp.Segment) error { return fillList(seg, payload) })
	if err != nil {
		t.Fatal(err)
	}
	msg, err := Open(frame)
	if err != nil {
		t.Fatal(err)
	}
	if got := walk(msg); got < uint64(len(payload)) {
		t.Errorf("%d bytes of %d could be read", got, len(payload))
	}
}

// fillList writes a root struct with one Data.
func fillList(seg *capnp.Segment, data []byte) error {
	root, err := capnp.NewRootStruct(seg, capnp.ObjectSize{PointerCount: 1})
	if err != nil {
		return err
	}
	return root.SetData(0, data)
}

func TestOpenedMessagesCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, body := range [][]byte{chain(2), append(table(1, 1), make([]byte, 16)...)} {
		msg, err := Open(body)
		if err != nil {
			t.Fatal(err)
		}
		seg, err := msg.Segment(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := capnp.NewStruct(seg, capnp.ObjectSize{DataSize: 8}); err == nil {
			t.Error("a message that was read took an allocation")
		}
	}
}

func TestOpenFollowsFarPointers(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte{7}, 100)
	segments := [][]byte{make([]byte, 0, 8), make([]byte, 0, 16), make([]byte, 0, 104), make([]byte, 0, 64)}
	msg, seg, err := capnp.NewMessage(capnp.MultiSegment(segments))
	if err != nil {
		t.Fatal(err)
	}
	if err := fillList(seg, want); err != nil {
		t.Fatal(err)
	}
	frame, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(frame)
	if err != nil {
		t.Fatal(err)
	}
	root, err := opened.Root()
	if err != nil {
		t.Fatal(err)
	}
	p, err := root.Struct().Ptr(0)
	if err != nil || opened.NumSegments() < 2 || !bytes.Equal(p.Data(), want) {
		t.Errorf("%d segments, %d bytes, error %v", opened.NumSegments(), len(p.Data()), err)
	}
}
