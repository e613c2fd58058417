package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// fakeLog stores batches; hold makes it wait, err makes it fail.
type fakeLog struct {
	mu       sync.Mutex
	batches  [][]Event
	hold     chan struct{}
	entered  chan struct{} // Told when hold is waited for, if there is room.
	err      error
	progress []*Progress
	fault    error
	ended    int
	least    []time.Duration // Of the checkpoints that were asked for.
}

func (l *fakeLog) WriteAudit(_ context.Context, events ...Event) error {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	if hold != nil {
		select {
		case l.entered <- struct{}{}:
		default:
		}
		<-hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.batches = append(l.batches, events)
	return nil
}

func (l *fakeLog) CheckpointAuditWhenDue(_ context.Context, _ time.Time, least time.Duration) (*Progress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.least = append(l.least, least)
	if l.fault != nil {
		return nil, l.fault
	}
	if len(l.progress) == 0 {
		return nil, nil //nolint:nilnil // as the real one.
	}
	p := l.progress[0]
	l.progress = l.progress[1:]
	return p, nil
}

func (l *fakeLog) EndAuditChains(context.Context) error { l.ended++; return nil }
func (l *fakeLog) set(hold chan struct{}, err error) {
	l.mu.Lock()
	l.hold, l.err = hold, err
	l.mu.Unlock()
}
func (l *fakeLog) all() (events []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		events = append(events, b...)
	}
	return events
}

// running is a Recorder under way in a bubble; its end closes it.
func running(t *testing.T, l *fakeLog, o Options) *Recorder {
	t.Helper()
	r := NewRecorder(l, o)
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
	return r
}

func TestEventsThatWaitTogetherAreStoredTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{hold: make(chan struct{})}
		r := running(t, l, Options{})
		var waiting sync.WaitGroup
		for range 100 {
			waiting.Go(func() { must(t, r.Record(t.Context(), LoginFailed(ids.ID{}, ReasonUnknownName))) })
		}
		synctest.Wait()
		if n := len(l.all()); n != 0 {
			t.Fatalf("%d events are stored", n)
		}
		close(l.hold)
		waiting.Wait()
		if n, b := len(l.all()), len(l.batches); n != 100 || b != 2 {
			t.Errorf("%d events in %d batches, want all that waited while the first was stored in one", n, b)
		}
	})
}

func TestAFullQueueIsBusyAndTellsWhatItLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{hold: make(chan struct{})}
		faults := 0
		r := running(t, l, Options{Fault: func() { faults++ }})
		r.Note(t.Context(), ChainEnded()) // Under way.
		synctest.Wait()
		for range maxWaiting + 5 {
			r.Note(t.Context(), ChainEnded())
		}
		if err := r.Record(t.Context(), ChainEnded()); !errors.Is(err, ErrBusy) || !wire.HasCode(err, wire.CodeBusy) {
			t.Errorf("got %v", err)
		}
		close(l.hold)
		synctest.Wait()
		must(t, r.Record(t.Context(), ChainEnded()))
		events := l.all()
		var lost []Event
		for _, e := range events {
			if e.Kind() == KindEventsSuppressed {
				lost = append(lost, e)
			}
		}
		if len(lost) != 1 || lost[0].details[0].Value != 5 || len(events) != 1+maxWaiting+1+1 || faults != 1 {
			t.Errorf("%d events, %+v, %d faults", len(events), lost, faults)
		}
	})
}

func TestAnOutageFailsWhoWaitsAndKeepsWhatIsNoted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		l := &fakeLog{hold: make(chan struct{}), err: away}
		r := running(t, l, Options{})
		r.Note(t.Context(), ChainStarted(1))
		synctest.Wait()
		failed := make(chan error, 2)
		for range 2 {
			go func() { failed <- r.Record(t.Context(), ChainEnded()) }()
		}
		synctest.Wait()
		close(l.hold)
		for range 2 {
			if err := <-failed; !errors.Is(err, away) {
				t.Errorf("got %v", err)
			}
		}
		l.set(nil, nil)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if events := l.all(); len(events) != 1 || events[0].Kind() != KindChainStarted {
			t.Errorf("%+v", events)
		}
	})
}

func TestAFloodIsTallied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := running(t, l, Options{})
		one := WithAddress(t.Context(), netip.MustParseAddr("192.0.2.1"))
		for range 1000 {
			r.Tally(one, LimitReached(ids.ID{}, ReasonRateLimited))
			r.Tally(t.Context(), LimitReached(ids.ID{}, ReasonTooManyConnections))
		}
		time.Sleep(DefaultTallyEvery + time.Millisecond)
		synctest.Wait()
		events := l.all()
		if len(events) != 2 || events[0].details[0] != (Detail{FieldCount, 1000}) || events[1].details[0] != (Detail{FieldCount, 1000}) ||
			events[0].address.IsValid() == events[1].address.IsValid() {
			t.Fatalf("%+v", events)
		}
		from := netip.MustParseAddr("10.0.0.0")
		for range 10_000 { // From everywhere: bounded, and none uncounted.
			from = from.Next()
			r.Tally(WithAddress(t.Context(), from), LimitReached(ids.ID{}, ReasonRateLimited))
		}
		time.Sleep(DefaultTallyEvery)
		synctest.Wait()
		total := uint64(0)
		for _, e := range l.all()[2:] {
			total += e.details[0].Value
		}
		if n := len(l.all()) - 2; n != maxTallies+1 || total != 10_000 {
			t.Errorf("%d events that count %d", n, total)
		}
	})
}

func TestCloseStoresWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{progress: []*Progress{{Made: Anchor{Number: 1}}}}
		r := NewRecorder(l, Options{})
		r.Note(t.Context(), ChainStarted(1))
		r.Tally(t.Context(), LimitReached(ids.ID{}, ReasonRateLimited))
		must(t, r.Close(t.Context()))
		if n := len(l.all()); n != 2 || l.ended != 1 || len(l.progress) != 0 {
			t.Errorf("%d events, ended %d, %d checkpoints not made", n, l.ended, len(l.progress))
		}
		if err := r.Record(t.Context(), ChainEnded()); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}

func TestACallThatIsGivenUpIsBusy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewRecorder(&fakeLog{}, Options{}).Record(ctx, ChainEnded()); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}

// A checkpoint that was seen and is there no more, or is another: an event, an alarm, a line in the log.
func TestARolledBackLogIsNoticed(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		then  Anchor
		wrong bool
	}{
		"gone on":    {Anchor{Number: 5, Hash: Hash{5}}, false},
		"by another": {Anchor{Number: 9, Hash: Hash{9}}, false},
		"cut off":    {Anchor{Number: 4, Hash: Hash{4}}, true},
		"exchanged":  {Anchor{Number: 5, Hash: Hash{6}}, true},
		"emptied":    {Anchor{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &fakeLog{progress: []*Progress{{Before: Anchor{4, Hash{4}}, Made: Anchor{5, Hash{5}}}, {Before: x.then}, {Before: x.then}}}
				faults := 0
				var out bytes.Buffer
				r := running(t, l, Options{CheckpointEvery: time.Second, Fault: func() { faults++ }, Log: slog.New(slog.NewTextHandler(&out, nil))})
				time.Sleep(4 * time.Second)
				synctest.Wait()
				events := l.all()
				if x.wrong != (faults == 1) || x.wrong != (len(events) == 1 && events[0].Kind() == KindLogRolledBack) || x.wrong != strings.Contains(out.String(), "rolled back") {
					t.Errorf("%d faults, %+v\n%s", faults, events, out.String())
				}
				if !strings.Contains(out.String(), "audit checkpoint") || !strings.Contains(out.String(), Hash{5}.String()) {
					t.Errorf("the checkpoint is not logged:\n%s", out.String())
				}
				_ = r
			})
		})
	}
}

func TestAFaultIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fault := &Fault{Kind: FaultNotOurs, Writer: id("aaaaaaaaaaaaaaaa"), Seq: 7}
		l := &fakeLog{progress: []*Progress{{Faults: []*Fault{fault}}, {Faults: []*Fault{fault}}}}
		faults := 0
		running(t, l, Options{CheckpointEvery: time.Second, Fault: func() { faults++ }})
		time.Sleep(3 * time.Second)
		l.mu.Lock()
		l.fault = &Fault{Kind: FaultForgedCheckpoint, Checkpoint: 3}
		l.mu.Unlock()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if events := l.all(); faults != 2 || len(events) != 2 || events[0].details[0].Value != 7 {
			t.Errorf("%d faults, %+v", faults, events)
		}
	})
}

// Of many processes one makes a checkpoint in a period, whatever the moment at which each asks; one that ends makes its own.
func TestCheckpointsAreAskedForWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		r := running(t, l, Options{})
		time.Sleep(3*DefaultCheckpointEvery + time.Second)
		synctest.Wait()
		must(t, r.Close(t.Context()))
		const due = DefaultCheckpointEvery - DefaultCheckpointEvery/10 // A tick that comes early is no reason to pass one over.
		if !slices.Equal(l.least, []time.Duration{due, due, due, 0}) {
			t.Errorf("%v", l.least)
		}
	})
}

// Close waits for the batch that is being stored: the chains must not end, and no checkpoint be signed, before it.
func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	l := &fakeLog{hold: make(chan struct{}), entered: make(chan struct{}, 1)}
	r := running(t, l, Options{})
	r.Note(t.Context(), ChainStarted(1))
	<-l.entered
	closed := make(chan error, 1)
	go func() { closed <- r.Close(context.Background()) }()
	select {
	case err := <-closed:
		t.Error("it did not wait")
		closed <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(l.hold)
	must(t, <-closed)
	if n := len(l.all()); n != 1 || l.ended != 1 {
		t.Errorf("%d events, ended %d times", n, l.ended)
	}
}
