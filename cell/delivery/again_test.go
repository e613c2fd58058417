package delivery

import (
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// comeBack has a device that was removed come into a channel's group again, at the channel's end, as the store notes it.
func (w *world) comeBack(channel, device ids.ID) (after uint64) {
	f := w.store
	f.mu.Lock()
	defer f.mu.Unlock()
	after = f.end(channel)
	if until := f.until[device][channel]; f.cursors[device][channel] < until {
		if f.gaps == nil {
			f.gaps = map[ids.ID]map[ids.ID][]uint64{device: {}}
		}
		f.gaps[device][channel] = append(f.gaps[device][channel], until, after)
	} else {
		f.cursors[device][channel] = after
	}
	delete(f.until[device], channel)
	return after
}

// Who comes back before it has read up to its removal reads that first, and nothing of what came in between: subscribed or not,
// told or not, once or twice.
func TestADeviceThatComesBackReadsWhatWasBefore(t *testing.T) {
	channel := id(10)
	run := func(w *world, twice, told bool) (want []uint64) {
		put := func() {
			m := w.store.put(message(channel, 1))
			if told {
				w.hub.Announce([]*store.Message{m})
			}
		}
		put() // 1, 2.
		put()
		w.end(channel, bob, told) // 3.
		put()
		w.comeBack(channel, bob) // After 4.
		want = []uint64{1, 2, 3, 5}
		put()
		if twice {
			w.end(channel, bob, told) // 6.
			for range 3 {
				put()
			}
			w.comeBack(channel, bob) // After 9.
			put()
			want = append(want, 6, 10)
		}
		return want
	}
	for name, twice := range map[string]bool{"once": false, "twice": true} {
		t.Run(name+", away", func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.store.join(bob, channel)
				want := run(w, twice, false)
				r := w.subscribeWith(bob, 256, true)
				time.Sleep(3 * pollEvery)
				synctest.Wait()
				wantSeqs(t, r, channel, want)
				if len(r.marks()) != 1 || len(r.behinds()) != 0 {
					t.Errorf("marks %v, behind %v", r.marks(), r.behinds())
				}
			})
		})
		for how, told := range map[string]bool{"told": true, "not told": false} {
			t.Run(name+", subscribed and slow, "+how, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					comesBackSlowly(t, w, channel, func() []uint64 { return run(w, twice, told) })
				})
			})
		}
	}
}

// comesBackSlowly acknowledges one delivery after the other, the first of them once run is over.
func comesBackSlowly(t *testing.T, w *world, channel ids.ID, run func() []uint64) {
	w.store.join(bob, channel)
	w.store.put(message(channel, 1)) // Takes the one credit.
	r := w.subscribe(bob, 1, false)
	synctest.Wait()
	want := []uint64{1}
	for _, seq := range run() {
		want = append(want, seq+1)
	}
	for i, seq := range want {
		if i > 0 {
			time.Sleep(2 * pollEvery)
			synctest.Wait()
		}
		if err := r.sub.Ack([]wire.Ack{{ChannelID: channel, Seq: seq}}); err != nil {
			t.Fatalf("%d: %v, delivered %v", seq, err, r.seqs(channel))
		}
	}
	time.Sleep(3 * pollEvery)
	synctest.Wait()
	wantSeqs(t, r, channel, want)
}

// What came while the device was not in the group is not given to it though all before it has expired.
func TestAGapHoldsThoughWhatWasBeforeHasExpired(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		w.store.put(message(c, 1))
		w.end(c, bob, false)
		w.store.put(message(c, 1))
		w.comeBack(c, bob)
		w.store.put(message(c, 1))
		w.store.mu.Lock()
		for _, m := range w.store.channels[c][:2] {
			w.store.expired[m] = true
		}
		w.store.mu.Unlock()
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		wantSeqs(t, r, c, []uint64{4})
	})
}

// Another replica's Commit adds a device again that is subscribed here, and whose channel has ended here: its Welcome, or for one
// that joins by itself the next count, opens the channel again.
func TestADeviceThatComesBackAtAnotherReplica(t *testing.T) {
	for name, welcome := range map[string]bool{"by a Welcome": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := id(10)
				w.store.join(bob, c)
				r := w.subscribeWith(bob, 256, true)
				w.send(message(c, 1))
				synctest.Wait()
				w.end(c, bob, true) // 2.
				w.store.put(message(c, 1))
				time.Sleep(recountEvery)
				synctest.Wait()
				wantSeqs(t, r, c, upTo(1, 2))
				if err := r.ackAll(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(pollEvery)
				w.comeBack(c, bob) // After 3.
				begun, patience := time.Now(), 2*pollEvery
				if welcome {
					m := message(bob, 1)
					m.Kind, m.AboutChannel = store.MessageWelcome, c
					w.store.put(m)
				} else {
					patience = recountEvery + pollEvery
				}
				w.store.put(message(c, 1))
				for len(r.seqs(c)) < 3 && time.Since(begun) < time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				wantSeqs(t, r, c, []uint64{1, 2, 4})
				if took := time.Since(begun); took > patience {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

// A cursor that is gone ends its channel, also for a device that had read nothing of it.
func TestACursorThatIsGoneEndsItsChannel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.end(c, bob, false)
		w.store.mu.Lock()
		w.store.expired[w.store.channels[c][0]] = true
		delete(w.store.cursors[bob], c) // Swept: there is nothing left for it.
		w.store.mu.Unlock()
		for range 3 {
			w.store.put(message(c, 1))
		}
		time.Sleep(3 * pollEvery)
		synctest.Wait()
		wantSeqs(t, r, c, nil)
	})
}
