// Package store keeps a cell's state in PostgreSQL: queries, migrations, partitions, checksums and sealed columns.
// It knows nothing of connections or MLS; what the rows mean is decided in the packages above it.
//
// A Store is safe for concurrent use. Every method takes the caller's context as its only deadline.
package store

import (
	"context"
	"errors"
	"fmt"
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

const defaultMaxConns = 16

// Store is an open database.
type Store struct {
	pool   *pgxpool.Pool
	sealer *Sealer
}

// Options say where the database is and what seals its columns.
type Options struct {
	URI      string // PostgreSQL connection string; a secret.
	Sealer   *Sealer
	MaxConns int32 // 0: 16.
}

// Open connects. It does not migrate; CheckCompatible says whether this release may use what is there.
func Open(ctx context.Context, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(o.URI)
	if err != nil {
		return nil, errors.New("the database URI is not a PostgreSQL connection string") // err may quote the password.
	}
	cfg.MaxConns = defaultMaxConns
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "quicproquo-cell"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		registerID(c.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s := &Store{pool: pool, sealer: o.Sealer}
	if err := s.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// Close waits for connections in use and closes them all.
func (s *Store) Close() { s.pool.Close() }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return classify(s.pool.Ping(ctx)) }

// Stats returns how many connections are in use and open.
func (s *Store) Stats() (inUse, open int32) {
	st := s.pool.Stat()
	return st.AcquiredConns(), st.TotalConns()
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

// tx runs f in a transaction.
func (s *Store) tx(ctx context.Context, f func(pgx.Tx) error) error {
	return classify(pgx.BeginFunc(ctx, s.pool, f))
}

// classify maps PostgreSQL's errors to ours; what it does not know stays as it is.
func classify(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrUnavailable), errors.Is(err, ErrConflict), errors.Is(err, ErrTooMany):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case errors.As(err, &pg):
		return classifySQL(pg)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var conn *pgconn.ConnectError
	if errors.As(err, &conn) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) || isNetwork(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// classifySQL goes by SQLSTATE (PostgreSQL, appendix A): 08 connection, 53 resources, 57P0x shutdown, 25006 read-only,
// 40 transaction rollback.
func classifySQL(pg *pgconn.PgError) error {
	switch {
	case pg.Code == "23505":
		return fmt.Errorf("%w: %s", ErrExists, pg.ConstraintName)
	case pg.Code[:2] == "08", pg.Code[:2] == "53", pg.Code[:2] == "40", pg.Code[:4] == "57P0", pg.Code == "25006", pg.Code == "55P03":
		return fmt.Errorf("%w: %w", ErrUnavailable, pg)
	}
	return pg
}

// utc drops what PostgreSQL does not keep: the zone and what is below a microsecond.
func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
