package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
)

// table encodes a segment table that declares the given sizes in words.
func table(words ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(words)-1))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	for len(b)%wordSize != 0 {
		b = append(b, 0)
	}
	return b
}

// frameOf makes a frame with a body that counts upwards.
func frameOf(words ...uint32) []byte {
	b := table(words...)
	for range bodySize(b) {
		b = append(b, byte(len(b)))
	}
	return b
}

func repeat(n int, words uint32) []uint32 {
	s := make([]uint32, n)
	for i := range s {
		s[i] = words
	}
	return s
}

func TestReadReturnsFramesOneByOne(t *testing.T) {
	t.Parallel()
	frames := [][]byte{frameOf(0), frameOf(1), frameOf(3, 0, 2), frameOf(repeat(MaxSegments, 1)...), frameOf(40_000), frameOf(7)}
	stream := bytes.Join(frames, nil)
	readers := map[string]io.Reader{"whole": bytes.NewReader(stream), "halves": iotest.HalfReader(bytes.NewReader(stream)),
		"bytes": iotest.OneByteReader(bytes.NewReader(stream)), "with the end": iotest.DataErrReader(bytes.NewReader(stream))}
	for name, r := range readers {
		for i, want := range frames {
			got, err := Read(r, 1<<20)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: frame %d: %d bytes, error %v; want %d bytes", name, i, len(got), err, len(want))
			}
		}
		if _, err := Read(r, 1<<20); err != io.EOF { //nolint:errorlint // it must be io.EOF itself.
			t.Errorf("%s: at the end: %v, want io.EOF", name, err)
		}
	}
}

func TestReadTruncated(t *testing.T) {
	t.Parallel()
	for _, whole := range [][]byte{frameOf(4), frameOf(1, 2, 1), frameOf(repeat(MaxSegments, 1)...)} {
		for n := 1; n < len(whole); n++ {
			if _, err := Read(bytes.NewReader(whole[:n]), ControlLimit); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%d of %d bytes: %v, want io.ErrUnexpectedEOF", n, len(whole), err)
			}
		}
	}
}

func TestReadPassesTheReadersError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for n := range 4 * wordSize {
		r := io.MultiReader(bytes.NewReader(frameOf(3)[:n]), iotest.ErrReader(broken))
		if _, err := Read(r, ControlLimit); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v, want the reader's error", n, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	const all = 1<<32 - 1
	cases := []struct {
		name  string
		head  []byte
		limit int
		size  uint64 // Of the *TooLargeError; 0: ErrMalformed.
	}{
		{"one word above the limit", table(16), 16 * wordSize, 17 * wordSize},
		{"many segments above the limit", table(4, 4, 4), 100, 16 + 12*wordSize},
		{"an empty frame above the limit", table(0), 7, 8},
		{"the largest segment", table(all), 1 << 30, 8 + all*wordSize},
		{"a table whose sum overflows 32 bits", table(repeat(MaxSegments, all)...), 1 << 30, 72 + MaxSegments*all*wordSize},
		{"two segments that wrap to nothing", table(1<<31, 1<<31), 1 << 20, 16 + (1<<32)*wordSize},
		{"one segment too many", table(repeat(MaxSegments+1, 1)...), 1 << 20, 0},
		{"the most segments that can be declared", []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 1 << 20, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := bytes.NewReader(append(bytes.Clone(c.head), make([]byte, 256)...))
			_, err := Read(r, c.limit)
			var large *TooLargeError
			switch {
			case c.size == 0 && !errors.Is(err, ErrMalformed):
				t.Errorf("%v, want ErrMalformed", err)
			case c.size != 0 && (!errors.As(err, &large) || large.Size != c.size || large.Limit != uint64(c.limit) || large.TableSize != len(c.head)):
				t.Errorf("%#v, want a TooLargeError of %d bytes above %d, of which %d were read", err, c.size, c.limit, len(c.head))
			}
			if read := len(c.head) + 256 - r.Len(); read > len(c.head) {
				t.Errorf("%d bytes were read, the table has %d", read, len(c.head))
			}
		})
	}
}

func TestReadTakesExactlyTheLimit(t *testing.T) {
	t.Parallel()
	whole := frameOf(ControlLimit/wordSize - 1)
	if got, err := Read(bytes.NewReader(whole), ControlLimit); err != nil || len(got) != ControlLimit {
		t.Errorf("a frame of the limit: %d bytes, error %v", len(got), err)
	}
}

// allocated returns the heap bytes that one call of f allocates, averaged over many. No other test may run beside it.
func allocated(f func()) uint64 {
	const runs = 64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

// A sender has to pay in bytes for what it makes us allocate: no table alone costs more than the first read, and
// then never more than a small multiple of what has arrived.
func TestReadAllocatesAsBytesArrive(t *testing.T) { //nolint:paralleltest // it measures the heap.
	const declared = 4 << 20
	for _, sent := range []uint64{0, 1 << 10, 64 << 10, 200 << 10, 1 << 20} {
		stream := append(table(declared/wordSize-1), make([]byte, sent)...)
		got := allocated(func() {
			if _, err := Read(bytes.NewReader(stream), declared); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("with %d bytes of the body: %v, want io.ErrUnexpectedEOF", sent, err)
			}
		})
		if limit := 2*firstRead + 4*sent; got > limit {
			t.Errorf("%d bytes arrived of a frame of %d: %d were allocated, at most %d may be", sent, declared, got, limit)
		}
	}
	tooLarge := table(declared / wordSize)
	if got := allocated(func() {
		var large *TooLargeError
		if _, err := Read(bytes.NewReader(tooLarge), declared); !errors.As(err, &large) {
			t.Fatalf("%v, want a TooLargeError", err)
		}
	}); got > 1<<10 {
		t.Errorf("refusing a frame allocated %d bytes", got)
	}
}

func TestReadOfAControlFrameAllocatesOnce(t *testing.T) { //nolint:paralleltest // it counts allocations.
	whole := frameOf(128)
	r := bytes.NewReader(nil)
	n := testing.AllocsPerRun(100, func() {
		r.Reset(whole)
		if _, err := Read(r, ControlLimit); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 { // The table, which escapes through the io.Reader, and the frame.
		t.Errorf("%v allocations, at most 2 are needed", n)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range [][]byte{nil, {0}, frameOf(0), frameOf(3), frameOf(1, 0, 2), table(1 << 31), table(repeat(MaxSegments+1, 1)...)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 4096
		r := bytes.NewReader(b)
		got, err := Read(r, limit)
		if err != nil {
			return
		}
		if consumed := len(b) - r.Len(); len(got) > limit || consumed != len(got) || !bytes.Equal(got, b[:len(got)]) {
			t.Fatalf("%d bytes consumed, %d returned", consumed, len(got))
		}
		if msg, err := Open(got); err == nil {
			if n := walk(msg); n > uint64(len(got)+traversalSlack) {
				t.Fatalf("%d bytes were traversed in a frame of %d", n, len(got))
			}
		}
	})
}
