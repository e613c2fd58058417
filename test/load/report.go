package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"quicproquo.dev/test/load/peer"
)

type key struct{ topology, load, system string }

// report collects samples.
type report struct {
	systems []string
	order   []key // Of topologies and loads, without systems.
	samples map[key][]sample
}

func (r *report) add(x sample) {
	if r.samples == nil {
		r.samples = map[key][]sample{}
	}
	place := key{topology: x.Topology, load: x.Load}
	if !slices.Contains(r.order, place) {
		r.order = append(r.order, place)
	}
	k := key{x.Topology, x.Load, x.System}
	r.samples[k] = append(r.samples[k], x)
}

// of is the spread of one number over a key's rounds.
func (r *report) of(k key, number func(sample) float64) spread {
	var v []float64
	for _, x := range r.samples[k] {
		v = append(v, number(x))
	}
	return spreadOf(v)
}

func rate(x sample) float64 { return x.Rate }

// ratio compares the rates of two systems.
func (r *report) ratio(place key, system, to string) (spread, bool) {
	k, by := key{place.topology, place.load, system}, key{place.topology, place.load, to}
	return r.quotient(k, by, rate), len(r.samples[k]) > 0 && len(r.samples[by]) > 0
}

// quotient divides one key's numbers by another's, round by round: what slows one down for a while slows its neighbors too.
func (r *report) quotient(k, by key, number func(sample) float64) spread {
	a, b := r.samples[k], r.samples[by]
	var v []float64
	for i := range min(len(a), len(b)) {
		v = append(v, number(a[i])/number(b[i]))
	}
	return spreadOf(v)
}

func milliseconds(f func(sample) time.Duration) func(sample) float64 {
	return func(x sample) float64 { return f(x).Seconds() * 1000 }
}

// tell writes one line for each system, as soon as its numbers are there.
func (r *report) tell(w io.Writer, t peer.Topology, l load) {
	for _, s := range r.systems {
		k := key{t.String(), l.String(), s}
		fmt.Fprintf(w, "  %s, %s in flight, %s: %.0f messages/s\n", k.topology, k.load, s, r.of(k, rate).median)
	}
}

// print writes the table: a line for each topology, load and system.
func (r *report) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "pairs\tload\tsystem\tmessages/s\trange\t÷ always\t÷ default\tpublish p50\tp99\tdelivery p50\tp99 ms\tCPU ms/1000\tsyncs\tWAL B\tdisk B\t\n")
	for _, place := range r.order {
		for _, s := range r.systems {
			r.row(w, place, s)
		}
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(to, err)
	}
}

func (r *report) row(w io.Writer, place key, system string) {
	k := key{place.topology, place.load, system}
	v := r.of(k, rate)
	fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%.0f–%.0f\t", k.topology, k.load, system, v.median, v.low, v.high)
	for _, other := range []string{nameAlways, nameDefault} {
		if q, ok := r.ratio(place, system, other); ok && other != system {
			fmt.Fprintf(w, "%.2f (%.2f–%.2f)\t", q.median, q.low, q.high)
		} else {
			fmt.Fprint(w, "\t")
		}
	}
	for _, f := range []func(sample) time.Duration{
		func(x sample) time.Duration { return x.PublishP50 }, func(x sample) time.Duration { return x.PublishP99 },
		func(x sample) time.Duration { return x.DeliveryP50 }, func(x sample) time.Duration { return x.DeliveryP99 },
		func(x sample) time.Duration { return x.CPU },
	} {
		fmt.Fprintf(w, "%.1f\t", r.of(k, milliseconds(f)).median)
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t\n", known(r.of(k, func(x sample) float64 { return x.Syncs }), "%.3f"),
		known(r.of(k, func(x sample) float64 { return x.WAL }), "%.0f"), known(r.of(k, func(x sample) float64 { return x.Stored }), "%.0f"))
}

func known(v spread, format string) string {
	if v.median < 0 {
		return "-"
	}
	return fmt.Sprintf(format, v.median)
}

// demand is what is asked of a cell's rate as a multiple of another system's.
type demand struct {
	load, system string
	least        float64
}

var demanded = []demand{{"256", nameAlways, 4}, {"256", nameDefault, 0.45}, {"16", nameAlways, 1.5}, {"1", nameAlways, 0.5}}

// demandedTopology is where the demands are made.
const demandedTopology = "8×1→1"

// demands tells which demands do not hold, and returns how many.
func (r *report) demands(to io.Writer) int {
	broken := 0
	for _, d := range demanded {
		place := key{topology: demandedTopology, load: d.load}
		if q, ok := r.ratio(place, nameCell, d.system); ok && q.median < d.least {
			broken++
			fmt.Fprintf(to, "does not hold: %s in flight: %.2f times %s, at least %.2f is demanded\n", d.load, q.median, d.system, d.least)
		}
	}
	p99 := func(system string) spread {
		return r.of(key{demandedTopology, "2000/s", system}, milliseconds(func(x sample) time.Duration { return x.PublishP99 }))
	}
	if cell, nats := p99(nameCell).median, p99(nameAlways).median; nats > 0 && cell >= nats {
		broken++
		fmt.Fprintf(to, "does not hold: 2000/s: publish p99 %.1f ms is not below %s's %.1f ms\n", cell, nameAlways, nats)
	}
	if broken == 0 {
		fmt.Fprintln(to, "all demands on what was measured hold")
	}
	return broken
}
