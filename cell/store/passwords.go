package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ErrChanged says that what a change was based on is not so any more.
var ErrChanged = errors.New("changed meanwhile")

// RecoveryCode is what is kept of a recovery code. Without WrappedRootKey it is a reset code.
type RecoveryCode struct {
	RecoveryKey    []byte
	WrappedRootKey []byte
}

// Password is a password as OPAQUE registers it, with the root key under it.
type Password struct {
	OPAQUERecord   []byte
	OPAQUEKey      uint32
	WrappedRootKey []byte
}

// Proof is by what a change of an account's secrets was allowed; the change fails when that is so no more.
type Proof struct {
	OPAQUERecord []byte // The password registered so was proven. Nil: a code was.
	RecoveryKey  []byte // This code was proven, and is spent by the change.
}

// prove locks the account and checks that the proof holds still. ErrChanged: it does not; ErrDisabled: the account is.
func (s *Store) prove(ctx context.Context, tx pgx.Tx, account ids.ID, p Proof, now time.Time) error {
	var sealed []byte
	var disabled bool
	if err := tx.QueryRow(ctx, `SELECT opaque_record_sealed, disabled_at IS NOT NULL FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE`, account).Scan(&sealed, &disabled); err != nil {
		return err
	}
	if disabled {
		return ErrDisabled
	}
	if p.RecoveryKey != nil {
		tag, err := tx.Exec(ctx, `DELETE FROM recovery_codes WHERE recovery_key = $1 AND account_id = $2 AND (expires_at IS NULL OR expires_at > $3)`,
			p.RecoveryKey, account, utc(now))
		if err == nil && tag.RowsAffected() != 1 {
			err = ErrChanged
		}
		return err
	}
	record, err := s.sealer.open("accounts.opaque_record", account[:], sealed)
	if err == nil && !bytes.Equal(record, p.OPAQUERecord) {
		err = ErrChanged
	}
	return err
}

// SetPassword replaces an account's password and stores events. When endBut is not nil, it ends the sessions of all the
// account's devices but that one. ErrChanged when the proof holds no more.
func (s *Store) SetPassword(ctx context.Context, account ids.ID, proof Proof, p Password, endBut *ids.ID, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if err := s.prove(ctx, tx, account, proof, now); err != nil {
			return err
		}
		var b pgx.Batch
		s.queuePassword(&b, account, p)
		b.Queue(`DELETE FROM device_links WHERE account_id = $1 AND finished_at IS NULL`, account) // Approved by a proof of before.
		if endBut != nil {
			queueEndSessions(&b, now, `device_id IS DISTINCT FROM $3 AND device_id IN (SELECT device_id FROM devices WHERE account_id = $2)`, account, *endBut)
		}
		return r.send(ctx, &b, events...)
	})
}

func (s *Store) queuePassword(b *pgx.Batch, account ids.ID, p Password) {
	b.Queue(`UPDATE accounts SET opaque_record_sealed = $2, opaque_key_id = $3, wrapped_root_sealed = $4 WHERE account_id = $1`,
		account, s.sealer.seal("accounts.opaque_record", account[:], p.OPAQUERecord), int64(p.OPAQUEKey),
		s.sealer.seal("accounts.wrapped_root", account[:], p.WrappedRootKey))
}

// SetRecoveryCodes replaces an account's recovery codes and stores events. ErrChanged when the proof holds no more,
// ErrExists when a code is there already.
func (s *Store) SetRecoveryCodes(ctx context.Context, account ids.ID, proof Proof, codes []RecoveryCode, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if err := s.prove(ctx, tx, account, proof, now); err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(`DELETE FROM recovery_codes WHERE account_id = $1 AND wrapped_root_sealed IS NOT NULL`, account)
		s.queueCodes(&b, account, codes, now)
		return r.send(ctx, &b, events...)
	})
}

func (s *Store) queueCodes(b *pgx.Batch, account ids.ID, codes []RecoveryCode, now time.Time) {
	for _, c := range codes {
		b.Queue(`INSERT INTO recovery_codes (recovery_key, account_id, wrapped_root_sealed, created_at) VALUES ($1, $2, $3, $4)`,
			c.RecoveryKey, account, s.sealer.seal("recovery_codes.wrapped_root", c.RecoveryKey, c.WrappedRootKey), utc(now))
	}
}

// AddResetCode stores a reset code of an account with events. It replaces an earlier one.
func (s *Store) AddResetCode(ctx context.Context, account ids.ID, recoveryKey []byte, now, expires time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(_ pgx.Tx, r *recording) error {
		var b pgx.Batch
		b.Queue(`DELETE FROM recovery_codes WHERE account_id = $1 AND wrapped_root_sealed IS NULL`, account)
		b.Queue(`INSERT INTO recovery_codes (recovery_key, account_id, created_at, expires_at) VALUES ($1, $2, $3, $4)`,
			recoveryKey, account, utc(now), utc(expires))
		return r.send(ctx, &b, events...)
	})
}

// RecoveryAccount finds the account of a name by one of its codes. ErrNotFound: there is no such code, or it is another
// account's. The code is looked for, not the name: without a code that exists nothing depends on the name.
func (s *Store) RecoveryAccount(ctx context.Context, name string, recoveryKey []byte, now time.Time) (Account, RecoveryCode, error) {
	c := RecoveryCode{RecoveryKey: recoveryKey}
	var id ids.ID
	var index, sealed []byte
	err := s.pool.QueryRow(ctx, `SELECT r.account_id, a.name_index, r.wrapped_root_sealed FROM recovery_codes r JOIN accounts a USING (account_id)
		WHERE r.recovery_key = $1 AND (r.expires_at IS NULL OR r.expires_at > $2)`, recoveryKey, utc(now)).Scan(&id, &index, &sealed)
	switch {
	case err != nil:
		return Account{}, c, classify(err)
	case !bytes.Equal(index, s.sealer.Index("accounts.name", name)):
		return Account{}, c, ErrNotFound
	}
	if sealed != nil {
		if c.WrappedRootKey, err = s.sealer.open("recovery_codes.wrapped_root", recoveryKey, sealed); err != nil {
			return Account{}, c, err
		}
	}
	a, err := s.AccountByID(ctx, id)
	return a, c, err
}

// Reset is an account that starts over.
type Reset struct {
	RecoveryKey   []byte // Of the reset code, which is spent.
	RootKey       ed25519.PublicKey
	Password      Password
	RecoveryCodes []RecoveryCode
	Device        Device // With the account's id.
	Session       Session
	Notice        Notice // For everybody but the account itself.
}

// ResetAccount gives an account another root key and password, with one device and no other, and stores events. The
// devices so far are revoked, as RevokeDevice does it, and recovery codes of the old root key go. The notices that tell of it are
// returned. ErrChanged when the code is there no more, ErrExists when the device's id is taken.
func (s *Store) ResetAccount(ctx context.Context, n *Reset, now time.Time, events ...audit.Event) (notices []*Message, err error) {
	account := n.Device.AccountID
	err = settled(func() error {
		return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
			if err := s.prove(ctx, tx, account, Proof{RecoveryKey: n.RecoveryKey}, now); err != nil {
				return err
			}
			devices, err := devicesOf(ctx, tx, account)
			if err != nil {
				return err
			}
			var b pgx.Batch
			if notices, err = s.tellOfEnd(ctx, tx, &b, &n.Notice, devices); err != nil {
				return err
			}
			queueRevokeDevices(&b, devices, now)
			s.queueReset(&b, n, now)
			return s.addDevice(ctx, r, &b, n.Device, n.Session, events)
		})
	})
	return notices, err
}

func (s *Store) queueReset(b *pgx.Batch, n *Reset, now time.Time) {
	account := n.Device.AccountID
	for _, sql := range []string{`DELETE FROM device_links WHERE account_id = $1`, `DELETE FROM recovery_codes WHERE account_id = $1`,
		`DELETE FROM known_addresses WHERE account_id = $1`} {
		b.Queue(sql, account)
	}
	b.Queue(`UPDATE accounts SET root_key = $2 WHERE account_id = $1`, account, []byte(n.RootKey))
	s.queuePassword(b, account, n.Password)
	s.queueCodes(b, account, n.RecoveryCodes, now)
}

// devicesOf returns all devices of an account that is locked, revoked ones too.
func devicesOf(ctx context.Context, tx pgx.Tx, account ids.ID) ([]ids.ID, error) {
	rows, err := tx.Query(ctx, `SELECT device_id FROM devices WHERE account_id = $1`, account)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[ids.ID])
}

// EndSession ends a session and stores events. Ending it again is no error.
func (s *Store) EndSession(ctx context.Context, id ids.ID, now time.Time, events ...audit.Event) error {
	return s.audited(ctx, func(_ pgx.Tx, r *recording) error {
		var b pgx.Batch
		queueEndSessions(&b, now, `session_id = $2`, id)
		return r.send(ctx, &b, events...)
	})
}
