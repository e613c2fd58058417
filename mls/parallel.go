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
	var next atomic.Int64
	var failed atomic.Bool
	work := func() {
		for !failed.Load() { // whoever has taken a number calls f for it, so that all lower ones are
			i := int(next.Add(1) - 1)
			if i >= n {
				return
			}
			if errs[i] = f(i); errs[i] != nil {
				failed.Store(true)
			}
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
