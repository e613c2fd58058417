package main

import (
	"context"
	"errors"
	"fmt"
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

// grow measures what a message costs a cell that holds more and more.
func (p *plan) grow(ctx context.Context, systems []peer.System) error {
	what, number, _ := strings.Cut(p.growth, "=")
	most, err := strconv.Atoi(number)
	if err != nil || what != "messages" && what != "channels" {
		return fmt.Errorf("growth %q: want messages=NUMBER or channels=NUMBER", p.growth)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tsystem\tload\tmessages/s\trange\tpublish p50\tp99 ms\tCPU ms/1000\tWAL B\tdisk B\t\n", what)
	for _, s := range systems {
		c, ok := s.(*ours.System)
		if !ok {
			continue
		}
		if what == "messages" {
			err = p.growMessages(ctx, w, c, most)
		} else {
			err = p.growChannels(ctx, w, c, most)
		}
		if err != nil {
			return err
		}
	}
	return w.Flush()
}

func (p *plan) growMessages(ctx context.Context, w *tabwriter.Writer, s *ours.System, most int) (err error) {
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
		if err := p.growth1(ctx, w, s, sessions[0], n); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) growChannels(ctx context.Context, w *tabwriter.Writer, s *ours.System, most int) error {
	for n := fewestChannels; n <= most; n *= growthStep {
		if err := p.channels1(ctx, w, s, n); err != nil {
			return err
		}
	}
	return nil
}

// channels1 measures with so many channels, whose messages come in turn.
func (p *plan) channels1(ctx context.Context, w *tabwriter.Writer, s *ours.System, n int) (err error) {
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
	return p.growth1(ctx, w, s, o, n)
}

// growth1 measures the loads once the numbers are as wanted.
func (p *plan) growth1(ctx context.Context, w *tabwriter.Writer, s peer.System, o *opened, n int) error {
	r := &report{systems: []string{s.Name()}}
	for _, l := range p.loads {
		for range p.rounds {
			if err := p.turn(ctx, s, o, l, r); err != nil {
				return err
			}
		}
		k := key{o.topology.String(), l.String(), s.Name()}
		v := r.of(k, rate)
		fmt.Fprintf(w, "%d\t%s\t%s\t%.0f\t%.0f–%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f\t\n", n, s.Name(), l, v.median, v.low, v.high,
			r.of(k, milliseconds(func(x sample) time.Duration { return x.PublishP50 })).median, r.of(k, milliseconds(func(x sample) time.Duration { return x.PublishP99 })).median,
			r.of(k, milliseconds(func(x sample) time.Duration { return x.CPU })).median,
			r.of(k, func(x sample) float64 { return x.WAL }).median, r.of(k, func(x sample) float64 { return x.Stored }).median)
	}
	return w.Flush() // Who gives up waiting for the next has these.
}
