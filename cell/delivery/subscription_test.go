package delivery

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var bob, carol = id(1), id(2) // Devices.

// inWorld runs a test on fake time.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		f(t, w)
	})
}

func wantSeqs(t *testing.T, r *reader, channel ids.ID, want []uint64) {
	t.Helper()
	if got := r.seqs(channel); !slices.Equal(got, want) {
		t.Fatalf("got sequences %v, want %v", got, want)
	}
}

func TestStoredThenLive(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		channels := []ids.ID{id(10), id(11), id(12)}
		for _, c := range channels {
			w.store.join(bob, c)
			for range 100 { // More than a page.
				w.store.put(message(c, 10))
			}
		}
		r := w.subscribe(bob, 4096, false)
		synctest.Wait()
		if marks := r.marks(); !slices.Equal(marks, []uint64{300}) {
			t.Fatalf("CaughtUp: %v", marks)
		}
		for _, c := range channels {
			w.send(message(c, 10))
		}
		synctest.Wait()
		for _, c := range channels {
			wantSeqs(t, r, c, upTo(1, 101))
		}
		prev := map[ids.ID]uint64{}
		for _, d := range r.got {
			if d.PrevSeq != prev[d.ChannelID] {
				t.Fatalf("sequence %d names %d as the one before, want %d", d.Seq, d.PrevSeq, prev[d.ChannelID])
			}
			prev[d.ChannelID] = d.Seq
		}
	})
}

func TestWhatIsStoredWhileCursorsAreReadIsDeliveredAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		w.store.cursorsRead = func() { w.send(message(c, 1)) } // After the snapshot, before anybody follows.
		start := time.Now()
		r := w.subscribe(bob, 10, false)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 1))
		if waited := time.Since(start); waited > 0 {
			t.Errorf("it took the poll, %s later", waited)
		}
	})
}

func TestAnotherReplicasMessagesAreFoundByPolling(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 10, false)
		synctest.Wait()
		w.store.put(message(c, 1))
		w.store.put(message(c, 1))
		time.Sleep(pollEvery + time.Millisecond)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 2))
		reads := w.store.reads
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.store.reads != reads {
			t.Errorf("%d reads in an idle minute", w.store.reads-reads)
		}
	})
}

func TestAFullMailboxFallsBackToTheDatabase(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 4096, true)
		r.gate <- struct{}{} // CaughtUp.
		synctest.Wait()
		const n = mailboxMessages + 200
		for range n {
			w.send(message(c, 1))
		}
		big := mailboxBytes/(1<<20) + 2
		for range big {
			w.send(message(c, 1<<20))
		}
		if n := len(r.sub.mailbox); n > mailboxMessages || r.sub.mailboxSize > mailboxBytes {
			t.Errorf("%d messages of %d bytes wait in memory", n, r.sub.mailboxSize)
		}
		close(r.gate)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, uint64(n+big)))
	})
}

func TestCreditByCount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := id(10), id(11)
		w.store.join(bob, a)
		w.store.join(bob, b)
		r := w.subscribe(bob, 4, false)
		for range 3 {
			w.send(message(a, 1))
			w.send(message(b, 1))
		}
		synctest.Wait()
		if n := r.count(); n != 4 {
			t.Fatalf("%d in flight, want 4", n)
		}
		ack := func(seq uint64) {
			t.Helper()
			if err := r.sub.Ack([]wire.Ack{{ChannelID: a, Seq: seq}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ack(1)
		if n := r.count(); n != 5 {
			t.Fatalf("%d after one acknowledgement, want 5", n)
		}
		ack(1) // Again: nothing new.
		ack(0)
		if n := r.count(); n != 5 {
			t.Fatalf("%d after the same acknowledgement twice, want 5", n)
		}
		ack(2)
		if n := r.count(); n != 6 {
			t.Fatalf("%d after both, want 6", n)
		}
	})
}

func TestCreditByBytes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 256, false)
		const size = 5 << 20
		for range 5 {
			w.send(message(c, size))
		}
		synctest.Wait()
		if n := r.count(); n != creditBytes/size {
			t.Fatalf("%d of 5 MiB in flight, want %d", n, creditBytes/size)
		}
		if err := r.ackAll(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 5))
	})
}

func TestAcknowledgementsAreCumulativeAllOrNone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := id(10), id(11)
		w.store.join(bob, a)
		w.store.join(bob, b)
		r := w.subscribe(bob, 256, false)
		for range 3 {
			w.send(message(a, 1))
			w.send(message(b, 1))
		}
		synctest.Wait()
		for _, acks := range [][]wire.Ack{
			{{ChannelID: a, Seq: 3}, {ChannelID: b, Seq: 4}},
			{{ChannelID: a, Seq: 3}, {ChannelID: id(77), Seq: 1}},
		} {
			if err := r.sub.Ack(acks); !wire.HasCode(err, wire.CodeInvalidCursor) {
				t.Fatalf("%v: %v", acks, err)
			}
		}
		time.Sleep(time.Second)
		if w.store.acked(bob, a) != 0 || r.sub.inFlight != 6 {
			t.Fatal("a refused acknowledgement was taken in part")
		}
		if err := r.sub.Ack([]wire.Ack{{ChannelID: a, Seq: 2}, {ChannelID: a, Seq: 1}, {ChannelID: b, Seq: 3}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if x, y := w.store.acked(bob, a), w.store.acked(bob, b); x != 2 || y != 3 || r.sub.inFlight != 1 {
			t.Fatalf("acknowledged %d and %d, %d in flight", x, y, r.sub.inFlight)
		}
		// The next subscription begins there, also when the last acknowledgement was not flushed.
		if err := r.sub.Ack([]wire.Ack{{ChannelID: a, Seq: 3}}); err != nil {
			t.Fatal(err)
		}
		r.cancel()
		again := w.subscribe(bob, 256, false)
		w.send(message(a, 1))
		synctest.Wait()
		wantSeqs(t, again, a, []uint64{4})
		wantSeqs(t, again, b, nil)
	})
}

func TestAcknowledgementsOutliveAnAbsentDatabaseAndTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 256, false)
		w.send(message(c, 1))
		w.send(message(c, 1))
		synctest.Wait()
		w.store.setAway(true)
		if err := r.sub.Ack([]wire.Ack{{ChannelID: c, Seq: 1}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.store.setAway(false)
		time.Sleep(time.Second)
		if got := w.store.acked(bob, c); got != 1 {
			t.Fatalf("acknowledged %d", got)
		}
		if err := r.sub.Ack([]wire.Ack{{ChannelID: c, Seq: 2}}); err != nil {
			t.Fatal(err)
		}
		r.cancel()
		w.stop()
		w.all.Wait()
		if got := w.store.acked(bob, c); got != 2 {
			t.Fatalf("after the end: acknowledged %d", got)
		}
	})
}

func TestANewerSubscriptionReplaces(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		old := w.subscribe(bob, 256, false)
		synctest.Wait()
		young := w.subscribe(bob, 256, false)
		if err := <-old.ended; !errors.Is(err, ErrReplaced) {
			t.Fatalf("the older one ended with %v", err)
		}
		w.send(message(c, 1))
		synctest.Wait()
		wantSeqs(t, old, c, nil)
		wantSeqs(t, young, c, upTo(1, 1))
		if len(w.hub.devices) != 1 || len(w.hub.followers[c]) != 1 {
			t.Fatalf("%d devices, %d followers", len(w.hub.devices), len(w.hub.followers[c]))
		}
		young.cancel()
		<-young.ended //nolint:errcheck // Only its end matters.
		if len(w.hub.devices)+len(w.hub.followers) != 0 {
			t.Fatal("the Hub remembers what has ended")
		}
	})
}

func TestADamagedRowStopsItsChannelAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sick, sound := id(10), id(11)
		w.store.join(bob, sick)
		w.store.join(bob, sound)
		var bad *store.Message
		for i := range 5 {
			if m := w.store.put(message(sick, 1)); i == 2 {
				bad = m
			}
			w.store.put(message(sound, 1))
		}
		w.store.damaged[bad] = true
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		wantSeqs(t, r, sick, upTo(1, 2))
		wantSeqs(t, r, sound, upTo(1, 5))
		if marks := r.marks(); len(marks) != 1 {
			t.Fatalf("CaughtUp came %d times", len(marks))
		}
		if w.held() != 1 || !strings.Contains(w.log.String(), "cannot be read") || !strings.Contains(w.log.String(), sick.String()) {
			t.Fatalf("held %v times, log: %s", w.held(), w.log)
		}
		w.send(message(sick, 1)) // Must not be pushed before the damaged one.
		w.send(message(sound, 1))
		synctest.Wait()
		wantSeqs(t, r, sick, upTo(1, 2))
		wantSeqs(t, r, sound, upTo(1, 6))
		time.Sleep(holdTime + 2*pollEvery)
		if w.held() != 2 {
			t.Fatalf("held %v times, want one more try", w.held())
		}
		w.store.mu.Lock()
		delete(w.store.damaged, bad) // Repaired.
		w.store.mu.Unlock()
		time.Sleep(holdTime + 2*pollEvery)
		synctest.Wait()
		wantSeqs(t, r, sick, upTo(1, 6))
	})
}

func TestAnAbsentDatabasePausesTheStream(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		w.store.put(message(c, 1))
		w.store.setAway(true)
		r := w.subscribe(bob, 256, false)
		time.Sleep(time.Minute)
		if r.count()+len(r.marks()) != 0 {
			t.Fatal("something came without a database")
		}
		if n := strings.Count(w.log.String(), "reading for a subscription failed"); n != 1 {
			t.Errorf("%d log lines in a minute, want 1", n)
		}
		w.store.setAway(false)
		time.Sleep(2 * readRetry)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 1))
		w.store.setAway(true)
		w.store.put(message(c, 1))
		time.Sleep(time.Minute)
		w.store.setAway(false)
		time.Sleep(2 * pollEvery)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 2))
	})
}

func TestOwnMessagesComeBackEmpty(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 256, false)
		m := message(c, 10)
		m.SenderID = bob
		w.send(m)
		synctest.Wait()
		if d := r.got[0]; d.Kind != wire.KindOwn || len(d.Payload) != 0 || d.DeliveryID != m.DeliveryID || d.Seq != 1 {
			t.Fatalf("%+v", d)
		}
		if r.sub.inFlightSize != 0 {
			t.Errorf("an empty delivery takes %d bytes of credit", r.sub.inFlightSize)
		}
	})
}

func TestAWelcomeOfAnotherReplicaOpensItsChannel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, id(11))
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.store.join(bob, c)
		w.store.put(message(c, 1))
		welcome := message(bob, 1)
		welcome.Kind, welcome.AboutChannel = store.MessageWelcome, c
		w.store.put(welcome)
		time.Sleep(2 * pollEvery)
		synctest.Wait()
		wantSeqs(t, r, bob, upTo(1, 1))
		wantSeqs(t, r, c, upTo(1, 1))
		w.send(message(c, 1))
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 2))
	})
}

func TestAChannelThatTheDeviceMadeElsewhereIsFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.join(bob, id(11))
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.store.join(bob, id(10)) // By the device's own connection to another replica: no Welcome.
		w.store.put(message(id(10), 1))
		time.Sleep(recountEvery + time.Millisecond)
		synctest.Wait()
		wantSeqs(t, r, id(10), upTo(1, 1))
	})
}

func TestFollowFindsWhatWasWrittenBeforeIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.join(bob, id(11))
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.store.join(bob, id(10))
		w.send(message(id(10), 1)) // Another member is quicker than the announcement of the channel.
		w.hub.Follow(id(10), 0, []ids.ID{bob, carol})
		synctest.Wait()
		wantSeqs(t, r, id(10), upTo(1, 1))
	})
}

func TestFollowDoesNotSkipWhatWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		r := w.subscribe(bob, 1, false)
		w.send(message(bob, 1)) // Takes the only credit.
		synctest.Wait()
		for range 3 {
			w.send(message(c, 1))
		}
		w.hub.Follow(c, 3, []ids.ID{bob}) // The channel's next generation begins after 3.
		w.send(message(c, 1))
		for range 5 {
			synctest.Wait()
			if err := r.ackAll(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 4))
	})
}

// A generation is made at the moment when a member's subscription begins: what the member had not read of the generation
// before is pushed all the same.
func TestAGenerationMadeWhileASubscriptionBeginsHidesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		for range 3 {
			w.store.put(message(c, 1))
		}
		w.store.cursorsRead = func() { w.hub.Follow(c, 3, []ids.ID{bob}) }
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		wantSeqs(t, r, c, upTo(1, 3))
	})
}

func TestABusyChannelLetsOthersThrough(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		busy, quiet := id(10), id(200) // In this order among the cursors.
		w.store.join(bob, busy)
		w.store.join(bob, quiet)
		for range 10 * pageMessages {
			w.store.put(message(busy, 1))
		}
		w.store.put(message(quiet, 1))
		r := w.subscribe(bob, 4096, true)
		for range pageMessages + 1 {
			r.gate <- struct{}{}
		}
		synctest.Wait()
		wantSeqs(t, r, quiet, upTo(1, 1))
		close(r.gate)
	})
}

func TestCaughtUpComesThoughTheChannelGrows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		for range pageMessages {
			w.store.put(message(c, 1))
		}
		r := w.subscribe(bob, 4096, true)
		for i := range 3 * pageMessages { // For each that is read, one more is stored.
			r.gate <- struct{}{}
			w.send(message(c, 1))
			if len(r.marks()) > 0 {
				break
			}
			if i > pageMessages+1 {
				t.Fatalf("no CaughtUp after %d deliveries", i)
			}
		}
		if marks := r.marks(); len(marks) != 1 || marks[0] < pageMessages {
			t.Fatalf("CaughtUp %v", marks)
		}
		close(r.gate)
	})
}

func TestExpiredMessagesAreJumpedOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := id(10)
		w.store.join(bob, c)
		for i := range 6 {
			if m := w.store.put(message(c, 1)); i != 2 {
				w.store.expired[m] = true
			}
		}
		r := w.subscribe(bob, 256, false)
		synctest.Wait()
		w.send(message(c, 1))
		synctest.Wait()
		wantSeqs(t, r, c, []uint64{3, 7})
		if d := r.got[1]; d.PrevSeq != 3 {
			t.Errorf("the one before 7 is %d", d.PrevSeq)
		}
	})
}

func TestAPushThatFailsEndsTheSubscription(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.join(bob, id(10))
		r := w.subscribe(bob, 256, true)
		synctest.Wait()
		r.cancel()
		if err := <-r.ended; err == nil {
			t.Fatal("it ended without an error")
		}
	})
}
