package delivery

import (
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// end has the device removed by a Commit that is stored now, as any replica may do; the Commit is announced if told.
func (w *world) end(channel, device ids.ID, told bool) uint64 {
	m := message(channel, 1)
	m.Kind, m.AboutChannel = store.MessageCommit, channel
	w.store.mu.Lock()
	if w.store.until == nil {
		w.store.until = map[ids.ID]map[ids.ID]uint64{}
	}
	w.store.until[device] = map[ids.ID]uint64{channel: w.store.end(channel) + 1}
	w.store.mu.Unlock()
	w.store.put(m)
	if told {
		w.hub.Announce([]*store.Message{m})
	}
	return m.Seq
}

// Who is removed reads up to the Commit, live or stored, whoever tells of it, also in the next subscription; and on from where
// it comes in again.
func TestARemovedDeviceReadsUpToItsRemoval(t *testing.T) {
	for name, told := range map[string]bool{"told": true, "found": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := id(10)
				w.store.join(bob, c)
				w.store.join(carol, c)
				r, o := w.subscribe(bob, 256, false), w.subscribe(carol, 256, false)
				w.send(message(c, 1))
				synctest.Wait()
				w.end(c, bob, told) // Sequence 2.
				for range 3 {
					w.send(message(c, 1))
				}
				time.Sleep(3 * pollEvery)
				synctest.Wait()
				wantSeqs(t, r, c, upTo(1, 2))
				wantSeqs(t, o, c, upTo(1, 5))
				again := w.subscribe(bob, 256, false)
				time.Sleep(3 * pollEvery)
				synctest.Wait()
				wantSeqs(t, again, c, upTo(1, 2))
				if len(again.marks()) != 1 {
					t.Error("it is never caught up")
				}
				w.store.mu.Lock()
				delete(w.store.until, bob)
				w.store.cursors[bob][c] = 5
				w.store.mu.Unlock()
				w.hub.Follow(c, 5, []ids.ID{bob})
				w.send(message(c, 1))
				synctest.Wait()
				wantSeqs(t, again, c, []uint64{1, 2, 6})
			})
		})
	}
}

// A removal that is no longer there to be read holds all the same.
func TestARemovalThatHasExpiredHolds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.end(c, bob, false)
		w.store.mu.Lock()
		for _, m := range w.store.channels[c] {
			w.store.expired[m] = true
		}
		w.store.mu.Unlock()
		for range 3 {
			w.store.put(message(c, 1))
		}
		time.Sleep(3 * pollEvery)
		synctest.Wait()
		wantSeqs(t, r, c, nil)
	})
}

// Who is left out of a channel's next generation reads nothing of it, though no Commit says so.
func TestADeviceThatIsLeftOutOfAGeneration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.generation = 1
		w.store.join(bob, c)
		w.store.join(carol, c)
		out, in := w.subscribe(bob, 256, false), w.subscribe(carol, 256, false)
		w.send(message(c, 1))
		synctest.Wait()
		w.store.mu.Lock()
		w.store.generation, w.store.until = 2, map[ids.ID]map[ids.ID]uint64{bob: {c: 1}}
		w.store.mu.Unlock()
		for range 2 {
			m := message(c, 1)
			m.Generation = 2
			w.send(m)
		}
		synctest.Wait()
		wantSeqs(t, out, c, upTo(1, 1))
		wantSeqs(t, in, c, upTo(1, 3))
	})
}

// behinds are the sequences that a device was told are gone.
func (r *reader) behinds() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.gone...)
}

func TestADeviceThatRetentionPassedIsTold(t *testing.T) {
	for name, notices := range map[string]bool{"knows": true, "knows not": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := id(10)
				w.store.join(bob, c)
				for i := range 6 {
					m := w.store.put(message(c, 1))
					if i != 3 {
						w.store.expired[m] = true
					}
				}
				r := w.subscribeWith(bob, 256, notices)
				synctest.Wait()
				w.send(message(c, 1))
				synctest.Wait()
				wantSeqs(t, r, c, []uint64{4, 7})
				want := []uint64{3, 6}
				if !notices {
					want = nil
				}
				if got := r.behinds(); len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[1] != want[1]) {
					t.Errorf("told %v, want %v", got, want)
				}
			})
		})
	}
}

func TestADeviceIsToldOnceThatItsKeyPackagesRunOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.join(bob, id(11))
		r, silent := w.subscribeWith(bob, 256, true), w.subscribeWith(carol, 256, false)
		set := func(n int) {
			w.store.mu.Lock()
			defer w.store.mu.Unlock()
			w.store.low = map[ids.ID]int{bob: n, carol: n}
			if n == 0 {
				w.store.low = nil
			}
		}
		for range 2 {
			set(7)
			time.Sleep(5 * pollEvery)
			set(0)
			time.Sleep(5 * pollEvery)
		}
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.low) != 2 || r.low[0] != 7 {
			t.Errorf("told %v, want twice 7", r.low)
		}
		if len(silent.low) != 0 {
			t.Error("a client was told that does not know of it")
		}
	})
}

// Notices go to clients that know them, and others are not held up by them.
func TestNoticesAreForThoseWhoKnowThem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		notice := message(bob, 1)
		notice.Kind = store.MessageNotice
		w.store.join(bob, id(11))
		w.store.put(notice)
		w.store.put(message(bob, 1))
		old := w.subscribeWith(bob, 256, false)
		synctest.Wait()
		wantSeqs(t, old, bob, []uint64{2})
		knows := w.subscribeWith(bob, 256, true)
		synctest.Wait()
		wantSeqs(t, knows, bob, upTo(1, 2))
		if knows.got[0].Kind != wire.KindNotice {
			t.Errorf("%+v", knows.got[0])
		}
	})
}
