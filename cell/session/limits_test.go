package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// rules replaces the served policy, also while connections are open.
func (v *served) rules(change func(*policy.Limits)) {
	p := policy.Default()
	change(&p.Limits)
	v.policy.Store(p)
}

// limited serves under a policy that can be replaced.
func limited(change func(*policy.Limits)) func(*served) {
	return func(v *served) {
		v.policy = new(atomic.Pointer[policy.Policy])
		v.rules(change)
		v.services.Policy = v.policy.Load
	}
}

func few(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 1, 5 }

// answers sends a request n times and returns how many were answered and how many were refused by the rate.
func (p *peer) answers(r wire.Request, n int) (passed int, refused []*wire.Error) {
	p.t.Helper()
	for range n {
		p.send(r)
		for {
			e := p.receive()
			if e.CorrelationID != p.last {
				continue
			}
			if err, ok := e.Body.(*wire.Error); ok && err.Code == wire.CodeRateLimited {
				refused = append(refused, err)
			} else {
				passed++
			}
			break
		}
	}
	return passed, refused
}

func TestTooManyRequestsAreRefusedBeforeAnyWork(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(few))
	p := v.open(t, windows{}) // One request.
	v.calls.Store(0)
	passed, refused := p.answers(&wire.KeyPackageStatusRequest{}, 8)
	if passed != 4 || v.calls.Load() != 4 {
		t.Fatalf("%d passed, %d were carried out, want 4", passed, v.calls.Load())
	}
	for _, e := range refused {
		if !e.Retryable || e.RetryAfter <= 0 || e.RetryAfter > time.Second || e.Details[0].Value != limits.ByConnection {
			t.Errorf("%+v", e)
		}
	}
	if n := testutil.ToFloat64(v.services.Metrics.Limited.WithLabelValues(limits.ByConnection)); n != 4 {
		t.Errorf("%v were counted", n)
	}
}

func TestWaitingAsToldIsEnough(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 20, 2 }))
	p := v.open(t, windows{})
	for range 10 {
		passed, refused := p.answers(&wire.KeyPackageStatusRequest{}, 1)
		if passed == 1 {
			continue
		}
		time.Sleep(refused[0].RetryAfter)
		if passed, _ := p.answers(&wire.KeyPackageStatusRequest{}, 1); passed != 1 {
			t.Fatalf("refused again after the %s it was told to wait", refused[0].RetryAfter)
		}
	}
}

func TestANewPolicyReachesOpenConnections(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(few))
	p := v.open(t, windows{})
	if passed, _ := p.answers(&wire.KeyPackageStatusRequest{}, 8); passed != 4 {
		t.Fatalf("%d passed", passed)
	}
	v.rules(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 100, 25 })
	if passed, _ := p.answers(&wire.KeyPackageStatusRequest{}, 15); passed != 15 {
		t.Fatalf("%d passed under a wider policy", passed)
	}
	v.rules(few)
	if passed, _ := p.answers(&wire.KeyPackageStatusRequest{}, 2); passed != 0 {
		t.Fatalf("%d passed under the narrow one", passed)
	}
}

// Frames that are no requests are charged as well, or they would be a way around.
func TestFaultyFramesAreLimitedToo(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(few))
	p := v.open(t, windows{})
	empty := make([]byte, 8) // A message without a root.
	got := map[wire.Code]int{}
	for range 10 {
		_, err := p.control.Write(empty)
		must(t, err)
		got[p.receive().Body.(*wire.Error).Code]++
	}
	if got[wire.CodeMalformed] != 4 || got[wire.CodeRateLimited] != 6 {
		t.Errorf("%v", got)
	}
}

// A client that goes on asking is read at the limit's pace, whatever it does.
func TestAFloodOnOneConnectionIsHeldBack(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(func(p *policy.Limits) { p.RequestsPerSecond, p.RequestBurst = 20, 20 }))
	p := v.open(t, windows{})
	flood := bytes.Repeat(p.frame(&wire.KeyPackageStatusRequest{}), 50)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = p.control.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = p.control.Write(flood)
		}
	}()
	begin := time.Now()
	answers, held := 0, 0.0
	for time.Since(begin) < time.Second {
		held = max(held, testutil.ToFloat64(v.services.Metrics.Held.WithLabelValues("limits"))) // It pauses at each token.
		_ = p.control.SetReadDeadline(begin.Add(time.Second))
		if _, err := frame.Read(p.control, frame.ControlLimit); err != nil {
			break
		}
		answers++
	}
	close(stop)
	<-ended
	took := time.Since(begin).Seconds()
	// At once: 20 answers and 20 refusals. Then, each second, 20 of each.
	if most := 40 + int(took*40) + 5; answers > most || answers < 40 {
		t.Errorf("%d answers in %.1f s, want 40 to %d", answers, took, most)
	}
	if held != 1 {
		t.Errorf("%v connections were said to be held back, want 1", held)
	}
}

func TestLoginsAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(func(p *policy.Limits) { p.LoginsPerMinute = 3 }))
	v.calls.Store(0)
	passed := 0
	var last *wire.Error
	for range 6 { // Each on a connection of its own.
		n, refused := v.dial(t, windows{}).answers(&wire.LoginStartRequest{Name: "alice", KE1: make([]byte, 96)}, 1)
		passed += n
		if n == 0 {
			last = refused[0]
		}
	}
	if passed != 3 || v.calls.Load() != 3 {
		t.Fatalf("%d passed, %d were carried out", passed, v.calls.Load())
	}
	if last.RetryAfter < 15*time.Second || last.RetryAfter > 20*time.Second || last.Details[0].Value != limits.ByLogins {
		t.Errorf("%+v", last)
	}
}

func TestLookupsAreLimitedByAccount(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(func(p *policy.Limits) { p.LookupsPerMinute = 3 }))
	v.calls.Store(0)
	one, other := v.open(t, windows{}), v.open(t, windows{})
	v.calls.Store(0)
	lookup := &wire.GetAccountRequest{Name: "alice"}
	a, _ := one.answers(lookup, 2)
	b, refused := other.answers(lookup, 3)
	if a != 2 || b != 1 || v.calls.Load() != 3 || refused[0].Details[0].Value != limits.ByLookups {
		t.Fatalf("%d and %d passed, %d were carried out", a, b, v.calls.Load())
	}
	one.alive()
}

// A message that was stored before is answered, though its account has nothing left.
func TestTheQuotaIsAskedAfterDedup(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(few))
	v.open(t, windows{})
	s := v.session(t)
	m := &wire.EnqueueRequest{ChannelID: channel, Generation: 1, DeliveryID: ids.NewDelivery(time.Now()), Payload: make([]byte, 10)}
	another := func() error {
		admit, _ := s.quota(m)
		return admit()
	}
	quota, withdraw := s.quota(m)
	for range 5 {
		if err := another(); err != nil {
			t.Fatal(err)
		}
	}
	if err := quota(); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Fatalf("the account's quota is used up: %v", err)
	}
	if v := s.limits.Take(m); v.By != "" { // The connection's own bucket has room; dedup would be asked.
		t.Fatalf("refused by the account before dedup: %+v", v)
	}
	v.rules(func(p *policy.Limits) { p.RequestBurst = 6 })
	for range 3 { // The batch may be tried again: one message is charged once.
		if err := quota(); err != nil {
			t.Fatal(err)
		}
	}
	if err := another(); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Fatal("it was not charged at all")
	}
	withdraw() // It was no new one after all.
	withdraw()
	if err := another(); err != nil {
		t.Fatalf("what it was charged was not given back: %v", err)
	}
	if err := another(); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Fatal("it was given back twice")
	}
}

func TestWhatAnAccountMayNotSendTakesNothingFromItsChannel(t *testing.T) {
	t.Parallel()
	v := serve(t, limited(few))
	v.open(t, windows{})
	s := v.session(t)
	ask := func(channel ids.ID) error {
		admit, _ := s.quota(&wire.EnqueueRequest{ChannelID: channel, Generation: 1, DeliveryID: ids.NewDelivery(time.Now()), Payload: make([]byte, 10)})
		return admit()
	}
	var err error
	for err == nil { // Until the account has nothing left.
		err = ask(ids.New())
	}
	busy := ids.New()
	v.rules(func(p *policy.Limits) {
		few(p)
		p.MessagesPerChannel = 1 // Two at once.
	})
	for range 5 {
		if err := ask(busy); !wire.HasCode(err, wire.CodeRateLimited) {
			t.Fatalf("the account had something left: %v", err)
		}
	}
	v.rules(func(p *policy.Limits) { p.MessagesPerChannel = 1 })
	for range 2 {
		if err := ask(busy); err != nil {
			t.Fatalf("the channel was charged for what was refused: %v", err)
		}
	}
	if err := ask(busy); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Fatalf("the channel has no limit: %v", err)
	}
}

func TestLoginsAreBusyWhenTooManyWait(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) { v.services.Logins = limits.NewGate(1, 0, time.Second) })
	if !v.services.Logins.Enter(context.Background()) {
		t.Fatal("not let in")
	}
	p := v.dial(t, windows{})
	for _, r := range []wire.Request{&wire.LoginStartRequest{Name: "a", KE1: make([]byte, 96)}, &wire.SignupStartRequest{Name: "a", RegistrationRequest: make([]byte, 32)}} {
		p.send(r)
		if e, ok := p.receive().Body.(*wire.Error); !ok || e.Code != wire.CodeBusy || !e.Retryable || e.RetryAfter != loginRetry {
			t.Errorf("%s: %+v", r.Method(), e)
		}
	}
	if n := testutil.ToFloat64(v.services.Metrics.Busy.WithLabelValues("logins")); n != 2 {
		t.Errorf("%v were counted", n)
	}
	v.services.Logins.Leave()
	p.send(&wire.LoginStartRequest{Name: "a", KE1: make([]byte, 96)})
	if _, ok := p.receive().Body.(*wire.LoginStartResponse); !ok {
		t.Error("it is busy though nobody is in")
	}
}

// drip sends bytes one by one, slowly, until the connection ends.
func (p *peer) drip(b []byte) {
	for i := range b {
		if _, err := p.control.Write(b[i : i+1]); err != nil {
			return
		}
		select {
		case <-p.conn.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func unhurried(v *served) {
	v.services.FramePatience, v.services.HelloPatience, v.services.AuthPatience = 150*time.Millisecond, 5*time.Second, 10*time.Second
}

func TestAFrameThatHasBegunMustEnd(t *testing.T) {
	t.Parallel()
	hello := func(p *peer) []byte {
		return p.frame(&wire.HelloRequest{Client: string(make([]byte, 100)), MinVersion: 1, MaxVersion: 1})
	}
	for name, x := range map[string]struct {
		device bool
		send   func(*peer)
	}{
		"a stranger's, drop by drop": {false, func(p *peer) { p.drip(hello(p)) }},
		"a stranger's first byte":    {false, func(p *peer) { p.drip([]byte{0}) }},
		"a stranger's table":         {false, func(p *peer) { p.drip(hello(p)[:8]) }},
		"a device's, drop by drop":   {true, func(p *peer) { p.drip(bytes.Repeat(hello(p), 3)[:len(hello(p))-1]) }},
		"a device's oversize frame": {true, func(p *peer) {
			p.drip(binary.LittleEndian.AppendUint32([]byte{0, 0, 0, 0}, 12<<10))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := serve(t, func(v *served) {
				unhurried(v)
				v.services.OversizePatience = 150 * time.Millisecond
			})
			var p *peer
			if x.device {
				p = v.open(t, windows{})
			} else {
				p = v.dial(t, windows{})
				stream, err := p.conn.OpenStream()
				must(t, err)
				p.control = stream
			}
			begin := time.Now()
			go x.send(p)
			p.ended(CloseSlow)
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %s", took)
			}
			if n := testutil.ToFloat64(v.services.Metrics.TooSlow.WithLabelValues("frame")); n != 1 {
				t.Errorf("%v were counted", n)
			}
		})
	}
}

// Between frames a client may take any time, and so may many frames together.
func TestFramesMayTakeTheirTimeToBegin(t *testing.T) {
	t.Parallel()
	v := serve(t, unhurried)
	p := v.open(t, windows{})
	for range 3 {
		b := p.frame(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
		half := len(b) / 2
		_, err := p.control.Write(b[:half])
		must(t, err)
		time.Sleep(50 * time.Millisecond)
		_, err = p.control.Write(b[half:])
		must(t, err)
		if _, ok := p.receive().Body.(*wire.HelloResponse); !ok {
			t.Fatal("no answer")
		}
		time.Sleep(600 * time.Millisecond) // Longer than a frame may take: three times 150 ms.
	}
}

func TestWhoAsksNothingIsClosedEarly(t *testing.T) {
	t.Parallel()
	v := serve(t, func(v *served) {
		v.services.HelloPatience, v.services.AuthPatience = 200*time.Millisecond, time.Minute
	})
	greeted := v.dial(t, windows{})
	greeted.send(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
	greeted.receive()
	silent := v.dial(t, windows{})
	silent.ended(CloseAuth)
	greeted.alive()
	if n := testutil.ToFloat64(v.services.Metrics.TooSlow.WithLabelValues("hello")); n != 1 {
		t.Errorf("%v were counted", n)
	}
}
