package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SchemaVersion is the newest migration this release knows.
const SchemaVersion = 7

// ErrIncompatible says that this release and the database's schema do not fit. The message says what to do.
var ErrIncompatible = errors.New("database schema and release do not fit")

// Migrate brings the schema up to SchemaVersion. Several replicas may call it at once: one migrates, the others wait.
func (s *Store) Migrate(ctx context.Context, log *slog.Logger) error {
	p, done, err := s.migrator()
	if err != nil {
		return err
	}
	defer done()
	if has, err := p.GetDBVersion(ctx); err == nil && has > SchemaVersion {
		return nil // A newer release was here; CheckCompatible decides.
	}
	results, err := p.Up(ctx)
	for _, r := range results {
		log.InfoContext(ctx, "migration applied", "version", r.Source.Version, "duration", r.Duration)
	}
	if err != nil {
		return fmt.Errorf("migrating the database: %w", classify(err))
	}
	return nil
}

// CheckCompatible reports ErrIncompatible unless min_compatible ≤ SchemaVersion ≤ the database's version.
func (s *Store) CheckCompatible(ctx context.Context) error {
	p, done, err := s.migrator()
	if err != nil {
		return err
	}
	defer done()
	has, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema version: %w", classify(err))
	}
	if has < SchemaVersion {
		return fmt.Errorf("%w: the database has schema %d, this release needs %d; run `cell migrate` first", ErrIncompatible, has, SchemaVersion)
	}
	var least int
	if err := s.pool.QueryRow(ctx, `SELECT min_compatible FROM cell`).Scan(&least); err != nil {
		return classify(err)
	}
	if least > SchemaVersion {
		return fmt.Errorf("%w: the database takes releases of schema %d and later, this one has %d; run a newer release", ErrIncompatible, least, SchemaVersion)
	}
	return nil
}

func (s *Store) migrator() (*goose.Provider, func(), error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDBFromPool(s.pool)
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithSessionLocker(&migrationLocker{s: s}))
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return p, func() { _ = db.Close() }, nil // Closing gives the connections back to the pool.
}
