package limits

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// bench is a Limiter whose clock and policy the test holds.
type bench struct {
	*Limiter
	t     testing.TB
	mu    sync.Mutex
	now   time.Time
	rules *policy.Policy
}

func makeLimiter(t testing.TB, change func(*policy.Limits)) *bench {
	b := &bench{t: t, now: time.Unix(1_800_000_000, 0)}
	b.use(change)
	b.Limiter = New(func() *policy.Policy {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.rules
	}, func() time.Time {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.now
	})
	return b
}

// use replaces the policy: the default with a change.
func (b *bench) use(change func(*policy.Limits)) {
	p := policy.Default()
	if change != nil {
		change(&p.Limits)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = p
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

var (
	here    = netip.MustParseAddr("192.0.2.1")
	account = ids.ID{1}
	hello   = &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}
	status  = &wire.KeyPackageStatusRequest{}
	message = &wire.EnqueueRequest{Payload: make([]byte, 100)}
)

// passes sends the same request until it is refused, at most n times, and returns how many passed and the refusal.
func passes(c *Conn, r wire.Request, n int) (int, Verdict) {
	for i := range n {
		if v := c.Take(r); v.By != "" {
			return i, v
		}
	}
	return n, Verdict{}
}

// wants expects exactly n to pass, and the next one to be refused by a bucket.
func wants(t *testing.T, c *Conn, r wire.Request, n int, by string) Verdict {
	t.Helper()
	got, v := passes(c, r, n+1)
	if got != n || v.By != by {
		t.Fatalf("%d passed and then %q refused, want %d and %q", got, v.By, n, by)
	}
	return v
}

// member is a connection of an account.
func (b *bench) member(addr netip.Addr, a ids.ID) *Conn {
	c := b.Open(addr)
	c.Login(a)
	return c
}

// admit takes a place that must be there.
func (b *bench) admit(addr netip.Addr, verified bool) *Place {
	b.t.Helper()
	p, why := b.Admit(addr, verified)
	if why != Admitted {
		b.t.Fatalf("refused: %s", why)
	}
	return p
}

// connect makes a connection of an address, the handshake done.
func (b *bench) connect(addr netip.Addr) *Place {
	b.t.Helper()
	p := b.admit(addr, true)
	if why := p.Complete(addr); why != Admitted {
		b.t.Fatalf("refused at the end: %s", why)
	}
	return p
}

// nth is one of many addresses, each of another /64.
func nth(n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
}
