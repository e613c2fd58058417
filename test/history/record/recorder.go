package record

import (
	"sync"
	"time"
)

// Recorder gathers the Ops of a run. It is safe for concurrent use.
type Recorder struct {
	begin time.Time

	mu   sync.Mutex
	last int64
	ops  []Op
}

// New returns a Recorder whose clock begins now.
func New() *Recorder { return &Recorder{begin: time.Now()} }

// Now is the time, later than any time that was told before: the order of two times is the order in which they were
// asked for.
func (r *Recorder) Now() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now()
}

func (r *Recorder) now() int64 {
	r.last = max(r.last+1, int64(time.Since(r.begin)))
	return r.last
}

// Add notes an Op whose times are set.
func (r *Recorder) Add(ops ...Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, ops...)
}

// Done notes an Op that ends now.
func (r *Recorder) Done(op Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.Return = r.now()
	r.ops = append(r.ops, op)
}

// Point notes an Op that takes no time, and happens now.
func (r *Recorder) Point(op Op) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.Call = r.now()
	op.Return = op.Call
	r.ops = append(r.ops, op)
	return op.Call
}

// Ops returns a copy of what was noted so far.
func (r *Recorder) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Op(nil), r.ops...)
}

// Len is how much was noted so far.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ops)
}
