package celltest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/internal/embeddedpg/pgtest"
)

const templateName = "celltest_template"

var (
	template  = sync.OnceValue(makeTemplate)
	databases atomic.Int64
	shared    atomic.Pointer[embeddedpg.Server]
)

// newDatabase copies a migrated database, which takes less time than to migrate one for each test. It is dropped when
// the test ends.
func newDatabase(t testing.TB) string {
	t.Helper()
	s := pgtest.Server(t)
	shared.Store(s)
	must(t, template())
	name := fmt.Sprintf("celltest_%d", databases.Add(1))
	must(t, execute(s.DatabaseURL("postgres"), "CREATE DATABASE "+name+" TEMPLATE "+templateName))
	t.Cleanup(func() { must(t, execute(s.DatabaseURL("postgres"), "DROP DATABASE "+name+" WITH (FORCE)")) })
	uri := s.DatabaseURL(name)
	must(t, execute(uri, "UPDATE cell SET cell_id = gen_random_uuid()"))
	return uri
}

// makeTemplate migrates a database and makes the partitions that the default policy needs.
func makeTemplate() error {
	s := shared.Load()
	if err := execute(s.DatabaseURL("postgres"), "CREATE DATABASE "+templateName); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sealer, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, store.Options{URI: s.DatabaseURL(templateName), Sealer: sealer})
	if err != nil {
		return err
	}
	defer st.Close() // Nobody may be connected when it is copied.
	if err := st.Migrate(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	kept := policy.Default().Retention
	return st.EnsurePartitions(ctx, time.Now(), 49*time.Hour, []time.Duration{time.Duration(kept.Messages), time.Duration(kept.Inbox)}, time.Duration(kept.DedupWindow))
}

func execute(uri, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, uri)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// Execute runs a statement in the cell's database, behind the cell's back.
func (c *Cell) Execute(t testing.TB, sql string) {
	t.Helper()
	must(t, execute(c.Database, sql))
}

// Hold runs a statement in a transaction of its own in the cell's database, and keeps it open until the returned
// function is called or the test ends.
func (c *Cell) Hold(t testing.TB, sql string) (release func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, c.Database)
	must(t, err)
	_, err = conn.Exec(ctx, "BEGIN; "+sql)
	must(t, err)
	release = sync.OnceFunc(func() { _ = conn.Close(ctx) })
	t.Cleanup(release)
	return release
}

// Query is the first column of the first row of a query in the cell's database, as text.
func (c *Cell) Query(t testing.TB, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.Database)
	must(t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	must(t, err)
	defer rows.Close()
	if !rows.Next() {
		t.Fatalf("%s: no row: %v", sql, rows.Err())
	}
	return string(rows.RawValues()[0])
}
