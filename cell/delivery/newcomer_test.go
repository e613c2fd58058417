package delivery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/cell/telemetry"
)

// beside makes another process over the same store, which a bus connects with the first if there is one.
func (w *world) beside(b Bus) *world {
	v := &world{t: w.t, store: w.store, log: &testLog{}}
	v.hub = NewHub(v.store, telemetry.New(), quiet(), time.Now)
	v.lane = NewLane(v.store, v.hub.metrics, quiet(), time.Now, v.hub.Announce)
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	for _, x := range []*world{w, v} {
		if b != nil {
			wakeups := x.hub.UseWakeups(b)
			v.all.Go(func() { wakeups.Run(ctx) })
		}
	}
	v.all.Go(func() { v.hub.Run(ctx) })
	return v
}

// The newest subscription of a device ends those before it at every process: at once by wake-ups, within a poll without them. It
// is never ended by one that is older, and another device's is left alone.
func TestANewcomerWinsAtEveryProcess(t *testing.T) {
	for name, c := range map[string]struct {
		bus, deaf bool
		within    time.Duration
	}{
		"told":                      {bus: true, within: 0},
		"told in vain":              {bus: true, deaf: true, within: recountEvery},
		"behind a pooler, by polls": {within: pollEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				var bus *fakeBus
				var v *world
				if c.bus {
					bus = newFakeBus()
					v = w.beside(bus)
				} else {
					v = w.beside(nil)
				}
				defer v.close()
				channel := id(10)
				w.store.join(bob, channel)
				w.store.join(carol, channel)
				synctest.Wait() // They have heard each other.
				if bus != nil {
					bus.mu.Lock()
					bus.deaf = c.deaf
					bus.mu.Unlock()
				}
				other := w.subscribe(carol, 256, false)
				worlds := []*world{w, v, w, v}
				var last *reader
				for i, x := range worlds {
					r := x.subscribe(bob, 256, false)
					synctest.Wait() // It has its number.
					if last != nil {
						begun := time.Now()
						select {
						case err := <-last.ended:
							if !errors.Is(err, ErrReplaced) {
								t.Fatalf("subscription %d ended with %v", i, err)
							}
						case <-time.After(time.Minute):
							t.Fatalf("subscription %d never ended", i)
						}
						if took := time.Since(begun); took > c.within {
							t.Errorf("subscription %d ended %v after the newcomer began", i, took)
						}
					}
					last = r
				}
				time.Sleep(3 * recountEvery)
				synctest.Wait()
				w.send(message(channel, 1))
				time.Sleep(2 * pollEvery)
				synctest.Wait()
				wantSeqs(t, last, channel, upTo(1, 1))
				wantSeqs(t, other, channel, upTo(1, 1))
				select {
				case err := <-last.ended:
					t.Errorf("the newest ended: %v", err)
				case err := <-other.ended:
					t.Errorf("another device's ended: %v", err)
				default:
				}
			})
		})
	}
}

// While the database is away nobody knows who is newer; once it is back one goes on.
func TestNewcomersWhileTheDatabaseIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		v := w.beside(newFakeBus())
		defer v.close()
		channel := id(10)
		w.store.join(bob, channel)
		synctest.Wait()
		w.store.setAway(true)
		one, two := w.subscribe(bob, 256, false), v.subscribe(bob, 256, false)
		time.Sleep(2 * recountEvery)
		synctest.Wait()
		w.store.setAway(false)
		time.Sleep(2 * recountEvery)
		synctest.Wait()
		w.send(message(channel, 1))
		time.Sleep(2 * pollEvery)
		synctest.Wait()
		lives := 0
		for _, r := range []*reader{one, two} {
			select {
			case err := <-r.ended:
				if !errors.Is(err, ErrReplaced) {
					t.Errorf("ended with %v", err)
				}
			default:
				lives++
				wantSeqs(t, r, channel, upTo(1, 1))
			}
		}
		if lives != 1 {
			t.Errorf("%d subscriptions live", lives)
		}
	})
}
