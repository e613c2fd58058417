package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

// pausedDump is a real pg_dump in the middle of its work: nobody reads what it writes, so that it goes on holding its
// transaction and its locks.
type pausedDump struct {
	cmd    *exec.Cmd
	output *os.File
}

func startDump(t *testing.T, s *Store) *pausedDump {
	t.Helper()
	program, err := lookDump(pgtest.Server(t).Major())
	if err != nil {
		t.Skipf("NOT RUN: %s: %v", t.Name(), err)
	}
	r, w, err := os.Pipe()
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--dbname", s.pool.Config().ConnString()) //nolint:gosec // pg_dump.
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	must(t, cmd.Start())
	must(t, w.Close())
	d := &pausedDump{cmd, r}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = r.Close()
	})
	// It has locked all tables before it copies the first, and what it copies is more than the pipe takes: it cannot end.
	eventually(t, "pg_dump copies", func() (copies bool) {
		must(t, s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE a.datname = current_database() AND a.application_name = 'pg_dump' AND a.query LIKE 'COPY%messages%'
			AND l.relation = 'messages'::regclass AND l.granted)`).Scan(&copies))
		return copies
	})
	return d
}

func lookDump(major int) (string, error) {
	if p := fmt.Sprintf("/usr/lib/postgresql/%d/bin/pg_dump", major); exec.Command(p, "--version").Run() == nil { //nolint:gosec,noctx // Ends at once.
		return p, nil
	}
	return exec.LookPath("pg_dump")
}

// finish reads on, and checks that the dump is whole.
func (d *pausedDump) finish(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(d.output)
	must(t, err)
	must(t, d.cmd.Wait())
	return string(b)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// traffic stores, reads and acknowledges until stopped, and remembers the longest that anything took.
type traffic struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	rounds int
	worst  time.Duration
	err    error
}

func startTraffic(t *testing.T, s *Store, channel ids.ID, alice, bob Device) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	f := &traffic{stop: stop}
	f.done.Go(func() {
		for ; ctx.Err() == nil && f.err == nil; f.rounds++ {
			begin := time.Now()
			m := message(channel, alice, "traffic")
			err := s.AppendBatch(context.WithoutCancel(ctx), []*Append{m})
			if err == nil {
				_, err = s.ReadMessages(context.WithoutCancel(ctx), channel, m.Message.Seq-1, 10, 1<<20, time.Now())
			}
			if err == nil {
				_, err = s.pool.Exec(context.WithoutCancel(ctx), `SELECT count(*) FROM messages WHERE channel_id = $1`, ids.New()) // A reader of all partitions.
			}
			if err == nil {
				err = s.Acknowledge(context.WithoutCancel(ctx), []Ack{{bob.ID, channel, m.Message.Seq}})
			}
			f.err, f.worst = err, max(f.worst, time.Since(begin))
			time.Sleep(time.Millisecond)
		}
	})
	t.Cleanup(func() { f.stop(); f.done.Wait() })
	return f
}

// end returns the longest round.
func (f *traffic) end(t *testing.T) time.Duration {
	t.Helper()
	f.stop()
	f.done.Wait()
	must(t, f.err)
	return f.worst
}

// While a backup holds its locks creation and traffic go on, removal waits and completes after it.
func TestWhileABackupHoldsItsLocksCreationAndTrafficGoOnAndRemovalWaitsAndCompletesAfterIt(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	s.detachPatience = 2 * time.Second
	now := time.Now()
	channel, alice, bob := direct(t, s)
	for range 40 { // More than a pipe takes.
		m := message(channel, alice, strings.Repeat("not yet expired ", 4096))
		must(t, s.AppendBatch(t.Context(), []*Append{m}))
	}
	short := message(channel, alice, "of an hour")
	short.Message.ExpiresAt = now.Add(time.Hour)
	must(t, s.AppendBatch(t.Context(), []*Append{short}))
	dump := startDump(t, s)
	future := now.Add(4 * day)

	flow := startTraffic(t, s, channel, alice, bob)
	for round := range 3 { // The first detaches, the next finalize.
		begin := time.Now()
		var removal sync.WaitGroup
		removal.Go(func() {
			dropped, err := s.DropExpiredPartitions(t.Context(), future, 60*day)
			if !errors.Is(err, ErrRemovalWaits) || len(dropped) != 0 {
				t.Errorf("round %d, while pg_dump runs: %v, %v", round, dropped, err)
			}
		})
		eventually(t, "the removal waits", func() (waits bool) {
			must(t, s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE%')`).Scan(&waits))
			return waits
		})
		must(t, s.EnsurePartitions(t.Context(), now.Add(time.Duration(10+round)*day), day, []time.Duration{week}, fortnight))
		if took := time.Since(begin); took > 3*s.detachPatience {
			t.Errorf("round %d: making partitions took %s, a removal's patience is %s", round, took, s.detachPatience)
		}
		removal.Wait()
		if took := time.Since(begin); took < s.detachPatience {
			t.Errorf("round %d: the removal gave up after %s: did it wait?", round, took)
		}
	}
	worst := flow.end(t)
	if worst > s.detachPatience/2 {
		t.Errorf("the slowest round of traffic took %s while removals waited %s each: does traffic queue behind them?", worst, s.detachPatience)
	}
	t.Logf("report: while pg_dump held its locks and removals waited %s each: %d rounds of traffic, the slowest %s", s.detachPatience, flow.rounds, worst.Round(time.Millisecond))

	if text := dump.finish(t); !strings.Contains(text, "PostgreSQL database dump complete") {
		t.Error("the dump is not whole")
	}
	dropped, err := s.DropExpiredPartitions(t.Context(), future, 60*day)
	must(t, err)
	if len(dropped) < 3 {
		t.Errorf("after the dump %v were removed, want the days of short-lived messages", dropped)
	}
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "and on")}))
}

// Behind a transaction pooler there is no lock timeout to set: the statement is canceled from outside, and no
// connection keeps anything.
func TestRemovalBehindATransactionPoolerWaitsAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	direct := fresh(t)
	s, err := Open(t.Context(), Options{URI: pgtest.Pooler(t, direct.pool.Config().ConnString()), Sealer: testSealer(t, 1), Pooling: PoolingTransaction})
	must(t, err)
	t.Cleanup(s.Close)
	s.detachPatience = 500 * time.Millisecond
	must(t, s.CheckCompatible(t.Context()))
	must(t, s.Migrate(t.Context(), quiet))
	reader, err := direct.pool.Begin(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = reader.Rollback(context.Background()) })
	_, err = reader.Exec(t.Context(), `LOCK TABLE messages IN ACCESS SHARE MODE`)
	must(t, err)
	future := time.Now().Add(4 * day)
	for range 2 {
		if dropped, err := s.DropExpiredPartitions(t.Context(), future, 60*day); !errors.Is(err, ErrRemovalWaits) || len(dropped) != 0 {
			t.Fatalf("while somebody reads: %v, %v", dropped, err)
		}
	}
	must(t, s.EnsurePartitions(t.Context(), time.Now().Add(10*day), day, []time.Duration{week}, fortnight))
	must(t, reader.Rollback(t.Context()))
	dropped, err := s.DropExpiredPartitions(t.Context(), future, 60*day)
	must(t, err)
	if len(dropped) < 3 {
		t.Errorf("dropped %v", dropped)
	}
	for range 40 { // Whichever connection of the pooler's this gets.
		var timeout, locks string
		must(t, s.pool.QueryRow(t.Context(), `SELECT current_setting('lock_timeout') || current_setting('synchronous_commit'),
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))::text`).Scan(&timeout, &locks))
		if timeout != "0on" || locks != "0" {
			t.Fatalf("a connection keeps lock_timeout and synchronous_commit %s, %s advisory locks", timeout, locks)
		}
	}
}

// Two processes migrate an empty database through a transaction pooler at once: one does it, the other waits.
func TestMigrationsRunBehindATransactionPooler(t *testing.T) {
	t.Parallel()
	through := pgtest.Pooler(t, pgtest.New(t))
	var both sync.WaitGroup
	for range 2 {
		s, err := Open(t.Context(), Options{URI: through, Sealer: testSealer(t, 1), Pooling: PoolingTransaction})
		must(t, err)
		t.Cleanup(s.Close)
		both.Go(func() {
			if err := errors.Join(s.Migrate(t.Context(), quiet), s.CheckCompatible(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
}

// killEnv has the test binary remove partitions and be killed in the middle of it.
const (
	killEnv    = "QPQ_TEST_REMOVE_AND_DIE"
	killPoints = 3 // Before DETACH, between it and DROP, after DROP.
)

// removeAndDie is the process that dies. It kills itself before the statement of its number.
func removeAndDie(spec string) {
	var at int
	var uri string
	if _, err := fmt.Sscan(spec, &at, &uri); err != nil {
		panic(err)
	}
	sealer, _ := NewSealer([]SealingKey{{1, make([]byte, SealingKeySize)}}, make([]byte, SealingKeySize))
	s, err := Open(context.Background(), Options{URI: uri, Sealer: sealer})
	if err != nil {
		panic(err)
	}
	statements := 0
	s.beforeAlter = func() {
		if statements == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		statements++
	}
	_, err = s.DropExpiredPartitions(context.Background(), time.Now().Add(4*day), 60*day)
	fmt.Fprintln(os.Stderr, "the removal ended:", err)
	os.Exit(3)
}

func dieRemoving(t *testing.T, s *Store, at int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self) //nolint:gosec // The test itself.
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", killEnv, at, s.pool.Config().ConnString()))
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	return cmd
}

// FINALIZE of leftovers: whoever comes after a kill -9, at whichever point of a removal, completes it.
func TestARemovalThatWasKilledAtAnyPointIsCompletedByTheNext(t *testing.T) {
	t.Parallel()
	future := time.Now().Add(4 * day)
	for at := range killPoints {
		t.Run(fmt.Sprint("before statement ", at), func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			want := len(expired(t, s, future))
			err := dieRemoving(t, s, at).Wait()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("not killed: %v", err)
			}
			completeRemoval(t, s, future, want-at/2)
		})
	}
	for _, waiting := range []string{"DETACH", "FINALIZE", "DROP"} {
		t.Run("while "+waiting+" waits", func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			first := expired(t, s, future)
			reader, err := s.pool.Begin(t.Context())
			must(t, err)
			t.Cleanup(func() { _ = reader.Rollback(context.Background()) })
			switch waiting {
			case "DETACH":
				_, err = reader.Exec(t.Context(), `LOCK TABLE messages IN ACCESS SHARE MODE`)
			case "FINALIZE":
				_, err = reader.Exec(t.Context(), `LOCK TABLE messages IN ACCESS SHARE MODE`)
				s.detachPatience = 100 * time.Millisecond
				if _, err := s.DropExpiredPartitions(t.Context(), future, 60*day); !errors.Is(err, ErrRemovalWaits) {
					t.Fatal(err)
				}
			case "DROP":
				_, err = s.pool.Exec(t.Context(), `ALTER TABLE messages DETACH PARTITION `+first[0])
				must(t, err)
				_, err = reader.Exec(t.Context(), `LOCK TABLE `+first[0]+` IN ACCESS SHARE MODE`)
			}
			must(t, err)
			cmd := dieRemoving(t, s, 1000)
			eventually(t, waiting+" waits", func() bool {
				var waits bool
				must(t, s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1)`,
					"%"+map[string]string{"DETACH": "CONCURRENTLY"}[waiting]+waiting[:4]+"%").Scan(&waits))
				if waiting == "DETACH" {
					must(t, s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%CONCURRENTLY')`).Scan(&waits))
				}
				return waits
			})
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			must(t, reader.Rollback(t.Context()))
			completeRemoval(t, s, future, len(first))
		})
	}
}

// expired lists the partitions of messages that have expired at a time.
func expired(t *testing.T, s *Store, at time.Time) []string {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^messages_[0-9]{8}$' AND c.relname < $1 ORDER BY 1`,
		partition{"messages", at.Add(-dropSlack).UTC().Truncate(day)}.name())
	must(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return names
}

// completeRemoval removes what is left, and checks that the table takes messages as before.
func completeRemoval(t *testing.T, s *Store, at time.Time, want int) {
	t.Helper()
	removed := map[string]bool{}
	eventually(t, "the removal is complete", func() bool { // The dead process's statement may still be waiting in the database.
		dropped, err := s.DropExpiredPartitions(t.Context(), at, 60*day)
		if err != nil && !errors.Is(err, ErrRemovalWaits) {
			t.Fatal(err)
		}
		for _, name := range dropped {
			removed[name] = true
		}
		return len(expired(t, s, at)) == 0
	})
	if len(removed) > want {
		t.Errorf("%d partitions were removed, %d had expired", len(removed), want)
	}
	var pending int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhdetachpending`).Scan(&pending))
	if pending != 0 {
		t.Error("a half removed partition is left")
	}
	must(t, s.EnsurePartitions(t.Context(), time.Now(), 2*day, []time.Duration{time.Hour, week}, fortnight))
	channel, alice, _ := direct(t, s)
	for _, life := range []time.Duration{time.Hour, week} {
		m := message(channel, alice, "as before")
		m.Message.ExpiresAt = time.Now().Add(life)
		must(t, s.AppendBatch(t.Context(), []*Append{m}))
	}
}

// A channel of one day is gone after one day, one of ninety survives; what has expired is unreadable at once and gone within a day.
func TestAChannelOfOneDayIsGoneAfterOneDayAndOneOfNinetySurvives(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	now := time.Now()
	must(t, s.EnsurePartitions(t.Context(), now, 2*day, []time.Duration{day, 90 * day}, fortnight))
	short, alice, _ := direct(t, s)
	carol, _ := person(t, s, "carol")
	dave, erin := person(t, s, "dave")
	c, err := s.DirectChannel(t.Context(), carol.ID, dave.ID, now)
	must(t, err)
	_, err = s.CreateGroup(t.Context(), &Group{ChannelID: c.ID, Generation: 1, GroupInfo: []byte("info"), Creator: erin.ID, At: now})
	must(t, err)
	long := c.ID
	const n = 20
	for i := range n {
		x, y := message(short, alice, fmt.Sprint("of a day ", i)), message(long, erin, fmt.Sprint("of ninety ", i))
		x.Message.ExpiresAt, y.Message.ExpiresAt = now.Add(day), now.Add(90*day)
		must(t, s.AppendBatch(t.Context(), []*Append{x, y}))
		must(t, errors.Join(x.Err, y.Err))
	}
	read := func(channel ids.ID, at time.Time) int {
		t.Helper()
		page, err := s.ReadMessages(t.Context(), channel, 0, 100, 1<<20, at)
		must(t, err)
		return len(page)
	}
	for _, x := range []struct {
		after       time.Duration
		short, long int
	}{{day - time.Second, n, n}, {day, 0, n}, {90*day - time.Second, 0, n}, {90 * day, 0, 0}} {
		if a, b := read(short, now.Add(x.after)), read(long, now.Add(x.after)); a != x.short || b != x.long {
			t.Errorf("after %s %d messages of a day and %d of ninety can be read, want %d and %d", x.after, a, b, x.short, x.long)
		}
	}
	gone := now.Add(2*day + dropSlack) // At expiry plus 24 hours at the latest, and the slack.
	_, err = s.DropExpiredPartitions(t.Context(), gone, 200*day)
	must(t, err)
	count := func(channel ids.ID) (rows int) {
		must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM messages WHERE channel_id = $1`, channel).Scan(&rows))
		return rows
	}
	if a, b := count(short), count(long); a != 0 || b != n {
		t.Errorf("on disk are %d rows of the channel of a day and %d of that of ninety, want 0 and %d", a, b, n)
	}
	if got := read(long, now); got != n {
		t.Errorf("of the channel of ninety days %d messages can be read, want %d", got, n)
	}
}

// A policy change moves rows: to another day's partition, with everything that is in them, and back before they expire.
func TestAChangedRetentionMovesRowsAndNothingElse(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	now := time.Now()
	must(t, s.EnsurePartitions(t.Context(), now, 2*day, []time.Duration{day, 90 * day}, fortnight))
	channel, alice, _ := direct(t, s)
	for i := range 10 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, fmt.Sprint("a week ", i))}))
	}
	before, err := s.ReadMessages(t.Context(), channel, 0, 100, 1<<20, now)
	must(t, err)
	for _, life := range []time.Duration{90 * day, day} {
		_, err := s.pool.Exec(t.Context(), `UPDATE messages SET expires_at = accepted_at + $2::interval WHERE channel_id = $1`, channel, life)
		must(t, err)
		after, err := s.ReadMessages(t.Context(), channel, 0, 100, 1<<20, now) // With their checksums.
		must(t, err)
		if len(after) != len(before) {
			t.Fatalf("%d messages, before there were %d", len(after), len(before))
		}
		for i, m := range after {
			if m.Seq != before[i].Seq || m.DeliveryID != before[i].DeliveryID || string(m.Payload) != string(before[i].Payload) || !m.AcceptedAt.Equal(before[i].AcceptedAt) {
				t.Errorf("message %d has changed", m.Seq)
			}
			if want := m.AcceptedAt.Add(life); !m.ExpiresAt.Equal(want) {
				t.Errorf("message %d expires at %s, want %s", m.Seq, m.ExpiresAt, want)
			}
		}
	}
	var where string
	must(t, s.pool.QueryRow(t.Context(), `SELECT string_agg(DISTINCT tableoid::regclass::text, ' ') FROM messages WHERE channel_id = $1`, channel).Scan(&where))
	if want := (partition{"messages", before[0].AcceptedAt.Add(day).UTC().Truncate(day)}).name(); !strings.Contains(where, want) || strings.Count(where, "_") > 2 {
		t.Errorf("the rows are in %s, want %s", where, want)
	}
}

// No DEFAULT partition: a message that no day has a place for is refused, not kept where nobody removes it.
func TestThereIsNoDefaultPartition(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	m := message(channel, alice, "for a year that is not prepared")
	m.Message.ExpiresAt = time.Now().Add(365 * day)
	if err := s.AppendBatch(t.Context(), []*Append{m}); err == nil {
		t.Error("stored")
	}
	var defaults int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0`).Scan(&defaults))
	if defaults != 0 {
		t.Errorf("%d tables have a DEFAULT partition", defaults)
	}
}
