package client

import (
	"context"
	"errors"
	"fmt"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// The codes of messages that cannot be shown.
const (
	failUndecryptable = "undecryptable"
	failUntrusted     = "untrusted"
	failContent       = "unsupportedContent"
	failNoGroup       = "notInGroup"
	failWelcome       = "invalidWelcome"
)

// outcome says what became of a batch of deliveries.
type outcome struct {
	lastSeq uint64           // The channel is handled, and saved, up to here.
	waiting []*wire.Delivery // Not handled: their group is not there yet.
	lines   bool             // There is something to show.
}

// receive handles deliveries of one channel, in order, and saves their effects in one step: the ratchets that
// decrypted them, the texts, and how far the channel is handled. With giveUp, messages of a group that is not there are
// reported instead of left waiting.
func (c *Client) receive(ctx context.Context, channel ids.ID, epoch uint64, batch []*wire.Delivery, giveUp bool) (out outcome, err error) {
	name := channelName(channel)
	err = c.store.Update(ctx, func(tx *keystore.Tx) error {
		rec, _, err := load[channelRecord](tx, name)
		if err != nil {
			return err
		}
		rec.ChannelID = channel
		rec.restored(epoch)
		before := rec.LastSeq
		in := &incoming{c: c, rec: rec, groups: c.groupsOf(rec, nil), giveUp: giveUp}
		if len(rec.Groups) > 0 {
			if in.groups.trust, err = c.rootsIn(tx, rec.Peer.AccountID); err != nil {
				return err
			}
		}
		if out.waiting, err = in.takeAll(batch); err != nil {
			return err
		}
		out.lastSeq, out.lines = rec.LastSeq, len(rec.Unread) > 0
		if rec.LastSeq == before {
			return nil
		}
		if err := in.groups.store(); err != nil {
			return err
		}
		return save(tx, name, rec)
	})
	return out, err
}

// restored starts over when the cell was restored from a backup: its sequences may have gone back.
func (rec *channelRecord) restored(epoch uint64) {
	if rec.RestoreEpoch != epoch {
		if rec.RestoreEpoch != 0 {
			rec.SeenBelow, rec.LastSeq = max(rec.SeenBelow, rec.LastSeq), 0
		}
		rec.RestoreEpoch = epoch
	}
}

// incoming is a channel while deliveries are taken in.
type incoming struct {
	c      *Client
	rec    *channelRecord
	groups *groups
	giveUp bool
}

// takeAll handles deliveries until one must wait. An error means that the profile is at fault, and nothing is saved.
func (in *incoming) takeAll(batch []*wire.Delivery) (waiting []*wire.Delivery, err error) {
	for i, d := range batch {
		if d.Seq <= in.rec.LastSeq {
			continue
		}
		switch err := in.take(d); {
		case errors.Is(err, errNoGroup) && !in.giveUp:
			return batch[i:], nil
		case errors.Is(err, errNoGroup):
			in.fail(d, failNoGroup, "this device has no keys for that message: it was not in the conversation then")
		case err != nil:
			return nil, err
		}
		in.rec.LastSeq = d.Seq
	}
	return nil, nil
}

func (in *incoming) take(d *wire.Delivery) error {
	if d.Kind == wire.KindOwn {
		in.rec.sent(d.DeliveryID)
		return nil
	}
	group, err := in.groups.open(d.Generation)
	if err != nil {
		return err
	}
	m, err := mls.ParseMessage(d.Payload)
	if err != nil {
		in.fail(d, failUndecryptable, err.Error())
		return nil
	}
	processed, err := group.Process(m, d.AcceptedAt)
	switch {
	case err != nil && errors.Is(err, mls.ErrReplay) && d.Seq <= in.rec.SeenBelow:
		return nil // Handled before the cell was restored.
	case err != nil:
		in.fail(d, failUndecryptable, err.Error())
	case processed.Kind == mls.Application:
		in.show(d, processed)
	}
	return nil
}

// show adds a decrypted message to what is unread, after checking that it is what the cell says it is.
func (in *incoming) show(d *wire.Delivery, p *mls.Processed) {
	cert, err := certificate(p.SenderCredential, p.SenderKey)
	switch {
	case err != nil:
		in.fail(d, failUntrusted, err.Error())
		return
	case cert.AccountID != d.SenderAccountID || cert.DeviceID != d.SenderDeviceID:
		in.fail(d, failUntrusted, fmt.Sprintf("the cell says it is from device %s, its signature is by device %s", d.SenderDeviceID, cert.DeviceID))
		return
	case string(p.AuthenticatedData) != string(d.DeliveryID[:]):
		in.fail(d, failUntrusted, "it was sent under another delivery id than the cell says")
		return
	}
	content, err := wire.UnmarshalContent(p.Data)
	if err != nil {
		in.fail(d, failContent, err.Error())
		return
	}
	l := in.line(d)
	l.SentAt, l.Text = content.SentAt, content.Text
	in.rec.Unread = append(in.rec.Unread, l)
}

// fail adds a message that cannot be shown to what is unread: nothing is dropped in silence.
func (in *incoming) fail(d *wire.Delivery, code, message string) {
	l := in.line(d)
	l.Failure = &failure{code, message}
	in.rec.Unread = append(in.rec.Unread, l)
}

func (in *incoming) line(d *wire.Delivery) line {
	l := line{Seq: d.Seq, DeliveryID: d.DeliveryID, Account: d.SenderAccountID, Device: d.SenderDeviceID, AcceptedAt: d.AcceptedAt}
	switch d.SenderAccountID {
	case in.c.self.AccountID:
		l.From = in.c.self.Name
	case in.rec.Peer.AccountID:
		l.From = in.rec.Peer.Name
	}
	return l
}
