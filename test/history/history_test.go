//go:build linux

package history

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/test/history/check"
	"quicproquo.dev/test/history/load"
	"quicproquo.dev/test/history/powerfs"
	"quicproquo.dev/test/history/record"
)

func TestMain(m *testing.M) {
	code := m.Run()
	CleanUp()
	os.Exit(code)
}

// bench starts a PostgreSQL and replicas; they end with the test.
func bench(t *testing.T, o Options) *Bench {
	t.Helper()
	b, err := NewBench(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func run(t *testing.T, b *Bench, o Options) *Result {
	t.Helper()
	r, err := b.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// right fails the test unless the history is.
func right(t *testing.T, r *Result) {
	t.Helper()
	if !r.OK() {
		t.Errorf("%s", r)
		return
	}
	t.Logf("report: %s", r)
}

// What clients see of one to three replicas that are killed, drained, paused and cut off is what a cell would have told them
// that does one thing at a time.
func TestHistoriesUnderFaultsAreRight(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{3, 1} {
		o := Options{Name: "faults", Seed: uint64(replicas), Replicas: replicas, Size: load.Usual, For: 8 * time.Second, AtLeast: 4000, Faults: AllFaults, Pause: 800 * time.Millisecond} //nolint:gosec // small.
		r := run(t, bench(t, o), o)
		right(t, r)
		if r.Report.Operations < 1000 {
			t.Errorf("%d operations tell too little", r.Report.Operations)
		}
	}
}

func usable(t *testing.T) {
	t.Helper()
	if err := powerfs.Usable(); err != nil {
		t.Skipf("NOT RUN: no FUSE filesystem can be mounted here, so no disk loses its power: %v", err)
	}
}

// disk is an Options for a run on a disk that can lose its power.
func disk(name string, seed uint64, script ...Fault) Options {
	return Options{Name: name, Seed: seed, Replicas: 2, Size: load.Small, For: time.Duration(len(script)+1) * 1500 * time.Millisecond, Script: script, Between: 250,
		Disk: &powerfs.Options{SyncDelay: SyncDelay, Seed: seed}, Settings: maps.Clone(DiskSettings)}
}

// Everything acknowledged is there after losses of power, whatever the disk had not synced.
func TestHistoriesOverLossesOfPowerAreRight(t *testing.T) {
	t.Parallel()
	usable(t)
	o := disk("power", 1, PowerLoss, Checkpoint, PowerLoss, KillDatabase, PowerLoss, KillCell, PowerLoss, PowerLoss)
	r := run(t, bench(t, o), o)
	right(t, r)
	if r.Counts.Faults[PowerLoss] < 5 || r.Counts.Loss.Lost == 0 {
		t.Errorf("%+v is no test of losses", r.Counts)
	}
}

// Where PostgreSQL does not sync, or the disk does not though it says so, the same losses are noticed.
func TestUnsyncedMessagesAreMissed(t *testing.T) {
	t.Parallel()
	usable(t)
	for name, change := range map[string]func(*Options){
		"fsync is off":  func(o *Options) { o.Settings["fsync"] = "off" },
		"the disk lies": func(o *Options) { o.Disk.Lie = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The orderly restart is where the loss goes back to: by then everybody has their channels.
			o := disk(name, 2, Restart, PowerLoss)
			change(&o)
			o.Loss, o.Keep, o.Patience = powerfs.All, t.TempDir(), 5*time.Second
			noticed(t, run(t, bench(t, o), o), "log")
		})
	}
}

// findings are the models that refused the history.
func (r *Result) findings() (models []string) {
	for _, f := range r.Report.Findings {
		if !f.Undecided {
			models = append(models, f.Model)
		}
	}
	slices.Sort(models)
	return slices.Compact(models)
}

// found says that all of these models refused the history.
func (r *Result) found(models ...string) bool {
	for _, m := range models {
		if !slices.Contains(r.findings(), m) {
			return false
		}
	}
	return true
}

// noticed fails the test unless the models found something, which can be found again from the file.
func noticed(t *testing.T, r *Result, models ...string) {
	t.Helper()
	t.Logf("report: %s: noticed by %v and %d complaints of clients in %d operations", t.Name(), r.findings(), len(r.Problems), r.Report.Operations)
	if !r.found(models...) {
		t.Fatalf("not noticed by %v: %s", models, r)
	}
	again, err := record.Load(r.Kept)
	if err != nil {
		t.Fatal(err)
	}
	if j := check.History(again); len(j.Findings) != len(r.Report.Findings) {
		t.Errorf("from its file the history has %d findings, had %d", len(j.Findings), len(r.Report.Findings))
	}
	if _, err := os.Stat(strings.TrimSuffix(r.Kept, ".jsonl") + "-1.html"); err != nil {
		t.Error("the page about the first finding is missing:", err)
	}
}
