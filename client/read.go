package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
)

// Message is a received message, or what is known of one that cannot be shown, or a notice.
type Message struct {
	Channel    ids.ID
	Seq        uint64 // 0 for a message of this account's that was never sent, and for a warning about a contact.
	From       string // Empty when the sender's account is not known.
	Account    ids.ID
	Device     ids.ID
	DeliveryID ids.ID
	SentAt     time.Time // By the sender's clock.
	AcceptedAt time.Time // By the cell's clock.
	Text       string
	Failure    *Failure // Why there is no text, or why the text was not sent; nil for a message.
	Notice     *Notice  // What the cell tells of the account that From and Account name; nil for a message.
}

// Failure says what is wrong with a message, or, by the code FailKeyChanged, with a contact.
type Failure struct{ Code, Message string }

// Handler shows a message. After an error, Read ends, and the message will be handed out again.
type Handler func(Message) error

// The locks that processes on one profile share, besides the records'.
const (
	subscriberLock = "subscriber" // Shared by readers; held alone by who only fetches a Welcome, so as to replace none.
	showLock       = "show"       // Held from reading what is unread to marking it.
)

// Read hands out what is unread, one message at a time, and then what comes. Without follow it returns when everything
// that the cell had stored has been handed out. With follow it goes on, over lost connections too, until ctx ends,
// and then returns nil. Errors: ErrReplaced, ErrRevoked, the Handler's, and the usual ones.
func (c *Client) Read(ctx context.Context, follow bool, show Handler) error {
	err := c.read(ctx, follow, show)
	if follow && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func (c *Client) read(ctx context.Context, follow bool, show Handler) error {
	if err := c.showAll(ctx, show); err != nil {
		return err
	}
	given := warnings{}
	if err := c.warnOfKeys(ctx, show, given); err != nil {
		return err
	}
	if err := c.transmitAll(ctx); err != nil {
		if !follow || !conn.Transient(err) {
			return fmt.Errorf("sending what was left from earlier: %w", err)
		}
		c.log.WarnContext(ctx, "sending what was left from earlier failed", "error", err)
	}
	c.sendWhatWaits(ctx)
	if follow {
		defer c.keepSending(ctx)()
	}
	unlock, err := c.store.Share(ctx, subscriberLock)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.subscribe(ctx, follow, show, given); err != nil {
		return err
	}
	select {
	case <-c.accepted: // While this read.
		c.sendWhatWaits(ctx)
	default:
	}
	return nil
}

// subscribe receives on connections of its own, one after the other. A nil show keeps the messages unread. The caller
// holds the subscriberLock.
func (c *Client) subscribe(ctx context.Context, follow bool, show Handler, given warnings) error {
	deadline := time.Now().Add(c.opts.RetryFor)
	var b backoff
	for came := false; ; {
		r := &receiver{c: c, follow: follow, show: show, given: given}
		err := r.run(ctx)
		if r.caughtUp {
			came = true
			b.reset()
		}
		if err == nil || !conn.Transient(err) {
			return err
		}
		wait := b.after(err)
		if !(follow && came) && time.Now().Add(wait).After(deadline) {
			return err
		}
		c.log.InfoContext(ctx, "connecting again", "after", wait, "error", err)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// showAll hands out everything that is unread.
func (c *Client) showAll(ctx context.Context, show Handler) error {
	channels, err := c.channels(ctx)
	if err != nil {
		return err
	}
	for _, ch := range channels {
		if err := c.showChannel(ctx, ch, show); err != nil {
			return err
		}
	}
	return nil
}

// showChannel hands out what is unread of a channel and marks it. One process at a time does it, so that nothing is
// shown twice.
func (c *Client) showChannel(ctx context.Context, channel ids.ID, show Handler) error {
	if show == nil {
		return nil
	}
	unlock, err := c.store.Lock(ctx, showLock)
	if err != nil {
		return err
	}
	defer unlock()
	rec, _, err := get[channelRecord](ctx, c.store, channelName(channel))
	if err != nil || len(rec.Unread) == 0 {
		return err
	}
	shown := make(map[lineKey]bool)
	var showErr error
	for _, l := range rec.Unread {
		if showErr = show(l.message(channel, c.self.AccountID)); showErr != nil {
			break
		}
		shown[l.key()] = true
	}
	return errors.Join(showErr, c.mark(ctx, channel, shown))
}

// mark forgets lines that have been shown.
func (c *Client) mark(ctx context.Context, channel ids.ID, shown map[lineKey]bool) error {
	if len(shown) == 0 {
		return nil
	}
	return update(context.WithoutCancel(ctx), c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		rec.Unread = slices.DeleteFunc(rec.Unread, func(l line) bool { return shown[l.key()] })
		return true, nil
	})
}

// lineKey tells lines of one channel apart.
type lineKey struct {
	seq uint64
	id  ids.ID
}

func (l line) key() lineKey { return lineKey{l.Seq, l.DeliveryID} }

func (l line) message(channel, own ids.ID) Message {
	m := Message{Channel: channel, Seq: l.Seq, From: l.From, Account: l.Account, Device: l.Device, DeliveryID: l.DeliveryID,
		SentAt: l.SentAt, AcceptedAt: l.AcceptedAt, Text: l.Text}
	if l.Notice != "" {
		m.Notice = &Notice{Kind: l.Notice, Own: own == l.Account, Device: l.Device, DeviceName: l.DeviceName}
	}
	if l.Failure != nil {
		m.Failure = &Failure{l.Failure.Code, l.Failure.Message}
	}
	return m
}
