package audit

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"quicproquo.dev/schema/wire"
)

// Sink takes events of what is not stored in a transaction of its own: refusals, and reads. *Recorder is one.
type Sink interface {
	// Record returns once the events are stored. On an error they are not, and what they tell of must not be answered
	// as if they were: ErrBusy is answered busy, like any outage of the database.
	Record(ctx context.Context, events ...Event) error
	// Note has an event stored soon. It never waits. When too many are underway the event is counted instead, and the
	// count is stored.
	Note(ctx context.Context, e Event)
	// Tally counts an event with others of its kind, outcome, reason, subject and address; each period one is stored for all of them, with
	// their number. It is for what a flood causes.
	Tally(ctx context.Context, e Event)
}

// Discard drops every event.
var Discard Sink = discard{}

type discard struct{}

func (discard) Record(context.Context, ...Event) error { return nil }
func (discard) Note(context.Context, Event)            {}
func (discard) Tally(context.Context, Event)           {}

// Log stores events and checkpoints: *store.Store.
type Log interface {
	// WriteAudit stores events in one transaction.
	WriteAudit(ctx context.Context, events ...Event) error
	// CheckpointAuditWhenDue signs what has come since the last checkpoint, if that is older than least. It returns nil when another process is at it.
	CheckpointAuditWhenDue(ctx context.Context, now time.Time, least time.Duration) (*Progress, error)
	// EndAuditChains writes the last row of each of this process's chains.
	EndAuditChains(ctx context.Context) error
}

// Progress is what CheckpointAudit found and did.
type Progress struct {
	Before Anchor   // The last checkpoint that there was; zero: none.
	Made   Anchor   // Zero: none was needed.
	Rows   uint64   // That it signs.
	Faults []*Fault // Chains that do not verify any further, and are not signed any further.
}

// ErrBusy is any error of the code busy: too many events wait to be stored, or it took too long.
var ErrBusy error = &wire.Error{Code: wire.CodeBusy}

const busyRetry = time.Second

func errBusy() error {
	return wire.RetryAfterf(wire.CodeBusy, busyRetry, "the cell cannot keep its audit log at the moment; try again")
}

// Defaults of Options.
const (
	DefaultCheckpointEvery = time.Minute
	DefaultTallyEvery      = 10 * time.Second

	maxWaiting = 2048 // Events that wait in Record and Note together.
	maxBatch   = 256
	maxTallies = 512 // Different ones in a period.
	writeLimit = 5 * time.Second
	retryAfter = time.Second
)

// Options tune a Recorder.
type Options struct {
	CheckpointEvery, TallyEvery time.Duration // 0: the defaults.
	Now                         func() time.Time
	Log                         *slog.Logger
	// Fault is called, besides the log, for what an operator must look at: a fault in the stored log, a log that was
	// rolled back, events that were suppressed. May be nil.
	Fault func()
}

// Recorder stores events: those that wait together in one transaction. Make it with NewRecorder, run it with Run.
type Recorder struct {
	log Log
	o   Options

	mu         sync.Mutex
	waiting    []entry
	size       int // Events in waiting.
	tallies    map[tallyKey]*Event
	suppressed uint64
	closed     bool
	wake       chan struct{}

	writing sync.Mutex // Held while a batch is stored; before mu.

	signing sync.Mutex // Held by a checkpoint.
	seen    Anchor     // The last checkpoint that this process knows of.
	faced   map[string]bool
}

type entry struct {
	events []Event
	done   chan error // Nil for Note.
}

type tallyKey struct {
	kind    Kind
	outcome Outcome
	reason  Reason
	subject [16]byte
	address netip.Addr
}

// NewRecorder returns a Recorder over a log.
func NewRecorder(l Log, o Options) *Recorder {
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = DefaultCheckpointEvery
	}
	if o.TallyEvery == 0 {
		o.TallyEvery = DefaultTallyEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{log: l, o: o, tallies: map[tallyKey]*Event{}, wake: make(chan struct{}, 1), faced: map[string]bool{}}
}

// Record implements Sink.
func (r *Recorder) Record(ctx context.Context, events ...Event) error {
	w := entry{done: make(chan error, 1)}
	for _, e := range events {
		w.events = append(w.events, r.stamp(ctx, e))
	}
	if !r.add(w) {
		return errBusy()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done(): // It may be stored all the same.
		return errBusy()
	}
}

// Note implements Sink.
func (r *Recorder) Note(ctx context.Context, e Event) {
	if r.add(entry{events: []Event{r.stamp(ctx, e)}}) {
		return
	}
	r.mu.Lock()
	r.suppressed++
	r.mu.Unlock()
}

func (r *Recorder) stamp(ctx context.Context, e Event) Event {
	if e.at.IsZero() {
		e.at = r.o.Now()
	}
	return e.From(ctx)
}

// Tally implements Sink.
func (r *Recorder) Tally(ctx context.Context, e Event) {
	e = r.stamp(ctx, e)
	k := tallyKey{e.kind, e.outcome, e.reason, e.subject, e.address}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.tallies[k]; !ok && len(r.tallies) >= maxTallies { // A flood from everywhere: count it without addresses.
		k.address, k.subject = netip.Addr{}, [16]byte{}
		e.address, e.subject = k.address, k.subject
	}
	t, ok := r.tallies[k]
	if !ok {
		first := e // Only the first is kept in memory of its own.
		first.details, first.n = [maxDetails]Detail{{FieldCount, 0}}, 1
		t = &first
		r.tallies[k] = t
	}
	t.details[0].Value++
}

func (r *Recorder) add(w entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.size+len(w.events) > maxWaiting {
		return false
	}
	r.waiting = append(r.waiting, w)
	r.size += len(w.events)
	r.poke()
	return true
}

func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run stores what comes and signs checkpoints until ctx ends. Close stores what has come after that.
func (r *Recorder) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { r.periodically(ctx, r.o.TallyEvery, r.flushTallies) })
	all.Go(func() {
		r.periodically(ctx, r.o.CheckpointEvery, func(ctx context.Context) { r.checkpoint(ctx, r.o.CheckpointEvery-r.o.CheckpointEvery/10) })
	})
	for ctx.Err() == nil {
		select {
		case <-r.wake:
			r.drain(context.WithoutCancel(ctx), true)
		case <-ctx.Done():
		}
	}
	all.Wait()
}

func (*Recorder) periodically(ctx context.Context, every time.Duration, f func(context.Context)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f(ctx)
		}
	}
}

// Close stores what waits and the tallies, ends this process's chains and signs a last checkpoint. Afterwards Record answers ErrBusy.
func (r *Recorder) Close(ctx context.Context) error {
	r.flushTallies(ctx)
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.drain(ctx, false)
	err := r.log.EndAuditChains(ctx)
	r.checkpoint(ctx, 0)
	return err
}

// drain writes batches until nothing waits: while one is stored the next gathers.
func (r *Recorder) drain(ctx context.Context, again bool) {
	r.writing.Lock()
	defer r.writing.Unlock()
	for {
		batch := r.take()
		if len(batch) == 0 {
			return
		}
		var events []Event
		for _, w := range batch {
			events = append(events, w.events...)
		}
		limited, cancel := context.WithTimeout(ctx, writeLimit)
		err := r.log.WriteAudit(limited, events...)
		cancel()
		r.settle(batch, err, again)
		if err != nil {
			r.o.Log.ErrorContext(ctx, "audit events were not stored", "events", len(events), "error", err)
			r.fail(err)
			return
		}
	}
}

// fail answers all who wait: what kept one batch from being stored would keep them waiting too.
func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(w entry) bool {
		if w.done == nil {
			return false
		}
		w.done <- err
		r.size -= len(w.events)
		return true
	})
	if len(r.waiting) > 0 {
		time.AfterFunc(retryAfter, r.poke)
	}
}

func (r *Recorder) take() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.suppressed > 0 {
		e := EventsSuppressed(r.suppressed).At(r.o.Now())
		r.waiting, r.size, r.suppressed = append(r.waiting, entry{events: []Event{e}}), r.size+1, 0
		if r.o.Fault != nil {
			r.o.Fault()
		}
	}
	n, events := 0, 0
	for n < len(r.waiting) && (n == 0 || events+len(r.waiting[n].events) <= maxBatch) {
		events += len(r.waiting[n].events)
		n++
	}
	batch := slices.Clone(r.waiting[:n])
	r.waiting, r.size = slices.Delete(r.waiting, 0, n), r.size-events
	return batch
}

// settle answers those who wait. What nobody waits for is tried again, or counted as suppressed when there is no room or no again.
func (r *Recorder) settle(batch []entry, err error, again bool) {
	var back []entry
	for _, w := range batch {
		switch {
		case w.done != nil:
			w.done <- err
		case err != nil:
			back = append(back, w)
		}
	}
	if len(back) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if again && r.size+len(back) <= maxWaiting {
		r.waiting, r.size = append(back, r.waiting...), r.size+len(back)
		return
	}
	r.suppressed += uint64(len(back))
}

func (r *Recorder) flushTallies(ctx context.Context) {
	r.mu.Lock()
	tallies := r.tallies
	r.tallies = map[tallyKey]*Event{}
	r.mu.Unlock()
	for e := range maps.Values(tallies) {
		r.Note(ctx, *e)
	}
}

// checkpoint signs what has come since the last checkpoint, of whatever process, if that is older than least. What is wrong with the stored log is logged, and becomes an event of its own.
func (r *Recorder) checkpoint(ctx context.Context, least time.Duration) {
	r.signing.Lock()
	defer r.signing.Unlock()
	p, err := r.log.CheckpointAuditWhenDue(ctx, r.o.Now(), least)
	var fault *Fault
	switch {
	case errors.As(err, &fault):
		r.face(ctx, fault)
		return
	case err != nil:
		if ctx.Err() == nil {
			r.o.Log.WarnContext(ctx, "no audit checkpoint was made; it is tried again", "error", err)
		}
		return
	case p == nil:
		return
	}
	if r.seen.Number > p.Before.Number || r.seen.Number == p.Before.Number && r.seen.Hash != p.Before.Hash {
		r.o.Log.ErrorContext(ctx, "the audit log was rolled back or exchanged: a checkpoint that this process has seen is not there", "seen", r.seen.String(), "found", p.Before.String())
		r.alarm(ctx, LogRolledBack(r.seen.Number, p.Before.Number))
	}
	for _, f := range p.Faults {
		r.face(ctx, f)
	}
	r.seen = p.Before
	if p.Made.Number > 0 {
		r.seen = p.Made
		r.o.Log.InfoContext(ctx, "audit checkpoint", "number", p.Made.Number, "hash", p.Made.Hash.String(), "rows", p.Rows)
	}
}

// face tells of a fault, once.
func (r *Recorder) face(ctx context.Context, f *Fault) {
	what := f.Error()
	if r.faced[what] {
		return
	}
	r.faced[what] = true
	r.o.Log.ErrorContext(ctx, "the audit log does not verify: run `cell audit verify`", "fault", what)
	r.alarm(ctx, FaultFound(f.Seq))
}

func (r *Recorder) alarm(ctx context.Context, e Event) {
	if r.o.Fault != nil {
		r.o.Fault()
	}
	r.Note(ctx, e)
}
