package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	// linkPoll is how often a new device asks whether it was approved.
	linkPoll = 2 * time.Second
	// linkStay is how long it asks on one connection: a cell ends those that are not authenticated after 30 seconds.
	linkStay = 20 * time.Second
)

// Link is a new device that waits for one of the account's to approve it. Its profile is made once that has happened.
type Link struct {
	entry    *entry
	code     codes.Link
	keys     codes.LinkKeys
	exchange *devicelink.Exchange
	device   ed25519.PrivateKey
	id       ids.ID
	offer    []byte
	expires  time.Time
}

// StartLink offers this device to an account, whose people bring the Link's code to another device of it. The profile
// must hold no account. o.Passphrase will protect the profile, and should be the account's. Errors: ErrAccountExists,
// keystore errors, conn's errors, *wire.Error (rateLimited: too many devices wait).
func StartLink(ctx context.Context, o Options) (*Link, error) {
	e := &entry{opts: o.withDefaults()}
	if err := e.prepare(ctx); err != nil {
		return nil, err
	}
	if e.self != nil && !e.self.Pending {
		return nil, fmt.Errorf("%w (%s)", ErrAccountExists, e.self.Name)
	}
	l, err := newLink(e)
	if err != nil {
		return nil, err
	}
	return l, e.retry(ctx, l.start)
}

func newLink(e *entry) (*Link, error) {
	public, device, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("making the device key: %w", err)
	}
	exchange, err := devicelink.NewExchange()
	if err != nil {
		return nil, err
	}
	l := &Link{entry: e, code: codes.NewLink(), exchange: exchange, device: device, id: ids.New()}
	l.keys = l.code.Derive()
	o := devicelink.Offer{DeviceID: l.id, DeviceKey: public, ExchangeKey: exchange.Public(), Name: e.opts.DeviceName}
	l.offer = o.Seal(&l.keys)
	return l, nil
}

func (l *Link) start(ctx context.Context, e *entry) error {
	s, err := e.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := conn.Call[*wire.DeviceLink](ctx, s.Conn, &wire.StartDeviceLinkRequest{LinkID: l.keys.ID, Offer: l.offer})
	if err != nil {
		return err
	}
	l.expires = r.ExpiresAt.Add(-s.skew)
	return nil
}

// Code is what people copy to the other device: a secret of theirs.
func (l *Link) Code() string { return l.code.Format() }

// QR is the code as the text of a QR code.
func (l *Link) QR() string { return strings.ToUpper(l.code.QR()) }

// ExpiresAt is until when the code is good, by the local clock.
func (l *Link) ExpiresAt() time.Time { return l.expires }

// Wait returns once the device was approved and has joined the account, or ctx ends. Errors: ErrForgedLink, *wire.Error
// (linkExpired: nobody has approved it in time), and those of Login.
func (l *Link) Wait(ctx context.Context) (*Client, error) {
	var b backoff
	for {
		approved, err := l.ask(ctx)
		if approved {
			return l.entry.finish(ctx, l.join)
		}
		if err == nil {
			b.reset()
			continue
		}
		if !conn.Transient(err) {
			return nil, err
		}
		if pauseErr := pause(ctx, b.after(err)); pauseErr != nil {
			return nil, errors.Join(err, pauseErr)
		}
	}
}

// ask asks for a while on one connection.
func (l *Link) ask(ctx context.Context) (approved bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := dial(bounded, l.entry.opts, l.entry.cell)
	if err != nil {
		return false, timely(ctx, err)
	}
	defer s.Close()
	for until := time.Now().Add(linkStay); time.Now().Before(until); {
		r, err := conn.Call[*wire.DeviceLink](bounded, s.Conn, &wire.GetDeviceLinkRequest{LinkID: l.keys.ID})
		if err != nil {
			return false, timely(ctx, err)
		}
		if len(r.Approval) > 0 {
			return true, nil
		}
		if err := pause(ctx, linkPoll); err != nil {
			return false, err
		}
	}
	return false, nil
}

// join checks the approval, saves who this device is now, and has the cell add it. It may be repeated.
func (l *Link) join(ctx context.Context, e *entry) error {
	s, err := dial(ctx, e.opts, e.cell)
	if err != nil {
		return err
	}
	defer s.Close()
	if e.self == nil || e.self.DeviceID != l.id {
		r, err := conn.Call[*wire.DeviceLink](ctx, s.Conn, &wire.GetDeviceLinkRequest{LinkID: l.keys.ID})
		if err != nil {
			return err
		}
		if err := l.adopt(ctx, e, r); err != nil {
			return err
		}
	}
	proof, err := s.Prove(l.device)
	if err != nil {
		return err
	}
	tokens, err := conn.Call[*wire.Session](ctx, s.Conn, &wire.FinishDeviceLinkRequest{LinkID: l.keys.ID, Proof: proof})
	if err != nil {
		return revoked(e.unsettled(err))
	}
	return e.settle(ctx, s, tokens)
}

// adopt saves what an approval says.
func (l *Link) adopt(ctx context.Context, e *entry, r *wire.DeviceLink) error {
	a, err := l.exchange.Open(r.Approval, l.offer, &l.keys)
	if err != nil {
		return forged(err)
	}
	cert, err := devicecert.Parse(r.Certificate)
	if err != nil || cert.AccountID != a.AccountID || !cert.RootKey.Equal(a.RootKey) || cert.DeviceID != l.id || !cert.DeviceKey.Equal(l.device.Public()) {
		return fmt.Errorf("%w: the certificate that came with the approval is not this device's", ErrForgedLink)
	}
	e.self = &accountRecord{Name: a.Name, AccountID: a.AccountID, DeviceID: l.id, DeviceSeed: l.device.Seed(), Certificate: r.Certificate,
		RootKey: a.RootKey, Cell: e.cell, Pending: true}
	if err := e.save(ctx); err != nil {
		return err
	}
	return update(ctx, e.store, contactsName, func(rec *contactsRecord) (bool, error) {
		rec.adopt(a.Contacts)
		return true, nil
	})
}

// adopt trusts the contacts that the other device trusts. The cell is asked for them again at once.
func (r *contactsRecord) adopt(list []devicelink.Contact) {
	if r.Accounts == nil {
		r.Accounts = make(map[ids.ID]contact)
	}
	for _, k := range list {
		if _, known := r.Accounts[k.AccountID]; !known {
			r.Accounts[k.AccountID] = contact{Name: k.Name, RootKey: k.RootKey}
		}
	}
}

func forged(err error) error {
	if errors.Is(err, devicelink.ErrForged) || errors.Is(err, devicelink.ErrInvalid) {
		return fmt.Errorf("%w: %w", ErrForgedLink, err)
	}
	return err
}

// LinkRequest is a new device that waits to be approved.
type LinkRequest struct {
	DeviceID ids.ID
	Name     string // As the new device calls itself.

	keys    codes.LinkKeys
	offer   []byte
	key     ed25519.PublicKey
	approve *wire.ApproveDeviceLinkRequest // Once it was made.
}

// FindLink returns the new device that shows a code: the code, or the text of its QR code. That it is the one that shows the
// code is certain; that its people are the account's is for them to say. Errors: codes.ErrNone, ErrForgedLink, *wire.Error
// (linkExpired: no device waits with that code), and the usual ones.
func (c *Client) FindLink(ctx context.Context, code string) (*LinkRequest, error) {
	parsed, err := codes.ParseLink(code)
	if err != nil {
		return nil, fmt.Errorf("the code: %w", err)
	}
	q := &LinkRequest{keys: parsed.Derive()}
	err = c.do(ctx, func(ctx context.Context, s *session) error {
		r, err := ask[*wire.DeviceLink](ctx, s, &wire.GetDeviceLinkRequest{LinkID: q.keys.ID})
		if err == nil {
			q.offer = r.Offer
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := q.open(); err != nil {
		return nil, err
	}
	return q, nil
}

// open believes the offer, if it was made with the code.
func (q *LinkRequest) open() error {
	o, err := devicelink.OpenOffer(q.offer, &q.keys)
	if err != nil {
		return forged(err)
	}
	q.DeviceID, q.Name, q.key = o.DeviceID, o.Name, o.DeviceKey
	return nil
}

// ApproveLink takes a new device into the account: it proves the passphrase, certifies the device by the account's root key, and
// tells it which contacts are trusted under which keys. The device then adds itself. Errors: *wire.Error (linkExpired;
// alreadyExists: another device has approved it, or another account's), ErrPasswordChanged, and the usual ones.
func (c *Client) ApproveLink(ctx context.Context, q *LinkRequest) error {
	return c.do(ctx, func(ctx context.Context, s *session) error {
		root, err := c.proveOwn(ctx, s)
		if err != nil {
			return err
		}
		defer clear(root)
		if q.approve == nil { // The same each time: only then a repetition is one.
			if q.approve, err = c.approval(ctx, q, root); err != nil {
				return err
			}
		}
		_, err = conn.Call[*wire.Done](ctx, s.Conn, q.approve)
		return err
	})
}

func (c *Client) approval(ctx context.Context, q *LinkRequest, root ed25519.PrivateKey) (*wire.ApproveDeviceLinkRequest, error) {
	known, _, err := get[contactsRecord](ctx, c.store, contactsName)
	if err != nil {
		return nil, err
	}
	a := &devicelink.Approval{AccountID: c.self.AccountID, RootKey: c.self.RootKey, Name: c.self.Name, Contacts: known.trusted()}
	sealed, err := a.Seal(q.offer, &q.keys)
	if err != nil {
		return nil, forged(err)
	}
	return &wire.ApproveDeviceLinkRequest{LinkID: q.keys.ID, DeviceName: q.Name, Approval: sealed,
		Certificate: devicecert.Issue(root, c.self.AccountID, q.DeviceID, q.key, c.opts.Now()).Marshal()}, nil
}

// trusted lists the contacts with the keys that are trusted, those first whom the cell was asked for last.
func (r *contactsRecord) trusted() []devicelink.Contact {
	var list []devicelink.Contact
	for id, k := range r.Accounts {
		list = append(list, devicelink.Contact{AccountID: id, RootKey: k.RootKey, Name: k.Name})
	}
	slices.SortFunc(list, func(a, b devicelink.Contact) int {
		return r.Accounts[b.AccountID].CheckedAt.Compare(r.Accounts[a.AccountID].CheckedAt)
	})
	return list
}
