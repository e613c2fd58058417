package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

func from(ctx context.Context, address string) context.Context {
	return audit.WithAddress(ctx, netip.MustParseAddr(address))
}

// tryLogin begins a login and finishes it: with the right password, or not at all. It returns what LoginStart said, else
// what LoginFinish did.
func (f *fixture) tryLogin(ctx context.Context, name, password string, by *person) error {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return err
	}
	ke1, err := client.GenerateKE1([]byte(password))
	if err != nil {
		return err
	}
	r := &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()}
	if by != nil {
		r.DeviceID, r.Proof = by.cert.DeviceID, by.proof()
	}
	answer, l, err := f.LoginStart(ctx, r, exporter)
	if err != nil {
		return err
	}
	ke2, err := client.Deserialize.KE2(answer.KE2)
	if err != nil {
		return err
	}
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return errWrong // As a client does: no KE3 follows.
	}
	_, err = f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: ke3.Serialize()})
	return err
}

var errWrong = errors.New("the password is wrong")

// guess fails n times, and says how many of these were let.
func (f *fixture) guess(ctx context.Context, t *testing.T, name string, n int) (let int) {
	t.Helper()
	for range n {
		switch err := f.tryLogin(ctx, name, "wrong", nil); {
		case errors.Is(err, errWrong):
			let++
		case !wire.HasCode(err, wire.CodeRateLimited):
			t.Fatal(err)
		}
	}
	return let
}

const (
	home   = "192.0.2.1"
	abroad = "198.51.100.7"
)

func TestWaitsDouble(t *testing.T) {
	t.Parallel()
	for _, r := range []rule{addressRule, pairRule, nameRule, deviceRule} {
		if w := r.wait(r.free); w != 0 {
			t.Errorf("%s: %s after %d failures", r.kind, w, r.free)
		}
		want := time.Second
		for n := r.free + 1; n < 1000; n++ {
			if w := r.wait(n); w != min(want, r.most) {
				t.Fatalf("%s: %s after %d failures, want %s", r.kind, w, n, min(want, r.most))
			}
			want = min(2*want, r.most)
		}
	}
}

// Whatever the history and the clocks: a wait ends, is bounded, is never lengthened by asking, and failures are forgotten.
func TestRulesHoldForAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom([]rule{addressRule, pairRule, nameRule, deviceRule}).Draw(t, "rule")
		var a store.Attempts
		now := time.Unix(1_700_000_000, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Minute), int64(time.Hour)).Draw(t, "passes"))) // Replicas' clocks differ.
			if left := r.left(a, now); left > r.most {
				t.Fatalf("%s to wait with %+v at %s", left, a, now)
			} else if left > 0 {
				if later := r.left(a, a.LastAt.Add(r.wait(a.Failures))); later > 0 {
					t.Fatalf("the wait does not end: %s", later)
				}
				continue
			}
			before := a
			if a = r.charge(a, now); a.Failures < 1 || a.Failures > before.Failures+1 || a.Failures > r.free+maxDoublings {
				t.Fatalf("%+v became %+v", before, a)
			}
			if rapid.Bool().Draw(t, "succeeds") {
				a = forgiven(r, a)
			}
		}
		if fresh := r.charge(a, a.ForgetAt); fresh.Failures > 1 {
			t.Fatalf("%+v counts after it may be deleted: %+v", a, fresh)
		}
	})
}

// forgiven is what the store makes of an attempt that turned out well.
func forgiven(r rule, a store.Attempts) store.Attempts {
	if r.clears {
		return r.at(0, a.LastAt)
	}
	return r.at(max(0, a.Failures-1), a.LastAt)
}

func TestGuessingIsHeldUp(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(from(t.Context(), home), newPerson("alice"))
	must(t, err)
	for _, name := range []string{"alice", "nobody"} { // Names that exist and names that do not alike.
		ctx := from(t.Context(), abroad)
		if let := f.guess(ctx, t, name, 20); let != pairRule.free+1 {
			t.Errorf("%s: %d guesses of 20 were let", name, let)
		}
		err := f.tryLogin(ctx, name, "password", nil) // The right one makes no difference.
		var e *wire.Error
		if !errors.As(err, &e) || e.Code != wire.CodeRateLimited || !e.Retryable || e.RetryAfter <= 0 || e.RetryAfter > time.Second {
			t.Errorf("%s: %v", name, err)
		}
		for wait := time.Second; wait < 4*time.Hour; wait *= 2 {
			f.advance(min(wait, pairRule.most) + time.Millisecond)
			if let := f.guess(ctx, t, name, 3); let != 1 {
				t.Fatalf("%s: %d guesses were let after %s", name, let, wait)
			}
		}
		f.advance(24 * time.Hour)
		if let := f.guess(ctx, t, name, 20); let != pairRule.free+1 {
			t.Errorf("%s: %d guesses were let a day later", name, let)
		}
		f.advance(24 * time.Hour)
	}
	must(t, f.tryLogin(from(t.Context(), abroad), "alice", "password", nil))
}

// In a day of guessing as fast as it is let, from one address, few guesses are made.
func TestGuessesOfADay(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	guesses := 0
	for at := time.Duration(0); at < 24*time.Hour; at += time.Minute {
		guesses += f.guess(from(t.Context(), abroad), t, "alice", 1)
		f.advance(time.Minute)
	}
	if guesses > 150 {
		t.Errorf("%d guesses in a day", guesses)
	}
}

// Many addresses that guess one name are held up together, and nobody of these shuts the account's people out.
func TestABotnetDoesNotLockOut(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(from(t.Context(), home), alice)
	must(t, err)
	let := 0
	for i := range 200 {
		let += f.guess(from(t.Context(), fmt.Sprintf("203.0.113.%d", i)), t, "alice", 1)
	}
	if let != nameRule.free+1 {
		t.Errorf("%d guesses of 200 addresses were let", let)
	}
	if err := f.tryLogin(from(t.Context(), abroad), "alice", "password", nil); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Errorf("a stranger with the right password: %v", err)
	}
	must(t, f.tryLogin(from(t.Context(), home), "alice", "password", nil))     // From where she signed up.
	must(t, f.tryLogin(from(t.Context(), abroad), "alice", "password", alice)) // By her device, from anywhere.
	for range 30 {                                                             // An attack that goes on for days.
		f.advance(nameRule.most)
		f.guess(from(t.Context(), "203.0.113.250"), t, "alice", 1)
		f.guess(from(t.Context(), "203.0.113.251"), t, "alice", 1)
	}
	must(t, f.tryLogin(from(t.Context(), home), "alice", "password", nil))
	f.advance(nameRule.most + time.Millisecond) // Who has nothing has a turn each minute.
	must(t, f.tryLogin(from(t.Context(), "192.0.2.99"), "alice", "password", nil))
	f.advance(31 * 24 * time.Hour)
	for i := range 30 {
		f.guess(from(t.Context(), fmt.Sprintf("203.0.113.%d", i)), t, "alice", 1)
	}
	if err := f.tryLogin(from(t.Context(), home), "alice", "password", nil); err == nil {
		t.Error("an address is known for ever")
	}
}

// A device counts apart, but only its own account's, with its own signature, and its own failures count too.
func TestWhatADeviceOpens(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice, eve := newPerson("alice"), newPerson("eve")
	for _, p := range []*person{alice, eve} {
		_, err := f.signup(from(t.Context(), home), p)
		must(t, err)
	}
	ctx := from(t.Context(), abroad)
	f.guess(ctx, t, "alice", 20)
	forged := alice.withDevice(alice.cert.AccountID)
	forged.cert = alice.cert // Alice's device, another's signature.
	for what, by := range map[string]*person{"another account's device": eve, "a forged signature": forged, "a device that nobody has": newPerson("x")} {
		if err := f.tryLogin(ctx, "alice", "password", by); !wire.HasCode(err, wire.CodeRateLimited) {
			t.Errorf("%s: %v", what, err)
		}
	}
	let := 0
	for range 20 {
		if err := f.tryLogin(ctx, "alice", "wrong", alice); errors.Is(err, errWrong) {
			let++
		}
	}
	if let != deviceRule.free+1 {
		t.Errorf("a stolen device guesses %d times", let)
	}
}

func TestOneAddressManyNames(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	let := 0
	for i := range 200 {
		let += f.guess(from(t.Context(), fmt.Sprintf("2001:db8:1:2::%x", i)), t, fmt.Sprintf("name%d", i), 1)
	}
	if let != addressRule.free+1 {
		t.Errorf("%d guesses of one network were let", let)
	}
	if let := f.guess(from(t.Context(), "2001:db8:1:3::1"), t, "another", 1); let != 1 {
		t.Error("the neighboring network is held up too")
	}
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	keys := codes.New().Derive(codes.Recovery)
	recovery := &wire.RecoverRequest{Name: "alice", RecoveryKey: keys.Public(), Proof: keys.Prove(exporter)}
	if _, _, err := f.Recover(from(t.Context(), "2001:db8:1:2::1"), recovery, exporter); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Errorf("a recovery from there: %v", err)
	}
	if _, _, err := f.Recover(from(t.Context(), home), recovery, exporter); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("a recovery from elsewhere: %v", err)
	}
	f.rules.Limits.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	for i := range 70 {
		if let := f.guess(from(t.Context(), abroad), t, fmt.Sprintf("trusted%d", i), 1); let != 1 {
			t.Fatalf("guess %d from a trusted address was not let", i)
		}
	}
}

// A KE1 that no KE3 follows is a failure; a login that succeeds is none, and forgives the person's own mistakes.
func TestOnlySuccessIsForgiven(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	ctx := from(t.Context(), home)
	for range 100 {
		must(t, f.tryLogin(ctx, "alice", "password", nil))
	}
	for range 3 {
		f.guess(ctx, t, "alice", pairRule.free)
		must(t, f.tryLogin(ctx, "alice", "password", nil))
	}
	for range pairRule.free + 1 {
		_, _, err := f.LoginStart(ctx, f.ke1(t, "alice"), exporter)
		must(t, err)
	}
	if _, _, err := f.LoginStart(ctx, f.ke1(t, "alice"), exporter); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Errorf("KE1 alone is never held up: %v", err)
	}
}

func (f *fixture) ke1(t *testing.T, name string) *wire.LoginStartRequest {
	t.Helper()
	client, err := opaqueconf.Configuration().Client()
	must(t, err)
	ke1, err := client.GenerateKE1([]byte("password"))
	must(t, err)
	return &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()}
}

// Guesses at the same time are counted each.
func TestGuessesAtOnce(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	ctx := from(t.Context(), abroad)
	requests := make([]*wire.LoginStartRequest, 40)
	for i := range requests {
		requests[i] = f.ke1(t, "alice")
	}
	var let sync.Map
	var group sync.WaitGroup
	for i, r := range requests {
		group.Go(func() {
			_, _, err := f.LoginStart(ctx, r, exporter)
			if err == nil {
				let.Store(i, true)
			} else if !wire.HasCode(err, wire.CodeRateLimited) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	n := 0
	let.Range(func(any, any) bool { n++; return true })
	if n != pairRule.free+1 {
		t.Errorf("%d of 40 guesses at once were let", n)
	}
}

func TestParallelRefreshesKeepTheSession(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	first, err := f.signup(t.Context(), alice)
	must(t, err)
	var mu sync.Mutex
	given := map[string]bool{}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			next, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: first.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, exporter)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			given[string(next.RefreshToken)] = true
		})
	}
	group.Wait()
	if len(given) != 8 {
		t.Errorf("%d different tokens", len(given))
	}
	// Of these one is the present one. The first still is the one before it, so that whoever got another can go on.
	next, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: first.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, exporter)
	must(t, err)
	_, _, err = f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: next.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, exporter)
	must(t, err)
}

// A token that a replica issued whose clock goes wrong ends by the clock of the replica that checks it.
func TestClockSkewOfTokens(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	session, err := f.signup(t.Context(), alice)
	must(t, err)
	ttl := time.Duration(f.rules.Sessions.AccessTokenTTL)
	for _, x := range []struct {
		skew time.Duration
		code wire.Code
	}{{-ttl, 0}, {-time.Minute, 0}, {0, 0}, {time.Minute, 0}, {ttl - time.Millisecond, 0}, {ttl, wire.CodeExpiredToken}, {ttl + time.Hour, wire.CodeExpiredToken}} {
		f.advance(x.skew)
		_, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: alice.proof()}, exporter)
		if x.code == 0 && err != nil || x.code != 0 && !wire.HasCode(err, x.code) {
			t.Errorf("%s: %v", x.skew, err)
		}
		f.advance(-x.skew)
	}
	elsewhere := bytes.Repeat([]byte{8}, devicecert.ExporterSize)
	if _, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: alice.proof()}, elsewhere); !wire.HasCode(err, wire.CodeInvalidProof) {
		t.Errorf("on another connection: %v", err)
	}
	if _, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: session.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, elsewhere); !wire.HasCode(err, wire.CodeInvalidProof) {
		t.Errorf("a refresh on another connection: %v", err)
	}
}
