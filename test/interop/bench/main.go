// Command bench compares our MLS engine with mls-go and ts-mls in one run: the
// engines take turns, round by round, and the medians of the rounds are told. Each
// works on groups that it built itself in the same way. See the README beside the
// tests for how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"quicproquo.dev/test/interop/node"
)

// tooLong is the time of an operation above which one measurement must do.
const tooLong = 2 * time.Second

// plan says what to measure and how often.
type plan struct {
	sizes          []int
	ops, engines   []string
	rounds         int
	budget         time.Duration
	profile        string
	check          bool
	out, diagnoses io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p, err := parseFlags()
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop only restores signals.
	}
}

func parseFlags() (*plan, error) {
	p := &plan{out: os.Stdout, diagnoses: os.Stderr}
	quick := flag.Bool("quick", false, "at most a minute: fewer rounds, and shorter ones")
	sizes := flag.String("sizes", "", "members of the groups (default 2,10,100,1000; with -quick not 1000)")
	ops := flag.String("ops", "", "operations, separated by semicolons; all if empty")
	engines := flag.String("engines", "ours,mls-go,ts-mls", "who takes part")
	flag.StringVar(&p.profile, "cpuprofile", "", "write a CPU profile of the measurements to this file")
	flag.BoolVar(&p.check, "check", false, "exit with 1 if a demand does not hold")
	flag.Parse()
	p.rounds, p.budget = 7, 200*time.Millisecond
	if *quick {
		p.rounds, p.budget = 3, 20*time.Millisecond
	}
	if *sizes == "" {
		*sizes = "2,10,100,1000"
		if *quick {
			*sizes = "2,10,100"
		}
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 2 {
			return nil, fmt.Errorf("size %q: want a number from 2 on", s)
		}
		p.sizes = append(p.sizes, n)
	}
	p.engines = strings.Split(*engines, ",")
	p.ops = operations
	if *ops != "" {
		p.ops = strings.Split(*ops, ";")
	}
	for _, op := range p.ops {
		if !slices.Contains(operations, op) {
			return nil, fmt.Errorf("operation %q: want some of %q", op, operations)
		}
	}
	return p, nil
}

// start makes the engines that take part. Without node it says so and goes on.
func (p *plan) start(ctx context.Context) ([]engine, error) {
	var out []engine
	for _, name := range p.engines {
		switch name {
		case "ours":
			out = append(out, ours{})
		case "mls-go":
			out = append(out, mlsGo{})
		case "ts-mls":
			t, err := newTSMLS(ctx)
			if errors.Is(err, node.ErrMissing) {
				fmt.Fprintf(p.diagnoses, "NOT RUN: %v\n", err)
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		default:
			return nil, fmt.Errorf("engine %q: want ours, mls-go or ts-mls", name)
		}
	}
	return out, nil
}

func (p *plan) run(ctx context.Context) error {
	engines, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, e := range engines {
			if err := e.close(); err != nil {
				fmt.Fprintf(p.diagnoses, "%s: %v\n", e.name(), err)
			}
		}
	}()
	if p.profile != "" {
		f, err := os.Create(p.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := newReport(engines)
	for _, n := range p.sizes {
		if err := p.size(ctx, n, engines, r); err != nil {
			return err
		}
	}
	r.print(p.out)
	if broken := r.demands(p.out); p.check && broken > 0 {
		return fmt.Errorf("%d demands do not hold", broken)
	}
	return nil
}

// size measures one size of group: all engines in turn, round by round.
func (p *plan) size(ctx context.Context, n int, engines []engine, r *report) error {
	groups, err := p.build(n, engines)
	if err != nil {
		return err
	}
	for round := range p.rounds + 1 {
		for _, op := range p.ops {
			for i := range engines {
				if err := ctx.Err(); err != nil {
					return err
				}
				i = (i + round) % len(engines) // nobody is always the first
				if err := p.turn(key{engines[i].name(), op, n}, groups[i], round, r); err != nil {
					return err
				}
			}
		}
	}
	if n != bigGroup {
		return nil
	}
	return p.heaps(engines, groups, r)
}

// turn measures one operation of one engine. The first round is to get warm, and
// counts only for what takes so long that it is not done again.
func (p *plan) turn(k key, g group, round int, r *report) error {
	if round > 0 && len(r.samples[k]) > 0 && r.samples[k][0].time > tooLong {
		return nil
	}
	s, ok, err := g.measure(k.op, p.budget)
	if err != nil {
		return fmt.Errorf("%s, %s, %d members: %w", k.engine, k.op, k.n, err)
	}
	if ok && (round > 0 || s.time > tooLong) {
		r.add(k, s)
	}
	if round == 0 && s.time > tooLong {
		fmt.Fprintf(p.diagnoses, "%s, %s, %d members: measured once, it takes %s\n", k.engine, k.op, k.n, s.time.Round(time.Millisecond))
	}
	return nil
}

func (p *plan) build(n int, engines []engine) ([]group, error) {
	groups := make([]group, len(engines))
	tell := func(what string, begin time.Time) {
		fmt.Fprintf(p.diagnoses, "built a group of %d, %s: %s\n", n, what, time.Since(begin).Round(time.Millisecond))
	}
	for i, e := range engines {
		begin := time.Now()
		g, err := e.build(n)
		if err != nil {
			return nil, fmt.Errorf("%s builds a group of %d: %w", e.name(), n, err)
		}
		groups[i] = g
		tell(e.name(), begin)
	}
	if !slices.Contains(p.ops, opJoinFull) && !slices.Contains(p.ops, opJoinUnmerged) {
		return groups, nil
	}
	begin := time.Now()
	inviting, err := newForeign(n)
	if err != nil {
		return nil, fmt.Errorf("groups of %d to be invited to: %w", n, err)
	}
	for i, e := range engines {
		if err := groups[i].invite(inviting); err != nil {
			return nil, fmt.Errorf("%s is invited: %w", e.name(), err)
		}
	}
	tell("to be invited to", begin)
	return groups, nil
}

// heaps measures the live heap of joining, apart from all times.
func (p *plan) heaps(engines []engine, groups []group, r *report) error {
	for _, op := range joins {
		for i, e := range engines {
			g, ok := groups[i].(interface{ task(op string) task })
			if !ok || !slices.Contains(p.ops, op) {
				continue
			}
			peak, err := peakHeap(g.task(op))
			if err != nil {
				return fmt.Errorf("%s, heap of %s: %w", e.name(), op, err)
			}
			r.peaks[key{e.name(), op, bigGroup}] = peak
		}
	}
	return nil
}
