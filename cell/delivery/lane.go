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
	"sync/atomic"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/wire"
)

const (
	laneDepth      = 4096     // Messages waiting for a commit.
	laneBytes      = 64 << 20 // Their payload.
	batchMessages  = 512      // Messages per commit.
	batchBytes     = 8 << 20  // Their payload, unless the first alone is larger.
	commitPatience = 10 * time.Second
	busyRetry      = 200 * time.Millisecond
)

// Lane stores messages by group commit: whatever arrives while a commit runs goes into the next one together. There
// is one per process.
type Lane struct {
	store   *store.Store
	metrics *telemetry.Metrics
	log     *slog.Logger
	now     func() time.Time
	stored  func([]*store.Message)

	in     chan *submission
	bytes  atomic.Int64
	closed atomic.Bool
	done   chan struct{}
}

type submission struct {
	entry *store.Append
	reply func(*store.Append, error)
}

// NewLane starts a Lane. stored is called after each commit with the messages that are new, in order, before their
// senders are answered.
func NewLane(s *store.Store, m *telemetry.Metrics, log *slog.Logger, now func() time.Time, stored func([]*store.Message)) *Lane {
	l := &Lane{store: s, metrics: m, log: log, now: now, stored: stored, in: make(chan *submission, laneDepth), done: make(chan struct{})}
	go l.run()
	return l
}

// Submit hands in a message. reply is called once, from the Lane's goroutine, and must not block. An error means
// that the message was not taken and reply will not be called.
func (l *Lane) Submit(entry *store.Append, reply func(*store.Append, error)) error {
	size := int64(len(entry.Message.Payload))
	if l.bytes.Add(size) > laneBytes {
		l.bytes.Add(-size)
		return errBusy("the cell is storing as much as it can")
	}
	select {
	case l.in <- &submission{entry, reply}:
		l.metrics.EnqueueQueue.Inc()
		return nil
	default:
		l.bytes.Add(-size)
		return errBusy("the cell is storing as much as it can")
	}
}

func errBusy(what string) *wire.Error {
	return wire.RetryAfterf(wire.CodeBusy, busyRetry, "%s; try again", what)
}

// Close finishes what was taken and stops. Nobody may Submit any more.
func (l *Lane) Close() {
	if l.closed.CompareAndSwap(false, true) {
		close(l.in)
	}
	<-l.done
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
	entries := make([]*store.Append, len(batch))
	for i, s := range batch {
		entries[i] = s.entry
		retention := s.entry.Message.ExpiresAt.Sub(s.entry.Message.AcceptedAt)
		s.entry.Message.AcceptedAt, s.entry.Message.ExpiresAt = start, start.Add(retention)
	}
	err := l.append(entries)
	if errors.Is(err, store.ErrExists) && len(entries) > 1 {
		l.oneByOne(batch) // Another replica stores one of these ids at this moment; find out which.
		return
	}
	l.metrics.EnqueueBatch.Observe(float64(len(batch)))
	l.metrics.EnqueueCommit.Observe(l.now().Sub(start).Seconds())
	l.settle(batch, err)
}

func (l *Lane) append(entries []*store.Append) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	return l.store.AppendBatch(ctx, entries)
}

func (l *Lane) oneByOne(batch []*submission) {
	for i, s := range batch {
		err := l.append([]*store.Append{s.entry})
		if errors.Is(err, store.ErrExists) {
			err = l.append([]*store.Append{s.entry}) // The other one has committed: now it shows.
		}
		l.settle(batch[i:i+1], err)
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
		s.reply(s.entry, err)
	}
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
	l.stored(fresh)
}
