package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Session is a row of sessions: one login of one device, with the hash of its present refresh token.
type Session struct {
	ID, DeviceID         ids.ID
	RefreshHash          []byte
	PreviousHash         []byte // Of the token before, whose successor may have been lost on its way.
	CreatedAt, ExpiresAt time.Time
	Revoked              bool
}

func queueSession(b *pgx.Batch, n Session) {
	b.Queue(`INSERT INTO sessions (session_id, device_id, refresh_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		n.ID, n.DeviceID, n.RefreshHash, utc(n.CreatedAt), utc(n.ExpiresAt))
}

// CreateSession stores a further session of a device with events, and ends its earlier ones. ErrRevoked: the device was revoked.
func (s *Store) CreateSession(ctx context.Context, n Session, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if err := mustLive(ctx, tx, n.DeviceID); err != nil {
			return err
		}
		return renewSession(ctx, r, &pgx.Batch{}, n, events)
	})
}

// mustLive keeps a device from being revoked, and its account from being disabled or deleted, until the transaction ends.
// The account is locked first, as everywhere.
func mustLive(ctx context.Context, tx pgx.Tx, device ids.ID) error {
	var revoked, disabled bool
	err := tx.QueryRow(ctx, `WITH a AS MATERIALIZED (SELECT account_id, disabled_at, deleting_at FROM accounts
			WHERE account_id = (SELECT account_id FROM devices WHERE device_id = $1) FOR SHARE)
		SELECT d.revoked_at IS NOT NULL OR a.deleting_at IS NOT NULL, a.disabled_at IS NOT NULL
		FROM a JOIN devices d USING (account_id) WHERE d.device_id = $1 FOR SHARE OF d`, device).Scan(&revoked, &disabled)
	switch {
	case err != nil:
		return err
	case revoked:
		return ErrRevoked
	case disabled:
		return ErrDisabled
	}
	return nil
}

func renewSession(ctx context.Context, r *recording, b *pgx.Batch, n Session, events []audit.Event) error {
	queueEndSessions(b, n.CreatedAt, `device_id = $2`, n.DeviceID)
	queueSession(b, n)
	return r.send(ctx, b, events...)
}

// UpdateSession reads a session under lock and stores what change makes of it, with the event that change returns. When
// change returns revoke, the session is revoked instead and stays so. When it returns an error alone the session stays as
// it is, but the event is stored. change's error is returned either way; it may be called twice.
func (s *Store) UpdateSession(ctx context.Context, id ids.ID, now time.Time, change func(*Session) (revoke bool, event audit.Event, err error)) error {
	var verdict error
	err := s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		n := Session{ID: id}
		if err := tx.QueryRow(ctx, `SELECT device_id, refresh_hash, previous_hash, created_at, expires_at, revoked_at IS NOT NULL
			FROM sessions WHERE session_id = $1 FOR UPDATE`, id).
			Scan(&n.DeviceID, &n.RefreshHash, &n.PreviousHash, &n.CreatedAt, &n.ExpiresAt, &n.Revoked); err != nil {
			return err
		}
		revoke, event, err := change(&n)
		verdict = err
		var b pgx.Batch
		switch {
		case revoke:
			queueEndSessions(&b, now, `session_id = $2`, id)
		case err == nil:
			b.Queue(`UPDATE sessions SET refresh_hash = $2, previous_hash = $3, expires_at = $4 WHERE session_id = $1`,
				id, n.RefreshHash, n.PreviousHash, utc(n.ExpiresAt))
		}
		return r.send(ctx, &b, event)
	})
	if err != nil {
		return err
	}
	return verdict
}

// endedKept is how long a session that has run out is remembered: who comes back to it is told so.
const endedKept = 7 * 24 * time.Hour

// SweepSessions ends the sessions that have run out, with an event for each, deletes those that did so long ago, and does
// what SweepLogins does.
func (s *Store) SweepSessions(ctx context.Context, now time.Time) error {
	err := s.endExpired(ctx, now)
	if err == nil {
		_, err = s.pool.Exec(ctx, `DELETE FROM sessions WHERE expires_at < $1`, utc(now.Add(-endedKept)))
	}
	return errors.Join(classify(err), s.SweepLinks(ctx, now), s.SweepLogins(ctx, now))
}

// endPage is how many sessions one transaction ends.
const endPage = 256

func (s *Store) endExpired(ctx context.Context, now time.Time) error {
	for {
		n, err := s.endExpiredPage(ctx, now)
		if err != nil || n < endPage {
			return err
		}
	}
}

// endExpiredPage ends some; others may be at it too, and end others.
func (s *Store) endExpiredPage(ctx context.Context, now time.Time) (n int, err error) {
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		rows, err := tx.Query(ctx, `WITH over AS MATERIALIZED (SELECT session_id FROM sessions
				WHERE expires_at < $1 AND revoked_at IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED)
			UPDATE sessions s SET revoked_at = s.expires_at FROM devices d, over
			WHERE d.device_id = s.device_id AND s.session_id = over.session_id
			RETURNING d.account_id, s.device_id, s.session_id, s.expires_at`, utc(now), endPage)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Event, error) {
			var account, device, session ids.ID
			var at time.Time
			err := row.Scan(&account, &device, &session, &at)
			return audit.SessionEnded(account, device, session, audit.ReasonExpired).At(at), err
		})
		if err != nil {
			return err
		}
		n = len(events)
		return r.send(ctx, &pgx.Batch{}, events...)
	})
	return n, err
}
