package limits

import (
	"net/netip"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/wire"
)

func fast(p *policy.Limits) {
	p.RequestsPerSecond, p.RequestBurst = 100_000, 200_000
	p.ConnectionsPerIP, p.MaxConnections = 100_000, 1_000_000
}

func measured(change func(*policy.Limits)) *Limiter {
	p := policy.Default()
	change(&p.Limits)
	return New(func() *policy.Policy { return p }, time.Now)
}

func TestTheHotPathAllocatesNothing(t *testing.T) {
	l := measured(fast)
	stranger, member, refused := l.Open(here), l.Open(here), measured(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 1 }).Open(here)
	member.Login(account)
	for name, f := range map[string]func(){
		"a stranger's request": func() { stranger.Take(hello) },
		"a device's request":   func() { member.Take(status) },
		"a message":            func() { member.Take(message); member.Quota(message) },
		"a refusal":            func() { refused.Take(hello) },
		"asking for a Retry":   func() { l.NeedsRetry(nth(7)) },
		"a refused connection": func() { measuredFull.Admit(nth(7), true) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var measuredFull = func() *Limiter {
	l := measured(func(p *policy.Limits) { p.MaxConnections = 1 })
	l.Admit(here, true)
	return l
}()

func BenchmarkTake(b *testing.B) {
	l := measured(fast)
	for name, r := range map[string]wire.Request{"stranger": hello, "device": status} {
		b.Run(name, func(b *testing.B) {
			c := l.Open(here)
			defer c.Close()
			if name == "device" {
				c.Login(account)
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Take(r)
			}
		})
	}
	b.Run("message", func(b *testing.B) {
		c := l.Open(here)
		defer c.Close()
		c.Login(account)
		b.ReportAllocs()
		for b.Loop() {
			c.Take(message)
			c.Quota(message)
		}
	})
	b.Run("trusted by the last of 64 ranges", func(b *testing.B) {
		l := measured(func(p *policy.Limits) {
			fast(p)
			for i := range 63 {
				p.TrustedRanges = append(p.TrustedRanges, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16))
			}
			p.TrustedRanges = append(p.TrustedRanges, netip.PrefixFrom(here, 32))
		})
		c := l.Open(here)
		defer c.Close()
		for b.Loop() {
			c.Take(hello)
		}
	})
	b.Run("refused", func(b *testing.B) {
		c := measured(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 1 }).Open(here)
		defer c.Close()
		for b.Loop() {
			c.Take(hello)
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	l := measured(fast)
	b.Run("and release", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			addr := nth(i)
			if l.NeedsRetry(addr) {
				b.Fatal("asked for proof")
			}
			p, _ := l.Admit(addr, false)
			p.Complete(addr)
			p.Release()
		}
	})
	b.Run("asking for a Retry", func(b *testing.B) {
		for b.Loop() {
			l.NeedsRetry(nth(1))
		}
	})
	b.Run("refused", func(b *testing.B) {
		for b.Loop() {
			measuredFull.Admit(here, true)
		}
	})
}
