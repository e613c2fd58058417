package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// SetDisabled shuts an account out, or lets it in again, and stores events. Its sessions end, and none begins until it
// is let in; its KeyPackages stay, and are handed out to nobody meanwhile. An account that is so already stays so, and nothing is stored.
// ErrNotFound: there is no such account.
func (s *Store) SetDisabled(ctx context.Context, account ids.ID, disabled bool, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		var was bool
		if err := tx.QueryRow(ctx, `SELECT disabled_at IS NOT NULL FROM accounts WHERE account_id = $1 AND deleting_at IS NULL FOR NO KEY UPDATE`, account).Scan(&was); err != nil {
			return err
		}
		if was == disabled {
			return nil
		}
		var b pgx.Batch
		if disabled {
			queueRevocation(&b, RevokedAccount, account, now)
			b.Queue(`UPDATE sessions SET revoked_at = $2 WHERE revoked_at IS NULL AND device_id IN (SELECT device_id FROM devices WHERE account_id = $1)`, account, utc(now))
			b.Queue(`DELETE FROM device_links WHERE account_id = $1 AND finished_at IS NULL`, account)
			b.Queue(`UPDATE accounts SET disabled_at = $2 WHERE account_id = $1`, account, utc(now))
		} else {
			queueRevocation(&b, RestoredAccount, account, now)
			b.Queue(`UPDATE accounts SET disabled_at = NULL WHERE account_id = $1`, account)
		}
		return r.send(ctx, &b, events...)
	})
}

// EndSessions ends the sessions of all devices of an account and stores events. ErrNotFound: there is no such account.
func (s *Store) EndSessions(ctx context.Context, account ids.ID, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		var id ids.ID
		if err := tx.QueryRow(ctx, `SELECT account_id FROM accounts WHERE account_id = $1 AND deleting_at IS NULL FOR NO KEY UPDATE`, account).Scan(&id); err != nil {
			return err
		}
		var b pgx.Batch
		queueEndSessions(&b, now, `device_id IN (SELECT device_id FROM devices WHERE account_id = $2)`, account)
		return r.send(ctx, &b, events...)
	})
}
