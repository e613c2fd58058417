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
	"sync"
	"sync/atomic"
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
	commitPatience = 10 * time.Second
	closePatience  = 10 * time.Second // For everything that was taken, when the process ends.
	busyRetry      = 200 * time.Millisecond
)

// Store is what this package asks of *store.Store.
type Store interface {
	AppendBatch(ctx context.Context, batch []*store.Append) error
	ReadMessages(ctx context.Context, channel ids.ID, after uint64, limit, maxBytes int, now time.Time) ([]*store.Message, error)
	Cursors(ctx context.Context, device ids.ID) ([]store.Cursor, error)
	ChannelCounts(ctx context.Context, devices []ids.ID) (map[ids.ID]int, error)
	LastSeqs(ctx context.Context, channels []ids.ID) (map[ids.ID]uint64, error)
	Acknowledge(ctx context.Context, acks []store.Ack) error
}

// Lane stores messages by group commit: whatever arrives while a commit runs goes into the next one together. There
// is one per process.
type Lane struct {
	store   Store
	metrics *telemetry.Metrics
	log     *slog.Logger
	now     func() time.Time
	stored  func([]*store.Message)

	in      chan *submission
	bytes   atomic.Int64
	mu      sync.RWMutex // Between Submit and Close.
	closed  bool
	done    chan struct{}
	giveUp  context.CancelFunc
	ongoing context.Context // Of every commit; ends when Close has waited long enough.
}

type submission struct {
	entry *store.Append
	reply func(*store.Append, error)
}

// NewLane starts a Lane. stored is called after each commit with the messages that are new, in order, before their
// senders are answered.
func NewLane(s Store, m *telemetry.Metrics, log *slog.Logger, now func() time.Time, stored func([]*store.Message)) *Lane {
	l := &Lane{store: s, metrics: m, log: log, now: now, stored: stored, in: make(chan *submission, laneDepth), done: make(chan struct{})}
	l.ongoing, l.giveUp = context.WithCancel(context.Background())
	go l.run()
	return l
}

// Submit hands in a message. reply is called once, from the Lane's goroutine, and must not block. An error means
// that the message was not taken and reply will not be called.
func (l *Lane) Submit(entry *store.Append, reply func(*store.Append, error)) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return wire.RetryAfterf(wire.CodeDraining, busyRetry, "this server is going away; connect again")
	}
	size := int64(len(entry.Message.Payload))
	if l.bytes.Add(size) > laneBytes {
		l.bytes.Add(-size)
		return l.busy()
	}
	l.metrics.EnqueueQueue.Inc()
	select {
	case l.in <- &submission{entry, reply}:
		return nil
	default:
		l.metrics.EnqueueQueue.Dec()
		l.bytes.Add(-size)
		return l.busy()
	}
}

func (l *Lane) busy() *wire.Error {
	l.metrics.Busy.WithLabelValues("enqueue").Inc()
	return wire.RetryAfterf(wire.CodeBusy, busyRetry, "the cell is storing as much as it can; try again")
}

// Close finishes what was taken, within a bound, and stops.
func (l *Lane) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.in)
	}
	l.mu.Unlock()
	timer := time.AfterFunc(closePatience, l.giveUp)
	defer timer.Stop()
	<-l.done
	l.giveUp()
}

func (l *Lane) run() {
	defer close(l.done)
	var batch []*submission
	for first := range l.in {
		batch = l.gather(append(batch[:0], first))
		l.commit(batch)
		clear(batch)
	}
}

// gather takes what is waiting, within a batch's bounds.
func (l *Lane) gather(batch []*submission) []*submission {
	size := len(batch[0].entry.Message.Payload)
	for len(batch) < batchMessages && size < batchBytes {
		select {
		case s, ok := <-l.in:
			if !ok {
				return batch
			}
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
		l.bytes.Add(-int64(len(s.entry.Message.Payload)))
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
