package client

import (
	"context"
	"time"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// NoticeKind is what a Notice tells.
type NoticeKind string

// The kinds.
const (
	DeviceAdded    NoticeKind = "deviceAdded"
	DeviceRevoked  NoticeKind = "deviceRevoked"
	AccountDeleted NoticeKind = "accountDeleted"
	RootKeyReset   NoticeKind = "rootKeyReset" // A warning by FailKeyChanged follows, if it is so.
	// Another account asks to write to the own one: AcceptContact or BlockContact.
	ContactAsks NoticeKind = "contactRequested"
	// Another account has accepted. What waited for that is sent without another call while a Read follows, or before it returns.
	ContactAccepts NoticeKind = "contactAccepted"
)

var noticeKinds = map[wire.NoticeKind]NoticeKind{wire.NoticeDeviceAdded: DeviceAdded, wire.NoticeDeviceRevoked: DeviceRevoked,
	wire.NoticeAccountDeleted: AccountDeleted, wire.NoticeRootKeyReset: RootKeyReset, wire.NoticeContactRequested: ContactAsks,
	wire.NoticeContactAccepted: ContactAccepts}

// Notice is what the cell tells of the own account or of a contact's. Nobody but the cell vouches for it.
type Notice struct {
	Kind       NoticeKind
	Own        bool   // It is about the own account.
	Device     ids.ID // Zero where it is about the account as a whole.
	DeviceName string // Of an own device, if it is known.
}

// notice handles a notice of the inbox: its effects are saved in one step with how far the inbox is handled. One of an
// account that this profile has never seen, or of a kind that it does not know, is passed over; a request of one is not.
func (c *Client) notice(ctx context.Context, via caller, epoch uint64, d *wire.Delivery) (out outcome, n wire.Notice, err error) {
	n, malformed := wire.UnmarshalNotice(d.Payload)
	if malformed != nil {
		c.log.WarnContext(ctx, "a notice that cannot be read is passed over", "seq", d.Seq, "error", malformed)
		n = wire.Notice{}
	}
	if c.own(n.AccountID) && n.Kind == wire.NoticeDeviceAdded {
		if _, err := c.devices(ctx, via); err != nil && !permanent(err) { // What it is called.
			return out, n, err
		}
	}
	var asker string
	if n.Kind == wire.NoticeContactRequested {
		if asker, err = c.nameOf(ctx, via, n.AccountID); err != nil {
			return out, n, err
		}
	}
	err = c.store.Update(ctx, func(tx *keystore.Tx) error {
		inbox, _, err := load[channelRecord](tx, channelName(d.ChannelID))
		if err != nil {
			return err
		}
		inbox.ChannelID = d.ChannelID
		inbox.restored(epoch)
		if d.Seq > inbox.LastSeq {
			inbox.LastSeq = d.Seq
			if err := c.note(tx, inbox, d, n, asker); err != nil {
				return err
			}
		}
		out.lastSeq, out.lines = inbox.LastSeq, len(inbox.Unread) > 0
		return save(tx, channelName(d.ChannelID), inbox)
	})
	return out, n, err
}

// nameOf asks the cell what an account is called; empty when there is none any more. A stranger is not remembered by it: only
// who is written to, or accepted, is trusted.
func (c *Client) nameOf(ctx context.Context, via caller, account ids.ID) (string, error) {
	a, err := ask[*wire.Account](ctx, via, &wire.GetAccountRequest{AccountID: account})
	if err == nil && a.AccountID == account {
		return a.Name, nil
	}
	if err != nil && !permanent(err) {
		return "", err
	}
	return "", nil
}

// note keeps what a notice says, and a line to show. asker is the name of who asks to write.
func (c *Client) note(tx *keystore.Tx, inbox *channelRecord, d *wire.Delivery, n wire.Notice, asker string) error {
	kind, known := noticeKinds[n.Kind]
	if !known {
		return nil
	}
	l := line{Seq: d.Seq, DeliveryID: d.DeliveryID, Account: n.AccountID, Device: n.DeviceID, AcceptedAt: d.AcceptedAt, Notice: kind}
	keep := c.noteContact
	switch {
	case c.own(n.AccountID):
		keep = c.noteOwn
	case n.Kind == wire.NoticeContactRequested:
		l.From, keep = asker, noteAsker
	}
	show, err := keep(tx, &l, n)
	if err == nil && show {
		inbox.Unread = append(inbox.Unread, l)
	}
	return err
}

func (c *Client) noteOwn(tx *keystore.Tx, l *line, n wire.Notice) (show bool, err error) {
	rec, _, err := load[devicesRecord](tx, devicesName)
	if err != nil {
		return false, err
	}
	l.From, l.DeviceName = c.self.Name, rec.Names[n.DeviceID]
	if n.Kind != wire.NoticeDeviceRevoked {
		return true, nil
	}
	rec.Revoked = addRevoked(rec.Revoked, n.DeviceID)
	delete(rec.Names, n.DeviceID)
	return true, save(tx, devicesName, rec)
}

// noteAsker shows a request, unless it comes under the name of somebody else whom this profile knows.
func noteAsker(tx *keystore.Tx, l *line, n wire.Notice) (show bool, err error) {
	rec, _, err := load[contactsRecord](tx, contactsName)
	if err != nil || l.From == "" {
		return false, err
	}
	known, ok := rec.called(l.From)
	return !ok || known == n.AccountID, nil
}

func (c *Client) noteContact(tx *keystore.Tx, l *line, n wire.Notice) (show bool, err error) {
	rec, _, err := load[contactsRecord](tx, contactsName)
	if err != nil {
		return false, err
	}
	known, ok := rec.Accounts[n.AccountID]
	if !ok {
		return false, nil
	}
	l.From = known.Name
	switch n.Kind {
	case wire.NoticeDeviceRevoked:
		known.Revoked = addRevoked(known.Revoked, n.DeviceID)
	case wire.NoticeRootKeyReset:
		known.CheckedAt = time.Time{} // The cell is asked at once for the key that is warned of.
	default:
		return true, nil
	}
	rec.Accounts[n.AccountID] = known
	return true, save(tx, contactsName, rec)
}
