package load

import (
	"context"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// reader is a device that reads: subscription after subscription, at any replica.
type reader struct {
	*actor
	acked map[ids.ID]uint64 // The highest that was sent, answered or not.
	begun int64             // When this subscription was asked for.
	last  map[ids.ID]uint64 // Pushed last in this subscription.
	count map[ids.ID]int    // Pushed in this subscription.
}

func (w *World) reader(d *peer.Device) *reader {
	return &reader{actor: w.actor(d), acked: map[ids.ID]uint64{}}
}

// A reader's habits.
const (
	shortStay, longStay = 200 * time.Millisecond, 3 * time.Second
	acknowledges        = 4 // As one in so many messages.
)

// read reads until ctx ends.
func (r *reader) read(ctx context.Context) {
	defer r.hangUp()
	for ctx.Err() == nil {
		stay, cancel := context.WithTimeout(ctx, shortStay+time.Duration(r.Int64N(int64(longStay-shortStay))))
		if r.subscribe(ctx) {
			r.follow(stay, ctx, func() bool { return false })
		}
		cancel()
		r.hangUp()
	}
}

// subscribe begins a subscription on a fresh connection.
func (r *reader) subscribe(ctx context.Context) bool {
	r.hangUp()
	r.last, r.count = map[ids.ID]uint64{}, map[ids.ID]int{}
	op, err := r.call(ctx, record.Op{Kind: record.Subscribe, Device: r.device.ID.String()}, &wire.SubscribeRequest{Notices: true}, func(op *record.Op, body wire.Response) {
		if s, ok := body.(*wire.SubscribeResponse); ok {
			op.Epoch = s.RestoreEpoch
		}
	})
	r.begun = op.Call
	if err == nil && op.Outcome == record.Refused {
		r.problem("a subscription is refused: %s", op.Code)
	}
	return err == nil && op.Outcome == record.OK
}

// follow takes pushes until stay ends, or the connection, or, after the CaughtUp, enough says so.
func (r *reader) follow(stay, ctx context.Context, enough func() bool) bool { //nolint:revive // two of them: one for calls.
	for {
		select {
		case p := <-r.conn.Pushes():
			if r.take(ctx, p) && enough() {
				return true
			}
			if r.conn == nil {
				return false // An acknowledgement was not answered.
			}
		case <-r.conn.Done():
			return false
		case <-stay.Done():
			return false
		}
	}
}

// take notes a push. It reports the CaughtUp.
func (r *reader) take(ctx context.Context, p wire.Push) bool {
	switch p := p.(type) {
	case *wire.Delivery:
		r.note(p)
		if r.IntN(acknowledges) == 0 {
			r.ack(ctx, p.ChannelID)
		}
	case *wire.CaughtUp:
		r.caughtUp()
		return true
	}
	return false
}

func (r *reader) note(d *wire.Delivery) {
	op := record.Op{Kind: record.Push, Client: r.client, Outcome: record.OK, Channel: d.ChannelID.String(), Device: r.device.ID.String(), From: d.SenderDeviceID.String(),
		ID: d.DeliveryID.String(), Content: fingerprint(d.Payload), Seq: d.Seq, Prev: d.PrevSeq, At: d.AcceptedAt.UnixMilli(), Generation: d.Generation}
	switch d.Kind { //nolint:exhaustive // the others are messages.
	case wire.KindWelcome:
		op.Kind, op.Channel, op.From, op.ID = record.Welcome, d.AboutChannelID.String(), "", ""
	case wire.KindNotice:
		op.Kind, op.Channel, op.From = record.Notice, "", ""
	case wire.KindCommit:
		if m, err := mls.ParseMessage(d.Payload); err == nil && m.PublicMessage != nil {
			op.Epoch = m.PublicMessage.Epoch()
		}
	case wire.KindOwn:
		if d.SenderDeviceID != r.device.ID {
			r.problem("a device is pushed another's message as its own")
		}
	}
	r.rec.Point(op)
	r.last[d.ChannelID] = d.Seq
	r.count[d.ChannelID]++
}

// ack acknowledges a channel as far as it was pushed.
func (r *reader) ack(ctx context.Context, channel ids.ID) bool {
	seq := r.last[channel]
	if r.conn == nil || seq == 0 {
		return false
	}
	op := record.Op{Kind: record.Ack, Client: r.client, Call: r.rec.Now(), Channel: channel.String(), Device: r.device.ID.String(), Seq: seq}
	r.acked[channel] = max(r.acked[channel], seq)
	_, op.Outcome, op.Code = r.raw(ctx, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: channel, Seq: seq}}})
	r.rec.Done(op)
	return op.Outcome == record.OK
}

// at is how far the device has a channel, now that it has caught up.
func (r *reader) at(channel ids.ID) uint64 {
	if seq := r.last[channel]; seq > 0 {
		return seq
	}
	return r.acked[channel]
}

// caughtUp notes the marker for every channel that the subscription had from its beginning.
func (r *reader) caughtUp() {
	for _, channel := range r.channelsOf(r.device, r.begun) {
		r.rec.Done(record.Op{Kind: record.CaughtUp, Client: r.client, Outcome: record.OK, Channel: channel.String(), Device: r.device.ID.String(), Seq: r.at(channel), Call: r.begun})
	}
}

// finish reads everything, when nobody writes any more, acknowledges it and notes that it has all.
func (r *reader) finish(ctx context.Context) bool {
	defer r.hangUp()
	for ctx.Err() == nil {
		if r.subscribe(ctx) && r.follow(ctx, ctx, func() bool { return true }) && r.ackAll(ctx) {
			for _, channel := range r.channelsOf(r.device, r.begun) {
				r.rec.Point(record.Op{Kind: record.Complete, Client: r.client, Outcome: record.OK, Channel: channel.String(), Device: r.device.ID.String(), Seq: r.at(channel)})
			}
			return true
		}
	}
	r.problem("device %s does not catch up", r.device.ID)
	return false
}

func (r *reader) ackAll(ctx context.Context) bool {
	for channel := range r.last {
		if !r.ack(ctx, channel) {
			return false
		}
	}
	return true
}

// quiet notes how much comes again of what was acknowledged.
func (r *reader) quiet(ctx context.Context) bool {
	defer r.hangUp()
	for ctx.Err() == nil {
		if !r.subscribe(ctx) || !r.follow(ctx, ctx, func() bool { return true }) {
			continue
		}
		for _, channel := range append(r.channelsOf(r.device, r.begun), r.device.ID) {
			r.rec.Point(record.Op{Kind: record.Quiet, Client: r.client, Outcome: record.OK, Channel: channel.String(), Device: r.device.ID.String(), Count: r.count[channel]})
		}
		return true
	}
	r.problem("device %s does not come back", r.device.ID)
	return false
}
