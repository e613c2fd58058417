//go:build linux

package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quicproquo.dev/test/history/bed"
	"quicproquo.dev/test/history/check"
	"quicproquo.dev/test/history/load"
	"quicproquo.dev/test/history/powerfs"
	"quicproquo.dev/test/history/record"
)

// Options say what is run, and on what.
type Options struct {
	Name     string
	Seed     uint64
	Replicas int
	Size     load.Size
	// For is how long clients work while faults happen; on a slow machine up to three times as long, until AtLeast
	// operations are noted.
	For     time.Duration
	AtLeast int
	// Faults are those that happen, a fault named twice twice as often. None: a calm run.
	Faults []Fault
	// Pause is the most between two faults.
	Pause time.Duration
	// Binary is the program cell; empty: it is built.
	Binary string
	// Disk has PostgreSQL's files lie on a disk that loses its power. Nil: on this machine's.
	Disk *powerfs.Options
	// Loss is how much a loss of power takes.
	Loss powerfs.Mode
	// Settings are PostgreSQL's.
	Settings map[string]string
	// Keep is where a history goes that is not right. Empty: the user's cache.
	Keep string
	// KeepAll keeps those as well that are right.
	KeepAll bool
	// Script is what happens instead of Faults drawn by lot: in this order, evenly over For, and on a slow machine not before
	// Between operations are noted after the one before.
	Script  []Fault
	Between int
	// Patience is for the clients to come to an end; 0: a minute.
	Patience time.Duration
	// Sabotage is SQL that breaks the cell before the clients begin; Repair takes it back.
	Sabotage, Repair string
}

// Result is what came of a run.
type Result struct {
	History  *record.History
	Report   *check.Report
	Problems []string // What no model looks at and must not have happened.
	Counts   Counts
	Kept     string // The file, if the history is not right.
	Took     time.Duration
	Judging  time.Duration // Of that.
}

// OK says that nothing was found.
func (r *Result) OK() bool { return r.Report.OK() && len(r.Problems) == 0 }

// String tells of the run in one line, and of what was found in more.
func (r *Result) String() string {
	var b strings.Builder
	h := r.History
	fmt.Fprintf(&b, "%s, seed %d, %d replicas: %d operations in %d parts; %s; %.1f s, %.1f of it to judge", h.Name, h.Seed, h.Replica, r.Report.Operations, r.Report.Parts, r.Counts,
		r.Took.Seconds(), r.Judging.Seconds())
	for _, f := range r.Report.Findings {
		fmt.Fprintf(&b, "\n%s", f)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "\nproblem: %s", p)
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "\nkept: %s", r.Kept)
	}
	return b.String()
}

const (
	finishPatience = 60 * time.Second
	stopPatience   = 30 * time.Second
)

// Bench is a PostgreSQL and replicas over it, for any number of runs one after the other.
type Bench struct {
	o       Options
	dir     string
	files   *bed.Files
	db      *bed.Postgres
	cells   []*bed.Cell
	proxies []*bed.Proxy
}

// NewBench starts them. The caller closes it.
func NewBench(ctx context.Context, o Options) (*Bench, error) {
	b := &Bench{o: o}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Bench) start(ctx context.Context) error {
	var err error
	if b.o.Binary == "" {
		if b.o.Binary, err = Build(ctx); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "qpq-history-*"); err != nil {
		return err
	}
	if b.files, err = bed.NewFiles(b.dir, b.o.Binary); err != nil {
		return err
	}
	b.db, err = bed.NewPostgres(ctx, b.dir, bed.DatabaseOptions{Power: b.o.Disk, Settings: b.o.Settings}, func(url string) error { return b.files.Migrate(ctx, url) })
	if err != nil {
		return err
	}
	for i := range b.o.Replicas {
		c, err := b.files.NewCell(ctx, fmt.Sprint("cell-", i))
		if err != nil {
			return err
		}
		b.cells = append(b.cells, c)
		if err := c.Start(ctx); err != nil {
			return err
		}
		p, err := bed.NewProxy(c.Addr, b.o.Seed+uint64(i)) //nolint:gosec // small.
		if err != nil {
			return err
		}
		b.proxies = append(b.proxies, p)
	}
	return nil
}

// Close ends everything and removes the files.
func (b *Bench) Close() error {
	for _, p := range b.proxies {
		p.Close()
	}
	for _, c := range b.cells {
		c.Close()
	}
	var err error
	if b.db != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		err = b.db.Stop(ctx)
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

// Run is one history.
func (b *Bench) Run(ctx context.Context, o Options) (*Result, error) {
	begun := time.Now()
	rec := record.New()
	addrs := make([]string, 0, len(b.proxies))
	for _, p := range b.proxies {
		addrs = append(addrs, p.Addr)
	}
	name := fmt.Sprintf("%s-%d-%x-", strings.ReplaceAll(o.Name, " ", ""), o.Seed, begun.UnixNano()&0xffffff)
	w := load.New(rec, b.files.CA.Certificate(), addrs, name, o.Seed, o.Size)
	if err := w.Prepare(ctx); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, b.logs())
	}
	n := newNemesis(b, rec, o)
	late, err := b.through(ctx, w, n)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, b.logs())
	}
	h := &record.History{Name: o.Name, Seed: o.Seed, Replica: len(b.cells), Ops: rec.Ops(), Plan: o.plan()}
	r := &Result{History: h, Counts: n.counts, Problems: append(w.Problems(), late...)}
	r.Counts.Codes = w.Codes()
	ended := time.Now()
	r.Report = check.History(h)
	r.Judging, r.Took = time.Since(ended), time.Since(begun)
	if !r.OK() || o.KeepAll {
		r.Kept, err = keep(o, r)
	}
	return r, err
}

// through lets the clients work while faults happen, and come to an end. It begins and ends with a cell that is as it
// should be, unless it is to be broken.
func (b *Bench) through(ctx context.Context, w *load.World, n *nemesis) (problems []string, err error) {
	if n.o.Sabotage != "" {
		if err := b.db.ExecAgain(ctx, n.o.Sabotage); err != nil {
			return nil, fmt.Errorf("breaking the cell: %w", err)
		}
		defer func() { err = errors.Join(err, b.db.ExecAgain(ctx, n.o.Repair)) }()
	}
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	w.Start(working)
	err = n.run(ctx, n.o.For)
	if err == nil {
		err = n.heal(ctx)
	}
	if err == nil {
		problems, err = b.finish(ctx, w, cmp.Or(n.o.Patience, finishPatience))
	}
	cancel()
	w.Wait()
	return problems, err
}

// finish lets the clients come to an end, restarts the cells in order, and has everything looked at once more.
func (b *Bench) finish(ctx context.Context, w *load.World, patience time.Duration) (problems []string, err error) {
	ending, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !w.Finish(ending) {
		return []string{"the clients did not come to an end in " + patience.String()}, nil
	}
	for _, c := range b.cells {
		if err := c.Drain(); err != nil {
			problems = append(problems, err.Error())
		}
		if err := c.Start(ctx); err != nil {
			return nil, err
		}
	}
	if !w.Quiet(ending) {
		problems = append(problems, "not every device came back")
	}
	return problems, nil
}

func (b *Bench) logs() string {
	var all strings.Builder
	for _, c := range b.cells {
		log := c.Log()
		fmt.Fprintf(&all, "cell: %s\n", log[max(0, len(log)-1500):])
	}
	if b.db != nil {
		fmt.Fprintf(&all, "postgres: %s\n", b.db.Log())
	}
	return all.String()
}

// plan is what is written down of the options.
func (o Options) plan() map[string]string {
	p := map[string]string{"for": o.For.String(), "replicas": fmt.Sprint(o.Replicas), "size": fmt.Sprintf("%+v", o.Size), "faults": fmt.Sprint(o.Faults)}
	if o.Disk != nil {
		p["disk"] = "loses power"
	}
	for k, v := range o.Settings {
		p["postgres "+k] = v
	}
	return p
}

// keep writes a history that is not right, and porcupine's page about each finding beside it.
func keep(o Options, r *Result) (string, error) {
	dir := o.Keep
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "quicproquo", "history")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d-%s.jsonl", strings.ReplaceAll(o.Name, " ", "-"), o.Seed, time.Now().UTC().Format("20060102T150405.000")))
	err := r.History.Save(path)
	return path, errors.Join(err, Visualize(path, r.History, r.Report))
}

// Visualize writes porcupine's page about each finding beside the history's file.
func Visualize(path string, h *record.History, r *check.Report) error {
	var errs []error
	for i, f := range r.Findings {
		errs = append(errs, f.Visualize(fmt.Sprintf("%s-%d.html", strings.TrimSuffix(path, ".jsonl"), i+1), h))
	}
	return errors.Join(errs...)
}
