// Package store keeps a cell's state in PostgreSQL: queries, migrations, partitions, checksums and sealed columns.
// It knows nothing of connections or MLS; what the rows mean is decided in the packages above it.
//
// A Store is safe for concurrent use. Every method takes the caller's context as its only deadline.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"quicproquo.dev/schema/ids"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")
	ErrUnavailable = errors.New("the database is unavailable")
	ErrCorrupt     = errors.New("a stored row failed its integrity check")
)

const (
	defaultMaxConns = 16
	urgentConns     = 4 // Two for the lane of commits, one for cursors, one for revocations.
	connectPatience = 5 * time.Second
	cleanupPatience = 2 * time.Second // For a statement that only tidies up.
	locksConns      = 3               // See lockConn.
)

// Store is an open database.
type Store struct {
	pool   *pgxpool.Pool
	urgent *pgxpool.Pool // For commits, cursors and revocations, which must not queue behind everybody's reads.
	waker  *pgxpool.Pool // One connection, for Notify alone. It does not wait for the disk.
	locks  *pgxpool.Pool // For transactions that only hold an advisory lock while others work under it.
	sealer *Sealer
	audit  *auditLog // Nil until EnableAudit.

	pooling Pooling

	detachPatience                 time.Duration
	deletionChannels, deletionRows int // Of one step.
	keyQuiet                       time.Duration

	// In tests: asked before each statement of a removal, and at the points of a deletion, which an error ends there, as
	// the process's death would.
	beforeAlter func()
	crash       func(point string) error

	heads headCache
}

// Options say where the database is and what seals its columns.
type Options struct {
	URI      string // PostgreSQL connection string; a secret.
	Sealer   *Sealer
	MaxConns int32 // Besides the few that commits, cursors, revocations, wake-ups and locks have to themselves. 0: 16.
	Pooling  Pooling
}

// Open connects. It does not migrate; CheckCompatible says whether this release may use what is there.
func Open(ctx context.Context, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(o.URI)
	if err != nil {
		return nil, errors.New("the database URI is not a PostgreSQL connection string") // err may quote the password.
	}
	if err := o.Pooling.check(); err != nil {
		return nil, err
	}
	tune(cfg, o.Pooling)
	s := &Store{sealer: o.Sealer, pooling: o.Pooling, detachPatience: detachPatience, keyQuiet: keyQuiet,
		deletionChannels: deletionChannels, deletionRows: deletionRows}
	if err := s.openPools(ctx, cfg, cmp.Or(o.MaxConns, defaultMaxConns)); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.Ping(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openPools makes the pools; none connects before it is used.
func (s *Store) openPools(ctx context.Context, cfg *pgxpool.Config, size int32) error {
	lax, keyed := cfg.Copy(), cfg.Copy()
	if s.pooling != PoolingTransaction {
		lax.AfterConnect = afterConnect("off") // A wake-up is worth no wait for the disk.
		keyed.AfterConnect = byIndex(func(ctx context.Context, c *pgx.Conn) error {
			s.heads.forgetAll()
			return cfg.AfterConnect(ctx, c)
		})
	}
	for _, p := range []struct {
		pool **pgxpool.Pool
		cfg  *pgxpool.Config
		size int32
	}{{&s.pool, cfg, size}, {&s.urgent, keyed, urgentConns}, {&s.locks, cfg, locksConns}, {&s.waker, lax, 1}} {
		var err error
		if *p.pool, err = newPool(ctx, p.cfg, p.size); err != nil {
			return err
		}
	}
	return nil
}

// tune sets what every connection has.
func tune(cfg *pgxpool.Config, pooling Pooling) {
	cfg.ConnConfig.RuntimeParams["application_name"] = "quicproquo-cell"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectPatience
	}
	cfg.ConnConfig.BuildContextWatcherHandler = newCancelQuery
	cfg.ConnConfig.OnPgError = keepAfter(cfg.ConnConfig.ValidateConnect != nil)
	if pooling == PoolingTransaction {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		cfg.AfterConnect = afterConnect("")
		return
	}
	cfg.AfterConnect = afterConnect("on")
}

// keepAfter says whether a connection is of use after an error: not after a fatal one, and, when the connection string
// asks for a certain kind of server (target_session_attrs), not to one that has become read-only.
func keepAfter(choosy bool) pgconn.PgErrorHandler {
	return func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.SeverityUnlocalized != "FATAL" && (!choosy || err.Code != "25006")
	}
}

// afterConnect readies a connection. synchronousCommit is set for its session, where it has one: what the server or the
// role has as default does not decide whether an acknowledgement is a promise. remote_apply, which promises more than on, stays.
func afterConnect(synchronousCommit string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, c *pgx.Conn) error {
		registerID(c.TypeMap())
		if synchronousCommit == "" {
			return nil
		}
		_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', '`+synchronousCommit+`', false)
			WHERE current_setting('synchronous_commit') NOT IN ('`+synchronousCommit+`', 'remote_apply') OR '`+synchronousCommit+`' = 'off'`)
		return err
	}
}

func newPool(ctx context.Context, cfg *pgxpool.Config, size int32) (*pgxpool.Pool, error) {
	cfg = cfg.Copy()
	cfg.MaxConns = size
	cfg.MinConns, cfg.MinIdleConns = min(cfg.MinConns, size), min(cfg.MinIdleConns, size)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil { // Of the configuration: nothing connects yet.
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return pool, nil
}

// Close waits for connections in use and closes them all.
func (s *Store) Close() {
	for _, p := range s.pools() {
		p.Close()
	}
}

// pools are those that could be opened.
func (s *Store) pools() []*pgxpool.Pool {
	return slices.DeleteFunc([]*pgxpool.Pool{s.pool, s.urgent, s.locks, s.waker}, func(p *pgxpool.Pool) bool { return p == nil })
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return classify(s.pool.Ping(ctx)) }

// Stats returns how many connections are in use and open.
func (s *Store) Stats() (inUse, open int32) {
	for _, p := range s.pools() {
		stat := p.Stat()
		inUse, open = inUse+stat.AcquiredConns(), open+stat.TotalConns()
	}
	return inUse, open
}

// Cell is the database's own identity.
type Cell struct {
	ID           ids.ID
	RestoreEpoch uint64
}

// Cell reads the database's identity.
func (s *Store) Cell(ctx context.Context) (Cell, error) {
	var c Cell
	err := s.pool.QueryRow(ctx, `SELECT cell_id, restore_epoch FROM cell`).Scan(&c.ID, &c.RestoreEpoch)
	return c, classify(err)
}

// begin starts a transaction in which each statement sees what was committed before it: after waiting for a lock,
// what its holder stored. A database may have another default.
const begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

// tx runs f in a transaction.
func (s *Store) tx(ctx context.Context, f func(pgx.Tx) error) error {
	return classify(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{BeginQuery: begin}, f))
}

// queryMap reads what a query of two columns, whose only argument is a list of ids, says of each.
func queryMap[V any](ctx context.Context, s *Store, sql string, about []ids.ID) (map[ids.ID]V, error) {
	rows, err := s.pool.Query(ctx, sql, about)
	if err != nil {
		return nil, classify(err)
	}
	found := make(map[ids.ID]V, len(about))
	var id ids.ID
	var v V
	_, err = pgx.ForEachRow(rows, []any{&id, &v}, func() error {
		found[id] = v
		return nil
	})
	return found, classify(err)
}

// cleanup is the context of a statement that must run although ctx may have ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupPatience)
}

// classify maps PostgreSQL's errors to ours; what it does not know stays as it is.
func classify(err error) error {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrUnavailable), errors.Is(err, ErrConflict), errors.Is(err, ErrTooMany),
		errors.Is(err, ErrChanged), errors.Is(err, ErrNoInvitation), errors.Is(err, ErrRemovalWaits), errors.Is(err, ErrRevoked), errors.Is(err, ErrClosed), errors.Is(err, ErrDisabled):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &connect): // Whatever the reason: nobody is let in, also for a password that was changed.
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.As(err, &pg):
		return classifySQL(pg)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		pgconn.SafeToRetry(err), pgconn.Timeout(err), isNetwork(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Classes and codes of SQLSTATE (PostgreSQL, appendix A).
var (
	// Connection, rollback, resources, shutdown; a lock or a statement that was given up; read-only; a session that
	// idled in a transaction too long.
	awayCodes = []string{"08", "40", "53", "57P0", "57014", "55P03", "25006", "25P03"}
	// Data or an index of the database is damaged.
	damageCodes = []string{"XX001", "XX002"}
)

func classifySQL(pg *pgconn.PgError) error {
	is := func(prefix string) bool { return strings.HasPrefix(pg.Code, prefix) }
	switch {
	case pg.Code == "23505":
		return fmt.Errorf("%w: %s", ErrExists, pg.ConstraintName)
	case slices.ContainsFunc(awayCodes, is):
		return fmt.Errorf("%w: %w", ErrUnavailable, pg)
	case slices.ContainsFunc(damageCodes, is):
		return fmt.Errorf("%w: %w", ErrCorrupt, pg)
	}
	return pg
}

// utc drops what PostgreSQL does not keep: the zone and what is below a microsecond.
func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
