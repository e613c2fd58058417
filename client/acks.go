package client

import (
	"context"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// acks gathers acknowledgements and has at most one request under way. It belongs to the receiver's goroutine.
type acks struct {
	s        *session
	pending  map[ids.ID]uint64
	sent     []wire.Ack // In the request under way.
	count    int        // Deliveries in pending,
	size     int        // and their payload, in bytes.
	most     int        // Deliveries acknowledged together: well below the credit, so that more keeps coming.
	answered chan error // The answer to the request under way.
	busy     bool
	waiting  bool // The cell asked to wait; due says until when.
	again    backoff
	due      *time.Timer // When what has gathered is sent at the latest.
}

func (a *acks) start(s *session, credit int) {
	a.s, a.pending, a.answered = s, make(map[ids.ID]uint64), make(chan error, 1)
	a.most = max(1, min(ackMost, credit/2))
	a.due = time.NewTimer(ackEvery)
	a.due.Stop()
}

// add acknowledges a channel up to seq with the next request, which is sent now when enough has gathered.
func (a *acks) add(ctx context.Context, channel ids.ID, seq uint64, deliveries, size int) {
	if len(a.pending) == 0 && !a.waiting {
		a.due.Reset(ackEvery)
	}
	a.pending[channel] = max(a.pending[channel], seq)
	a.count += deliveries
	a.size += size
	if a.enough() {
		a.send(ctx)
	}
}

// enough reports whether what has gathered is worth a request now: the cell stops when too much is not acknowledged.
func (a *acks) enough() bool { return a.count >= a.most || a.size >= ackBytes }

// send sends what has gathered, unless a request is under way: then done will.
func (a *acks) send(ctx context.Context) {
	if a.busy || a.waiting || len(a.pending) == 0 {
		return
	}
	req := &wire.AckRequest{}
	for channel, seq := range a.pending {
		if len(req.Acks) == wire.MaxAcks {
			break
		}
		req.Acks = append(req.Acks, wire.Ack{ChannelID: channel, Seq: seq})
		delete(a.pending, channel)
	}
	a.busy, a.count, a.size, a.sent = true, 0, 0, req.Acks
	s, answered := a.s, a.answered
	go func() {
		_, err := ask[*wire.Done](context.WithoutCancel(ctx), s, req)
		answered <- err
	}()
}

// done notes that the request under way was answered, and sends what has gathered meanwhile. What the cell does not take
// just now is sent again, together with what comes until then.
func (a *acks) done(ctx context.Context, err error) error {
	a.busy = false
	switch {
	case err == nil:
		a.again.reset()
		a.send(ctx)
	case wire.HasCode(err, wire.CodeRateLimited, wire.CodeBusy):
		for _, ack := range a.sent {
			a.pending[ack.ChannelID] = max(a.pending[ack.ChannelID], ack.Seq)
		}
		a.waiting = true
		a.due.Reset(a.again.after(err))
		return nil
	}
	return err
}

// sendDue sends what has gathered, when its time has come.
func (a *acks) sendDue(ctx context.Context) {
	a.waiting = false
	a.send(ctx)
}

// flush sends all that has gathered and waits for the answers, a bounded time and without complaint: what is not
// acknowledged is delivered again and recognized.
func (a *acks) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	for a.busy || len(a.pending) > 0 {
		a.send(ctx)
		select {
		case err := <-a.answered:
			if a.done(ctx, err) != nil {
				return
			}
		case <-a.due.C:
			a.sendDue(ctx)
		case <-ctx.Done():
			return
		}
	}
}
