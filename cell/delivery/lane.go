// Package delivery stores messages in order and brings them to subscribed devices: group commit, dedup, catch-up and
// live push, acknowledgement.
//
// Flow: a Lane gathers messages while the previous commit runs and stores them in one transaction; the Hub tells the
// Subscriptions in this process, by memory; a Subscription reads from the database whatever it did not get that way.
// The database is the truth and memory only makes it quick: a message dropped from a full mailbox is read, not lost.
package delivery

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	laneDepth      = 4096     // Messages waiting for a commit.
	laneBytes      = 64 << 20 // Their payload.
	batchMessages  = 512      // Messages per commit.
	batchBytes     = 8 << 20  // Their payload, unless the first alone is larger.
	crowd          = 32       // Messages of one half from which on it does not wait for the other's commit.
	yields         = 4        // How often others may run before a commit: a message goes through so many goroutines to the lane.
	commitPatience = 10 * time.Second
	closePatience  = 10 * time.Second // For everything that was taken, when the process ends.
	busyRetry      = 200 * time.Millisecond
)

// Store is what this package asks of *store.Store.
type Store interface {
	AppendBatch(ctx context.Context, batch []*store.Append) error
	ReadMessages(ctx context.Context, channel ids.ID, after uint64, limit, maxBytes int, now time.Time) ([]*store.Message, error)
	Cursors(ctx context.Context, device ids.ID) ([]store.Cursor, error)
	CursorOf(ctx context.Context, device, channel ids.ID) (store.Cursor, error)
	LowKeyPackages(ctx context.Context, devices []ids.ID) (map[ids.ID]store.KeyPackagesLeft, error)
	ChannelCounts(ctx context.Context, devices []ids.ID) (map[ids.ID]int, error)
	BeginSubscription(ctx context.Context, device ids.ID) (uint64, error)
	Subscriptions(ctx context.Context, devices []ids.ID) (map[ids.ID]uint64, error)
	LastSeqs(ctx context.Context, channels []ids.ID) (map[ids.ID]uint64, error)
	Acknowledge(ctx context.Context, acks []store.Ack) error
}

// Lane stores messages by group commit: whatever arrives while a commit runs goes into the next one together. There
// is one per process.
//
// Channels are divided into two halves. While little is waiting, commits follow each other and take what there is of
// both: each commit costs, whatever its size. Where many wait, each half commits by itself: one is stored while the
// other waits for the disk. A half's messages are stored in the order in which they came, always.
type Lane struct {
	store   Store
	metrics *telemetry.Metrics
	log     *slog.Logger
	now     func() time.Time
	stored  func([]*store.Message)

	halves  [2]half
	calm    turn // Held through a commit that takes what there is of both halves; before half.turn.
	share   *share
	mu      sync.RWMutex // Between Submit and Close.
	closed  bool
	running sync.WaitGroup
	giveUp  context.CancelFunc
	ongoing context.Context // Of every commit; ends when Close has waited long enough.
}

// half is of the channels.
type half struct {
	in   chan *submission
	wake chan struct{} // One token: in has content.
	turn turn          // Held from before messages are taken out until they are stored and answered.
}

// turn is a lock: a mutex, but for synctest, whose time goes on while somebody waits for it.
type turn chan struct{}

func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

type submission struct {
	entry *store.Append
	reply func(*store.Append, error)
}

// NewLane starts a Lane. stored is called after each commit with the messages that are new, in order, before their
// senders are answered.
func NewLane(s Store, m *telemetry.Metrics, log *slog.Logger, now func() time.Time, stored func([]*store.Message)) *Lane {
	l := &Lane{share: newShare(laneDepth, laneBytes, m.EnqueueQueueBytes), store: s, metrics: m, log: log, now: now, stored: stored, calm: make(turn, 1)}
	l.ongoing, l.giveUp = context.WithCancel(context.Background())
	for i := range l.halves {
		l.halves[i] = half{make(chan *submission, laneDepth), make(chan struct{}, 1), make(turn, 1)}
	}
	for i := range l.halves {
		l.running.Go(func() { l.run(&l.halves[i], &l.halves[1-i]) })
	}
	return l
}

// Submit hands in a message. reply is called once, from one of the Lane's goroutines, and must not block. An error means
// that the message was not taken and reply will not be called.
func (l *Lane) Submit(entry *store.Append, reply func(*store.Append, error)) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return wire.RetryAfterf(wire.CodeDraining, busyRetry, "this server is going away; connect again")
	}
	account, size := entry.Message.SenderAccount, int64(len(entry.Message.Payload))
	if ok, full := l.share.take(account, size); !ok {
		return l.busy(full)
	}
	l.metrics.EnqueueQueue.Inc()
	h := &l.halves[entry.Message.ChannelID[ids.Size-1]%2] // Ids end at random.
	select {
	case h.in <- &submission{entry, reply}:
		h.signal()
		return nil
	default:
		l.metrics.EnqueueQueue.Dec()
		l.share.give(account, size)
		return l.busy(true)
	}
}

func (l *Lane) busy(full bool) *wire.Error {
	queue := "enqueue"
	if !full {
		queue = "enqueue_share"
	}
	l.metrics.Busy.WithLabelValues(queue).Inc()
	return wire.RetryAfterf(wire.CodeBusy, busyRetry, "the cell is storing as much as it can; try again")
}

// Close finishes what was taken, within a bound, and stops.
func (l *Lane) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		for i := range l.halves {
			close(l.halves[i].wake)
		}
	}
	l.mu.Unlock()
	timer := time.AfterFunc(closePatience, l.giveUp)
	defer timer.Stop()
	l.running.Wait()
	l.giveUp()
}

func (h *half) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run stores one half's messages, and with them the other's, until the Lane is closed and nothing waits.
func (l *Lane) run(own, other *half) {
	var batch []*submission
	for open := true; open; {
		_, open = <-own.wake
		for {
			if batch = l.next(batch[:0], own, other); len(batch) == 0 {
				break
			}
			clear(batch)
		}
	}
}

// next stores a batch and returns it; an empty one when nothing waits.
func (l *Lane) next(batch []*submission, own, other *half) []*submission {
	crowded := own.crowded()
	if !crowded {
		l.calm.take()
		defer l.calm.give()
		crowded = own.crowded() // Meanwhile.
	}
	for range yields { // What is on its way goes along, and the answers to the last batch go out. Nobody waits where nobody else runs.
		runtime.Gosched()
	}
	own.turn.take()
	defer own.turn.give()
	batch = own.gather(batch)
	if !crowded && other.turn.tryTake() {
		defer other.turn.give()
		batch = other.gather(batch)
	}
	if len(batch) > 0 {
		l.commit(batch)
	}
	return batch
}

func (h *half) crowded() bool { return len(h.in) >= crowd }

// gather takes what is waiting, within a batch's bounds. It needs h.turn.
func (h *half) gather(batch []*submission) []*submission {
	size := 0
	for _, s := range batch {
		size += len(s.entry.Message.Payload)
	}
	for len(batch) < batchMessages && size < batchBytes {
		select {
		case s := <-h.in:
			batch = append(batch, s)
			size += len(s.entry.Message.Payload)
		default:
			return batch
		}
	}
	return batch
}

func (l *Lane) commit(batch []*submission) {
	start := l.now()
	err := l.append(batch)
	l.metrics.EnqueueBatch.Observe(float64(len(batch)))
	l.metrics.EnqueueCommit.Observe(l.now().Sub(start).Seconds())
	if err == nil || errors.Is(err, store.ErrUnavailable) {
		l.settle(batch, err)
		return
	}
	l.oneByOne(batch)
}

// append stores a batch, all of it accepted now.
func (l *Lane) append(batch []*submission) error {
	now := l.now()
	entries := make([]*store.Append, len(batch))
	for i, s := range batch {
		m := &s.entry.Message
		m.AcceptedAt, m.ExpiresAt = now, now.Add(m.ExpiresAt.Sub(m.AcceptedAt))
		entries[i] = s.entry
	}
	ctx, cancel := context.WithTimeout(l.ongoing, commitPatience)
	defer cancel()
	return l.store.AppendBatch(ctx, entries)
}

// oneByOne stores the messages of a batch that was refused as a whole, so that only the one at fault fails. Mostly
// none is: another replica stored one of the ids at the same moment, and the second look finds it there.
func (l *Lane) oneByOne(batch []*submission) {
	for i := range batch {
		one := batch[i : i+1]
		err := l.append(one)
		if errors.Is(err, store.ErrExists) {
			err = l.append(one)
		}
		l.settle(one, err)
	}
}

// settle tells subscribers, then senders.
func (l *Lane) settle(batch []*submission, err error) {
	if err != nil {
		l.log.Error("storing messages failed", "messages", len(batch), "error", err)
	} else {
		l.publish(batch)
	}
	for _, s := range batch {
		l.metrics.EnqueueQueue.Dec()
		l.share.give(s.entry.Message.SenderAccount, int64(len(s.entry.Message.Payload)))
		l.answer(s, err)
	}
}

// answer runs a session's code: its panic is not the Lane's end.
func (l *Lane) answer(s *submission, err error) {
	defer func() {
		if r := recover(); r != nil {
			l.metrics.Panicked(l.log, "the answer to an enqueue", r)
		}
	}()
	s.reply(s.entry, err)
}

func (l *Lane) publish(batch []*submission) {
	fresh := make([]*store.Message, 0, len(batch))
	for _, s := range batch {
		switch {
		case s.entry.Err != nil:
			l.metrics.Enqueued.WithLabelValues("refused").Inc()
		case s.entry.Duplicate:
			l.metrics.Enqueued.WithLabelValues("duplicate").Inc()
		default:
			l.metrics.Enqueued.WithLabelValues("stored").Inc()
			l.metrics.EnqueuedBytes.Add(float64(len(s.entry.Message.Payload)))
			fresh = append(fresh, &s.entry.Message)
		}
	}
	if len(fresh) > 0 {
		l.stored(fresh)
	}
}
