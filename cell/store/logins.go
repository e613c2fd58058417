package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Decoy is an account that does not exist, in the form in which one that exists is stored. LoginAccount opens it for
// names that nobody has, so that these cost what others cost.
type Decoy struct {
	row     loginRow
	account Account
}

// NewDecoy seals a decoy. record and wrapped are as long as a real account's.
func (s *Store) NewDecoy(record, wrapped []byte) *Decoy {
	id := ids.New()
	return &Decoy{account: Account{ID: id}, row: loginRow{
		name: s.sealer.seal("accounts.name", id[:], []byte("a name of nobody")), rootKey: make([]byte, ed25519.PublicKeySize),
		record:  s.sealer.seal("accounts.opaque_record", id[:], record),
		wrapped: s.sealer.seal("accounts.wrapped_root", id[:], wrapped),
		subject: s.sealer.seal(subjectPlace, id[:], make([]byte, len(audit.SubjectKey{})))}}
}

// loginRow is what is read of an account when it logs in, sealed as it is stored.
type loginRow struct {
	id                                      *ids.ID // Nil: there is no such account.
	name, rootKey, record, wrapped, subject []byte
	createdAt                               *time.Time
	keyID                                   *int64
	deviceKey                               []byte
	knownUntil                              *time.Time
	skeleton, disabled                      bool
}

// LoginAccount is what a login is judged by.
type LoginAccount struct {
	Account
	Exists      bool              // Else it is the decoy.
	Device      ed25519.PublicKey // Of the device that was asked about, if it is the account's and not revoked; else nil.
	KnownUntil  time.Time         // The account's people log in from the address; zero: not known.
	HasSkeleton bool              // What its name looks like is stored.
}

const selectLogin = `SELECT a.account_id, a.name_sealed, a.root_key, a.opaque_record_sealed, a.wrapped_root_sealed, a.created_at, a.opaque_key_id,
		s.key_sealed, d.device_key, k.until, a.skeleton_index IS NOT NULL, a.disabled_at IS NOT NULL
	FROM (SELECT 1) one
	LEFT JOIN accounts a ON a.name_index = $1
	LEFT JOIN audit_subjects s ON s.account_id = a.account_id
	LEFT JOIN devices d ON d.account_id = a.account_id AND d.device_id = $2 AND d.revoked_at IS NULL
	LEFT JOIN known_addresses k ON k.account_id = a.account_id AND k.address_index = $3 AND k.until > $4`

// LoginAccount finds the account of a prepared name for a login, or opens the decoy in its place: the same query with
// one row of answer, and the same columns opened. device may be zero.
func (s *Store) LoginAccount(ctx context.Context, name string, device ids.ID, address string, now time.Time, decoy *Decoy) (LoginAccount, error) {
	var r loginRow
	err := s.pool.QueryRow(ctx, selectLogin, s.sealer.Index("accounts.name", name), device, s.addressIndex(address), utc(now)).
		Scan(&r.id, &r.name, &r.rootKey, &r.record, &r.wrapped, &r.createdAt, &r.keyID, &r.subject, &r.deviceKey, &r.knownUntil, &r.skeleton, &r.disabled)
	if err != nil {
		return LoginAccount{}, classify(err)
	}
	l := LoginAccount{Exists: r.id != nil, Device: r.deviceKey, HasSkeleton: r.skeleton}
	if r.knownUntil != nil {
		l.KnownUntil = *r.knownUntil
	}
	if l.Exists {
		l.ID, l.RootKey, l.CreatedAt, l.OPAQUEKey, l.Disabled = *r.id, r.rootKey, *r.createdAt, uint32(*r.keyID), r.disabled //nolint:gosec // we stored it.
	} else {
		r, l.Account = decoy.row, decoy.account
	}
	return l, s.openLogin(&l, &r)
}

func (s *Store) openLogin(l *LoginAccount, r *loginRow) error {
	plain, err := s.openAll(l.ID, map[string][]byte{"accounts.name": r.name, "accounts.opaque_record": r.record, "accounts.wrapped_root": r.wrapped})
	if err != nil {
		return err
	}
	l.Name, l.OPAQUERecord, l.WrappedRootKey = string(plain["accounts.name"]), plain["accounts.opaque_record"], plain["accounts.wrapped_root"]
	if s.audit == nil || r.subject == nil {
		return nil
	}
	k, err := s.openSubject(l.ID, r.subject)
	if err == nil && l.Exists {
		s.audit.subjects.put(l.ID, k)
	}
	return err
}

func (s *Store) addressIndex(address string) []byte {
	return s.sealer.Index("known_addresses.address", address)
}

// Attempts are the logins that count against somebody.
type Attempts struct {
	Failures int
	LastAt   time.Time
	ForgetAt time.Time // The row may be deleted from then on.
}

// AttemptSubject is whom attempts count against: of a kind, by a value that is not stored.
func (s *Store) AttemptSubject(kind, value string) []byte {
	return s.sealer.Index("login_attempts."+kind, value)
}

// ChangeAttempts reads the attempts of subjects, zero for those that have none, and stores what change makes of them.
// Others who want one of the subjects wait meanwhile. When change returns an error nothing is stored, and the error is
// returned. The last moments' changes may be lost in a crash of the database.
func (s *Store) ChangeAttempts(ctx context.Context, subjects [][]byte, change func([]Attempts) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return classify(err)
	}
	defer conn.Release()
	c := conn.Conn()
	list, err := lockAttempts(ctx, c, subjects)
	if err == nil {
		if err = change(list); err == nil {
			err = writeAttempts(ctx, c, subjects, list)
		}
	}
	if err != nil && c.PgConn().TxStatus() != 'I' && !c.IsClosed() {
		tidy, cancel := cleanup(ctx)
		defer cancel()
		_, _ = c.Exec(tidy, `ROLLBACK`) // Else the pool closes the connection.
	}
	return classify(err)
}

// laxly makes a transaction not wait for the disk.
const laxly = `SELECT set_config('synchronous_commit', 'off', true)`

// lockAttempts begins a transaction, in one round trip with all that it reads.
func lockAttempts(ctx context.Context, c *pgx.Conn, subjects [][]byte) ([]Attempts, error) {
	order := slices.Clone(subjects)
	slices.SortFunc(order, slices.Compare) // Two calls with common subjects take them in one order.
	list := make([]Attempts, len(subjects))
	var b pgx.Batch
	b.Queue(begin)
	b.Queue(laxly)
	b.Queue(`INSERT INTO login_attempts (subject, failures, last_at, forget_at) SELECT unnest($1::bytea[]), 0, 'epoch', 'epoch' ON CONFLICT DO NOTHING`, order)
	b.Queue(`SELECT subject, failures, last_at, forget_at FROM login_attempts WHERE subject = ANY ($1) ORDER BY subject FOR UPDATE`, order).
		Query(func(rows pgx.Rows) error {
			var subject []byte
			var a Attempts
			_, err := pgx.ForEachRow(rows, []any{&subject, &a.Failures, &a.LastAt, &a.ForgetAt}, func() error {
				for i := range subjects {
					if bytes.Equal(subjects[i], subject) {
						list[i] = a
					}
				}
				return nil
			})
			return err
		})
	return list, c.SendBatch(ctx, &b).Close()
}

func writeAttempts(ctx context.Context, c *pgx.Conn, subjects [][]byte, list []Attempts) error {
	failures, last, forget := make([]int32, len(list)), make([]time.Time, len(list)), make([]time.Time, len(list))
	for i, a := range list {
		failures[i], last[i], forget[i] = int32(a.Failures), utc(a.LastAt), utc(a.ForgetAt) //nolint:gosec // the rules bound it.
	}
	var b pgx.Batch
	b.Queue(`UPDATE login_attempts a SET failures = n.failures, last_at = n.last_at, forget_at = n.forget_at
		FROM unnest($1::bytea[], $2::integer[], $3::timestamptz[], $4::timestamptz[]) n (subject, failures, last_at, forget_at)
		WHERE a.subject = n.subject`, subjects, failures, last, forget)
	b.Queue(`COMMIT`)
	return c.SendBatch(ctx, &b).Close()
}

// Forgiven is an attempt that turned out well, and what it was counted against.
type Forgiven struct {
	Subjects [][]byte
	Clears   []bool          // All failures, not only this one.
	Forget   []time.Duration // After each of which a failure is forgotten.
}

// ForgiveAttempt takes an attempt back. When until is not zero, it remembers until then that the account's people log in
// from address.
func (s *Store) ForgiveAttempt(ctx context.Context, f Forgiven, account ids.ID, address string, until time.Time) error {
	var b pgx.Batch
	b.Queue(laxly)
	if len(f.Subjects) > 0 {
		b.Queue(`WITH mine AS (SELECT subject FROM login_attempts WHERE subject = ANY ($1) ORDER BY subject FOR UPDATE)
			UPDATE login_attempts a SET failures = CASE WHEN f.clears THEN 0 ELSE greatest(a.failures - 1, 0) END,
				forget_at = a.last_at + CASE WHEN f.clears THEN 0 ELSE greatest(a.failures - 1, 0) END * f.forget
			FROM mine, unnest($1::bytea[], $2::boolean[], $3::interval[]) f (subject, clears, forget)
			WHERE a.subject = mine.subject AND f.subject = mine.subject`, f.Subjects, f.Clears, f.Forget)
	}
	if !until.IsZero() {
		b.Queue(`INSERT INTO known_addresses (account_id, address_index, until) VALUES ($1, $2, $3)
			ON CONFLICT (account_id, address_index) DO UPDATE SET until = excluded.until`, account, s.addressIndex(address), utc(until))
	}
	return classify(s.pool.SendBatch(ctx, &b).Close())
}

// SweepLogins deletes what has lapsed of attempts, known addresses, invitations and reset codes.
func (s *Store) SweepLogins(ctx context.Context, now time.Time) error {
	var b pgx.Batch
	for _, sql := range []string{`DELETE FROM login_attempts WHERE forget_at < $1`, `DELETE FROM known_addresses WHERE until < $1`,
		`DELETE FROM invitations WHERE expires_at < $1`, `DELETE FROM recovery_codes WHERE expires_at < $1`} {
		b.Queue(sql, utc(now))
	}
	return classify(s.pool.SendBatch(ctx, &b).Close())
}
