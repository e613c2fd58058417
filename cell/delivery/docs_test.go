package delivery

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The bounds of docs/queues.md are the code's.
func TestTheDocumentSaysTheBounds(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	const mib = 1 << 20
	for metric, bound := range map[string]string{
		"qpq_enqueue_queue_depth":     fmt.Sprintf("%s, %d MiB", thousands(laneDepth), laneBytes/mib),
		"qpq_mailbox_overflows_total": fmt.Sprintf("%s, %d MiB", thousands(mailboxMessages), mailboxBytes/mib),
		"qpq_subscriptions_paused":    fmt.Sprintf("at most 256; %d MiB", creditBytes/mib),
		"qpq_acks_queue_depth":        thousands(acksWaiting),
		"qpq_wakeups_queue_depth":     thousands(wakeupsWaiting),
	} {
		rows := 0
		for line := range strings.Lines(string(b)) {
			if cells := strings.Split(line, "|"); len(cells) > 3 && strings.Contains(cells[3], metric) {
				if rows++; !strings.Contains(cells[2], bound) {
					t.Errorf("%s: the bound is %s, the document says%s", metric, bound, cells[2])
				}
			}
		}
		if rows != 1 {
			t.Errorf("%s is in %d rows", metric, rows)
		}
	}
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
