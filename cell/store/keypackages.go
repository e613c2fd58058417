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
// package replaces the one before. A device that has at least a quarter of most then does not run out of them any longer (LowKeyPackages).
// ErrRevoked: the device was revoked.
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
		b = pgx.Batch{}
		if have >= FewKeyPackages(most) {
			b.Queue(`DELETE FROM key_packages_low WHERE device_id = $1`, device)
		}
		return r.send(ctx, &b, events...)
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

// Claim asks for one KeyPackage of each of an account's devices, except the claimer's own.
type Claim struct {
	Claimer, ClaimerAccount ids.ID // Claimer is the device.
	Request                 ids.ID
	Account                 ids.ID
	Low                     int // A device that is left with fewer one-time packages runs out of them.
	// In an hour, claims of the account by the claimer's, and by all. 0: no limit.
	PerClaimer, PerTarget int
	At                    time.Time
}

// ErrClaimsTooMuch says that an account's KeyPackages were claimed too often of late.
var ErrClaimsTooMuch = errors.New("too many claims")

// ClaimKeyPackages hands out one package of each of the account's devices, except the claimer: a one-time package for good,
// else the last-resort one. The same claimer and request id are handed the same packages again; that there were none
// is not remembered. What events make of the packages is stored with a claim that is not a repeated one.
func (s *Store) ClaimKeyPackages(ctx context.Context, c *Claim, events ...func([]KeyPackage) audit.Event) ([]KeyPackage, error) {
	claimer, request, account, now := c.Claimer, c.Request, c.Account, c.At
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
		if err := c.limit(ctx, tx); err != nil {
			return err
		}
		if claimed, err = claim(ctx, tx, account, claimer, now); err != nil {
			return err
		}
		if len(claimed) == 0 {
			return errNothing // Roll back.
		}
		var b pgx.Batch
		rememberClaim(&b, claimer, request, claimed)
		queueLow(&b, claimed, c.Low, now)
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

// limit counts the claims of the last hour, this one among them.
func (c *Claim) limit(ctx context.Context, tx pgx.Tx) error {
	if c.PerClaimer == 0 && c.PerTarget == 0 {
		return nil
	}
	var all, own int
	if err := tx.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE d.account_id = $2) FROM key_package_claims k JOIN devices d ON d.device_id = k.claimer_id
		WHERE k.account_id = $1 AND k.claimed_at > $3`, c.Account, c.ClaimerAccount, utc(c.At.Add(-time.Hour))).Scan(&all, &own); err != nil {
		return err
	}
	if c.PerClaimer > 0 && own > c.PerClaimer || c.PerTarget > 0 && all > c.PerTarget {
		return ErrClaimsTooMuch
	}
	return nil
}

// queueLow marks devices that are left with fewer than low one-time packages.
func queueLow(b *pgx.Batch, claimed []KeyPackage, low int, now time.Time) {
	devices := make([]ids.ID, len(claimed))
	for i := range claimed {
		devices[i] = claimed[i].DeviceID
	}
	b.Queue(`INSERT INTO key_packages_low (device_id) SELECT d FROM unnest($1::uuid[]) AS d
		WHERE (SELECT count(*) FROM key_packages k WHERE k.device_id = d AND NOT k.last_resort AND k.expires_at > $3) < $2 ON CONFLICT DO NOTHING`, devices, low, utc(now))
}

// FewKeyPackages is how many one-time packages a device should have at least that may have most: a quarter.
func FewKeyPackages(most int) int { return (most + 3) / 4 }

// KeyPackagesLeft is what a device has left.
type KeyPackagesLeft struct {
	OneTime    int
	LastResort time.Time // When the last-resort package expires; zero: there is none.
}

// LowKeyPackages returns those of the devices whose one-time packages run out, with what they have left.
func (s *Store) LowKeyPackages(ctx context.Context, devices []ids.ID) (map[ids.ID]KeyPackagesLeft, error) {
	rows, err := s.pool.Query(ctx, `SELECT l.device_id, count(*) FILTER (WHERE NOT k.last_resort), max(k.expires_at) FILTER (WHERE k.last_resort)
		FROM key_packages_low l LEFT JOIN key_packages k ON k.device_id = l.device_id AND k.expires_at > now() WHERE l.device_id = ANY ($1) GROUP BY l.device_id`, devices)
	if err != nil {
		return nil, classify(err)
	}
	found := map[ids.ID]KeyPackagesLeft{}
	var id ids.ID
	var left int
	var expiry *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &left, &expiry}, func() error {
		one := KeyPackagesLeft{OneTime: left}
		if expiry != nil {
			one.LastResort = *expiry
		}
		found[id], expiry = one, nil
		return nil
	})
	return found, classify(err)
}

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

// SweepKeyPackages deletes packages that expired before now, and claims made before claimsBefore. Devices that are left
// with fewer than low one-time packages by it run out of them.
func (s *Store) SweepKeyPackages(ctx context.Context, now, claimsBefore time.Time, low int) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`WITH gone AS (DELETE FROM key_packages WHERE expires_at <= $1 RETURNING device_id, last_resort)
			INSERT INTO key_packages_low (device_id) SELECT g.device_id FROM gone g JOIN devices d USING (device_id) WHERE NOT g.last_resort AND d.revoked_at IS NULL
				GROUP BY g.device_id HAVING (SELECT count(*) FROM key_packages k WHERE k.device_id = g.device_id AND NOT k.last_resort AND k.expires_at > $1) < $2 ON CONFLICT DO NOTHING`,
			utc(now), low)
		b.Queue(`DELETE FROM key_packages_seen WHERE expires_at <= $1`, utc(now))
		b.Queue(`DELETE FROM key_package_claims WHERE claimed_at <= $1`, utc(claimsBefore))
		return tx.SendBatch(ctx, &b).Close()
	})
}
