package store

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Account is a row of accounts, opened.
type Account struct {
	ID             ids.ID
	Name           string // Prepared.
	RootKey        ed25519.PublicKey
	OPAQUERecord   []byte
	OPAQUEKey      uint32 // Of the cell's OPAQUE keys that the record is registered under.
	WrappedRootKey []byte
	CreatedAt      time.Time
	Disabled       bool // An admin has shut it out.

	// Only CreateAccount looks at these.
	Skeleton      string // What the name looks like; no other account's may look the same.
	Invitation    []byte // Hash of the invitation that is spent; nil: none.
	RecoveryCodes []RecoveryCode
}

// Device is a row of devices, opened.
type Device struct {
	ID, AccountID ids.ID
	Key           ed25519.PublicKey
	Certificate   []byte
	Name          string
	CreatedAt     time.Time
	LastSeen      time.Time // To the day; zero: never.
	Revoked       bool
	Disabled      bool // Its account is.
}

// CreateAccount stores an account with its first device, the device's inbox, a session and events, all or nothing.
// ErrExists when the name, what it looks like, or one of the ids is taken; ErrNoInvitation when there is none such.
func (s *Store) CreateAccount(ctx context.Context, a Account, d Device, session Session, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if a.Invitation != nil {
			if err := spendInvitation(ctx, tx, a.Invitation, a.CreatedAt); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO accounts (account_id, name_index, name_sealed, root_key, opaque_record_sealed, wrapped_root_sealed, created_at,
			opaque_key_id, skeleton_index) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			a.ID, s.sealer.Index("accounts.name", a.Name), s.sealer.seal("accounts.name", a.ID[:], []byte(a.Name)), []byte(a.RootKey),
			s.sealer.seal("accounts.opaque_record", a.ID[:], a.OPAQUERecord),
			s.sealer.seal("accounts.wrapped_root", a.ID[:], a.WrappedRootKey), utc(a.CreatedAt), int64(a.OPAQUEKey), s.skeletonIndex(a.Skeleton))
		if err != nil {
			return err
		}
		var b pgx.Batch
		r.newSubject(&b, a.ID)
		s.queueCodes(&b, a.ID, a.RecoveryCodes, a.CreatedAt)
		return s.addDevice(ctx, r, &b, d, session, events)
	})
}

// AddDevice stores a further device with its inbox, a session and events, and tells of it by n; these notices are
// returned. ErrExists when the id is taken, ErrTooMany when the account has most devices already that are not revoked, ErrDisabled when it is disabled.
func (s *Store) AddDevice(ctx context.Context, d Device, session Session, most int, n *Notice, events ...audit.Event) (notices []*Message, err error) {
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) (err error) {
		if err := lockEnabled(ctx, tx, d.AccountID); err != nil {
			return err
		}
		notices, err = s.addFurther(ctx, tx, r, &pgx.Batch{}, d, session, most, n, events)
		return err
	})
	return notices, err
}

// addFurther adds a device to an account that is locked.
func (s *Store) addFurther(ctx context.Context, tx pgx.Tx, r *recording, b *pgx.Batch, d Device, session Session, most int, n *Notice, events []audit.Event) ([]*Message, error) {
	var have int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM devices WHERE account_id = $1 AND revoked_at IS NULL`, d.AccountID).Scan(&have); err != nil {
		return nil, err
	}
	if have >= most {
		return nil, ErrTooMany
	}
	notices, _, err := s.queueNotices(ctx, tx, b, n)
	if err != nil {
		return nil, err
	}
	return notices, s.addDevice(ctx, r, b, d, session, events)
}

func (s *Store) addDevice(ctx context.Context, r *recording, b *pgx.Batch, d Device, session Session, events []audit.Event) error {
	b.Queue(`INSERT INTO devices (device_id, account_id, device_key, certificate, name_sealed, created_at, last_seen) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		d.ID, d.AccountID, []byte(d.Key), d.Certificate, s.sealer.seal("devices.name", d.ID[:], []byte(d.Name)), utc(d.CreatedAt), utc(d.CreatedAt))
	b.Queue(`INSERT INTO channels (channel_id, kind, created_at) VALUES ($1, $2, $3)`, d.ID, ChannelInbox, utc(d.CreatedAt))
	b.Queue(`INSERT INTO cursors (device_id, channel_id, acked_seq) VALUES ($1, $1, 0)`, d.ID)
	queueSession(b, session)
	return r.send(ctx, b, events...)
}

// The key of the account's pseudonyms comes along: were it asked for when a login fails, a name that exists would be
// answered later than one that does not.
const selectAccount = `SELECT account_id, name_sealed, root_key, opaque_record_sealed, wrapped_root_sealed, created_at, disabled_at IS NOT NULL, key_sealed
	FROM accounts LEFT JOIN audit_subjects USING (account_id) WHERE deleting_at IS NULL`

// AccountByName finds an account by its prepared name.
func (s *Store) AccountByName(ctx context.Context, name string) (Account, error) {
	return s.account(s.pool.QueryRow(ctx, selectAccount+` AND name_index = $1`, s.sealer.Index("accounts.name", name)))
}

// AccountByID finds an account by its id.
func (s *Store) AccountByID(ctx context.Context, id ids.ID) (Account, error) {
	return s.account(s.pool.QueryRow(ctx, selectAccount+` AND account_id = $1`, id))
}

func (s *Store) account(row pgx.Row) (Account, error) {
	var a Account
	var name, record, wrapped, subject []byte
	if err := row.Scan(&a.ID, &name, &a.RootKey, &record, &wrapped, &a.CreatedAt, &a.Disabled, &subject); err != nil {
		return Account{}, classify(err)
	}
	plain, err := s.openAll(a.ID, map[string][]byte{"accounts.name": name, "accounts.opaque_record": record, "accounts.wrapped_root": wrapped})
	if err != nil {
		return Account{}, err
	}
	a.Name, a.OPAQUERecord, a.WrappedRootKey = string(plain["accounts.name"]), plain["accounts.opaque_record"], plain["accounts.wrapped_root"]
	if s.audit == nil || subject == nil {
		return a, nil
	}
	k, err := s.openSubject(a.ID, subject)
	if err != nil {
		return Account{}, err
	}
	s.audit.subjects.put(a.ID, k)
	return a, nil
}

// openAll opens the sealed columns of one row.
func (s *Store) openAll(row ids.ID, sealed map[string][]byte) (map[string][]byte, error) {
	for place, b := range sealed {
		plain, err := s.sealer.open(place, row[:], b)
		if err != nil {
			return nil, err
		}
		sealed[place] = plain
	}
	return sealed, nil
}

const selectDevice = `SELECT device_id, account_id, device_key, certificate, name_sealed, created_at, last_seen, revoked_at IS NOT NULL,
	(SELECT disabled_at IS NOT NULL FROM accounts a WHERE a.account_id = devices.account_id) FROM devices`

// Device finds a device by its id, revoked or not.
func (s *Store) Device(ctx context.Context, id ids.ID) (Device, error) {
	d, err := s.device(s.pool.QueryRow(ctx, selectDevice+` WHERE device_id = $1`, id))
	return d, classify(err)
}

func (s *Store) device(row pgx.Row) (Device, error) {
	var d Device
	var name []byte
	var seen *time.Time
	if err := row.Scan(&d.ID, &d.AccountID, &d.Key, &d.Certificate, &name, &d.CreatedAt, &seen, &d.Revoked, &d.Disabled); err != nil {
		return Device{}, err
	}
	if seen != nil {
		d.LastSeen = *seen
	}
	plain, err := s.sealer.open("devices.name", d.ID[:], name)
	d.Name = string(plain)
	return d, err
}

// DeviceAccounts returns the account of each of the devices that exists and is not revoked.
func (s *Store) DeviceAccounts(ctx context.Context, devices []ids.ID) (map[ids.ID]ids.ID, error) {
	return queryMap[ids.ID](ctx, s, `SELECT device_id, account_id FROM devices WHERE device_id = ANY ($1) AND revoked_at IS NULL`, devices)
}
