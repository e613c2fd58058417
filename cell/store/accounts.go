package store

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// Account is a row of accounts, opened.
type Account struct {
	ID             ids.ID
	Name           string // Prepared.
	RootKey        ed25519.PublicKey
	OPAQUERecord   []byte
	WrappedRootKey []byte
	CreatedAt      time.Time
}

// Device is a row of devices, opened.
type Device struct {
	ID, AccountID ids.ID
	Key           ed25519.PublicKey
	Certificate   []byte
	Name          string
	CreatedAt     time.Time
	Revoked       bool
}

// CreateAccount stores an account with its first device, the device's inbox and a session, all or nothing. ErrExists
// when the name or one of the ids is taken.
func (s *Store) CreateAccount(ctx context.Context, a Account, d Device, session Session) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO accounts (account_id, name_index, name_sealed, root_key, opaque_record_sealed, wrapped_root_sealed, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			a.ID, s.sealer.Index("accounts.name", a.Name), s.sealer.seal("accounts.name", a.ID[:], []byte(a.Name)), []byte(a.RootKey),
			s.sealer.seal("accounts.opaque_record", a.ID[:], a.OPAQUERecord),
			s.sealer.seal("accounts.wrapped_root", a.ID[:], a.WrappedRootKey), utc(a.CreatedAt))
		if err != nil {
			return err
		}
		return s.addDevice(ctx, tx, d, session)
	})
}

// AddDevice stores a further device with its inbox and a session. ErrExists when the id is taken, ErrTooMany when the
// account has most devices already that are not revoked.
func (s *Store) AddDevice(ctx context.Context, d Device, session Session, most int) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE`, d.AccountID); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM devices WHERE account_id = $1 AND revoked_at IS NULL`, d.AccountID).Scan(&have); err != nil {
			return err
		}
		if have >= most {
			return ErrTooMany
		}
		return s.addDevice(ctx, tx, d, session)
	})
}

func (s *Store) addDevice(ctx context.Context, tx pgx.Tx, d Device, session Session) error {
	var b pgx.Batch
	b.Queue(`INSERT INTO devices (device_id, account_id, device_key, certificate, name_sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		d.ID, d.AccountID, []byte(d.Key), d.Certificate, s.sealer.seal("devices.name", d.ID[:], []byte(d.Name)), utc(d.CreatedAt))
	b.Queue(`INSERT INTO channels (channel_id, kind, created_at) VALUES ($1, $2, $3)`, d.ID, ChannelInbox, utc(d.CreatedAt))
	b.Queue(`INSERT INTO cursors (device_id, channel_id, acked_seq) VALUES ($1, $1, 0)`, d.ID)
	queueSession(&b, session)
	return tx.SendBatch(ctx, &b).Close()
}

const accountColumns = `account_id, name_sealed, root_key, opaque_record_sealed, wrapped_root_sealed, created_at`

// AccountByName finds an account by its prepared name.
func (s *Store) AccountByName(ctx context.Context, name string) (Account, error) {
	return s.account(s.pool.QueryRow(ctx, `SELECT `+accountColumns+` FROM accounts WHERE name_index = $1`, s.sealer.Index("accounts.name", name)))
}

// AccountByID finds an account by its id.
func (s *Store) AccountByID(ctx context.Context, id ids.ID) (Account, error) {
	return s.account(s.pool.QueryRow(ctx, `SELECT `+accountColumns+` FROM accounts WHERE account_id = $1`, id))
}

func (s *Store) account(row pgx.Row) (Account, error) {
	var a Account
	var name, record, wrapped []byte
	if err := row.Scan(&a.ID, &name, &a.RootKey, &record, &wrapped, &a.CreatedAt); err != nil {
		return Account{}, classify(err)
	}
	plain, err := s.openAll(a.ID, map[string][]byte{"accounts.name": name, "accounts.opaque_record": record, "accounts.wrapped_root": wrapped})
	if err != nil {
		return Account{}, err
	}
	a.Name, a.OPAQUERecord, a.WrappedRootKey = string(plain["accounts.name"]), plain["accounts.opaque_record"], plain["accounts.wrapped_root"]
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

// Device finds a device by its id, revoked or not.
func (s *Store) Device(ctx context.Context, id ids.ID) (Device, error) {
	var d Device
	var name []byte
	err := s.pool.QueryRow(ctx, `SELECT device_id, account_id, device_key, certificate, name_sealed, created_at, revoked_at IS NOT NULL
		FROM devices WHERE device_id = $1`, id).Scan(&d.ID, &d.AccountID, &d.Key, &d.Certificate, &name, &d.CreatedAt, &d.Revoked)
	if err != nil {
		return Device{}, classify(err)
	}
	plain, err := s.sealer.open("devices.name", d.ID[:], name)
	d.Name = string(plain)
	return d, err
}

// DeviceAccounts returns the account of each of the devices that exists and is not revoked.
func (s *Store) DeviceAccounts(ctx context.Context, devices []ids.ID) (map[ids.ID]ids.ID, error) {
	return queryMap[ids.ID](ctx, s, `SELECT device_id, account_id FROM devices WHERE device_id = ANY ($1) AND revoked_at IS NULL`, devices)
}
