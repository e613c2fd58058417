package e2elocal

import (
	"testing"
	"time"

	"quicproquo.dev/client"
)

// wrongClock makes somebody whose clock is off.
func (c *cell) wrongClock(name string, off time.Duration) *person {
	c.t.Helper()
	p := &person{t: c.t, name: name, opts: c.options()}
	p.opts.Now = func() time.Time { return time.Now().Add(off) }
	var err error
	if p.Client, err = client.Signup(c.t.Context(), p.opts, name); err != nil {
		c.t.Fatalf("%s signs up: %v", name, err)
	}
	c.t.Cleanup(p.Close)
	return p
}

// Devices whose clocks are years off, either way, talk to each other and to others: ids, KeyPackages and tokens go by the cell's.
func TestClocksThatAreWrong(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	const years = 3 * 365 * 24 * time.Hour
	fast, slow, right := c.wrongClock("fast", years), c.wrongClock("slow", -years), c.signup("right")
	for _, x := range []struct{ from, to *person }{{fast, slow}, {slow, right}, {right, fast}} {
		x.from.dm(x.to, "what time is it?")
		got := x.to.expect("what time is it?")
		if off := time.Since(got[0].AcceptedAt).Abs(); off > time.Hour {
			t.Errorf("%s is told that %s wrote at %s", x.to.name, x.from.name, got[0].AcceptedAt)
		}
		x.to.dm(x.from, "who knows")
		x.from.expect("who knows")
	}
	again := fast.again()
	again.dm(slow, "still")
	slow.expect("still")
}
