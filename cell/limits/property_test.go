package limits

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// spender is what a bucket that forgets nothing would hold.
type spender struct {
	spent float64
	at    time.Time
}

func (s *spender) takes(now time.Time, cost, refill, depth float64) bool {
	s.spent = max(s.spent-now.Sub(s.at).Seconds()*refill, 0)
	s.at = now
	const tolerance = 1e-6
	if s.spent+cost > depth+tolerance {
		return false
	}
	s.spent += cost
	return true
}

// Whoever comes and goes, in whatever order, and however the burst is changed: nothing passes that would not have passed
// had nothing ever been forgotten; and for one who stays, exactly that passes.
func TestNothingIsForgotten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := makeLimiter(nopTB{}, nil)
		depth := 100.0
		type client struct {
			*Conn
			addr    netip.Addr
			account ids.ID
		}
		var open []client
		model := map[string]*spender{}
		spenderOf := func(kind string, key any) *spender {
			name := fmt.Sprint(kind, key)
			if model[name] == nil {
				model[name] = &spender{at: l.now}
			}
			return model[name]
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				c := client{addr: nth(rapid.IntRange(0, 3).Draw(t, "address"))}
				c.Conn = l.Open(c.addr)
				if a := rapid.IntRange(0, 2).Draw(t, "account"); a > 0 {
					c.account = ids.ID{byte(a)}
					c.Login(c.account)
				}
				open = append(open, c)
			},
			"go": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "who")
				open[i].Close()
				open = append(open[:i], open[i+1:]...)
			},
			"ask": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				c := open[rapid.IntRange(0, len(open)-1).Draw(t, "who")]
				n := rapid.IntRange(1, 40).Draw(t, "times")
				r := rapid.SampledFrom([]wire.Request{hello, &wire.AckRequest{}, &wire.CreateGroupRequest{}}).Draw(t, "what")
				of := spenderOf("address", c.addr)
				if !c.account.IsZero() {
					of = spenderOf("account", c.account)
				}
				k := costOf(r).requests
				for range n {
					if c.Take(r).By == "" && !of.takes(l.now, k, 50, depth) {
						t.Fatalf("a request passed with %.2f of %.2f spent", of.spent, depth)
					}
				}
			},
			"wait": func(t *rapid.T) { l.pass(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond) },
			"reload": func(t *rapid.T) {
				burst := rapid.IntRange(10, 200).Draw(t, "burst")
				depth = float64(burst)
				l.use(func(p *policy.Limits) { p.RequestBurst = burst })
			},
		})
	})
}

// What Wait promises is true: not a moment before, and then surely.
func TestWaitIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.IntRange(1, 100_000).Draw(t, "rate")
		burst := rapid.IntRange(1, 200_000).Draw(t, "burst")
		l := makeLimiter(nopTB{}, func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = perSecond, burst })
		c := l.Open(here)
		c.own.spent = math.Min(rapid.Float64Range(0, 1e6).Draw(t, "spent"), 2*float64(burst))
		v := c.Take(hello)
		if v.By == "" {
			return
		}
		l.pass(v.Wait - max(v.Wait/1000, 10*time.Nanosecond))
		if c.Take(hello).By == "" {
			t.Fatalf("it passed before %s were over", v.Wait)
		}
		l.pass(max(v.Wait/1000, 10*time.Nanosecond) + time.Nanosecond)
		if v := c.Take(hello); v.By != "" {
			t.Fatalf("%+v", v)
		}
	})
}

// nopTB stands where no test can fail.
type nopTB struct{ testing.TB }

// FuzzTake asks whatever the wire can say under any policy: no panic, no negative wait, none longer than the bucket
// takes to fill.
func FuzzTake(f *testing.F) {
	f.Add(uint32(50), uint32(100), uint16(60), int64(0), uint32(100))
	f.Add(uint32(1), uint32(200_000), uint16(1), int64(-1), uint32(5<<20))
	f.Fuzz(func(t *testing.T, perSecond, burst uint32, perMinute uint16, elapsed int64, size uint32) {
		l := makeLimiter(t, func(p *policy.Limits) {
			p.RequestsPerSecond, p.RequestBurst = 1+int(perSecond%100_000), 1+int(burst%200_000)
			p.LoginsPerMinute, p.LookupsPerMinute = 1+int(perMinute), 1+int(perMinute)
		})
		c := l.member(here, account)
		defer c.Close()
		requests := []wire.Request{nil, &wire.EnqueueRequest{Payload: make([]byte, size%(5<<20))}, &wire.LoginStartRequest{},
			&wire.GetAccountRequest{}, &wire.UploadKeyPackagesRequest{OneTime: make([][]byte, 100)}}
		for i := range 40 {
			if v := c.Take(requests[i%len(requests)]); v.Wait < 0 || v.Pause < 0 || v.Pause > maxPause || v.Wait > maxWait || (v.By == "") != (v.Wait == 0) {
				t.Fatalf("%+v", v)
			}
			l.pass(time.Duration(elapsed % int64(time.Hour)))
		}
	})
}
