package delivery

import (
	"testing"
	"testing/synctest"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// pair is two devices that have caught up with a channel.
func pair(w *world, c ids.ID, credit int) (one, other *reader) {
	for _, d := range []ids.ID{bob, carol} {
		w.store.join(d, c)
	}
	w.store.put(message(c, 10))
	one, other = w.subscribe(bob, credit, false), w.subscribe(carol, credit, false)
	synctest.Wait()
	return one, other
}

func TestLiveMessagesArePushedAtOnceAndEncodedOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		one, other := pair(w, c, 10)
		for range 3 {
			w.send(message(c, 10))
		}
		synctest.Wait()
		for _, r := range []*reader{one, other} {
			wantSeqs(t, r, c, upTo(1, 4))
			if n := r.direct.Load(); n != 3 {
				t.Errorf("%d of 3 were pushed at once", n)
			}
		}
		for i := 1; i < 4; i++ {
			if one.got[i] != other.got[i] {
				t.Errorf("delivery %d is encoded for each", i)
			}
		}
	})
}

// What cannot be pushed at once is pushed later, and all that comes after it behind it.
func TestWhatCannotBePushedAtOnceKeepsItsPlace(t *testing.T) {
	big := func(c ids.ID) *store.Message { return message(c, directBytes+1) }
	commit := func(c ids.ID) *store.Message {
		m := message(c, 10)
		m.Kind = store.MessageCommit
		return m
	}
	for name, odd := range map[string]func(ids.ID) *store.Message{"a large message": big, "a Commit": commit, "its own": func(c ids.ID) *store.Message {
		m := message(c, 10)
		m.SenderID = bob
		return m
	}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := id(10)
				r, _ := pair(w, c, 100)
				for range 5 {
					for _, m := range []*store.Message{message(c, 10), odd(c), message(c, 10)} {
						w.send(m) // The next may come before the goroutine has run.
					}
				}
				synctest.Wait()
				wantSeqs(t, r, c, upTo(1, 16))
				for i, d := range r.got {
					if i > 0 && d.PrevSeq != r.got[i-1].Seq {
						t.Errorf("%d names %d as the one before", d.Seq, d.PrevSeq)
					}
					if own := d.Kind == wire.KindOwn; own != (d.SenderDeviceID == bob) || own && d.Payload != nil {
						t.Errorf("%d is pushed as %v with %d bytes", d.Seq, d.Kind, len(d.Payload))
					}
				}
			})
		})
	}
}

func TestASlowDeviceIsPushedByItsOwnGoroutine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		slow, quick := pair(w, c, 10)
		slow.full.Store(true)
		for range 4 {
			w.send(message(c, 10))
		}
		slow.full.Store(false)
		synctest.Wait()
		w.send(message(c, 10))
		synctest.Wait()
		wantSeqs(t, slow, c, upTo(1, 6))
		wantSeqs(t, quick, c, upTo(1, 6))
		if n := slow.direct.Load(); n != 1 {
			t.Errorf("%d were pushed at once, want the last alone", n)
		}
	})
}

func TestNothingIsPushedAtOnceBeyondTheCredit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		r, _ := pair(w, c, 3)
		for range 6 {
			w.send(message(c, 10))
		}
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 3))
		for want := uint64(6); want <= 7; want++ {
			if err := r.ackAll(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			wantSeqs(t, r, c, upTo(1, want))
		}
		if n := r.direct.Load(); n != 2 {
			t.Errorf("%d were pushed at once, want 2", n)
		}
	})
}
