package limits

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// told keeps the refusals that it is told of.
type told struct {
	audit.Sink

	mu     sync.Mutex
	events []audit.Event
}

func (s *told) Tally(_ context.Context, e audit.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *told) take() []audit.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.events = nil }()
	return s.events
}

// Every refusal is told, of whom it concerns and no other; what is let is not.
func TestRefusalsAreTold(t *testing.T) {
	t.Parallel()
	b := makeLimiter(t, func(p *policy.Limits) {
		p.RequestsPerSecond, p.RequestBurst, p.LookupsPerMinute, p.LoginsPerMinute = 1, 4, 2, 2
		p.ConnectionsPerIP, p.MaxConnections = 2, 8
	})
	s := &told{}
	b.Audit(s)
	six := netip.MustParseAddr("2001:db8::17")
	of := func(account ids.ID, addr netip.Addr, r audit.Reason) audit.Event {
		return audit.LimitReached(account, r).FromAddress(addr)
	}
	limited := func(account ids.ID, addr netip.Addr) []audit.Event {
		return []audit.Event{of(account, addr, audit.ReasonRateLimited)}
	}
	for _, x := range []struct {
		name string
		do   func() string
		by   string
		want []audit.Event
	}{
		{"what is let", func() string { return b.Open(nth(1)).Take(hello).By }, "", nil},
		{"a connection", func() string { c := b.member(here, ids.ID{9}); return last(c, status, 5) }, ByConnection, limited(ids.ID{9}, here)},
		{"an address before login", func() string { b.Open(six).Take(hello); return last(b.Open(six), hello, 4) }, ByAddress, limited(ids.ID{}, Key(six))},
		{"logins", func() string { return last(b.Open(nth(3)), &wire.LoginStartRequest{}, 3) }, ByLogins, limited(ids.ID{}, Key(nth(3)))},
		{"an account", func() string {
			b.member(nth(4), ids.ID{8}).Take(status)
			return last(b.member(nth(5), ids.ID{8}), status, 4)
		}, ByAccount, limited(ids.ID{8}, Key(nth(5)))},
		{"lookups", func() string { return last(b.member(nth(6), ids.ID{7}), &wire.GetAccountRequest{}, 3) }, ByLookups, limited(ids.ID{7}, Key(nth(6)))},
		{"a quota", func() string { return quotas(b.member(nth(7), ids.ID{6}), 5) }, ByAccount, limited(ids.ID{6}, Key(nth(7)))},
		{"a quota after the end", func() string { c := b.member(nth(8), ids.ID{5}); c.Close(); return quotas(c, 5) }, ByAccount, limited(ids.ID{5}, Key(nth(8)))},
	} {
		if by := x.do(); by != x.by {
			t.Errorf("%s: refused by %q, want %q", x.name, by, x.by)
		}
		if got := s.take(); !slices.Equal(got, x.want) {
			t.Errorf("%s: told %+v, want %+v", x.name, got, x.want)
		}
	}
	b.connect(here)
	b.connect(here)
	for _, x := range []struct {
		verified bool
		from     netip.Addr
	}{{true, here}, {false, netip.Addr{}}} { // Who is not proven may be anybody.
		if _, why := b.Admit(here, x.verified); why != IPFull {
			t.Fatal(why)
		}
		if got := s.take(); !slices.Equal(got, []audit.Event{of(ids.ID{}, x.from, audit.ReasonTooManyConnections)}) {
			t.Errorf("%v: %+v", x.verified, got)
		}
	}
	late := []*Place{b.admit(nth(9), false), b.admit(nth(9), false), b.admit(nth(9), false)}
	var why Refusal
	for _, p := range late {
		why = p.Complete(nth(9))
	}
	if got := s.take(); why != IPFull || !slices.Equal(got, []audit.Event{of(ids.ID{}, Key(nth(9)), audit.ReasonTooManyConnections)}) {
		t.Errorf("at the end of the handshake: %s, %+v", why, got)
	}
	for _, p := range late {
		p.Release()
	}
	for { // Too fast.
		p, why := b.Admit(nth(10), true)
		if why != Admitted {
			if got := s.take(); why != IPFast || !slices.Equal(got, []audit.Event{of(ids.ID{}, Key(nth(10)), audit.ReasonHandshakeLimit)}) {
				t.Errorf("%s: %+v", why, got)
			}
			break
		}
		p.Release()
	}
	for i := range 6 {
		b.admit(nth(20+i), true)
	}
	if _, why := b.Admit(nth(30), true); why != TotalFull || len(s.take()) != 1 {
		t.Errorf("all full: %s", why)
	}
}

// last is what the nth of equal requests is refused by.
func last(c *Conn, r wire.Request, n int) (by string) {
	for range n {
		by = c.Take(r).By
	}
	return by
}

func quotas(c *Conn, n int) (by string) {
	for range n {
		by = c.Quota(message).By
	}
	return by
}

// What a refusal costs with a Recorder behind it: a flood must not be dearer to refuse than to serve.
func BenchmarkToldRefusal(b *testing.B) {
	for _, how := range []string{"discarded", "tallied"} {
		b.Run(how, func(b *testing.B) {
			l := measured(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 1 })
			if how == "tallied" {
				l.Audit(audit.NewRecorder(nil, audit.Options{}))
			}
			c := l.Open(here)
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				c.Take(hello)
			}
		})
	}
}
