package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// AddInvitation stores the hash of an invitation with events.
func (s *Store) AddInvitation(ctx context.Context, hash []byte, now, expires time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(_ pgx.Tx, r *recording) error {
		var b pgx.Batch
		b.Queue(`INSERT INTO invitations (code_hash, created_at, expires_at) VALUES ($1, $2, $3)`, hash, utc(now), utc(expires))
		return r.send(ctx, &b, events...)
	})
}

// HasInvitation reports whether an invitation can be used.
func (s *Store) HasInvitation(ctx context.Context, hash []byte, now time.Time) (bool, error) {
	var has bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM invitations WHERE code_hash = $1 AND expires_at > $2)`, hash, utc(now)).Scan(&has)
	return has, classify(err)
}

// ErrNoInvitation says that an account was to be made by an invitation that is none, was used, or has expired.
var ErrNoInvitation = errors.New("no such invitation")

func spendInvitation(ctx context.Context, tx pgx.Tx, hash []byte, now time.Time) error {
	tag, err := tx.Exec(ctx, `DELETE FROM invitations WHERE code_hash = $1 AND expires_at > $2`, hash, utc(now))
	if err == nil && tag.RowsAffected() != 1 {
		err = ErrNoInvitation
	}
	return err
}

// SetSkeleton stores what the name of an account looks like, for one that is older than that. ErrExists when another
// account looks the same; both stay as they are.
func (s *Store) SetSkeleton(ctx context.Context, account ids.ID, skeleton string) error {
	_, err := s.pool.Exec(ctx, `UPDATE accounts SET skeleton_index = $2 WHERE account_id = $1 AND skeleton_index IS NULL`,
		account, s.skeletonIndex(skeleton))
	return classify(err)
}

// skeletonIndex is null for an empty one.
func (s *Store) skeletonIndex(skeleton string) []byte {
	if skeleton == "" {
		return nil
	}
	return s.sealer.Index("accounts.skeleton", skeleton)
}
