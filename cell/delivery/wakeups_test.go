package delivery

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
)

// fakeBus carries texts between the Wakeups of a test, as PostgreSQL does.
type fakeBus struct {
	mu        sync.Mutex
	listeners map[int]chan string
	next      int
	texts     []string
	deaf      bool          // Nothing that is sent arrives.
	gate      chan struct{} // If set, Notify waits for it.
}

func newFakeBus() *fakeBus { return &fakeBus{listeners: map[int]chan string{}} }

func (b *fakeBus) Notify(ctx context.Context, texts []string) error {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.texts = append(b.texts, texts...)
	for _, l := range b.listeners {
		for _, t := range texts {
			if !b.deaf {
				l <- t
			}
		}
	}
	return nil
}

func (b *fakeBus) Listen(ctx context.Context, ready func(), heard func(string)) error {
	c := make(chan string, 1000)
	b.mu.Lock()
	b.next++
	me := b.next
	b.listeners[me] = c
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.listeners, me)
		b.mu.Unlock()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t := <-c:
			heard(t)
		}
	}
}

// items counts what was sent, heartbeats left out.
func (b *fakeBus) items() (texts, items int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.texts {
		if len(t) > store.WakeupSize {
			panic("a text is too long")
		}
		if n := len(t[strings.LastIndex(t, " ")+1:]) * 3 / 4 / wakeupItem; n > 0 {
			texts, items = texts+1, items+n
		}
	}
	return texts, items
}

type heardOne struct {
	id     ids.ID
	number uint64
}

// process is one end of the bus.
type process struct {
	*Wakeups
	metrics  *telemetry.Metrics
	log      *strings.Builder
	heard    []heardOne
	listened int
	stop     context.CancelFunc
	done     sync.WaitGroup
}

func startProcess(t *testing.T, b Bus) *process {
	p := &process{metrics: telemetry.New(), log: &strings.Builder{}}
	p.Wakeups = NewWakeups(b, p.metrics, slog.New(slog.NewTextHandler(p.log, nil)), time.Now, func() { p.listened++ })
	p.On(WakeupChannel, func(id ids.ID, n uint64) { p.heard = append(p.heard, heardOne{id, n}) })
	ctx, stop := context.WithCancel(t.Context())
	p.stop = stop
	p.done.Go(func() { p.Run(ctx) })
	return p
}

func (p *process) end() {
	p.stop()
	p.done.Wait()
}

func TestWakeupsAreCoalescedAndReachOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBus()
		one := startProcess(t, b)
		synctest.Wait()
		one.Tell(WakeupChannel, ids.ID{9}, 1)
		if texts, _ := b.items(); texts != 0 {
			t.Error("a process alone tells somebody")
		}
		two := startProcess(t, b)
		synctest.Wait()
		if n := testutil.ToFloat64(one.metrics.Replicas); n != 2 || testutil.ToFloat64(two.metrics.Replicas) != 2 {
			t.Errorf("one knows of %v processes", n)
		}
		gate := make(chan struct{})
		b.mu.Lock()
		b.gate = gate
		b.mu.Unlock()
		one.Tell(WakeupChannel, ids.ID{1}, 1)
		synctest.Wait() // The first is on its way; the rest gathers.
		for i := range uint64(1000) {
			one.Tell(WakeupChannel, ids.ID{2}, 1000-i)
			one.Tell(WakeupChannel, ids.ID{3, byte(i), byte(i >> 8)}, i)
		}
		close(gate)
		synctest.Wait()
		if texts, items := b.items(); items != 1002 || texts > 6 {
			t.Errorf("%d texts with %d items, want 1002 in a few", texts, items)
		}
		highest := uint64(0)
		for _, h := range two.heard {
			if h.id == (ids.ID{2}) {
				highest = h.number
			}
		}
		if len(two.heard) != 1002 || highest != 1000 || len(one.heard) != 0 {
			t.Errorf("the other heard %d, of one channel %d; the sender itself %d", len(two.heard), highest, len(one.heard))
		}
		two.end()
		time.Sleep(2*silenceIsDeath + heartbeatEvery)
		before, _ := b.items()
		one.Tell(WakeupChannel, ids.ID{4}, 1)
		synctest.Wait()
		if after, _ := b.items(); after != before {
			t.Error("a process that is gone is still told")
		}
		one.end()
	})
}

func TestTooManyWakeupsAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBus()
		one, two := startProcess(t, b), startProcess(t, b)
		synctest.Wait()
		b.mu.Lock()
		b.gate = make(chan struct{})
		b.mu.Unlock()
		one.Tell(WakeupChannel, ids.ID{1}, 1)
		synctest.Wait()
		for i := range wakeupsWaiting + 10 {
			one.Tell(WakeupChannel, ids.ID{2, byte(i), byte(i >> 8), byte(i >> 16)}, 1)
		}
		if n := testutil.ToFloat64(one.metrics.WakeupsDropped); n != 10 {
			t.Errorf("%v were dropped", n)
		}
		if n := testutil.ToFloat64(one.metrics.WakeupsWaiting); n != wakeupsWaiting {
			t.Errorf("%v wait", n)
		}
		one.end()
		two.end()
	})
}

// A listener that hears nothing, not even itself, is given up, and the log says what that may be.
func TestAListenerThatHearsNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBus()
		b.deaf = true
		one := startProcess(t, b)
		time.Sleep(silenceIsDeath + time.Second)
		synctest.Wait()
		if !strings.Contains(one.log.String(), "databasePooling: transaction") || one.listened != 0 || testutil.ToFloat64(one.metrics.Listening) != 0 {
			t.Errorf("%s", one.log)
		}
		b.mu.Lock()
		b.deaf = false
		b.mu.Unlock()
		time.Sleep(listenRetryLongest + heartbeatEvery)
		synctest.Wait()
		if one.listened != 1 || testutil.ToFloat64(one.metrics.Listening) != 1 {
			t.Errorf("listened %d times", one.listened)
		}
		one.end()
	})
}

func TestWakeupsOfOtherReleasesArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBus()
		one := startProcess(t, b)
		synctest.Wait()
		for _, text := range []string{"", "1", "1 ", "1 x", "1 x !!!", "1 x AAAA", "2 x " + strings.Repeat("A", 100), "1 x " + strings.Repeat("?", 9000), "hello"} {
			must(t, b.Notify(t.Context(), []string{text}))
		}
		synctest.Wait()
		if len(one.heard) != 0 {
			t.Errorf("%v", one.heard)
		}
		one.end()
	})
}

// noBus is a database behind a transaction pooler.
type noBus struct{}

func (noBus) Notify(context.Context, []string) error             { return store.ErrNoWakeups }
func (noBus) Listen(context.Context, func(), func(string)) error { return store.ErrNoWakeups }

func TestWithoutWakeupsNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := startProcess(t, noBus{})
		one.Tell(WakeupChannel, ids.ID{1}, 1)
		time.Sleep(heartbeatEvery + time.Second) // The sender finds out with its first heartbeat.
		one.done.Wait()
		if !strings.Contains(one.log.String(), "polling") || strings.Contains(one.log.String(), "WARN") {
			t.Errorf("%s", one.log)
		}
		one.stop()
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
