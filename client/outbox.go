package client

import (
	"context"
	"errors"
	"slices"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// transmit sends a message of the outbox and says where it stands. What was left from earlier goes first. Another
// process may send the same entries at the same time: the cell stores each once.
func (c *Client) transmit(ctx context.Context, channel ids.ID, m outgoing) (*Sent, error) {
	if err := c.transmitUntil(ctx, channel, m.DeliveryID); err != nil {
		return nil, err
	}
	answer, err := c.enqueue(ctx, channel, m)
	if err != nil {
		return nil, errors.Join(err, c.settleRefused(ctx, channel, m, err, false))
	}
	return &Sent{Channel: channel, Seq: answer.Seq, DeliveryID: m.DeliveryID, Bytes: len(m.Payload)}, nil
}

// transmitUntil sends a channel's outbox, in order, up to the message id; a zero id means all of it.
func (c *Client) transmitUntil(ctx context.Context, channel, id ids.ID) error {
	rec, _, err := get[channelRecord](ctx, c.store, channelName(channel))
	if err != nil {
		return err
	}
	for _, m := range rec.Outbox {
		if m.DeliveryID == id {
			return nil
		}
		_, err := c.enqueue(ctx, channel, m)
		if err == nil {
			continue
		}
		if pending(err) && id.IsZero() {
			return nil // Until the other account lets us write again.
		}
		if !permanent(err) {
			return err
		}
		c.log.WarnContext(ctx, "a message from earlier cannot be sent", "channel", channel, "deliveryId", m.DeliveryID, "error", err)
		if err := c.settleRefused(ctx, channel, m, err, true); err != nil {
			return err
		}
	}
	return nil
}

// enqueue sends one message, and takes it out of the outbox once the cell has it.
func (c *Client) enqueue(ctx context.Context, channel ids.ID, m outgoing) (answer *wire.EnqueueResponse, err error) {
	err = c.do(ctx, func(ctx context.Context, s *session) (err error) {
		answer, err = ask[*wire.EnqueueResponse](ctx, s, &wire.EnqueueRequest{ChannelID: channel, Generation: m.Generation,
			DeliveryID: m.DeliveryID, Payload: m.Payload})
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, update(context.WithoutCancel(ctx), c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		return rec.sent(m.DeliveryID), nil
	})
}

// sent takes a message out of the outbox.
func (rec *channelRecord) sent(id ids.ID) bool {
	before := len(rec.Outbox)
	rec.Outbox = slices.DeleteFunc(rec.Outbox, func(m outgoing) bool { return m.DeliveryID == id })
	return len(rec.Outbox) != before
}

// permanent reports whether the cell will never take this very message.
func permanent(err error) bool {
	return wire.HasCode(err, wire.CodeDeliveryIDOutOfWindow, wire.CodeDeliveryIDReused, wire.CodeEpochConflict,
		wire.CodeInvalidMessage, wire.CodePayloadTooLarge, wire.CodeInvalidArgument, wire.CodePermissionDenied, wire.CodeNotFound,
		wire.CodeRemoveFirst) // The removal begins another epoch.
}

// settleRefused drops a message that the cell will never take; with tell, the next Read says so.
func (c *Client) settleRefused(ctx context.Context, channel ids.ID, m outgoing, refusal error, tell bool) error {
	if !permanent(refusal) {
		return nil
	}
	return update(context.WithoutCancel(ctx), c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		if !rec.sent(m.DeliveryID) {
			return false, nil
		}
		if tell {
			at, _ := m.DeliveryID.DeliveryTime()
			rec.Unread = append(rec.Unread, line{DeliveryID: m.DeliveryID, Account: c.self.AccountID, Device: c.self.DeviceID,
				From: c.self.Name, SentAt: at, Text: m.Text, Failure: &failure{Code(refusal), "this message of yours was never sent: " + refusal.Error()}})
		}
		return true, nil
	})
}

// transmitAll sends what is left in every outbox. One channel's trouble does not keep the others.
func (c *Client) transmitAll(ctx context.Context) error {
	channels, err := c.channels(ctx)
	if err != nil {
		return err
	}
	for _, ch := range channels {
		err = errors.Join(err, c.transmitUntil(ctx, ch, ids.ID{}))
	}
	return err
}
