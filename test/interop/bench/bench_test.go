package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestGoEngines runs every operation once in a small group.
func TestGoEngines(t *testing.T) {
	t.Parallel()
	const n = 3
	inviting, err := newForeign(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []engine{ours{}, mlsGo{}} {
		g, err := e.build(n)
		if err != nil {
			t.Fatalf("%s: %v", e.name(), err)
		}
		if err := g.invite(inviting); err != nil {
			t.Fatalf("%s: %v", e.name(), err)
		}
		for _, op := range operations {
			s, ok, err := g.measure(op, time.Millisecond)
			if err != nil || !ok || s.time <= 0 || s.bytes == 0 {
				t.Errorf("%s, %s: %v, %t, %v", e.name(), op, s, ok, err)
			}
		}
	}
}

func TestDemands(t *testing.T) {
	t.Parallel()
	us, them := key{"ours", opJoin, bigGroup}, key{"mls-go", opJoin, bigGroup}
	for _, c := range []struct {
		name       string
		us, them   sample
		uses, peak uint64
		want       []string
	}{
		{"all hold", sample{10, 10}, sample{50, 100}, 1, 10, nil},
		{"slower", sample{10, 10}, sample{9, 100}, 1, 10, []string{"takes", "1/5"}},
		{"not five times faster", sample{10, 10}, sample{49, 100}, 1, 10, []string{"1/5"}},
		{"allocates", sample{10, 11}, sample{50, 100}, 1, 10, []string{"allocating"}},
		{"keeps", sample{10, 10}, sample{50, 100}, 2, 10, []string{"alive"}},
	} {
		r := newReport([]engine{ours{}, mlsGo{}})
		r.add(us, c.us)
		r.add(them, c.them)
		r.peaks[us], r.peaks[them] = c.uses, c.peak
		var out strings.Builder
		if got := r.demands(&out); got != len(c.want) {
			t.Errorf("%s: %d demands do not hold, want %d:\n%s", c.name, got, len(c.want), out.String())
		}
		if slices.ContainsFunc(c.want, func(w string) bool { return !strings.Contains(out.String(), w) }) {
			t.Errorf("%s: want %q in\n%s", c.name, c.want, out.String())
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	r := newReport([]engine{ours{}})
	k := key{"ours", opJoin, 2}
	for _, s := range []sample{{5, 1}, {1, 3}, {100, 2}} {
		r.add(k, s)
	}
	if got, ok := r.median(k); !ok || got != (sample{5, 2}) {
		t.Errorf("got %v, %t", got, ok)
	}
	if _, ok := r.median(key{"nobody", opJoin, 2}); ok {
		t.Error("a median of nothing")
	}
}
