//go:build linux

package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"quicproquo.dev/test/history/load"
	"quicproquo.dev/test/history/powerfs"
)

// Long runs rounds with ever other seeds.
type Long struct {
	Seed   uint64
	For    time.Duration
	Rounds int // 0: as many as fit into For.
	Keep   string
	All    bool   // Also keep histories that are right.
	Only   string // "faults" or "power": only such rounds; empty: both in turn.
	Out    io.Writer
}

// SyncDelay is what a sync takes on the disk that can lose its power: that of a quick SSD.
const SyncDelay = time.Millisecond

// DiskSettings are PostgreSQL's on a disk that can lose its power. When it recovers it syncs every file, for a kernel may have
// data of its predecessor: here there is none, since every start has a fresh mount, and syncfs leaves it at that.
var DiskSettings = map[string]string{"recovery_init_sync_method": "syncfs"}

// Round is the plan of a seed. Even ones are about faults, odd ones about losses of power.
func Round(seed uint64, only string) Options {
	o := Options{Name: "faults", Seed: seed, Replicas: 1 + int(seed/2%3), Size: load.Usual, For: 20 * time.Second, Faults: AllFaults} //nolint:gosec // below 4.
	if only == "power" || only == "" && seed%2 == 1 {
		o.Name, o.For, o.Pause, o.Size = "power", 30*time.Second, 1200*time.Millisecond, load.Small
		o.Disk, o.Settings = &powerfs.Options{SyncDelay: SyncDelay, Seed: seed}, DiskSettings
		o.Faults = []Fault{PowerLoss, PowerLoss, PowerLoss, PowerLoss, Checkpoint, KillCell, KillDatabase}
	}
	return o
}

// Run runs the rounds and prints a line for each, and the sums.
func (l *Long) Run(ctx context.Context) error {
	if err := powerfs.Usable(); err != nil {
		fmt.Fprintf(l.Out, "power loss: NOT RUN: no FUSE filesystem can be mounted here: %v\n", err)
		if l.Only == "power" {
			return err
		}
		l.Only = "faults"
	}
	begun := time.Now()
	var sum Counts
	histories, operations, bad := 0, 0, 0
	for n := 0; (l.Rounds == 0 || n < l.Rounds) && (n == 0 || time.Since(begun) < l.For) && ctx.Err() == nil; n++ {
		o := Round(l.Seed+uint64(n), l.Only) //nolint:gosec // not negative.
		o.Keep, o.KeepAll = l.Keep, l.All
		r, err := once(ctx, o)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("seed %d: %w", o.Seed, err)
		}
		fmt.Fprintln(l.Out, r)
		sum.Add(r.Counts)
		histories++
		operations += r.Report.Operations
		if !r.OK() {
			bad++
		}
	}
	fmt.Fprintf(l.Out, "%d histories, %d operations, %d not right; %s; %s\n", histories, operations, bad, sum, time.Since(begun).Round(time.Second))
	fmt.Fprintf(l.Out, "answers that were errors: %v\n", sum.Codes)
	if bad > 0 {
		return fmt.Errorf("%d histories are not right", bad)
	}
	return nil
}

// once runs one history on a bench of its own.
func once(ctx context.Context, o Options) (r *Result, err error) {
	b, err := NewBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return b.Run(ctx, o)
}
