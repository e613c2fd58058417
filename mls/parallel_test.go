package mls

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

func TestForEach(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, worthSharing, 2*worthSharing - 1, 2 * worthSharing, 1000} {
		calls := make([]atomic.Int32, n)
		if err := forEach(n, func(i int) error { calls[i].Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if got := calls[i].Load(); got != 1 {
				t.Errorf("%d of %d was called %d times", i, n, got)
			}
		}
	}
}

// The lowest error is the one that is told, and everything below it was looked at.
func TestForEachLowestError(t *testing.T) {
	t.Parallel()
	for range 200 {
		const n, bad = 64, 17
		var below atomic.Int32
		err := forEach(n, func(i int) error {
			if i < bad {
				runtime.Gosched()
				below.Add(1)
				return nil
			}
			return fmt.Errorf("%w %d", ErrSignature, i)
		})
		if !errors.Is(err, ErrSignature) || err.Error() != fmt.Sprintf("%v %d", ErrSignature, bad) || below.Load() != bad {
			t.Fatalf("got %v after %d calls below", err, below.Load())
		}
	}
}
