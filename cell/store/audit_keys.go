package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// Where the keys of pseudonyms are sealed.
const (
	subjectPlace = "audit_subjects.key"
	refPlace     = "audit_subjects.ref"
	addressPlace = "audit_address_keys.key"
)

// keyCache keeps keys for a while. It forgets, so that the key of an account that another process deleted does not stay.
type keyCache[K comparable, V any] struct {
	mu   sync.Mutex
	keys map[K]cached[V]
}

type cached[V any] struct {
	value V
	until time.Time
}

const (
	keyCacheSize = 8192
	keyCacheLife = 10 * time.Minute
)

func (c *keyCache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.keys[k]
	if !ok || time.Now().After(e.until) {
		delete(c.keys, k)
		return v, false
	}
	return e.value, true
}

func (c *keyCache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[K]cached[V]{}
	}
	for old := range c.keys { // Any: the order of a map is random.
		if len(c.keys) < keyCacheSize {
			break
		}
		delete(c.keys, old)
	}
	c.keys[k] = cached[V]{v, time.Now().Add(keyCacheLife)}
}

func (c *keyCache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, k)
}

// resolver finds and makes keys inside a transaction.
type resolver struct {
	ctx context.Context //nolint:containedctx // It lives as long as the call.
	r   *recording
	b   *pgx.Batch
}

// Subject implements audit.Resolver.
func (v *resolver) Subject(account ids.ID) (*audit.SubjectKey, error) {
	s := v.r.s
	if k, ok := s.audit.subjects.get(account); ok {
		return k, nil
	}
	if k, ok := v.r.subjects[account]; ok {
		return k, nil
	}
	if v.r.tx == nil {
		return nil, errNotCached
	}
	k, err := s.subjectKey(v.ctx, v.r.tx, account)
	if errors.Is(err, ErrNotFound) { // An account of before the audit log, or none.
		k, err = s.makeSubject(v.ctx, v.r.tx, account)
	}
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // There is no such account.
	}
	if err == nil {
		v.r.rememberSubject(account, k)
	}
	return k, err
}

func (r *recording) rememberSubject(account ids.ID, k *audit.SubjectKey) {
	if r.subjects == nil {
		r.subjects = map[ids.ID]*audit.SubjectKey{}
	}
	r.subjects[account] = k
}

// newSubject makes the key of an account that r's transaction creates before it.
func (r *recording) newSubject(b *pgx.Batch, account ids.ID) {
	s := r.s
	if s.audit == nil {
		return
	}
	k := audit.NewSubjectKey()
	b.Queue(`INSERT INTO audit_subjects (account_id, ref_index, key_sealed) VALUES ($1, $2, $3)`, account, s.refIndex(k), s.sealer.seal(subjectPlace, account[:], k[:]))
	r.rememberSubject(account, k)
}

func (s *Store) refIndex(k *audit.SubjectKey) []byte {
	return s.sealer.Index(refPlace, k.Account().String())
}

// queryer is a pool or a transaction.
type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s *Store) subjectKey(ctx context.Context, q queryer, account ids.ID) (*audit.SubjectKey, error) {
	var sealed []byte
	if err := q.QueryRow(ctx, `SELECT key_sealed FROM audit_subjects WHERE account_id = $1`, account).Scan(&sealed); err != nil {
		return nil, classify(err)
	}
	return s.openSubject(account, sealed)
}

func (s *Store) openSubject(account ids.ID, sealed []byte) (*audit.SubjectKey, error) {
	plain, err := s.sealer.open(subjectPlace, account[:], sealed)
	if err != nil {
		return nil, err
	}
	if len(plain) != len(audit.SubjectKey{}) {
		return nil, fmt.Errorf("%w: %s", ErrCorrupt, subjectPlace)
	}
	k := audit.SubjectKey(plain)
	return &k, nil
}

// makeSubject makes the key of an account that has none; ErrNotFound when there is no such account.
func (s *Store) makeSubject(ctx context.Context, tx pgx.Tx, account ids.ID) (*audit.SubjectKey, error) {
	k := audit.NewSubjectKey()
	tag, err := tx.Exec(ctx, `INSERT INTO audit_subjects (account_id, ref_index, key_sealed)
		SELECT account_id, $2, $3 FROM accounts WHERE account_id = $1 AND deleting_at IS NULL ON CONFLICT (account_id) DO NOTHING`,
		account, s.refIndex(k), s.sealer.seal(subjectPlace, account[:], k[:]))
	if err != nil {
		return nil, classify(err)
	}
	if tag.RowsAffected() == 0 { // Made at this moment by another, or no account.
		return s.subjectKey(ctx, tx, account)
	}
	return k, nil
}

// Address implements audit.Resolver.
func (v *resolver) Address(period int64) (*audit.AddressKey, error) {
	s := v.r.s
	if k, ok := s.audit.addresses.get(period); ok {
		return k, nil
	}
	if k, ok := v.r.addresses[period]; ok {
		return k, nil
	}
	if v.r.tx == nil {
		return nil, errNotCached
	}
	fresh := audit.NewAddressKey()
	row := periodRow(period)
	if _, err := v.r.tx.Exec(v.ctx, `INSERT INTO audit_address_keys (period, key_sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
		period, s.sealer.seal(addressPlace, row, fresh[:])); err != nil {
		return nil, classify(err)
	}
	var sealed []byte
	if err := v.r.tx.QueryRow(v.ctx, `SELECT key_sealed FROM audit_address_keys WHERE period = $1`, period).Scan(&sealed); err != nil {
		return nil, classify(err)
	}
	plain, err := s.sealer.open(addressPlace, row, sealed)
	if err != nil || len(plain) != len(fresh) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrCorrupt, addressPlace), err)
	}
	k := audit.AddressKey(plain)
	if v.r.addresses == nil {
		v.r.addresses = map[int64]*audit.AddressKey{}
	}
	v.r.addresses[period] = &k
	return &k, nil
}

func periodRow(period int64) []byte { return fmt.Appendf(nil, "%d", period) }

// Admin implements audit.Resolver.
func (v *resolver) Admin(name string) audit.Ref { return v.r.s.audit.keys.Admin(name) }

// SweepAuditKeys forgets the keys of addresses of audit.AddressKeysKept periods ago and before.
func (s *Store) SweepAuditKeys(ctx context.Context, now time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM audit_address_keys WHERE period <= $1`, audit.PeriodOf(now)-audit.AddressKeysKept)
	return classify(err)
}

// EraseAuditSubject forgets an account's pseudonym with whatever events are given stored before: from then on nothing tells whom the log's
// records about it were about. Deleting the account's row does the same by itself.
func (s *Store) EraseAuditSubject(ctx context.Context, account ids.ID, events ...audit.Event) error {
	return s.audited(ctx, func(_ pgx.Tx, r *recording) error {
		var b pgx.Batch
		if err := r.queue(ctx, &b, events...); err != nil {
			return err
		}
		r.eraseSubject(&b, account)
		return r.send(ctx, &b)
	})
}

// eraseSubject forgets an account's pseudonym.
func (r *recording) eraseSubject(b *pgx.Batch, account ids.ID) {
	b.Queue(`DELETE FROM audit_subjects WHERE account_id = $1`, account)
	if r.s.audit != nil {
		r.s.audit.subjects.drop(account)
		delete(r.subjects, account)
	}
}

// AuditRef returns the pseudonym of an account; ErrNotFound when it has none.
func (s *Store) AuditRef(ctx context.Context, account ids.ID) (audit.Ref, error) {
	k, err := s.subjectKey(ctx, s.pool, account)
	if err != nil {
		return audit.Ref{}, err
	}
	return k.Account(), nil
}

// AuditAccount returns the account of a pseudonym; ErrNotFound when it is unknown, or was erased.
func (s *Store) AuditAccount(ctx context.Context, ref audit.Ref) (ids.ID, error) {
	var id ids.ID
	err := s.pool.QueryRow(ctx, `SELECT account_id FROM audit_subjects WHERE ref_index = $1`, s.sealer.Index(refPlace, ref.String())).Scan(&id)
	return id, classify(err)
}
