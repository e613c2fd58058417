package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/internal/embeddedpg/pgtest"
)

// Every column that is named *_sealed is known to the re-sealing, to the scrub and to `cell keys status`.
func TestEverySealedColumnIsKnown(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	rows, err := s.pool.Query(t.Context(), `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name LIKE '%\_sealed'`)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		if !slices.ContainsFunc(sealedColumns, func(c sealedColumn) bool { return c.table+"."+c.column == name }) {
			t.Errorf("add %s to sealedColumns", name)
		}
	}
	must(t, rows.Err())
}

// keysOf is a process with keys of its own over a database that exists.
func keysOf(t *testing.T, s *Store, keyIDs ...uint32) (*Store, *Sealing) {
	t.Helper()
	p := open(t, s.pool.Config().ConnString(), keyIDs...)
	g, err := p.JoinSealing(t.Context())
	must(t, err)
	return p, g
}

func seals(s *Store) uint32 { return s.sealer.current.Load() }

// A file with a new first key may come to processes in any order: the new key seals when all have it, and nobody ever meets a row
// that he cannot open.
func TestANewKeySealsOnceEveryProcessHasIt(t *testing.T) {
	t.Parallel()
	for name, replaced := range map[string][]int{"first the one": {0, 1}, "first the other": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			processes, agreed := make([]*Store, 2), make([]*Sealing, 2)
			for i := range processes {
				processes[i], agreed[i] = keysOf(t, s, 1)
			}
			n := 0
			everybodyReads := func(when string) {
				t.Helper()
				for i, writer := range processes {
					n++
					a, _ := person(t, writer, fmt.Sprint("person ", n))
					for j, reader := range processes {
						if got, err := reader.AccountByID(t.Context(), a.ID); err != nil || got.Name != a.Name {
							t.Errorf("%s: what process %d sealed under %d, process %d reads as %q, %v", when, i, seals(writer), j, got.Name, err)
						}
					}
				}
			}
			everybodyReads("before")
			for round, i := range replaced {
				agreed[i].Leave(t.Context())
				processes[i], agreed[i] = keysOf(t, s, 2, 1)
				for _, g := range agreed {
					must(t, g.Refresh(t.Context()))
				}
				everybodyReads(fmt.Sprint("after restart ", round))
				if want := uint32(1 + round); seals(processes[i]) != want {
					t.Errorf("after restart %d key %d seals, want %d", round, seals(processes[i]), want)
				}
			}
			for _, p := range processes {
				if seals(p) != 2 {
					t.Errorf("at last key %d seals", seals(p))
				}
			}
		})
	}
}

// A process that is gone without a word holds the new key up for as long as it is taken to run.
func TestAProcessThatIsGoneDoesNotHoldTheKeyUpForever(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	keysOf(t, s, 1) // Killed.
	p, g := keysOf(t, s, 2, 1)
	if seals(p) != 1 {
		t.Fatalf("key %d seals", seals(p))
	}
	_, err := s.pool.Exec(t.Context(), `UPDATE sealing_processes SET seen_at = seen_at - interval '121 seconds' WHERE key_ids = '{1}'`)
	must(t, err)
	must(t, g.Refresh(t.Context()))
	if seals(p) != 2 {
		t.Errorf("key %d seals", seals(p))
	}
}

// Re-sealing: bounded, resumable, by several processes without fighting; and the old key may go when nothing is left under it.
func TestRowsAreSealedAnewAndTheOldKeyMayGo(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t), 1)
	must(t, s.Migrate(t.Context(), quiet))
	must(t, s.EnsurePartitions(t.Context(), time.Now(), 2*day, []time.Duration{time.Hour, week}, fortnight))
	_, old := keysOf(t, s, 1)
	accounts := make([]Account, 60)
	for i := range accounts {
		accounts[i], _ = person(t, s, fmt.Sprint("person ", i))
	}
	before, err := s.SealedRows(t.Context())
	must(t, err)
	if before[1] < 4*60 || len(before) != 1 {
		t.Fatalf("%v", before)
	}
	old.Leave(t.Context())

	if _, err := open(t, s.pool.Config().ConnString(), 2).JoinSealing(t.Context()); !errors.Is(err, ErrKeyMissing) || !strings.Contains(err.Error(), ": 1;") {
		t.Fatalf("a start without the key that rows are under: %v", err)
	}
	one, g := keysOf(t, s, 2, 1)
	two, _ := keysOf(t, s, 2, 1)

	cut, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // At 20 a second this is soon over.
	_, err = one.Reseal(cut, 20)
	cancel()
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("the first run was not cut off: %v", err)
	}
	var rows [2]int64
	var both sync.WaitGroup
	for i, p := range []*Store{one, two} {
		both.Go(func() {
			done, err := p.Reseal(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			rows[i] = done.Rows
		})
	}
	both.Wait()
	_, err = one.Reseal(t.Context(), 0) // What the other may have held.
	must(t, err)
	after, err := one.SealedRows(t.Context())
	must(t, err)
	if after[2] != before[1] || len(after) != 1 {
		t.Errorf("under each key now: %v, before: %v", after, before)
	}
	if sum := rows[0] + rows[1]; sum > before[1] {
		t.Errorf("%d values were sealed anew, there are %d", sum, before[1])
	}
	for _, a := range accounts {
		got, err := two.AccountByID(t.Context(), a.ID)
		if err != nil || got.Name != a.Name || !bytes.Equal(got.OPAQUERecord, a.OPAQUERecord) {
			t.Fatalf("%+v, %v", got, err)
		}
	}

	if _, err := open(t, s.pool.Config().ConnString(), 2).JoinSealing(t.Context()); !errors.Is(err, ErrKeyMissing) {
		t.Errorf("key 1 sealed a moment ago: %v", err)
	}
	one.keyQuiet = 0 // As if the last use of key 1 were long ago.
	time.Sleep(10 * time.Millisecond)
	done, err := one.Reseal(t.Context(), 0)
	must(t, err)
	if !slices.Equal(done.Retired, []uint32{1}) {
		t.Errorf("retired: %v", done.Retired)
	}
	must(t, g.Refresh(t.Context()))
	only, err := open(t, s.pool.Config().ConnString(), 2).JoinSealing(t.Context())
	must(t, err)
	must(t, only.Refresh(t.Context()))
}

// A row that is under the old key although the key was forgotten is found by the count, and the key stays.
func TestAKeyStaysAsLongAsARowIsUnderIt(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, _ := person(t, s, "alice")
	p, _ := keysOf(t, s, 2, 1)
	p.keyQuiet = 0
	_, err := p.pool.Exec(t.Context(), `INSERT INTO sealing_keys VALUES (1, now() - interval '1 day')`)
	must(t, err)
	_, err = p.pool.Exec(t.Context(), `UPDATE accounts SET name_sealed = set_byte(name_sealed, 20, get_byte(name_sealed, 20) # 1) WHERE account_id = $1`, a.ID) // Nobody can open it any more.
	must(t, err)
	done, err := p.Reseal(t.Context(), 0)
	must(t, err)
	if len(done.Retired) != 0 || done.Rows == 0 {
		t.Errorf("%+v", done)
	}
}
