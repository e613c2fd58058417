package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

// fake is a peer that answers after a time and delivers what it takes, except as told.
type fake struct {
	peer.Session
	tracker *peer.Tracker
	delay   time.Duration
	refuse  func(n int) bool
	lose    func(n int) bool

	mu       sync.Mutex
	n        int
	under    int
	most     int
	together sync.WaitGroup
}

var errFull = errors.New("full")

func (f *fake) Publish(pair int, _ ids.ID, content []byte, done func(error)) error {
	f.mu.Lock()
	n := f.n
	f.n++
	f.under++
	f.most = max(f.most, f.under)
	f.mu.Unlock()
	body := slices.Clone(content)
	f.together.Go(func() {
		time.Sleep(f.delay)
		f.mu.Lock()
		f.under--
		f.mu.Unlock()
		if f.refuse != nil && f.refuse(n) {
			done(errFull)
			return
		}
		if f.lose == nil || !f.lose(n) {
			f.tracker.Deliver(pair, 0, body)
		}
		done(nil)
	})
	return nil
}

func drive(t *testing.T, f *fake, pairs int, l load, duration time.Duration) *driver {
	t.Helper()
	f.tracker = peer.NewTracker(1, peer.Topology{Pairs: pairs, Devices: 1})
	d := newDriver(f, f.tracker, pairs, l)
	if err := d.run(t.Context(), l, duration); err != nil {
		t.Fatal(err)
	}
	f.together.Wait()
	return d
}

func TestAClosedLoopKeepsSoManyInFlight(t *testing.T) {
	t.Parallel()
	f := &fake{delay: time.Millisecond}
	d := drive(t, f, 3, load{inFlight: 4}, 100*time.Millisecond)
	if f.most != 4 || d.refused != 0 || len(d.lags) != f.n {
		t.Errorf("%d in flight at most, %d refused, %d of %d answered", f.most, d.refused, len(d.lags), f.n)
	}
	if v := f.tracker.Judge(); v.Received != f.n || v.Lost != 0 {
		t.Errorf("%+v of %d", v, f.n)
	}
}

func TestAnOpenLoopMeasuresFromTheIntendedTime(t *testing.T) {
	t.Parallel()
	f := &fake{delay: 20 * time.Millisecond}
	d := drive(t, f, 2, load{rate: 1000}, 200*time.Millisecond)
	if f.n != 200 {
		t.Errorf("%d messages, want 200 in 0.2 s at 1000/s", f.n)
	}
	if fastest := slices.Min(d.lags); fastest < f.delay {
		t.Errorf("an answer after %s, each takes %s", fastest, f.delay)
	}
}

func TestARefusedMessageIsNeitherLostNorWaitedFor(t *testing.T) {
	t.Parallel()
	f := &fake{refuse: func(int) bool { return true }}
	d := drive(t, f, 1, load{inFlight: 1}, 20*time.Millisecond)
	if v := f.tracker.Judge(); v.Lost != 0 || d.refused != f.n || f.n == 0 || !errors.Is(d.reason, errFull) {
		t.Errorf("%+v, %d of %d refused: %v", v, d.refused, f.n, d.reason)
	}
}

func TestALostMessageEndsTheRun(t *testing.T) {
	t.Parallel()
	f := &fake{lose: func(n int) bool { return n == 0 }}
	f.tracker = peer.NewTracker(1, peer.Topology{Pairs: 1, Devices: 1})
	d := newDriver(f, f.tracker, 1, load{inFlight: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := d.run(ctx, load{inFlight: 1}, 20*time.Millisecond); !errors.Is(err, errStuck) || !strings.Contains(err.Error(), "1 lost") {
		t.Errorf("%v, want that one is lost", err)
	}
}
