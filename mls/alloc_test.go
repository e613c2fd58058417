package mls

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// allocBound is what decoding n bytes may allocate in all, garbage included: a
// small multiple of the input, and a constant for whatever is made once.
func allocBound(n int) uint64 { return 64*uint64(n) + 64<<10 } //nolint:gosec // a length.

// wantModest fails if f, which decodes n bytes and may be called again, allocates
// more than allocBound. Two measures: the runtime's counter of allocations is cheap
// and counts small objects only when their span is full, so it serves as a sieve;
// what stays in the sieve is measured exactly. Other goroutines can only add to a
// measure, so the least of a few is the truest.
func wantModest(t testing.TB, what string, n int, f func()) {
	t.Helper()
	bound := allocBound(n)
	before := allocatedSoFar()
	f()
	if allocatedSoFar()-before <= bound/2 {
		return
	}
	least := allocatedBy(f)
	for range 3 {
		if least <= bound {
			return
		}
		least = min(least, allocatedBy(f))
	}
	if least > bound {
		t.Errorf("%s: %d bytes allocated for an input of %d, bound %d", what, least, n, bound)
	}
}

func allocatedSoFar() uint64 {
	s := [1]metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s[:])
	return s[0].Value.Uint64()
}

// allocatedBy is exact: ReadMemStats counts the spans in use as well.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// recorder is a testing.TB that notes failures instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

var allocSink [][]byte

// The measure itself: it must find a decoder that allocates too much, in one piece
// or in many, at once or after much that was modest.
func TestAllocationBoundIsSeen(t *testing.T) {
	// Not parallel: it measures what is allocated.
	const n = 8
	in := make([]byte, n)
	pieces := func(count, size int) func() {
		return func() {
			allocSink = make([][]byte, 0, count)
			for range count {
				allocSink = append(allocSink, make([]byte, size))
			}
		}
	}
	tests := []struct {
		name string
		f    func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"as much as is allowed, in one piece", pieces(1, 48<<10), false},
		{"as much as is allowed, in pieces", pieces(1000, 16), false},
		{"the length is believed", func() { allocSink = [][]byte{make([]byte, 1<<20)} }, true},
		{"100 MiB for 8 bytes", func() { allocSink = [][]byte{make([]byte, 100<<20)} }, true},
		{"just above, in one piece", pieces(1, int(allocBound(n))+4096), true},
		{"in pieces of 16 bytes", pieces(4000, 16), true},
		{"in pieces of 1 KiB", pieces(80, 1024), true},
		{"in pieces of 8 KiB", pieces(9, 8192), true},
	}
	for _, tt := range tests {
		for range 20 {
			r := &recorder{TB: t}
			wantModest(r, tt.name, len(in), tt.f)
			if r.failed != tt.want {
				t.Errorf("%s: seen %v, want %v", tt.name, r.failed, tt.want)
				break
			}
			if tt.name[:3] == "100" {
				break
			}
		}
	}
	allocSink = nil
	// A decoder of the usual form that grows a list as the length says.
	d := decoder{"greedy", func(b []byte) ([]byte, error) {
		r := &reader{b: b}
		allocSink = make([][]byte, r.varint())
		return b, nil
	}}
	r := &recorder{TB: t}
	d.check(r, []byte{0x80, 0x01, 0x00, 0x00})
	if !r.failed {
		t.Error("a decoder that believes a length is not seen")
	}
	allocSink = nil
}

func BenchmarkAllocationSieve(b *testing.B) {
	for b.Loop() {
		wantModest(b, "nothing", 1, func() {})
	}
}
