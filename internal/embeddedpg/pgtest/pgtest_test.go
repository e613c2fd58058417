//go:build unix

package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"quicproquo.dev/internal/embeddedpg/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// First, while no parallel test is waiting.
func TestIgnoreServer(t *testing.T) {
	pgtest.Server(t)
	if err := goleak.Find(); err == nil {
		t.Error("nothing to ignore: this test has lost its meaning")
	}
	goleak.VerifyNone(t, pgtest.IgnoreServer())
}

func scalar(t *testing.T, dsn, sql string) string {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx) // the test's end
	var text string
	if err := conn.QueryRow(ctx, sql).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	one, two := pgtest.New(t), pgtest.New(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, one)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx) // left open on purpose until the test's end
	if _, err := conn.Exec(ctx, "CREATE TABLE here (n int)"); err != nil {
		t.Fatal(err)
	}
	const exists = "SELECT (to_regclass('here') IS NOT NULL)::text"
	if got := scalar(t, one, exists); got != "true" {
		t.Errorf("the table is not where it was made: %s", got)
	}
	if got := scalar(t, two, exists); got != "false" {
		t.Errorf("the second database is not empty: %s", got)
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	for dsn, fsync := range map[string]string{pgtest.New(t, pgtest.Durable()): "on", pgtest.New(t): "off"} {
		if got := scalar(t, dsn, "SHOW fsync"); got != fsync {
			t.Errorf("fsync is %s, want %s", got, fsync)
		}
		if got := scalar(t, dsn, "SHOW synchronous_commit"); got != "on" {
			t.Errorf("synchronous_commit is %s", got)
		}
	}
}

// The database of a subtest is gone after it, though a connection was left.
func TestDropsDatabase(t *testing.T) {
	t.Parallel()
	var dsn string
	t.Run("inner", func(t *testing.T) {
		dsn = pgtest.New(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database outlived its test")
	}
}
