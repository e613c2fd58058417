package main

import (
	"strings"
	"testing"
	"time"

	"quicproquo.dev/test/load/peer"
)

func TestPercentilesAndSpreads(t *testing.T) {
	t.Parallel()
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	if a, b, c := percentile(d, 50), percentile(d, 99), percentile(d[:1], 99); a != 50 || b != 99 || c != 1 {
		t.Errorf("%d, %d, %d", a, b, c)
	}
	if s := spreadOf([]float64{9, 1, 4}); s != (spread{4, 1, 9}) {
		t.Errorf("%+v", s)
	}
	if s := spreadOf([]float64{4, 1, 2, 9}); s != (spread{3, 1, 9}) {
		t.Errorf("%+v", s)
	}
}

// made is a report of one round with these rates at a load.
func made(at string, rates map[string]float64) *report {
	r := &report{systems: []string{nameCell, nameAlways, nameDefault}}
	for system, rate := range rates {
		r.add(sample{System: system, Topology: demandedTopology, Load: at, Rate: rate, PublishP99: time.Duration(1e9 / rate)})
	}
	return r
}

func TestDemands(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		report *report
		broken int
	}{
		"all well":                {made("256", map[string]float64{nameCell: 50, nameAlways: 10, nameDefault: 100}), 0},
		"too slow for both":       {made("256", map[string]float64{nameCell: 30, nameAlways: 10, nameDefault: 100}), 2},
		"too slow for one":        {made("256", map[string]float64{nameCell: 30, nameAlways: 10, nameDefault: 50}), 1},
		"half at one in flight":   {made("1", map[string]float64{nameCell: 5, nameAlways: 10}), 0},
		"less at one in flight":   {made("1", map[string]float64{nameCell: 4, nameAlways: 10}), 1},
		"slower at 2000 a second": {made("2000/s", map[string]float64{nameCell: 4, nameAlways: 10}), 1},
		"quicker then":            {made("2000/s", map[string]float64{nameCell: 40, nameAlways: 10}), 0},
		"nothing to compare with": {made("256", map[string]float64{nameCell: 4}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if got := c.report.demands(&out); got != c.broken || strings.Count(out.String(), "does not hold") != c.broken {
				t.Errorf("%d broken, want %d: %s", got, c.broken, &out)
			}
		})
	}
}

func TestTheDemandedTopologyIsMeasured(t *testing.T) {
	t.Parallel()
	if got := (peer.Topology{Pairs: 8, Devices: 1}).String(); got != demandedTopology {
		t.Errorf("%s, demands are made of %s", got, demandedTopology)
	}
}

func TestTheTableHasALineForEach(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	made("16", map[string]float64{nameCell: 20, nameAlways: 10, nameDefault: 100}).print(&out)
	if lines := strings.Count(out.String(), "\n"); lines != 4 || !strings.Contains(out.String(), "2.00 (2.00–2.00)") {
		t.Errorf("%s", &out)
	}
}

func TestLoadsAndTopologies(t *testing.T) {
	t.Parallel()
	loads, err := parseLoads("1,256,2000/s")
	if err != nil || len(loads) != 3 || loads[2] != (load{rate: 2000}) || loads[1].String() != "256" || loads[2].String() != "2000/s" {
		t.Errorf("%v, %v", loads, err)
	}
	topologies, err := parseTopologies("64x1,1x8")
	if err != nil || len(topologies) != 2 || topologies[1] != (peer.Topology{Pairs: 1, Devices: 8}) {
		t.Errorf("%v, %v", topologies, err)
	}
	for _, bad := range []string{"", "0", "-1", "x", "1/m"} {
		if _, err := parseLoads(bad); err == nil {
			t.Errorf("load %q was taken", bad)
		}
	}
	for _, bad := range []string{"", "8", "0x1", "8x0", "8x1x1", "8×1"} {
		if _, err := parseTopologies(bad); err == nil {
			t.Errorf("topology %q was taken", bad)
		}
	}
}

func TestSyncsAreCountedOnce(t *testing.T) {
	t.Parallel()
	const out = `12 fdatasync(52)                       = 0 (DELAYED)
13 fsync(9 <unfinished ...>
12 fdatasync(52)                       = 0 (DELAYED)
13 <... fsync resumed>)                = 0 (DELAYED)
12 --- SIGINT {si_signo=SIGINT} ---
`
	if n := countSyncs(out); n != 3 {
		t.Errorf("%d, want 3", n)
	}
}
