package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/test/load/ours"
	"quicproquo.dev/test/load/peer"
)

// sample is what one run showed.
type sample struct {
	System, Topology, Load   string
	Messages                 int
	Rate                     float64 // Messages a second, until the last was acknowledged and delivered.
	PublishP50, PublishP99   time.Duration
	DeliveryP50, DeliveryP99 time.Duration
	CPU                      time.Duration // Of all server processes, per 1,000 messages.
	Syncs, WAL, Stored       float64       // Per message; negative: not known.
	Refused, Delivered       int
}

// measure runs one load against one system.
func (p *plan) measure(ctx context.Context, s peer.System, open *opened, l load, duration time.Duration) (sample, error) {
	p.runs++
	tracker := peer.NewTracker(p.runs, open.topology)
	open.use(tracker)
	d := newDriver(open.session, tracker, open.topology.Pairs, l)
	before, err := usage(ctx, s)
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	if err := d.run(ctx, l, duration); err != nil {
		return sample{}, fmt.Errorf("%s, %s, %s: %w", s.Name(), open.topology, l, err)
	}
	after, err := usage(ctx, s)
	if err != nil {
		return sample{}, err
	}
	verdict := tracker.Judge()
	if err := verdict.Err(); err != nil {
		err = fmt.Errorf("%s, %s, %s: %w", s.Name(), open.topology, l, err)
		if _, cell := s.(*ours.System); cell || verdict.Lost > 0 {
			return sample{}, err
		}
		fmt.Fprintln(p.diagnoses, err) // JetStream delivers again what it thinks was not acknowledged in time.
	}
	n := len(d.lags)
	if n == 0 {
		return sample{}, fmt.Errorf("%s, %s, %s: nothing was acknowledged: %w", s.Name(), open.topology, l, d.reason)
	}
	if d.refused > 0 {
		fmt.Fprintf(p.diagnoses, "%s, %s, %s: %d of %d messages were refused: %v\n", s.Name(), open.topology, l, d.refused, n+d.refused, d.reason)
	}
	end := d.last
	if verdict.Last.After(end) {
		end = verdict.Last
	}
	x := sample{System: s.Name(), Topology: open.topology.String(), Load: l.String(), Messages: n, Rate: float64(n) / end.Sub(begin).Seconds(),
		CPU: (after.cpu - before.cpu) * 1000 / time.Duration(n), Refused: d.refused, Delivered: verdict.Received}
	x.PublishP50, x.PublishP99 = percentile(d.lags, 50), percentile(d.lags, 99)
	x.DeliveryP50, x.DeliveryP99 = percentile(verdict.Lags, 50), percentile(verdict.Lags, 99)
	x.Syncs = perMessage(before.Syncs, after.Syncs, n)
	x.WAL = perMessage(before.WALBytes, after.WALBytes, n)
	x.Stored = perMessage(before.Stored, after.Stored, n)
	return x, nil
}

func perMessage(before, after float64, n int) float64 {
	if after < 0 {
		return -1
	}
	return (after - before) / float64(n)
}

// used is what a system has used up since it started.
type used struct {
	peer.Counters
	cpu time.Duration
}

func usage(ctx context.Context, s peer.System) (used, error) {
	c, err := s.Counters(ctx)
	if err != nil {
		return used{}, fmt.Errorf("%s: reading counters: %w", s.Name(), err)
	}
	cpu, err := peer.CPUTime(s.Processes())
	return used{c, cpu}, err
}

// percentile sorts d and returns the smallest value that p percent of all do not exceed.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[max((len(d)*p+99)/100-1, 0)]
}

// spread is a median with its range.
type spread struct{ median, low, high float64 }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return spread{m, v[0], v[len(v)-1]}
}
