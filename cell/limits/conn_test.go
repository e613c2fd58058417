package limits

import (
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1":              "192.0.2.1",
		"::ffff:192.0.2.1":       "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":   "2001:db8:1:2::",
		"2001:db8:1:2::":         "2001:db8:1:2::",
		"fe80::1:2:3:4%eth0":     "fe80::",
		"2001:db8:1:3:ffff::9":   "2001:db8:1:3::",
		"::1":                    "::",
		"::ffff:0:0":             "0.0.0.0",
		"64:ff9b::192.0.2.33":    "64:ff9b::",
		"2001:db8:1:2:ffff::1%x": "2001:db8:1:2::",
	} {
		if got := Key(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
	if Key(netip.Addr{}).IsValid() {
		t.Error("no address counts as one")
	}
}

func TestABucketRefillsAtItsRate(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 10, 20 })
	c := l.Open(here)
	defer c.Close()
	v := wants(t, c, hello, 20, ByConnection)
	if v.Wait != 100*time.Millisecond {
		t.Fatalf("wait %s, want 100ms", v.Wait)
	}
	l.pass(v.Wait - time.Microsecond)
	wants(t, c, hello, 0, ByConnection)
	l.pass(time.Microsecond)
	wants(t, c, hello, 1, ByConnection)
	l.pass(time.Hour) // It fills up to its depth, not beyond.
	wants(t, c, hello, 20, ByConnection)
}

func TestTheClockGoingBackRefillsNothing(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	c := l.Open(here)
	defer c.Close()
	wants(t, c, hello, 100, ByConnection)
	l.pass(-time.Hour)
	wants(t, c, hello, 0, ByConnection)
}

func TestAnAddressBeforeLogin(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ one, other string }{
		"IPv4":         {"192.0.2.1", "192.0.2.1"},
		"IPv4 in IPv6": {"192.0.2.1", "::ffff:192.0.2.1"},
		"one /64":      {"2001:db8::1", "2001:db8::2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := makeLimiter(t, nil)
			one, other := l.Open(netip.MustParseAddr(x.one)), l.Open(netip.MustParseAddr(x.other))
			defer one.Close()
			defer other.Close()
			if n, _ := passes(one, hello, 60); n != 60 {
				t.Fatal(n)
			}
			wants(t, other, hello, 40, ByAddress)
			stranger := l.Open(netip.MustParseAddr("2001:db8:0:1::1"))
			defer stranger.Close()
			wants(t, stranger, hello, 100, ByConnection)
		})
	}
}

func TestAnAccountOverItsConnections(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	one, other := l.member(here, account), l.member(nth(1), account)
	defer one.Close()
	defer other.Close()
	if n, _ := passes(one, status, 60); n != 60 {
		t.Fatal(n)
	}
	wants(t, other, status, 40, ByAccount)
	neighbor := l.member(here, ids.ID{2}) // The address is no limit for who has logged in.
	defer neighbor.Close()
	wants(t, neighbor, status, 100, ByConnection)
}

// A request that one bucket refuses takes nothing from the others.
func TestARefusedRequestCostsNothingElsewhere(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.LookupsPerMinute = 5 })
	c := l.member(here, account)
	defer c.Close()
	wants(t, c, &wire.GetAccountRequest{Name: "x"}, 5, ByLookups)
	passes(c, &wire.GetAccountRequest{Name: "x"}, 1)
	wants(t, c, status, 95, ByConnection)
}

func TestLoginsOfAnAddress(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	var last Verdict
	total := 0
	for range 10 { // Over many connections.
		c := l.Open(here)
		var n int
		n, last = passes(c, &wire.LoginStartRequest{}, 10)
		total += n
		c.Close()
	}
	if total != 60 || last.By != ByLogins || last.Wait != time.Second {
		t.Fatalf("%d logins passed, then %+v", total, last)
	}
	c := l.Open(here)
	defer c.Close()
	wants(t, c, &wire.SignupStartRequest{}, 0, ByLogins)
	member := l.member(here, account) // Also of one who has authenticated: it costs the same.
	defer member.Close()
	wants(t, member, &wire.LoginStartRequest{}, 0, ByLogins)
}

func TestAMessageIsChargedToItsAccountAfterDedup(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	one, other := l.member(here, account), l.member(here, account)
	defer one.Close()
	defer other.Close()
	for i := range 100 {
		if v := one.Take(message); v.By != "" {
			t.Fatalf("message %d: %+v", i, v)
		}
		if v := one.Quota(message); v.By != "" {
			t.Fatalf("message %d: %+v", i, v)
		}
	}
	if v := other.Take(message); v.By != "" { // The account's quota is used up; a duplicate would be answered.
		t.Fatalf("refused before dedup: %+v", v)
	}
	if v := other.Quota(message); v.By != ByAccount || v.Wait != 20*time.Millisecond {
		t.Fatalf("%+v", v)
	}
	if v := other.Take(status); v.By != ByAccount {
		t.Fatalf("%+v", v)
	}
}

func TestAMessageIsChargedAlsoWhenItsConnectionHasEnded(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	for range 100 {
		c := l.member(here, account)
		c.Close()
		if v := c.Quota(message); v.By != "" {
			t.Fatalf("%+v", v)
		}
	}
	c := l.member(here, account)
	defer c.Close()
	if v := c.Quota(message); v.By != ByAccount {
		t.Fatalf("%+v", v)
	}
}

func TestCosts(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		request wire.Request
		passes  int // Of a bucket of 100.
	}{
		"hello":          {hello, 100},
		"ack":            {&wire.AckRequest{}, 1000},
		"20 packages":    {&wire.UploadKeyPackagesRequest{OneTime: make([][]byte, 20)}, 16},
		"group":          {&wire.CreateGroupRequest{}, 20},
		"claim":          {&wire.ClaimKeyPackagesRequest{}, 50},
		"large message":  {&wire.EnqueueRequest{Payload: make([]byte, 5<<20)}, 4},
		"no request":     {nil, 100},
		"small message":  {message, 100},
		"refresh":        {&wire.RefreshSessionRequest{}, 50},
		"signup's end":   {&wire.SignupFinishRequest{}, 50},
		"access token":   {&wire.AuthenticateRequest{}, 100},
		"login's finish": {&wire.LoginFinishRequest{}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := makeLimiter(t, nil)
			c := l.member(here, account)
			defer c.Close()
			if n, _ := passes(c, x.request, 2000); n != x.passes {
				t.Errorf("%d passed, want %d", n, x.passes)
			}
		})
	}
}

// Whatever a policy says, everything can be asked at some time.
func TestACostAboveTheDepthWaitsForAFullBucket(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 2 })
	c := l.member(here, account)
	defer c.Close()
	v := wants(t, c, &wire.CreateGroupRequest{}, 1, ByConnection)
	if v.Wait != 2*time.Second {
		t.Fatal(v.Wait)
	}
	l.pass(v.Wait)
	wants(t, c, &wire.CreateGroupRequest{}, 1, ByConnection)
}

func TestTrustedAddressesAreExemptFromLimitsPerAddress(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, func(p *policy.Limits) { p.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	for range 10 {
		c := l.Open(here)
		wants(t, c, &wire.LoginStartRequest{}, 100, ByConnection) // A connection and an account have limits all the same.
		c.Close()
	}
	c := l.member(here, account)
	defer c.Close()
	wants(t, c, status, 100, ByConnection)
}

func TestAPolicyAppliesToConnectionsThereAre(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	one, other := l.Open(here), l.Open(here)
	defer one.Close()
	defer other.Close()
	wants(t, one, hello, 100, ByConnection)
	l.use(func(p *policy.Limits) { p.RequestBurst = 130 })
	wants(t, one, hello, 30, ByConnection) // What was spent stays spent.
	l.use(func(p *policy.Limits) { p.RequestBurst = 1000 })
	wants(t, one, hello, 870, ByConnection)
	l.use(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 2 })
	if v := wants(t, one, hello, 0, ByConnection); v.Wait != 999*time.Second {
		t.Fatalf("1000 spent, depth 2, one a second: wait %s", v.Wait)
	}
	wants(t, other, hello, 0, ByAddress)
	l.use(func(p *policy.Limits) { p.TrustedRanges = []netip.Prefix{netip.PrefixFrom(here, 32)} })
	if v := other.Take(hello); v.By != "" {
		t.Fatalf("its address is trusted now: %+v", v)
	}
	l.use(nil)
	if v := other.Take(hello); v.By != ByAddress {
		t.Fatalf("its address is trusted no more: %+v", v)
	}
}

func TestWhoDoesNotHeedRefusalsIsPaused(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	c := l.Open(here)
	defer c.Close()
	wants(t, c, hello, 100, ByConnection)
	paused := 0
	for range 150 {
		if v := c.Take(hello); v.Pause > 0 {
			paused++
			if v.Pause != 20*time.Millisecond {
				t.Fatalf("paused for %s, want as long as one request takes", v.Pause)
			}
			l.pass(v.Pause) // As the session does; one request is there again,
			if v := c.Take(hello); v.By != "" {
				t.Fatalf("%+v", v) // and one only.
			}
		}
	}
	if paused < 45 || paused > 55 { // The first refusal came before the loop.
		t.Errorf("paused %d times of 150: the first 100 refusals are free", paused)
	}
	l.pass(time.Minute)
	if v := wants(t, c, hello, 100, ByConnection); v.Pause != 0 {
		t.Error("it is paused though it had stopped for a minute")
	}
}

func TestAnswersSayWhen(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		wait, want time.Duration
		text       string
	}{
		{time.Nanosecond, time.Millisecond, "1ms"},
		{20 * time.Millisecond, 20 * time.Millisecond, "20ms"},
		{20*time.Millisecond + 1, 21 * time.Millisecond, "21ms"},
		{59*time.Second + time.Millisecond, 59*time.Second + 100*time.Millisecond, "59.1s"},
	} {
		err := Verdict{By: ByLogins, Wait: x.wait}.Err()
		if err.Code != wire.CodeRateLimited || !err.Retryable || err.RetryAfter != x.want ||
			err.Message != "too many logins and signups from your address; try again in "+x.text || err.Details[0] != (wire.Detail{Key: "limit", Value: "logins"}) {
			t.Errorf("%s: %+v", x.wait, err)
		}
	}
	for _, by := range []string{ByConnection, ByAddress, ByAccount, ByLogins, ByLookups} {
		if reasons[by] == "" {
			t.Errorf("%s has no words", by)
		}
	}
}

func TestClosingTwice(t *testing.T) {
	t.Parallel()
	l := makeLimiter(t, nil)
	one, other := l.member(here, account), l.member(here, account)
	one.Close()
	one.Close()
	one.Login(ids.ID{9}) // Too late: it must hold nobody.
	if len(l.accounts.live) != 1 || l.addresses.live[here].refs != 1 {
		t.Fatalf("%d accounts, %d connections", len(l.accounts.live), l.addresses.live[here].refs)
	}
	other.Close()
	if len(l.accounts.live)+len(l.addresses.live) != 0 {
		t.Fatal("somebody is held")
	}
}
