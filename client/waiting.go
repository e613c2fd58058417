package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// waitingEvery is how often texts that wait for an acceptance are tried while a Read follows.
const waitingEvery = 15 * time.Second

// waitingText is a text whose receiver has not accepted to be written to. It is not encrypted yet: there is no group.
type waitingText struct {
	ID   ids.ID
	Text string
	At   time.Time
}

// PendingError says that a text is kept until its receiver accepts to be written to. The next SendDM or Read of any
// process on this profile sends it after that, once.
type PendingError struct{ Name string }

// Error implements error.
func (e *PendingError) Error() string {
	return fmt.Sprintf("%s has not accepted yet to be written to; the message is kept and sent after that", e.Name)
}

// pending reports whether the cell waits for the other account.
func pending(err error) bool { return wire.HasCode(err, wire.CodeContactPending) }

// wait keeps a text for later.
func (c *Client) wait(ctx context.Context, ch *wire.Channel, text string) error {
	err := update(ctx, c.store, channelName(ch.ChannelID), func(rec *channelRecord) (bool, error) {
		rec.ChannelID, rec.Peer = ch.ChannelID, peer{ch.Peer.AccountID, ch.Peer.Name}
		rec.Waiting = append(rec.Waiting, waitingText{ids.New(), text, c.opts.Now()})
		return true, nil
	})
	return errors.Join(err, &PendingError{ch.Peer.Name})
}

// errTaken says that another process sends a waiting text.
var errTaken = errors.New("another process sends it")

// take takes a text out of those that wait; false when it is not there.
func (rec *channelRecord) take(id ids.ID) bool {
	before := len(rec.Waiting)
	rec.Waiting = slices.DeleteFunc(rec.Waiting, func(w waitingText) bool { return w.ID == id })
	return len(rec.Waiting) != before
}

// sendWaitingIn sends what waits in a channel that has its group now, in order.
func (c *Client) sendWaitingIn(ctx context.Context, channel ids.ID) error {
	for {
		rec, _, err := get[channelRecord](ctx, c.store, channelName(channel))
		if err != nil || len(rec.Waiting) == 0 {
			return err
		}
		if err := c.sendWaitingText(ctx, channel, rec.Waiting[0]); err != nil && !errors.Is(err, errTaken) {
			return err
		}
	}
}

func (c *Client) sendWaitingText(ctx context.Context, channel ids.ID, w waitingText) error {
	var content []byte
	var padded int
	m := outgoing{Text: w.Text, waited: w.ID}
	err := c.do(ctx, func(_ context.Context, s *session) (err error) {
		m.DeliveryID = ids.NewDelivery(c.serverNow(s))
		content, padded, err = plaintext(w.Text, w.At, int(s.Hello().MaxPayload))
		return err
	})
	if err != nil {
		return err
	}
	if err := c.encrypt(ctx, channel, &m, content, padded); err != nil {
		return err
	}
	_, err = c.transmit(ctx, channel, m)
	return err
}

// sendWaiting tries what waits in every channel. That somebody has not accepted yet is no error.
func (c *Client) sendWaiting(ctx context.Context) error {
	channels, err := c.channels(ctx)
	if err != nil {
		return err
	}
	for _, id := range channels {
		rec, _, getErr := get[channelRecord](ctx, c.store, channelName(id))
		if getErr != nil || len(rec.Waiting) == 0 {
			err = errors.Join(err, getErr)
			continue
		}
		if sendErr := c.tryWaiting(ctx, rec.Peer.AccountID); !pending(sendErr) {
			err = errors.Join(err, sendErr)
		}
	}
	return err
}

// tryWaiting asks once more how the other account stands to us, and sends to it what waits.
func (c *Client) tryWaiting(ctx context.Context, account ids.ID) error {
	var ch *wire.Channel
	err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
		ch, err = c.openDM(ctx, s, account)
		return err
	})
	if err != nil {
		return err
	}
	if ch.Contact == wire.ContactRequested {
		return nil
	}
	if err := c.ensureGroup(ctx, ch); err != nil {
		return err
	}
	return c.sendWaitingIn(ctx, ch.ChannelID)
}

// wakeSender has what waits tried at once: somebody has accepted.
func (c *Client) wakeSender() {
	select {
	case c.accepted <- struct{}{}:
	default: // It is awake already.
	}
}

// keepSending tries what waits when somebody has accepted, and now and then, until the returned function is called.
func (c *Client) keepSending(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			select {
			case <-c.accepted:
			case <-time.After(waitingEvery):
			case <-ctx.Done():
				return
			}
			c.sendWhatWaits(ctx)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// sendWhatWaits is sendWaiting where nobody asked for it.
func (c *Client) sendWhatWaits(ctx context.Context) {
	if err := c.sendWaiting(ctx); err != nil && ctx.Err() == nil {
		c.log.WarnContext(ctx, "sending what waited for an acceptance failed", "error", err)
	}
}

// giveUpGroup has the channel's next group made by the next message: a revoked device is in this one.
func (c *Client) giveUpGroup(ctx context.Context, ch *wire.Channel) error {
	return update(ctx, c.store, channelName(ch.ChannelID), func(rec *channelRecord) (bool, error) {
		if rec.Superseded >= ch.Generation {
			return false, nil
		}
		rec.Superseded = ch.Generation
		return true, nil
	})
}
