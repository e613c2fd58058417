package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"quicproquo.dev/test/load/peer"
)

const (
	syncDelay      = 50 * time.Millisecond // How much longer each sync takes under proof.
	syncCalls      = "fsync,fdatasync,sync_file_range,syncfs"
	attachPatience = 10 * time.Second
)

// proof shows what an acknowledgement means: strace makes every sync of a system's processes take longer, and counts
// them. Who acknowledges what is on disk acknowledges later by as much.
func (p *plan) proof(ctx context.Context, systems []peer.System) error {
	topology := p.topologies[0]
	sessions, closeAll, err := openAll(ctx, systems, topology)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "system\tmessages\tsyncs per message\tfastest acknowledgement, each sync delayed by %s\t\n", syncDelay)
	for i, s := range systems {
		if err := p.prove1(ctx, w, s, sessions[i]); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (p *plan) prove1(ctx context.Context, w *tabwriter.Writer, s peer.System, open *opened) error {
	warm := load{inFlight: 1}
	if _, err := p.measure(ctx, s, open, warm, p.warm); err != nil {
		return err
	}
	t, err := trace(ctx, s.Processes(), filepath.Join(p.dir, s.Name()+".strace"))
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	tracker := peer.NewTracker(1<<31, open.topology)
	open.use(tracker)
	d := newDriver(open.session, tracker, open.topology.Pairs, warm)
	err = d.run(ctx, warm, p.duration)
	syncs, errTrace := t.stop()
	if err := errors.Join(err, errTrace); err != nil {
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	if len(d.lags) == 0 {
		return fmt.Errorf("%s: nothing was acknowledged: %w", s.Name(), d.reason)
	}
	_, err = fmt.Fprintf(w, "%s\t%d\t%.2f\t%s\t\n", s.Name(), len(d.lags), float64(syncs)/float64(len(d.lags)), slices.Min(d.lags).Round(100*time.Microsecond))
	return err
}

// tracer is a running strace.
type tracer struct {
	cmd    *exec.Cmd
	file   string
	errors bytes.Buffer
}

func trace(ctx context.Context, roots []int, file string) (*tracer, error) {
	pids, err := peer.Family(roots)
	if err != nil {
		return nil, err
	}
	args := []string{"-f", "-qq", "-o", file, "-e", "trace=" + syncCalls, "-e", fmt.Sprintf("inject=%s:delay_exit=%d", syncCalls, syncDelay.Microseconds())}
	for _, pid := range pids {
		args = append(args, "-p", fmt.Sprint(pid))
	}
	t := &tracer{cmd: exec.CommandContext(ctx, "strace", args...), file: file} //nolint:gosec // Our own arguments.
	t.cmd.Stderr = &t.errors
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: install strace", err)
	}
	if err := awaitTraced(pids); err != nil {
		_, errStop := t.stop()
		return nil, errors.Join(err, errStop)
	}
	return t, nil
}

// awaitTraced waits until the processes have a tracer.
func awaitTraced(pids []int) error {
	for end := time.Now().Add(attachPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(pids, untraced) {
			return nil
		}
	}
	return errors.New("strace did not attach; may this user trace others' processes?")
}

func untraced(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && strings.Contains(string(b), "\nTracerPid:\t0\n")
}

// stop detaches and returns how many syncs there were.
func (t *tracer) stop() (syncs int, err error) {
	if err := t.cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, err
	}
	_ = t.cmd.Wait() // It ends by the signal.
	b, err := os.ReadFile(t.file)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, t.errors.String())
	}
	return countSyncs(string(b)), nil
}

// countSyncs counts the calls in strace's output; one that another thread's interrupts stands there twice.
func countSyncs(out string) int {
	n := 0
	for line := range strings.Lines(out) {
		if strings.Contains(line, "sync") && !strings.Contains(line, "resumed>") {
			n++
		}
	}
	return n
}
