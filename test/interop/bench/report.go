package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// What is demanded of us, besides being faster than both at everything.
const (
	bigGroup       = 1000
	joinTimeFactor = 5  // mls-go's time to join a big group, over ours
	joinHeapFactor = 10 // and its memory
)

type key struct {
	engine, op string
	n          int
}

// report collects samples.
type report struct {
	engines []string
	keys    []key // of ours, in order
	samples map[key][]sample
	peaks   map[key]uint64 // live heap of joining a big group
}

func newReport(engines []engine) *report {
	r := &report{samples: map[key][]sample{}, peaks: map[key]uint64{}}
	for _, e := range engines {
		r.engines = append(r.engines, e.name())
	}
	return r
}

func (r *report) add(k key, s sample) {
	if len(r.samples[k]) == 0 && k.engine == r.engines[0] {
		r.keys = append(r.keys, k)
	}
	r.samples[k] = append(r.samples[k], s)
}

// median returns the medians of time and of bytes, and whether there are any.
func (r *report) median(k key) (sample, bool) {
	all := r.samples[k]
	if len(all) == 0 {
		return sample{}, false
	}
	times, bytes := make([]time.Duration, len(all)), make([]uint64, len(all))
	for i, s := range all {
		times[i], bytes[i] = s.time, s.bytes
	}
	slices.Sort(times)
	slices.Sort(bytes)
	return sample{time: times[len(times)/2], bytes: bytes[len(bytes)/2]}, true
}

// print writes one line per operation and size: the first engine's time and bytes,
// and for each other one its own and how many times the first one's that is.
func (r *report) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "operation\tmembers\t")
	for i, e := range r.engines {
		fmt.Fprintf(w, "%s\t", e)
		if i > 0 {
			fmt.Fprintf(w, "%s/%s\t", e, r.engines[0])
		}
	}
	for _, e := range r.engines {
		fmt.Fprintf(w, "%s alloc\t", e)
	}
	fmt.Fprintln(w)
	for _, k := range r.keys {
		first, _ := r.median(k)
		fmt.Fprintf(w, "%s\t%d\t", k.op, k.n)
		for i, e := range r.engines {
			s, ok := r.median(key{e, k.op, k.n})
			fmt.Fprintf(w, "%s\t", orDash(ok, s.time.Round(100*time.Nanosecond).String()))
			if i > 0 {
				fmt.Fprintf(w, "%s\t", orDash(ok, fmt.Sprintf("%.1f", float64(s.time)/float64(first.time))))
			}
		}
		for _, e := range r.engines {
			s, _ := r.median(key{e, k.op, k.n})
			fmt.Fprintf(w, "%s\t", orDash(s.bytes != 0, size(s.bytes)))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(to, err)
	}
	for _, op := range joins {
		for _, e := range r.engines {
			if peak, ok := r.peaks[key{e, op, bigGroup}]; ok {
				fmt.Fprintf(to, "live heap at most, %s, %d members, %s: %s\n", op, bigGroup, e, size(peak))
			}
		}
	}
}

func orDash(ok bool, s string) string {
	if !ok {
		return "-"
	}
	return s
}

func size(b uint64) string {
	switch {
	case b >= 10<<20:
		return fmt.Sprintf("%d MiB", b>>20)
	case b >= 10<<10:
		return fmt.Sprintf("%d KiB", b>>10)
	}
	return fmt.Sprintf("%d B", b)
}

// demands tells which demands do not hold, and returns how many.
func (r *report) demands(to io.Writer) int {
	broken := 0
	complain := func(format string, args ...any) {
		broken++
		fmt.Fprintf(to, "does not hold: "+format+"\n", args...)
	}
	for _, k := range r.keys {
		first, _ := r.median(k)
		for _, e := range r.engines[1:] {
			if s, ok := r.median(key{e, k.op, k.n}); ok && s.time <= first.time {
				complain("%s at %d members, %s takes %s and we %s", k.op, k.n, e, s.time, first.time)
			}
		}
	}
	for _, op := range joins {
		r.joinDemands(op, complain)
	}
	if broken == 0 {
		fmt.Fprintln(to, "all demands on what was measured hold")
	}
	return broken
}

func (r *report) joinDemands(op string, complain func(string, ...any)) {
	usKey, themKey := key{"ours", op, bigGroup}, key{"mls-go", op, bigGroup}
	us, ok := r.median(usKey)
	them, ok2 := r.median(themKey)
	if !ok || !ok2 {
		return
	}
	what := fmt.Sprintf("%s, %d members", op, bigGroup)
	if us.time*joinTimeFactor > them.time {
		complain("%s: %s is more than 1/%d of mls-go's %s", what, us.time, joinTimeFactor, them.time)
	}
	if us.bytes*joinHeapFactor > them.bytes {
		complain("%s: allocating %s is more than 1/%d of mls-go's %s", what, size(us.bytes), joinHeapFactor, size(them.bytes))
	}
	if us, them := r.peaks[usKey], r.peaks[themKey]; us*joinHeapFactor > them {
		complain("%s: up to %s alive are more than 1/%d of mls-go's %s", what, size(us), joinHeapFactor, size(them))
	}
}
