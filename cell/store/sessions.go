package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

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

// CreateSession stores a further session of a device and ends its earlier ones.
func (s *Store) CreateSession(ctx context.Context, n Session) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`UPDATE sessions SET revoked_at = $2 WHERE device_id = $1 AND revoked_at IS NULL`, n.DeviceID, utc(n.CreatedAt))
		queueSession(&b, n)
		return tx.SendBatch(ctx, &b).Close()
	})
}

// UpdateSession reads a session under lock and stores what change makes of it. When change returns revoke, the
// session is revoked instead and stays so; change's error is returned either way.
func (s *Store) UpdateSession(ctx context.Context, id ids.ID, now time.Time, change func(*Session) (revoke bool, err error)) error {
	var verdict error
	err := s.tx(ctx, func(tx pgx.Tx) error {
		n := Session{ID: id}
		if err := tx.QueryRow(ctx, `SELECT device_id, refresh_hash, previous_hash, created_at, expires_at, revoked_at IS NOT NULL
			FROM sessions WHERE session_id = $1 FOR UPDATE`, id).
			Scan(&n.DeviceID, &n.RefreshHash, &n.PreviousHash, &n.CreatedAt, &n.ExpiresAt, &n.Revoked); err != nil {
			return err
		}
		revoke, err := change(&n)
		verdict = err
		switch {
		case revoke:
			_, err = tx.Exec(ctx, `UPDATE sessions SET revoked_at = $2 WHERE session_id = $1`, id, utc(now))
		case err == nil:
			_, err = tx.Exec(ctx, `UPDATE sessions SET refresh_hash = $2, previous_hash = $3, expires_at = $4 WHERE session_id = $1`,
				id, n.RefreshHash, n.PreviousHash, utc(n.ExpiresAt))
		default:
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return verdict
}

// SweepSessions deletes sessions that ended before now.
func (s *Store) SweepSessions(ctx context.Context, now time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE expires_at < $1`, utc(now))
	return classify(err)
}
