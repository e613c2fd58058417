package mls

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// worthSharing is how many public-key operations repay a goroutine.
const worthSharing = 4

// forEach calls f for every number below n, on all processors when there is
// enough to do: f must not change what it shares. It returns the error of the
// lowest number that failed, the same one however the work was shared; after an
// error others may be left out.
func forEach(n int, f func(int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n/worthSharing)
	if workers < 2 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, n)
	var next, failed atomic.Int64
	failed.Store(int64(n))
	work := func() {
		for {
			i := next.Add(1) - 1
			if i >= failed.Load() { // also when all is done
				return
			}
			if errs[i] = f(int(i)); errs[i] != nil {
				lower(&failed, i)
			}
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	if i := failed.Load(); i < int64(n) {
		return errs[i]
	}
	return nil
}

// lower sets v to i unless it is lower already.
func lower(v *atomic.Int64, i int64) {
	for {
		old := v.Load()
		if i >= old || v.CompareAndSwap(old, i) {
			return
		}
	}
}
