package load

import (
	"context"
	"fmt"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// chat is a channel whose messages are made up: its group exists, and nobody reads what is in the ciphertexts.
type chat struct {
	channel ids.ID
	devices []*peer.Device
	ready   chan struct{} // Closed when the group exists.
}

// What writers do besides sending each message until it is answered, as one in so many.
const (
	givesUp   = 12 // An unanswered message is left at that.
	insists   = 15 // An answered one is sent again, anywhere.
	meddles   = 40 // An answered id is used for something else.
	twins     = 15 // A message is sent at two places at once.
	wanders   = 60 // The replica is changed without need.
	largest   = 3000
	usualSize = 300
)

// write has a device write until the world stops.
func (w *World) write(ctx context.Context, d *peer.Device) {
	a, twin := w.actor(d), w.actor(d)
	defer a.hangUp()
	defer twin.hangUp()
	var mine []*chat
	for _, c := range w.chats {
		for _, m := range c.devices {
			if m == d {
				mine = append(mine, c)
			}
		}
	}
	for !w.stopped() && ctx.Err() == nil {
		c := mine[a.IntN(len(mine))]
		select {
		case <-c.ready:
			a.message(ctx, twin, c)
		default:
		}
		if a.IntN(wanders) == 0 {
			a.hangUp()
		}
		sleep(ctx, time.Duration(a.Int64N(int64(w.size.Pause))))
	}
}

// compose makes a message with a fresh delivery id.
func (a *actor) compose(c *chat, id ids.ID) *wire.EnqueueRequest {
	size := usualSize
	if a.IntN(8) == 0 {
		size = largest
	}
	text := make([]byte, 1+a.IntN(size))
	for i := range text {
		text[i] = byte(a.IntN(256)) //nolint:gosec // it fits.
	}
	return &wire.EnqueueRequest{ChannelID: c.channel, Generation: 1, DeliveryID: id, Payload: peer.Application(c.channel, 1, 1, id, text)}
}

func (a *actor) enqueueOp(r *wire.EnqueueRequest) record.Op {
	return record.Op{Kind: record.Enqueue, Channel: r.ChannelID.String(), Device: a.device.ID.String(), ID: r.DeliveryID.String(), Content: fingerprint(r.Payload)}
}

func learnEnqueue(op *record.Op, body wire.Response) {
	if e, ok := body.(*wire.EnqueueResponse); ok {
		op.Seq, op.At, op.Duplicate = e.Seq, e.AcceptedAt.UnixMilli(), e.Duplicate
	}
}

// message sends one message, and sometimes more of it than it should.
func (a *actor) message(ctx context.Context, twin *actor, c *chat) {
	r := a.compose(c, ids.NewDelivery(time.Now()))
	op := a.enqueueOp(r)
	if a.IntN(twins) == 0 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			twin.expect(twin.call(ctx, op, r, learnEnqueue))
		}()
		defer func() { <-done }()
	}
	for ctx.Err() == nil {
		done, err := a.call(ctx, op, r, learnEnqueue)
		if err != nil {
			return
		}
		if done.Outcome != record.Unknown {
			a.expect(done, nil)
			break
		}
		if a.IntN(givesUp) == 0 {
			return
		}
	}
	if a.IntN(insists) == 0 {
		if a.IntN(2) == 0 {
			a.hangUp()
		}
		a.expect(a.call(ctx, op, r, learnEnqueue))
	}
	if a.IntN(meddles) == 0 {
		other := a.compose(c, r.DeliveryID)
		done, err := a.call(ctx, a.enqueueOp(other), other, learnEnqueue)
		if err == nil && done.Outcome == record.Refused && done.Code != fmt.Sprint(wire.CodeDeliveryIDReused) {
			a.problem("an id with other content is refused as %s", done.Code)
		}
	}
}

// expect notes a message that is refused.
func (a *actor) expect(op record.Op, err error) {
	if err == nil && op.Outcome == record.Refused {
		a.problem("a message is refused: %s, channel %s, device %s", op.Code, op.Channel, op.Device)
	}
}
