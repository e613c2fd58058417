package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ErrTooMany says that a device would keep more KeyPackages than it may, or an account more devices.
var ErrTooMany = errors.New("too many")

// KeyPackage is a KeyPackage to store or one that was claimed.
type KeyPackage struct {
	DeviceID   ids.ID
	Ref        []byte // RFC 9420 §5.2.
	InitKey    []byte
	LastResort bool
	ExpiresAt  time.Time
	Package    []byte // MLSMessage.
}

// AddKeyPackages stores a device's KeyPackages with events, all or none. ErrExists when one, or its init key, was ever stored
// before; ErrTooMany when the device would then have more than most unexpired one-time packages. A last-resort
// package replaces the one before. ErrRevoked: the device was revoked.
func (s *Store) AddKeyPackages(ctx context.Context, device ids.ID, packages []KeyPackage, most int, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		var revoked bool
		err := tx.QueryRow(ctx, `SELECT revoked_at IS NOT NULL FROM devices WHERE device_id = $1 FOR NO KEY UPDATE`, device).Scan(&revoked)
		switch {
		case err != nil:
			return err
		case revoked:
			return ErrRevoked
		}
		var b pgx.Batch
		for _, p := range packages {
			if p.LastResort {
				b.Queue(`DELETE FROM key_packages WHERE device_id = $1 AND last_resort`, device)
			}
			b.Queue(`INSERT INTO key_packages_seen (ref, init_key, expires_at) VALUES ($1, $2, $3)`, p.Ref, p.InitKey, utc(p.ExpiresAt))
			b.Queue(`INSERT INTO key_packages (ref, device_id, last_resort, expires_at, package) VALUES ($1, $2, $3, $4, $5)`,
				p.Ref, device, p.LastResort, utc(p.ExpiresAt), p.Package)
		}
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM key_packages WHERE device_id = $1 AND NOT last_resort AND expires_at > $2`,
			device, utc(now)).Scan(&have); err != nil {
			return err
		}
		if have > most {
			return ErrTooMany
		}
		return r.send(ctx, &pgx.Batch{}, events...)
	})
}

// KeyPackageStatus returns how many unexpired one-time packages a device has, and when its last-resort package
// expires: the zero time when it has none.
func (s *Store) KeyPackageStatus(ctx context.Context, device ids.ID, now time.Time) (oneTime int, lastResort time.Time, err error) {
	var expiry *time.Time
	err = s.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE NOT last_resort), max(expires_at) FILTER (WHERE last_resort)
		FROM key_packages WHERE device_id = $1 AND expires_at > $2`, device, utc(now)).Scan(&oneTime, &expiry)
	if expiry != nil {
		lastResort = *expiry
	}
	return oneTime, lastResort, classify(err)
}

// ClaimKeyPackages hands out one package of each of the account's devices, except skip: a one-time package for good,
// else the last-resort one. The same claimer and request id are handed the same packages again; that there were none
// is not remembered. What events make of the packages is stored with a claim that is not a repeated one.
func (s *Store) ClaimKeyPackages(ctx context.Context, claimer, request, account, skip ids.ID, now time.Time, events ...func([]KeyPackage) audit.Event) ([]KeyPackage, error) {
	var claimed []KeyPackage
	err := s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		// The row is the lock: a second request with the same id waits here for the first to end.
		tag, err := tx.Exec(ctx, `INSERT INTO key_package_claims (claimer_id, request_id, account_id, device_ids, packages, last_resort, claimed_at)
			VALUES ($1, $2, $3, '{}', '{}', '{}', $4) ON CONFLICT DO NOTHING`, claimer, request, account, utc(now))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			claimed, err = earlierClaim(ctx, tx, claimer, request, account)
			return err
		}
		if claimed, err = claim(ctx, tx, account, skip, now); err != nil {
			return err
		}
		if len(claimed) == 0 {
			return errNothing // Roll back.
		}
		var b pgx.Batch
		rememberClaim(&b, claimer, request, claimed)
		for _, e := range events {
			if err := r.queue(ctx, &b, e(claimed)); err != nil {
				return err
			}
		}
		return r.send(ctx, &b)
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	return claimed, err
}

var errNothing = errors.New("there is nothing to claim")

func earlierClaim(ctx context.Context, tx pgx.Tx, claimer, request, account ids.ID) ([]KeyPackage, error) {
	var of ids.ID
	var devices []ids.ID
	var packages [][]byte
	var lastResort []bool
	if err := tx.QueryRow(ctx, `SELECT account_id, device_ids, packages, last_resort FROM key_package_claims
		WHERE claimer_id = $1 AND request_id = $2`, claimer, request).Scan(&of, &devices, &packages, &lastResort); err != nil {
		return nil, err
	}
	if of != account {
		return nil, ErrExists
	}
	claimed := make([]KeyPackage, len(devices))
	for i := range devices {
		claimed[i] = KeyPackage{DeviceID: devices[i], Package: packages[i], LastResort: lastResort[i]}
	}
	return claimed, nil
}

func claim(ctx context.Context, tx pgx.Tx, account, skip ids.ID, now time.Time) ([]KeyPackage, error) {
	rows, err := tx.Query(ctx, `SELECT device_id FROM devices JOIN accounts USING (account_id)
		WHERE account_id = $1 AND device_id <> $2 AND revoked_at IS NULL AND disabled_at IS NULL AND deleting_at IS NULL ORDER BY device_id`, account, skip)
	if err != nil {
		return nil, err
	}
	devices, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	if err != nil {
		return nil, err
	}
	var claimed []KeyPackage
	for _, d := range devices {
		p, err := claimOne(ctx, tx, d, now)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, p)
	}
	return claimed, nil
}

// claimOne takes a one-time package away, skipping those that another claim holds, else reads the last-resort one.
func claimOne(ctx context.Context, tx pgx.Tx, device ids.ID, now time.Time) (KeyPackage, error) {
	p := KeyPackage{DeviceID: device}
	err := tx.QueryRow(ctx, `DELETE FROM key_packages WHERE ref = (SELECT ref FROM key_packages
		WHERE device_id = $1 AND NOT last_resort AND expires_at > $2 ORDER BY expires_at LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING package`, device, utc(now)).Scan(&p.Package)
	if !errors.Is(err, pgx.ErrNoRows) {
		return p, err
	}
	p.LastResort = true
	err = tx.QueryRow(ctx, `SELECT package FROM key_packages WHERE device_id = $1 AND last_resort AND expires_at > $2`, device, utc(now)).Scan(&p.Package)
	return p, err
}

func rememberClaim(b *pgx.Batch, claimer, request ids.ID, claimed []KeyPackage) {
	devices, packages, lastResort := make([]ids.ID, len(claimed)), make([][]byte, len(claimed)), make([]bool, len(claimed))
	for i, p := range claimed {
		devices[i], packages[i], lastResort[i] = p.DeviceID, p.Package, p.LastResort
	}
	b.Queue(`UPDATE key_package_claims SET device_ids = $3, packages = $4, last_resort = $5
		WHERE claimer_id = $1 AND request_id = $2`, claimer, request, devices, packages, lastResort)
}

// SweepKeyPackages deletes packages that expired before now, and claims made before claimsBefore.
func (s *Store) SweepKeyPackages(ctx context.Context, now, claimsBefore time.Time) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`DELETE FROM key_packages WHERE expires_at <= $1`, utc(now))
		b.Queue(`DELETE FROM key_packages_seen WHERE expires_at <= $1`, utc(now))
		b.Queue(`DELETE FROM key_package_claims WHERE claimed_at <= $1`, utc(claimsBefore))
		return tx.SendBatch(ctx, &b).Close()
	})
}
