package delivery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore keeps channels in memory, and fails as it is told.
type fakeStore struct {
	mu       sync.Mutex
	channels map[ids.ID][]*store.Message
	cursors  map[ids.ID]map[ids.ID]uint64 // Device, channel: acknowledged.
	until    map[ids.ID]map[ids.ID]uint64 // Device, channel: the last that it may read.
	gaps     map[ids.ID]map[ids.ID][]uint64
	// generation is the channels', where it matters.
	generation uint32
	numbers    map[ids.ID]uint64         // Of devices: how many subscriptions they have begun.
	low        map[ids.ID]int            // Devices that run out of KeyPackages.
	seen       map[ids.ID]*store.Message // By delivery id.
	damaged    map[*store.Message]bool
	expired    map[*store.Message]bool
	away       bool
	reads      int
	batches    []int

	// append, if set, runs before a batch is stored, without the lock; its error refuses the batch.
	append func(ctx context.Context, batch []*store.Append) error
	// cursorsRead, if set, runs once after the first read of cursors, without the lock.
	cursorsRead func()
}

func newFakeStore() *fakeStore {
	return &fakeStore{channels: map[ids.ID][]*store.Message{}, cursors: map[ids.ID]map[ids.ID]uint64{}, seen: map[ids.ID]*store.Message{},
		damaged: map[*store.Message]bool{}, expired: map[*store.Message]bool{}}
}

func (f *fakeStore) check() error {
	if f.away {
		return fmt.Errorf("%w: pulled the plug", store.ErrUnavailable)
	}
	return nil
}

func (f *fakeStore) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

// join gives a device a channel, from its end on.
func (f *fakeStore) join(device, channel ids.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cursors[device] == nil {
		f.cursors[device] = map[ids.ID]uint64{device: 0}
	}
	if _, ok := f.cursors[device][channel]; !ok {
		f.cursors[device][channel] = f.end(channel)
	}
}

func (f *fakeStore) end(channel ids.ID) uint64 { return uint64(len(f.channels[channel])) }

// put stores a message as another replica would: nobody here is told.
func (f *fakeStore) put(m *store.Message) *store.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.Seq = f.end(m.ChannelID) + 1
	if m.AcceptedAt.IsZero() {
		m.AcceptedAt = time.Now()
	}
	f.channels[m.ChannelID] = append(f.channels[m.ChannelID], m)
	return m
}

func (f *fakeStore) AppendBatch(ctx context.Context, batch []*store.Append) error {
	if f.append != nil {
		if err := f.append(ctx, batch); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	f.batches = append(f.batches, len(batch))
	for _, a := range batch {
		a.Duplicate, a.Err = false, nil
		if first, ok := f.seen[a.Message.DeliveryID]; ok {
			a.Duplicate, a.Message.Seq = true, first.Seq
			continue
		}
		a.Message.Seq = f.end(a.Message.ChannelID) + 1
		f.seen[a.Message.DeliveryID] = &a.Message
		f.channels[a.Message.ChannelID] = append(f.channels[a.Message.ChannelID], &a.Message)
	}
	return nil
}

func (f *fakeStore) ReadMessages(_ context.Context, channel ids.ID, after uint64, limit, maxBytes int, _ time.Time) (page []*store.Message, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if err := f.check(); err != nil {
		return nil, err
	}
	size := 0
	for _, m := range f.channels[channel] {
		switch size += len(m.Payload); {
		case m.Seq <= after || f.expired[m]:
			size -= len(m.Payload)
		case f.damaged[m]:
			return page, fmt.Errorf("%w: message %d", store.ErrCorrupt, m.Seq)
		case len(page) == limit || size > maxBytes && len(page) > 0:
			return page, nil
		default:
			page = append(page, m)
		}
	}
	return page, nil
}

func (f *fakeStore) Cursors(_ context.Context, device ids.ID) ([]store.Cursor, error) {
	list, hook, err := f.readCursors(device)
	if hook != nil {
		hook()
	}
	return list, err
}

func (f *fakeStore) readCursors(device ids.ID) (list []store.Cursor, hook func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	for channel, acked := range f.cursors[device] {
		list = append(list, store.Cursor{ChannelID: channel, AckedSeq: acked, LastSeq: f.end(channel), Until: f.until[device][channel], Generation: f.generation, Gaps: f.gaps[device][channel]})
	}
	slices.SortFunc(list, func(a, b store.Cursor) int {
		if inbox := (b.ChannelID == device); inbox != (a.ChannelID == device) {
			return map[bool]int{true: 1, false: -1}[inbox]
		}
		return a.ChannelID.Compare(b.ChannelID)
	})
	hook, f.cursorsRead = f.cursorsRead, nil
	return list, hook, nil
}

func (f *fakeStore) CursorOf(_ context.Context, device, channel ids.ID) (store.Cursor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	acked, ok := f.cursors[device][channel]
	if err := f.check(); err != nil || !ok {
		return store.Cursor{}, cmp.Or(err, store.ErrNotFound)
	}
	return store.Cursor{ChannelID: channel, AckedSeq: acked, LastSeq: f.end(channel), Until: f.until[device][channel], Generation: f.generation, Gaps: f.gaps[device][channel]}, nil
}

func (f *fakeStore) LowKeyPackages(_ context.Context, devices []ids.ID) (map[ids.ID]store.KeyPackagesLeft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[ids.ID]store.KeyPackagesLeft{}
	for _, d := range devices {
		if n, ok := f.low[d]; ok {
			found[d] = store.KeyPackagesLeft{OneTime: n}
		}
	}
	return found, f.check()
}

func (f *fakeStore) ChannelCounts(_ context.Context, devices []ids.ID) (map[ids.ID]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[ids.ID]int{}
	for _, d := range devices {
		for channel, acked := range f.cursors[d] {
			if until := f.until[d][channel]; until == 0 || acked < until {
				counts[d]++
			}
		}
	}
	return counts, f.check()
}

func (f *fakeStore) BeginSubscription(_ context.Context, device ids.ID) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.numbers == nil {
		f.numbers = map[ids.ID]uint64{}
	}
	if f.check() == nil {
		f.numbers[device]++
	}
	return f.numbers[device], f.check()
}

func (f *fakeStore) Subscriptions(context.Context, []ids.ID) (map[ids.ID]uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.numbers), f.check()
}

func (f *fakeStore) LastSeqs(_ context.Context, channels []ids.ID) (map[ids.ID]uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return nil, err
	}
	seqs := map[ids.ID]uint64{}
	for _, c := range channels {
		seqs[c] = f.end(c)
	}
	return seqs, nil
}

func (f *fakeStore) Acknowledge(_ context.Context, acks []store.Ack) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	for _, a := range acks {
		if have, ok := f.cursors[a.DeviceID][a.ChannelID]; ok {
			f.cursors[a.DeviceID][a.ChannelID] = max(have, min(a.Seq, f.end(a.ChannelID)))
		}
	}
	return nil
}

func (f *fakeStore) acked(device, channel ids.ID) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursors[device][channel]
}

// world is a cell's delivery: a store, a Hub that runs, a Lane.
type world struct {
	t     testing.TB
	store *fakeStore
	hub   *Hub
	lane  *Lane
	log   *testLog
	all   sync.WaitGroup
	stop  context.CancelFunc
	ends  []context.CancelFunc // Of readers.
}

// newWorld is ended by close, inside the bubble if there is one.
func newWorld(t testing.TB) *world {
	w := &world{t: t, store: newFakeStore(), log: &testLog{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	w.hub = NewHub(w.store, telemetry.New(), log, time.Now)
	w.lane = NewLane(w.store, w.hub.metrics, log, time.Now, w.hub.Announce)
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.all.Go(func() { w.hub.Run(ctx) })
	return w
}

func (w *world) close() {
	w.lane.Close()
	for _, end := range w.ends {
		end()
	}
	w.stop()
	w.all.Wait()
}

func (w *world) held() float64 { return testutil.ToFloat64(w.hub.metrics.DeliveriesHeld) }

type testLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func id(n byte) ids.ID { return ids.ID{n, 1} }

// message is of a device 99 that is nobody's.
func message(channel ids.ID, size int) *store.Message {
	now := time.Now()
	return &store.Message{ChannelID: channel, Kind: store.MessageApplication, Generation: 1, SenderAccount: id(98), SenderID: id(99), DeliveryID: ids.New(),
		AcceptedAt: now, ExpiresAt: now.Add(time.Hour), Payload: make([]byte, size)}
}

// send stores a message through the Lane and waits for the answer.
func (w *world) send(m *store.Message) {
	done := make(chan error, 1)
	err := w.lane.Submit(&store.Append{Message: *m}, func(a *store.Append, err error) { done <- errors.Join(err, a.Err) })
	if err == nil {
		err = <-done
	}
	if err != nil {
		w.t.Errorf("sending: %v", err)
	}
}

// reader is a subscribed device that notes what is pushed.
type reader struct {
	sub    *Subscription
	cancel context.CancelFunc
	ended  chan error

	mu   sync.Mutex
	got  []*wire.Delivery
	mark []uint64 // Of CaughtUp: how many deliveries it counted.
	gone []uint64 // Of Behind.
	low  []int    // Of KeyPackagesLow.
	gate chan struct{}

	full   atomic.Bool // There is no room for a push without waiting.
	direct atomic.Int32
}

// subscribe starts a reader; with gated, each push waits for a value in gate.
func (w *world) subscribe(device ids.ID, credit int, gated bool) *reader {
	return w.reader(device, credit, gated, false)
}

// subscribeWith is subscribe of a client that knows notices, or does not.
func (w *world) subscribeWith(device ids.ID, credit int, notices bool) *reader {
	return w.reader(device, credit, false, notices)
}

func (w *world) reader(device ids.ID, credit int, gated, notices bool) *reader {
	r := &reader{ended: make(chan error, 1)}
	if gated {
		r.gate = make(chan struct{})
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	w.ends = append(w.ends, cancel)
	r.sub = w.hub.Subscribe(device, credit, r)
	if notices {
		r.sub.WithNotices()
	}
	w.all.Go(func() { r.ended <- r.sub.Run(ctx) })
	return r
}

func (r *reader) TryPush(p wire.Push) bool {
	if r.gate != nil || r.full.Load() {
		return false
	}
	r.direct.Add(1)
	return r.Push(context.Background(), p) == nil
}

func (r *reader) Push(ctx context.Context, p wire.Push) error {
	if r.gate != nil {
		select {
		case <-r.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := p.(type) {
	case *wire.Delivery:
		r.got = append(r.got, p)
	case *wire.CaughtUp:
		r.mark = append(r.mark, p.Deliveries)
	case *wire.Behind:
		r.gone = append(r.gone, p.Seq)
	case *wire.KeyPackagesLow:
		r.low = append(r.low, int(p.OneTime))
	}
	return nil
}

// seqs are the sequences of one channel, as they came.
func (r *reader) seqs(channel ids.ID) []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []uint64
	for _, d := range r.got {
		if d.ChannelID == channel {
			list = append(list, d.Seq)
		}
	}
	return list
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func (r *reader) marks() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mark)
}

// ackAll acknowledges everything that came.
func (r *reader) ackAll() error {
	r.mu.Lock()
	last := map[ids.ID]uint64{}
	for _, d := range r.got {
		last[d.ChannelID] = d.Seq
	}
	r.mu.Unlock()
	var acks []wire.Ack
	for channel, seq := range last {
		acks = append(acks, wire.Ack{ChannelID: channel, Seq: seq})
	}
	return r.sub.Ack(acks)
}

// upTo is from, … n.
func upTo(from, n uint64) []uint64 {
	var list []uint64
	for i := from; i <= n; i++ {
		list = append(list, i)
	}
	return list
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newWorldMetrics() *telemetry.Metrics { return telemetry.New() }
