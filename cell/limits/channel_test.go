package limits

import (
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
)

func TestMessagesOfAChannel(t *testing.T) {
	t.Parallel()
	p := policy.Default()
	now := time.Now()
	l := New(func() *policy.Policy { return p }, func() time.Time { return now })
	for name, x := range map[string]struct{ set, perSecond int }{"the policy's own": {10, 10}, "by requests": {0, 4 * p.Limits.RequestsPerSecond}} {
		p.Limits.MessagesPerChannel = x.set
		busy, quiet := ids.New(), ids.New()
		taken := 0
		for l.Message(busy).By == "" {
			taken++
		}
		if taken != 2*x.perSecond {
			t.Errorf("%s: %d at once, want %d", name, taken, 2*x.perSecond)
		}
		if v := l.Message(busy); v.By != ByChannel || v.Wait <= 0 || v.Wait > time.Second {
			t.Errorf("%s: %+v", name, v)
		}
		if v := l.Message(quiet); v.By != "" {
			t.Errorf("%s: another channel: %+v", name, v)
		}
		now = now.Add(time.Second)
		taken = 0
		for l.Message(busy).By == "" {
			taken++
		}
		if taken != x.perSecond {
			t.Errorf("%s: %d a second later, want %d", name, taken, x.perSecond)
		}
	}
}

// However many channels there are, the table stays, and none gets more than its own.
func TestManyChannelsShareTheTable(t *testing.T) {
	t.Parallel()
	p := policy.Default()
	p.Limits.MessagesPerChannel = 5
	now := time.Now()
	l := New(func() *policy.Policy { return p }, func() time.Time { return now })
	for range 1000 {
		c := ids.New()
		taken := 0
		for l.Message(c).By == "" {
			taken++
		}
		if taken > 20 { // Twice 10 with a place that was another's in one row.
			t.Fatalf("%d messages of a channel that may send 10 at once", taken)
		}
	}
}
