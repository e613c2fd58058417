package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Link is a row of device_links, opened: a new device on its way into an account.
type Link struct {
	ID          ids.ID
	Offer       []byte // Nil once it is finished.
	CreatedAt   time.Time
	ExpiresAt   time.Time
	Account     ids.ID // Whose device has approved it; zero: nobody's yet. So are the next three.
	Certificate []byte
	Name        string
	Approval    []byte // Nil once it is finished.
	Finished    bool   // The device is added.
}

// LinkBounds say how many links may be open at once.
type LinkBounds struct{ InAll, OfAddress, OfAccount int }

// StartLink stores a link. place is where it comes from, empty where many people share it. The same link again is no error.
// ErrExists: there is another of the id; ErrTooMany: one of the bounds.
func (s *Store) StartLink(ctx context.Context, l *Link, place string, most LinkBounds) error {
	var address []byte
	if place != "" {
		address = s.sealer.Index("device_links.address", place)
	}
	tag, err := s.pool.Exec(ctx, `INSERT INTO device_links (link_id, address_index, offer_sealed, created_at, expires_at) SELECT $1, $2, $3, $4, $5
		WHERE (SELECT count(*) FROM device_links WHERE expires_at > $4) < $6
		AND (SELECT count(*) FROM device_links WHERE address_index = $2 AND expires_at > $4 AND finished_at IS NULL) < $7
		ON CONFLICT (link_id) DO NOTHING`,
		l.ID, address, s.sealer.seal("device_links.offer", l.ID[:], l.Offer), utc(l.CreatedAt), utc(l.ExpiresAt), most.InAll, most.OfAddress)
	if err != nil || tag.RowsAffected() == 1 {
		return classify(err)
	}
	has, err := s.Link(ctx, l.ID, l.CreatedAt)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrTooMany
	case err == nil && !bytes.Equal(has.Offer, l.Offer):
		return ErrExists
	case err == nil:
		*l = has
	}
	return err
}

const selectLink = `SELECT link_id, offer_sealed, created_at, expires_at, account_id, certificate, name_sealed, approval, finished_at IS NOT NULL
	FROM device_links WHERE link_id = $1 AND expires_at > $2`

// Link returns a link. ErrNotFound: there is none, or its time is over.
func (s *Store) Link(ctx context.Context, id ids.ID, now time.Time) (Link, error) {
	l, err := s.link(s.pool.QueryRow(ctx, selectLink, id, utc(now)))
	return l, classify(err)
}

func (s *Store) link(row pgx.Row) (Link, error) {
	var l Link
	var offer, name []byte
	var account *ids.ID
	err := row.Scan(&l.ID, &offer, &l.CreatedAt, &l.ExpiresAt, &account, &l.Certificate, &name, &l.Approval, &l.Finished)
	if err != nil {
		return Link{}, err
	}
	if account != nil {
		l.Account = *account
	}
	if offer != nil {
		if l.Offer, err = s.sealer.open("device_links.offer", l.ID[:], offer); err != nil {
			return Link{}, err
		}
	}
	if name != nil {
		plain, err := s.sealer.open("device_links.name", l.ID[:], name)
		l.Name = string(plain)
		return l, err
	}
	return l, nil
}

// ApproveLink notes that a device of l.Account approves a link, with l's certificate, name and approval. The same again is
// no error. ErrNotFound: there is no such link, or its time is over; ErrExists: it was approved otherwise, or is finished;
// ErrTooMany: the account has that many under way; ErrChanged: the proof holds no more; ErrRevoked: the approving device was revoked.
func (s *Store) ApproveLink(ctx context.Context, l *Link, by ids.ID, proof Proof, most LinkBounds, now time.Time) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		if err := s.prove(ctx, tx, l.Account, proof, now); err != nil {
			return err
		}
		if err := mustLive(ctx, tx, by); err != nil {
			return err
		}
		has, err := s.link(tx.QueryRow(ctx, selectLink+` FOR UPDATE`, l.ID, utc(now)))
		switch {
		case err != nil:
			return err
		case has.Account == l.Account && !has.Finished && bytes.Equal(has.Certificate, l.Certificate) && bytes.Equal(has.Approval, l.Approval):
			return nil
		case !has.Account.IsZero():
			return ErrExists
		}
		tag, err := tx.Exec(ctx, `UPDATE device_links SET account_id = $2, certificate = $3, name_sealed = $4, approval = $5 WHERE link_id = $1
			AND (SELECT count(*) FROM device_links WHERE account_id = $2 AND finished_at IS NULL AND expires_at > $6) < $7`,
			l.ID, l.Account, l.Certificate, s.sealer.seal("device_links.name", l.ID[:], []byte(l.Name)), l.Approval, utc(now), most.OfAccount)
		if err == nil && tag.RowsAffected() == 0 {
			err = ErrTooMany
		}
		return err
	})
}

// NewDevice is a device that is added by another, with its first session.
type NewDevice struct {
	Device  Device
	RootKey []byte // By which it is certified.
	Session Session
	Notice  Notice
	Events  []audit.Event // Of the device's addition.
	Started audit.Event   // Of the session's beginning.
}

// FinishLink adds the device of an approved link with its session and stores events, and tells of it; these notices are
// returned. Once it is added, the same device may start over with another session for as long as the link lives: the
// answer may have been lost. ErrNotFound: there is no such link, its time is over, or it was approved otherwise; ErrChanged:
// the account has another root key by now; and AddDevice's and CreateSession's.
func (s *Store) FinishLink(ctx context.Context, link ids.ID, n *NewDevice, most int, now time.Time) (notices []*Message, err error) {
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		notices = nil
		var root []byte
		if err := tx.QueryRow(ctx, `SELECT root_key FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE`, n.Device.AccountID).Scan(&root); err != nil {
			return err
		}
		if err := lockEnabled(ctx, tx, n.Device.AccountID); err != nil {
			return err
		}
		l, err := s.link(tx.QueryRow(ctx, selectLink+` FOR UPDATE`, link, utc(now)))
		switch {
		case err != nil:
			return err
		case l.Account != n.Device.AccountID || !bytes.Equal(l.Certificate, n.Device.Certificate):
			return ErrNotFound
		case !bytes.Equal(root, n.RootKey):
			return ErrChanged
		case l.Finished:
			if err := mustLive(ctx, tx, n.Device.ID); err != nil {
				return err
			}
			return renewSession(ctx, r, &pgx.Batch{}, n.Session, []audit.Event{n.Started})
		}
		var b pgx.Batch
		b.Queue(`UPDATE device_links SET finished_at = $2, offer_sealed = NULL, approval = NULL WHERE link_id = $1`, link, utc(now))
		notices, err = s.addFurther(ctx, tx, r, &b, n.Device, n.Session, most, &n.Notice, append(n.Events, n.Started))
		return err
	})
	return notices, err
}

// SweepLinks deletes the links whose time is over.
func (s *Store) SweepLinks(ctx context.Context, now time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM device_links WHERE expires_at <= $1`, utc(now))
	return classify(err)
}
