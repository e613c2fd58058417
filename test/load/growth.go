package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"quicproquo.dev/test/load/ours"
	"quicproquo.dev/test/load/peer"
)

const (
	growthPeople   = 8 // Pairs of people.
	fewestMessages = 1000
	fewestChannels = 10
	growthStep     = 10 // Each measurement has so many times as many as the one before.
)

// nameFew is a cell that holds few all the time, beside those that grow.
const nameFew = "few"

// prepareGrowth has the cells take part, and nobody else but one that does not grow: a machine that others use is not as
// fast an hour later, and what a message costs here is compared, round by round, with what it costs there.
func (p *plan) prepareGrowth() {
	p.systems = append(slices.DeleteFunc(p.systems, func(s string) bool { return s == nameAlways || s == nameDefault }), nameFew)
	p.programs[nameFew] = p.programs[p.systems[0]]
}

// grow measures what a message costs a cell that holds more and more.
func (p *plan) grow(ctx context.Context, systems []peer.System) (err error) {
	what, number, _ := strings.Cut(p.growth, "=")
	most, err := strconv.Atoi(number)
	if err != nil || what != "messages" && what != "channels" {
		return fmt.Errorf("growth %q: want messages=NUMBER or channels=NUMBER", p.growth)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tsystem\tload\tmessages/s\trange\tpublish p50\tp99 ms\tCPU ms/1000\t÷ few\trange\tWAL B\tdisk B\t\n", what)
	last := len(systems) - 1
	few, closeFew, err := openAll(ctx, systems[last:], peer.Topology{Pairs: growthPeople, Devices: 1})
	defer func() { err = errors.Join(err, closeFew()) }()
	if err != nil {
		return err
	}
	g := growth{p, w, systems[last], few[0]}
	for _, s := range systems[:last] {
		c := s.(*ours.System)
		if what == "messages" {
			err = g.messages(ctx, c, most)
		} else {
			err = g.channels(ctx, c, most)
		}
		if err != nil {
			return err
		}
	}
	return w.Flush()
}

// growth is a plan's table, and the cell that does not grow.
type growth struct {
	*plan
	w   *tabwriter.Writer
	few peer.System
	at  *opened // There.
}

func (p growth) messages(ctx context.Context, s *ours.System, most int) (err error) {
	sessions, closeAll, err := openAll(ctx, []peer.System{s}, peer.Topology{Pairs: growthPeople, Devices: 1})
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	for n := fewestMessages; n <= most; n *= growthStep {
		begin := time.Now()
		if err := s.Fill(ctx, n); err != nil {
			return err
		}
		fmt.Fprintf(p.diagnoses, "%s: %d messages stored, after %s\n", s.Name(), n, time.Since(begin).Round(time.Second))
		if err := p.measureBoth(ctx, s, sessions[0], n); err != nil {
			return err
		}
	}
	return nil
}

func (p growth) channels(ctx context.Context, s *ours.System, most int) error {
	for n := fewestChannels; n <= most; n *= growthStep {
		if err := p.someChannels(ctx, s, n); err != nil {
			return err
		}
	}
	return nil
}

// someChannels measures with so many channels, whose messages come in turn.
func (p growth) someChannels(ctx context.Context, s *ours.System, n int) (err error) {
	o := &opened{topology: peer.Topology{Pairs: n, Devices: 1}}
	o.use(peer.NewTracker(0, o.topology))
	o.session, err = s.OpenMany(ctx, growthPeople, n, func(channel, device int, content []byte) { o.tracker.Load().Deliver(channel, device, content) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.session.Close()) }()
	fmt.Fprintf(p.diagnoses, "%s: %d channels\n", s.Name(), n)
	// A row's page is written to the log whole when it is first touched after a checkpoint: all channels get a message first.
	for o.session.(*ours.Many).Published() < n {
		if _, err := p.measure(ctx, s, o, load{inFlight: 256}, p.duration); err != nil {
			return err
		}
	}
	return p.measureBoth(ctx, s, o, n)
}

// measureBoth measures the loads once the numbers are as wanted, in turn with the cell that has few.
func (p growth) measureBoth(ctx context.Context, s peer.System, o *opened, n int) error {
	r := &report{systems: []string{s.Name()}}
	for _, l := range p.loads {
		for round := range p.rounds {
			first := round % 2
			for i := range 2 {
				system, opened := s, o
				if i == first {
					system, opened = p.few, p.at
				}
				if err := p.turn(ctx, system, opened, l, r); err != nil {
					return err
				}
			}
		}
		k, few := key{o.topology.String(), l.String(), s.Name()}, key{p.at.topology.String(), l.String(), p.few.Name()}
		v, cost := r.of(k, rate), milliseconds(func(x sample) time.Duration { return x.CPU })
		q := r.quotient(k, few, cost)
		fmt.Fprintf(p.w, "%d\t%s\t%s\t%.0f\t%.0f–%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f–%.2f\t%.0f\t%.0f\t\n", n, s.Name(), l, v.median, v.low, v.high,
			r.of(k, milliseconds(func(x sample) time.Duration { return x.PublishP50 })).median, r.of(k, milliseconds(func(x sample) time.Duration { return x.PublishP99 })).median,
			r.of(k, cost).median, q.median, q.low, q.high,
			r.of(k, func(x sample) float64 { return x.WAL }).median, r.of(k, func(x sample) float64 { return x.Stored }).median)
	}
	return p.w.Flush() // Who gives up waiting for the next has these.
}
