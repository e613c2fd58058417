package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ErrRevoked says that a device was revoked.
var ErrRevoked = errors.New("the device was revoked")

// Devices returns the devices of an account that are not revoked, in the order of their addition.
func (s *Store) Devices(ctx context.Context, account ids.ID) ([]Device, error) {
	rows, err := s.pool.Query(ctx, selectDevice+` WHERE account_id = $1 AND revoked_at IS NULL ORDER BY created_at, device_id`, account)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Device, error) { return s.device(row) })
	return list, classify(err)
}

// RenameDevice gives a device of an account another name and stores events. ErrNotFound: the account has no such device,
// or it was revoked.
func (s *Store) RenameDevice(ctx context.Context, account, device ids.ID, name string, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		tag, err := tx.Exec(ctx, `UPDATE devices SET name_sealed = $3 WHERE device_id = $1 AND account_id = $2 AND revoked_at IS NULL`,
			device, account, s.sealer.seal("devices.name", device[:], []byte(name)))
		if err != nil {
			return err
		}
		if tag.RowsAffected() != 1 {
			return ErrNotFound
		}
		return r.send(ctx, &pgx.Batch{}, events...)
	})
}

// DeviceSeen notes that a device was seen on a day.
func (s *Store) DeviceSeen(ctx context.Context, device ids.ID, day time.Time) error {
	_, err := s.pool.Exec(ctx, `UPDATE devices SET last_seen = $2 WHERE device_id = $1 AND (last_seen IS NULL OR last_seen < $2)`, device, day)
	return classify(err)
}

// RevokeDevice ends a device of an account for good and stores events: its sessions, its KeyPackages and what it has
// claimed, its place in its channels, and what waits in its inbox. No message that it sends is stored after that. Whoever n.told
// names is told; these notices are returned. proof, if not nil, is by what it is allowed. A device that is revoked
// already stays so, and nothing is stored. ErrNotFound: the account has no such device; ErrChanged: the proof holds no more.
func (s *Store) RevokeDevice(ctx context.Context, n *Notice, proof *Proof, events ...audit.Event) (notices []*Message, err error) {
	err = settled(func() error {
		return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
			notices = nil
			if err := s.mayRevoke(ctx, tx, n, proof); err != nil {
				return err
			}
			var b pgx.Batch
			told, err := s.tellOfEnd(ctx, tx, &b, n, []ids.ID{n.Device})
			if err != nil {
				return err
			}
			revoked, err := lockDevice(ctx, tx, n.Account, n.Device)
			if err != nil || revoked {
				return err
			}
			queueRevokeDevices(&b, []ids.ID{n.Device}, n.At)
			b.Queue(`DELETE FROM device_links WHERE account_id = $1 AND finished_at IS NULL`, n.Account)
			notices = told
			return r.send(ctx, &b, events...)
		})
	})
	if err != nil {
		return nil, err
	}
	return notices, nil
}

// mayRevoke locks the account.
func (s *Store) mayRevoke(ctx context.Context, tx pgx.Tx, n *Notice, proof *Proof) error {
	if proof != nil {
		return s.prove(ctx, tx, n.Account, *proof, n.At)
	}
	_, err := tx.Exec(ctx, `SELECT FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE`, n.Account)
	return err
}

func lockDevice(ctx context.Context, tx pgx.Tx, account, device ids.ID) (revoked bool, err error) {
	err = tx.QueryRow(ctx, `SELECT revoked_at IS NOT NULL FROM devices WHERE device_id = $1 AND account_id = $2 FOR NO KEY UPDATE`, device, account).Scan(&revoked)
	return revoked, err
}

// errUnsettled says that what is to be locked has changed since it was looked up; then nothing was done.
var errUnsettled = errors.New("something was added meanwhile")

// settled calls f again while it finds that.
func settled(f func() error) error {
	const tries = 5
	for range tries {
		if err := f(); !errors.Is(err, errUnsettled) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errUnsettled)
}

// tellOfEnd queues notices, and locks the inboxes of devices that end and the channels in which they may write: what they have
// sent by then is stored, and what they send on is judged by who can still write once the transaction has ended. Nobody adds
// a device to a channel whose inbox is locked.
func (s *Store) tellOfEnd(ctx context.Context, tx pgx.Tx, b *pgx.Batch, n *Notice, devices []ids.ID) ([]*Message, error) {
	channels, err := channelsOf(ctx, tx, devices)
	if err != nil {
		return nil, err
	}
	notices, heads, err := s.queueNotices(ctx, tx, b, n, slices.Concat(devices, channels)...)
	if err != nil {
		return nil, err
	}
	return notices, allLocked(ctx, tx, heads, devices)
}

// lockEnding locks the inboxes and the channels of devices that end, as tellOfEnd does.
func lockEnding(ctx context.Context, tx pgx.Tx, devices []ids.ID) error {
	channels, err := channelsOf(ctx, tx, devices)
	if err != nil {
		return err
	}
	heads, err := lockHeads(ctx, tx, slices.Concat(devices, channels))
	if err != nil {
		return err
	}
	return allLocked(ctx, tx, heads, devices)
}

// allLocked reports errUnsettled if devices whose inboxes are locked have come into further channels before that.
func allLocked(ctx context.Context, tx pgx.Tx, heads map[ids.ID]*head, devices []ids.ID) error {
	channels, err := channelsOf(ctx, tx, devices)
	if err != nil {
		return err
	}
	for _, c := range channels {
		if _, locked := heads[c]; !locked { // To lock it now, behind others, would be another order than everybody's.
			return errUnsettled
		}
	}
	return nil
}

func channelsOf(ctx context.Context, tx pgx.Tx, devices []ids.ID) ([]ids.ID, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT channel_id FROM cursors WHERE device_id = ANY ($1)`, devices)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[ids.ID])
}

// queueRevokeDevices revokes devices whose inboxes and channels are locked.
func queueRevokeDevices(b *pgx.Batch, devices []ids.ID, at time.Time) {
	queueRemoveFirst(b, devices...)
	b.Queue(`WITH gone AS (UPDATE devices SET revoked_at = $2 WHERE device_id = ANY ($1) AND revoked_at IS NULL RETURNING device_id)
		INSERT INTO revocations (kind, subject, at) SELECT 2, device_id, $2 FROM gone`, devices, utc(at))
	queueEndSessions(b, at, `device_id = ANY ($2)`, devices)
	b.Queue(`DELETE FROM key_packages WHERE device_id = ANY ($1)`, devices)
	b.Queue(`DELETE FROM key_package_claims WHERE claimer_id = ANY ($1)`, devices)
	b.Queue(`WITH mine AS (SELECT device_id, channel_id FROM cursors WHERE device_id = ANY ($1) ORDER BY device_id, channel_id FOR UPDATE)
		DELETE FROM cursors k USING mine WHERE k.device_id = mine.device_id AND k.channel_id = mine.channel_id`, devices)
	b.Queue(`DELETE FROM messages WHERE channel_id = ANY ($1)`, devices)
}
