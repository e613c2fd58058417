package limits

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(2, 3, time.Second)
		ctx := t.Context()
		for range 2 {
			if !g.Enter(ctx) {
				t.Fatal("two may be inside")
			}
		}
		let := make(chan int, 3)
		for i := range 3 {
			go func() {
				if g.Enter(ctx) {
					let <- i
				} else {
					let <- -1
				}
			}()
			synctest.Wait()
		}
		if g.Enter(ctx) {
			t.Fatal("a fourth waits")
		}
		if n := g.Waiting(); n != 3 {
			t.Fatalf("%d wait", n)
		}
		for want := range 2 { // In the order of their coming.
			g.Leave()
			if got := <-let; got != want {
				t.Fatalf("%d was let in, want %d", got, want)
			}
		}
		begin := time.Now()
		if got := <-let; got != -1 || time.Since(begin) != time.Second {
			t.Fatalf("%d after %s: nobody left, and a second is over", got, time.Since(begin))
		}
		ended, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Millisecond, cancel)
		if g.Enter(ended) {
			t.Fatal("let in though its connection is gone")
		}
		if n := g.Waiting(); n != 0 {
			t.Fatalf("%d wait", n)
		}
		g.Leave()
		g.Leave()
	})
}
