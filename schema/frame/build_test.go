package frame

import (
	"bytes"
	"errors"
	"testing"

	"capnproto.org/go/capnp/v3"
)

func TestBuildGivesTheSameBytesWhateverTheHint(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte{9}, 1001)
	var want []byte
	for _, hint := range []int{4096, 1024, 1016, 1000, 17, 1, 0} {
		got, err := Build(hint, func(seg *capnp.Segment) error { return fillList(seg, data) })
		if err != nil {
			t.Fatalf("hint %d: %v", hint, err)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("hint %d: %d bytes, other than with a large hint", hint, len(got))
		}
		if read, err := Read(bytes.NewReader(got), ControlLimit); err != nil || !bytes.Equal(read, got) {
			t.Errorf("hint %d: what was built does not read: %v", hint, err)
		}
	}
}

func TestBuildAllocatesOnceWhenTheHintSuffices(t *testing.T) { //nolint:paralleltest // it counts allocations.
	data := make([]byte, 1000)
	fill := func(seg *capnp.Segment) error { return fillList(seg, data) }
	n := testing.AllocsPerRun(100, func() {
		if _, err := Build(1024, fill); err != nil {
			t.Fatal(err)
		}
	})
	if n > 3 { // The frame itself, the message and its arena.
		t.Errorf("%v allocations, at most 3 are needed", n)
	}
}

func TestBuildReturnsTheErrorOfFill(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if _, err := Build(64, func(*capnp.Segment) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want fill's error", err)
	}
}

func TestBuildAlsoBuildsTheLargestPayload(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5<<20)
	for _, hint := range []int{0, len(data) + 64} {
		got, err := Build(hint, func(seg *capnp.Segment) error { return fillList(seg, data) })
		if err != nil || len(got) != 8+8+8+len(data) {
			t.Errorf("hint %d: %d bytes, error %v", hint, len(got), err)
		}
	}
}
