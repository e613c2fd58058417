package docs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"quicproquo.dev/cell/telemetry"
)

// registered are the names of the metrics of a cell.
func registered() map[string]bool {
	m := telemetry.New()
	m.WatchDatabase(func() (inUse, open int32) { return 0, 0 })
	descriptions := make(chan *prometheus.Desc)
	go func() {
		m.Registry.Describe(descriptions)
		close(descriptions)
	}()
	names := map[string]bool{}
	for d := range descriptions {
		if n := regexp.MustCompile(`fqName: "(qpq_\w+)"`).FindStringSubmatch(d.String()); n != nil {
			names[n[1]] = true
		}
	}
	return names
}

// Every queue is bounded with a metric: the table of queues.md names metrics that exist, and misses none that
// counts what waits, overflows or is dropped.
func TestEveryQueueHasItsMetric(t *testing.T) {
	t.Parallel()
	text := read(t, "queues.md")
	names := registered()
	rows := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || !strings.Contains(line, "qpq_") {
			continue
		}
		rows++
		if !regexp.MustCompile(`\d|credit|max`).MatchString(cells[1]) {
			t.Errorf("no bound: %s", line)
		}
		for _, n := range regexp.MustCompile(`qpq_\w+`).FindAllString(cells[2], -1) {
			if !names[n] {
				t.Errorf("there is no metric %s", n)
			}
		}
	}
	if rows < 10 {
		t.Errorf("%d queues", rows)
	}
	for n := range names {
		if regexp.MustCompile(`_queue_|_dropped_|_overflows_|_paused$|_held$|_busy_|_in_progress$|database_connections`).MatchString(n) && n != "qpq_deliveries_held_total" && !strings.Contains(text, n) {
			t.Errorf("queues.md does not know %s", n)
		}
	}
}
