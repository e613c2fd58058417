package store

import (
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
)

func TestTheLatestOfAKind(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	other := process(t, uri)
	now := time.Now()
	fill(t, s, 5)
	for i, minutes := range []int{2, 4, 1, 3} {
		from := []*Store{s, other}[i%2]
		at := now.Add(time.Duration(minutes) * time.Minute)
		must(t, from.WriteAudit(t.Context(), audit.PolicyReplaced([8]byte{7: byte(minutes)}).At(at), audit.ServerKeyRotated(audit.KeySetTokens, uint32(minutes)).At(at))) //nolint:gosec // small.
	}
	for _, kind := range []audit.Kind{audit.KindPolicyReplaced, audit.KindServerKeyRotated} {
		var got []uint64
		must(t, s.LatestAudit(t.Context(), kind, func(r *audit.Record) bool {
			if r.Kind != kind {
				t.Errorf("%s among %s", r.Kind, kind)
			}
			got = append(got, r.Details[len(r.Details)-1].Value)
			return len(got) < 3
		}))
		if len(got) != 3 || got[0] != 4 || got[1] != 3 || got[2] != 2 {
			t.Errorf("%s: %v", kind, got)
		}
	}
	if err := s.LatestAudit(t.Context(), audit.KindLogin, func(*audit.Record) bool { return true }); err == nil {
		t.Error("a kind without an index is looked up")
	}
	var plan string
	rows, err := s.pool.Query(t.Context(), `EXPLAIN (COSTS OFF) SELECT body FROM audit_events
		WHERE substring(body FROM 2 FOR 2) = '\x019a'::bytea AND substring(body FROM 2 FOR 2) IN ('\x019a'::bytea, '\x025d'::bytea)
		ORDER BY substring(body FROM 8 FOR 8) DESC`)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var line string
		must(t, rows.Scan(&line))
		plan += line + "\n"
	}
	if !strings.Contains(plan, "audit_events_of_state") {
		t.Errorf("the log is read as a whole:\n%s", plan)
	}
}

// Of several processes one makes a checkpoint in a period; a clock that is ahead keeps nobody from it.
func TestACheckpointWhenItIsDue(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	other := process(t, uri)
	now := time.Now()
	at := func(s *Store, d time.Duration) *audit.Progress {
		t.Helper()
		fill(t, s, 1)
		p, err := s.CheckpointAuditWhenDue(t.Context(), now.Add(d), time.Minute)
		must(t, err)
		return p
	}
	for _, x := range []struct {
		by     *Store
		at     time.Duration
		before uint64
		made   uint64
	}{{s, 0, 0, 1}, {other, time.Second, 1, 0}, {s, 59 * time.Second, 1, 0}, {other, time.Minute, 1, 2}, {s, 61 * time.Second, 2, 0}, {other, 0, 2, 3}} {
		if p := at(x.by, x.at); p.Before.Number != x.before || p.Made.Number != x.made {
			t.Errorf("at %s: %+v, want %d after %d", x.at, p, x.made, x.before)
		}
	}
	wantVerified(t, s, -1)
}

// More sessions than one transaction ends run out at once; each is told of once, by whichever of two cells ends it.
func TestManySessionsRunOut(t *testing.T) {
	t.Parallel()
	s, uri := freshAudit(t)
	other := process(t, uri)
	_, d := person(t, s, "alice")
	const n = 2*endPage + 50
	now := time.Now()
	_, err := s.pool.Exec(t.Context(), `INSERT INTO sessions (session_id, device_id, refresh_hash, created_at, expires_at)
		SELECT gen_random_uuid(), $1, 'h', $2, $2::timestamptz + '1 second'::interval FROM generate_series(1, $3)`, d.ID, utc(now.Add(-time.Hour)), n)
	must(t, err)
	var all sync.WaitGroup
	for _, at := range []*Store{s, other} {
		all.Go(func() {
			if err := at.SweepSessions(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, s.SweepSessions(t.Context(), now))
	checkpoint(t, s)
	if got := strings.Count(exportOf(t, s, audit.Filter{Kinds: []audit.Kind{audit.KindSessionEnded}}), `"reason":"expired"`); got != n {
		t.Errorf("%d sessions are told of, want %d", got, n)
	}
	if left := count(t, s, `SELECT count(*) FROM sessions WHERE revoked_at IS NULL`); left != 1 {
		t.Errorf("%d sessions go on, want hers", left)
	}
	must(t, s.SweepSessions(t.Context(), now.Add(endedKept)))
	if left := count(t, s, `SELECT count(*) FROM sessions`); left != 1 {
		t.Errorf("%d sessions are remembered, want hers", left)
	}
	wantVerified(t, s, -1)
}
