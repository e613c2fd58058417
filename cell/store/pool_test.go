package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		in   error
		want error // Nil: none of ours.
	}{
		{pgx.ErrNoRows, ErrNotFound},
		{context.DeadlineExceeded, ErrUnavailable},
		{context.Canceled, ErrUnavailable},
		{io.ErrUnexpectedEOF, ErrUnavailable},
		{&pgconn.PgError{Code: "23505", ConstraintName: "x"}, ErrExists},
		{&pgconn.PgError{Code: "57P01"}, ErrUnavailable}, // admin_shutdown
		{&pgconn.PgError{Code: "57P03"}, ErrUnavailable}, // cannot_connect_now
		{&pgconn.PgError{Code: "57014"}, ErrUnavailable}, // query_canceled
		{&pgconn.PgError{Code: "53300"}, ErrUnavailable}, // too_many_connections
		{&pgconn.PgError{Code: "40P01"}, ErrUnavailable}, // deadlock_detected
		{&pgconn.PgError{Code: "25006"}, ErrUnavailable}, // read_only_sql_transaction
		{&pgconn.PgError{Code: "55P03"}, ErrUnavailable}, // lock_not_available
		{&pgconn.PgError{Code: "XX001"}, ErrCorrupt},     // data_corrupted
		{&pgconn.PgError{Code: "42P01"}, nil},            // undefined_table
		{&pgconn.PgError{Code: "5"}, nil},                // No SQLSTATE at all, as of a broken proxy.
		{&pgconn.PgError{}, nil},
		{fmt.Errorf("tx: %w", ErrConflict), ErrConflict},
	} {
		got := classify(x.in)
		for _, ours := range []error{ErrNotFound, ErrExists, ErrUnavailable, ErrCorrupt, ErrConflict} {
			if errors.Is(got, ours) != (ours == x.want) { //nolint:errorlint // identity of sentinels.
				t.Errorf("%v becomes %v", x.in, got)
			}
		}
		if got == nil {
			t.Errorf("%v vanished", x.in)
		}
	}
	if classify(nil) != nil {
		t.Error("nothing became an error")
	}
}

// A wrong password or a database that is gone, after the start, is an outage like any other.
func TestAConnectionThatIsRefusedIsAnOutage(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	config := s.pool.Config().ConnConfig
	for _, uri := range []string{
		fmt.Sprintf("postgres://%s:wrong@%s:%d/%s?sslmode=disable", config.User, config.Host, config.Port, config.Database),
		fmt.Sprintf("postgres://%s:%s@%s:%d/nosuch?sslmode=disable", config.User, config.Password, config.Host, config.Port),
	} {
		_, err := Open(t.Context(), Options{URI: uri, Sealer: testSealer(t, 1)})
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
}

// Clients that go away in the middle of a call must not cost a connection each.
func TestACallThatIsGivenUpLeavesItsConnection(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	must(t, s.Ping(t.Context()))
	before := s.pool.Stat().NewConnsCount()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := s.pool.Exec(ctx, `SELECT pg_sleep(30)`)
		cancel()
		if !errors.Is(classify(err), ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	must(t, s.Ping(t.Context()))
	if n := s.pool.Stat().NewConnsCount() - before; n != 0 {
		t.Errorf("%d connections were lost", n)
	}
}

func TestCommitsDoNotQueueBehindReads(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	for range s.pool.Config().MaxConns {
		conn, err := s.pool.Acquire(t.Context())
		must(t, err)
		defer conn.Release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, s.AppendBatch(ctx, []*Append{message(channel, alice, "in time")}))
	must(t, s.Acknowledge(ctx, []Ack{{bob.ID, channel, 1}}))
}

func TestPartitionsThatWereHalfRemoved(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	now := time.Now()
	name := partition{"messages", now.Add(week).UTC().Truncate(day)}.name()
	stored := func() {
		t.Helper()
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "x")}))
	}
	stored()

	_, err := s.pool.Exec(t.Context(), `ALTER TABLE messages DETACH PARTITION `+name) // And then the process died.
	must(t, err)
	must(t, s.EnsurePartitions(t.Context(), now, day, []time.Duration{week}, day))
	stored()
	page, err := s.ReadMessages(t.Context(), channel, 0, 10, 1<<20, now)
	must(t, err)
	if len(page) != 2 {
		t.Errorf("%d messages, want what was there and the new one", len(page))
	}

	// A removal that got stuck halfway, of a day that a new policy wants again.
	s.detachPatience = 100 * time.Millisecond
	reader, err := s.pool.Begin(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = reader.Rollback(context.Background()) })
	_, err = reader.Exec(t.Context(), `LOCK TABLE messages IN ACCESS SHARE MODE`)
	must(t, err)
	if _, err = s.DropExpiredPartitions(t.Context(), now.Add(week+2*day), 60*day); !errors.Is(err, ErrRemovalWaits) {
		t.Fatal(err)
	}
	var pending int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhdetachpending`).Scan(&pending))
	if pending != 1 {
		t.Fatalf("%d removals are stuck, want 1: this test has lost its meaning", pending)
	}
	must(t, reader.Rollback(t.Context()))
	_, err = s.DropExpiredPartitions(t.Context(), now, 60*day) // Under the new policy nothing has expired.
	must(t, err)
	must(t, s.EnsurePartitions(t.Context(), now, 2*day, []time.Duration{time.Hour, week}, day))
	for _, r := range []time.Duration{time.Hour, week} {
		m := message(channel, alice, "y")
		m.Message.ExpiresAt = now.Add(r)
		must(t, s.AppendBatch(t.Context(), []*Append{m}))
	}
}

func TestAPartitionOutlivesItsDayALittle(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	end := time.Now().UTC().Truncate(day).Add(day)
	name := partition{"messages", end.Add(-day)}.name()
	if time.Until(end) < time.Hour { // fresh made partitions from an hour ahead on.
		end, name = end.Add(day), partition{"messages", end}.name()
	}
	for _, x := range []struct {
		at   time.Time
		want bool
	}{{end, false}, {end.Add(dropSlack - time.Second), false}, {end.Add(dropSlack), true}} {
		dropped, err := s.DropExpiredPartitions(t.Context(), x.at, fortnight)
		must(t, err)
		if got := len(dropped) > 0 && dropped[len(dropped)-1] == name || len(dropped) > 0 && dropped[0] == name; got != x.want {
			t.Errorf("%s after its end: dropped %v", x.at.Sub(end), dropped)
		}
	}
}
