package limits

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
)

func TestPlacesOfAnAddress(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	var places []*Place
	for range 50 {
		places = append(places, l.connect(here))
	}
	for _, verified := range []bool{true, false} {
		if _, why := l.Admit(here, verified); why != IPFull {
			t.Fatalf("the 51st: %q", why)
		}
	}
	if l.NeedsRetry(here) {
		t.Fatal("who is refused in any case is asked for proof")
	}
	if _, why := l.Admit(netip.MustParseAddr("::ffff:192.0.2.1"), true); why != IPFull {
		t.Fatalf("the same in IPv6 notation: %q", why)
	}
	l.connect(nth(1)).Release() // Others are not concerned.
	for range 3 {
		places[0].Release() // Once counts.
	}
	l.pass(time.Second)
	l.connect(here)
	if _, why := l.Admit(here, true); why != IPFull {
		t.Fatalf("a place was given back twice: %q", why)
	}
}

func TestPlacesInAll(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.MaxConnections = 8 })
	var places []*Place
	for i := range 8 {
		places = append(places, l.connect(nth(i)))
	}
	for _, verified := range []bool{true, false} {
		if _, why := l.Admit(nth(9), verified); why != TotalFull {
			t.Fatalf("the 9th: %q", why)
		}
	}
	if l.NeedsRetry(nth(9)) {
		t.Fatal("who is refused in any case is asked for proof")
	}
	l.use(func(p *policy.Limits) { p.MaxConnections = 9 })
	places = append(places, l.connect(nth(9)))
	l.use(func(p *policy.Limits) { p.MaxConnections = 4 }) // Nobody is thrown out; nobody comes in.
	for _, p := range places[:5] {
		if _, why := l.Admit(nth(10), true); why != TotalFull {
			t.Fatal(why)
		}
		p.Release()
	}
	if _, why := l.Admit(nth(10), true); why != TotalFull {
		t.Fatalf("4 are there: %q", why)
	}
	places[5].Release()
	l.connect(nth(10))
}

// Packets with somebody else's address take none of his places, however many: he is asked to prove himself, no more.
func TestAForgedAddressUsesUpNobodysPlaces(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	forged := 0
	for range 100_000 {
		if l.NeedsRetry(here) {
			continue // The forger never sees the token.
		}
		l.admit(here, false)
		forged++
	}
	if forged != 38 { // Three quarters of 50.
		t.Errorf("%d handshakes were begun without proof", forged)
	}
	if !l.NeedsRetry(here) {
		t.Error("the victim is not asked for proof")
	}
	if l.NeedsRetry(nth(1)) {
		t.Error("an address that has nothing to do with it is asked for proof")
	}
	for range 50 {
		l.connect(here)
	}
}

// Forgers with all addresses there are hold a part of the places for as long as a handshake may take.
func TestForgedAddressesTakeFewPlaces(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	for i := range 100_000 {
		if !l.NeedsRetry(nth(i)) {
			l.admit(nth(i), false)
		}
	}
	if open, underway := l.Counts(); open != 256 || underway != 256 {
		t.Fatalf("%d places, %d handshakes", open, underway)
	}
	if !l.NeedsRetry(here) {
		t.Fatal("nobody is asked for proof")
	}
	l.connect(here)
}

func TestTheLastPlacesAreForProvenAddresses(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.MaxConnections = 40 })
	for i := range 30 {
		if l.NeedsRetry(nth(i)) {
			t.Fatalf("asked for proof with %d of 40 places taken", i)
		}
		l.connect(nth(i))
	}
	l.connect(nth(30))
	if !l.NeedsRetry(nth(99)) {
		t.Fatal("not asked for proof with 31 of 40 places taken")
	}
}

func TestHandshakesUnderWay(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.HandshakesBeforeRetry = 3 })
	one, two, three := l.admit(nth(1), false), l.admit(nth(2), false), l.admit(nth(3), true)
	if !l.NeedsRetry(here) {
		t.Fatal("three are under way")
	}
	if why := one.Complete(nth(1)); why != Admitted {
		t.Fatal(why)
	}
	one.Complete(nth(1)) // Once counts.
	if l.NeedsRetry(here) {
		t.Fatal("two are under way")
	}
	two.Release()
	three.Release()
	two.Complete(nth(2)) // Too late.
	if open, underway := l.Counts(); open != 1 || underway != 0 {
		t.Fatalf("%d places, %d handshakes", open, underway)
	}
}

// Handshakes begun at the same time are judged at their end.
func TestOneWhoBeginsManyAtOnce(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.ConnectionsPerIP = 2 })
	var begun []*Place
	for range 5 {
		begun = append(begun, l.admit(here, false))
	}
	for i, p := range begun {
		want := Admitted
		if i >= 2 {
			want = IPFull
		}
		if why := p.Complete(here); why != want {
			t.Errorf("the %dth: %q", i+1, why)
		}
	}
	for _, p := range begun[1:] {
		p.Release()
	}
	l.pass(time.Minute)
	l.connect(here)
	if _, why := l.Admit(here, true); why != IPFull {
		t.Fatal(why)
	}
}

func TestOneWhoConnectsTooFast(t *testing.T) {
	t.Parallel()
	for name, verified := range map[string]bool{"proven": true, "not proven": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := makeLimiter(t, nil)
			n := 0
			for ; n < 1000; n++ { // In and out.
				p, why := l.Admit(here, verified || l.NeedsRetry(here))
				if why == IPFast {
					break
				}
				if why != Admitted {
					t.Fatal(why)
				}
				p.Complete(here)
				p.Release()
			}
			if n != 100 {
				t.Fatalf("%d connections at once", n)
			}
			l.pass(time.Second)
			for range 10 {
				l.connect(here).Release()
			}
			if _, why := l.Admit(here, true); why != IPFast {
				t.Fatal(why)
			}
		})
	}
}

func TestTrustedAddressesConnectFreely(t *testing.T) {
	t.Parallel()
	trust := func(p *policy.Limits) { p.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	l := makeLimiter(t, trust)
	for range 1000 {
		if l.NeedsRetry(here) {
			t.Fatal("asked for proof")
		}
		p := l.admit(here, false)
		if why := p.Complete(here); why != Admitted {
			t.Fatal(why)
		}
	}
	l.use(nil)
	if _, why := l.Admit(here, true); why != IPFull {
		t.Fatalf("trusted no more: %q", why)
	}
	l.use(trust)
	l.connect(here)
}

// A flood of addresses leaves nothing behind that grows.
func TestMemoryIsBounded(t *testing.T) {
	l := makeLimiter(t, nil)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	visit := func(from, to int) {
		for i := from; i < to; i++ {
			p := l.connect(nth(i))
			c := l.Open(nth(i))
			passes(c, hello, 3)
			c.Close()
			p.Release()
		}
	}
	visit(0, 1000)
	before := heap()
	visit(1000, 200_000)
	if after := heap(); after > before+256<<10 {
		t.Errorf("199,000 addresses left %d KiB", (after-before)>>10)
	}
	if len(l.addresses.live) != 0 {
		t.Errorf("%d addresses are held", len(l.addresses.live))
	}
}

// Nobody can have his bucket refilled by leaving, or by sending a crowd.
func TestLeavingInACrowdRefillsNothing(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.RequestsPerSecond = 1 })
	c := l.member(here, account)
	stranger := l.Open(here)
	wants(t, c, status, 100, ByConnection)
	wants(t, stranger, hello, 100, ByConnection)
	c.Close()
	stranger.Close()
	for i := range 50_000 {
		other := l.Open(nth(i))
		passes(other, hello, i%5)
		other.Close()
	}
	c, stranger = l.member(nth(1), account), l.Open(here)
	defer c.Close()
	defer stranger.Close()
	wants(t, c, status, 0, ByAccount)
	wants(t, stranger, hello, 0, ByAddress)
}

// Of many who come after a thousand spenders have left, few are mistaken for one of them.
func TestNewcomersAreSeldomMistaken(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.RequestsPerSecond = 1 })
	const spenders, newcomers = 400, 2000
	for i := range spenders {
		c := l.Open(nth(i))
		passes(c, hello, 100)
		c.Close()
	}
	mistaken := 0
	for i := range newcomers {
		c := l.Open(nth(1_000_000 + i))
		if c.Take(hello).By != "" {
			mistaken++
		}
		c.Close()
	}
	// (400/4096)² is 1 %; beyond three times that it is not chance.
	if mistaken > newcomers*3/100 {
		t.Errorf("%d of %d", mistaken, newcomers)
	}
}
