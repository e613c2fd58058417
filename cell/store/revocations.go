package store

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// RevocationKind says what was revoked.
type RevocationKind int16

// The kinds, as stored.
const (
	RevokedSession RevocationKind = 1
	RevokedDevice  RevocationKind = 2
	RevokedAccount RevocationKind = 3 // With the sessions it had.
	// RestoredAccount takes RevokedAccount back. Sessions of before stay revoked.
	RestoredAccount RevocationKind = 4
)

// Revocation is a row of revocations.
type Revocation struct {
	ID      uint64 // In the order of what happens to one subject.
	Kind    RevocationKind
	Subject ids.ID
	At      time.Time
}

// queueRevocation has every server refuse the subject's access tokens and end its connections, once the batch's
// transaction has committed. The rows of an account's sessions are still there when RevokedAccount is queued.
func queueRevocation(b *pgx.Batch, kind RevocationKind, subject ids.ID, at time.Time) {
	b.Queue(`INSERT INTO revocations (kind, subject, at) VALUES ($1, $2, $3)`, kind, subject, utc(at))
	if kind == RevokedAccount {
		b.Queue(`INSERT INTO revocations (kind, subject, at) SELECT 1, session_id, $2 FROM sessions JOIN devices USING (device_id)
			WHERE account_id = $1 AND expires_at > $2`, subject, utc(at))
	}
}

// queueEndSessions ends the sessions that a condition names, whose arguments are $2 and on, and has every server know.
func queueEndSessions(b *pgx.Batch, at time.Time, condition string, args ...any) {
	b.Queue(`WITH ended AS (UPDATE sessions SET revoked_at = $1 WHERE revoked_at IS NULL AND `+condition+` RETURNING session_id, expires_at)
		INSERT INTO revocations (kind, subject, at) SELECT 1, session_id, $1 FROM ended WHERE expires_at > $1`, append([]any{utc(at)}, args...)...)
}

// Horizon divides transactions into those that have ended for certain and the others. The zero value is before all.
type Horizon uint64

// Revocations returns what was revoked by transactions at or after a horizon, in order, and the horizon to ask from next:
// no transaction is missed that commits late, and some are returned twice.
func (s *Store) Revocations(ctx context.Context, since Horizon) ([]Revocation, Horizon, error) {
	rows, err := s.urgent.Query(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, r.revocation_id, r.kind, r.subject, r.at
		FROM (SELECT 1) one LEFT JOIN revocations r ON r.added_by >= $1::text::xid8 ORDER BY r.revocation_id`, strconv.FormatUint(uint64(since), 10))
	if err != nil {
		return nil, 0, classify(err)
	}
	var next int64
	var id *uint64
	var kind *RevocationKind
	var subject *ids.ID
	var at *time.Time
	var list []Revocation
	_, err = pgx.ForEachRow(rows, []any{&next, &id, &kind, &subject, &at}, func() error {
		if id != nil {
			list = append(list, Revocation{*id, *kind, *subject, *at})
		}
		return nil
	})
	return list, Horizon(next), classify(err) //nolint:gosec // transactions are numbered from 3.
}

// SweepRevocations deletes what was revoked before a time: no access token from before it is valid any more.
func (s *Store) SweepRevocations(ctx context.Context, before time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM revocations WHERE at < $1`, utc(before))
	return classify(err)
}
