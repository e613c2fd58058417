package identity

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// refresh trades a token on the fixture's connection.
func (f *fixture) refresh(ctx context.Context, p *person, token []byte) (*wire.Session, error) {
	s, _, err := f.Refresh(ctx, &wire.RefreshSessionRequest{RefreshToken: token, DeviceID: p.cert.DeviceID, Proof: p.proof()}, exporter)
	return s, err
}

// lasting is a policy with a session's three times.
func (f *fixture) lasting(access, refresh, age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := policy.Default()
	p.Sessions = policy.Sessions{AccessTokenTTL: policy.Duration(access), RefreshTokenTTL: policy.Duration(refresh), MaxAge: policy.Duration(age)}
	f.rules = p
}

func wantTime(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want); d < -time.Millisecond || d > time.Millisecond {
		t.Errorf("%s is %s off", what, d)
	}
}

// A session ends so long after its login, however often it is refreshed, and its access tokens with it.
func TestASessionEndsHoweverOftenItIsRefreshed(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	f.lasting(30*time.Minute, 2*time.Hour, 3*time.Hour)
	alice := newPerson("alice")
	start := f.time()
	s, err := f.signup(t.Context(), alice)
	must(t, err)
	wantTime(t, "the first refresh token's end", s.RefreshExpiresAt, start.Add(2*time.Hour))
	wantTime(t, "the first access token's end", s.AccessExpiresAt, start.Add(30*time.Minute))
	last := s.RefreshToken
	for _, x := range []struct{ at, refresh, access time.Duration }{
		{30 * time.Minute, 150 * time.Minute, time.Hour}, {90 * time.Minute, 3 * time.Hour, 2 * time.Hour},
		{170 * time.Minute, 3 * time.Hour, 3 * time.Hour}, {180*time.Minute - time.Millisecond, 3 * time.Hour, 3 * time.Hour},
	} {
		f.advance(start.Add(x.at).Sub(f.time()))
		last = s.RefreshToken
		s, err = f.refresh(t.Context(), alice, last)
		must(t, err)
		wantTime(t, "the refresh token's end at "+x.at.String(), s.RefreshExpiresAt, start.Add(x.refresh))
		wantTime(t, "the access token's end at "+x.at.String(), s.AccessExpiresAt, start.Add(x.access))
	}
	f.advance(time.Millisecond)
	made := append(bytes.Clone(s.RefreshToken[:ids.Size]), make([]byte, 32)...)
	over := func(when string) {
		t.Helper()
		for what, token := range map[string][]byte{"present": s.RefreshToken, "previous": last} {
			_, err := f.refresh(t.Context(), alice, token)
			if !wire.HasCode(err, wire.CodeExpiredToken) || !strings.Contains(err.Error(), "log in again") {
				t.Errorf("%s: the %s token: %v", when, what, err)
			}
		}
		if _, err := f.refresh(t.Context(), alice, made); !wire.HasCode(err, wire.CodeInvalidToken) {
			t.Errorf("%s: a token made up: %v", when, err)
		}
		_, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: alice.proof()}, exporter)
		wantCode(t, err, wire.CodeExpiredToken)
	}
	over("at its end")
	must(t, f.store.SweepSessions(t.Context(), f.time().Add(time.Second)))
	over("once it was swept")
	f.advance(8 * 24 * time.Hour)
	must(t, f.store.SweepSessions(t.Context(), f.time()))
	if _, err := f.refresh(t.Context(), alice, s.RefreshToken); !wire.HasCode(err, wire.CodeInvalidToken) {
		t.Errorf("long after: %v", err)
	}
	again, _, err := f.StartSession(t.Context(), f.login(t, alice), &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	must(t, err)
	_, err = f.refresh(t.Context(), alice, again.RefreshToken)
	must(t, err)
}

// A policy with shorter sessions holds for those there are; one that is not used ends before.
func TestSessionsEndByThePolicyOfTheMoment(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	f.lasting(30*time.Minute, 2*time.Hour, 10*time.Hour)
	alice, bob := newPerson("alice"), newPerson("bob")
	s, err := f.signup(t.Context(), alice)
	must(t, err)
	unused, err := f.signup(t.Context(), bob)
	must(t, err)
	f.advance(time.Hour)
	s, err = f.refresh(t.Context(), alice, s.RefreshToken)
	must(t, err)
	f.lasting(30*time.Minute, 2*time.Hour, time.Hour)
	_, err = f.refresh(t.Context(), alice, s.RefreshToken)
	wantCode(t, err, wire.CodeExpiredToken)
	f.lasting(30*time.Minute, 2*time.Hour, 10*time.Hour)
	_, err = f.refresh(t.Context(), alice, s.RefreshToken)
	must(t, err)
	f.advance(time.Hour)
	_, err = f.refresh(t.Context(), bob, unused.RefreshToken)
	wantCode(t, err, wire.CodeExpiredToken)
}

// The sweep tells of sessions that ran out, each once, and of no other, with two cells at it.
func TestSessionsThatRunOutAreRecorded(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	const n = 5
	for i := range n {
		p := newPerson("p" + string(rune('a'+i)))
		s, err := f.signup(t.Context(), p)
		must(t, err)
		if i == 0 {
			who, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: p.proof()}, exporter)
			must(t, err)
			_, err = f.EndSession(t.Context(), who)
			must(t, err)
		}
	}
	f.advance(time.Duration(f.rules.Sessions.RefreshTokenTTL) + time.Second)
	living := newPerson("living")
	_, err := f.signup(t.Context(), living)
	must(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := f.store.SweepSessions(t.Context(), f.time()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ended := 0
	for _, e := range f.events(t, r, audit.Ref{}) {
		if e == "auth.session_ended success expired cell" {
			ended++
		}
	}
	if ended != n-1 {
		t.Errorf("%d sessions are told of, want %d", ended, n-1)
	}
}

// replica is a further cell on the fixture's database, whose clock is off.
func (f *fixture) replica(t *testing.T, off time.Duration) *fixture {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{URI: f.uri, Sealer: testSealer(t)})
	must(t, err)
	t.Cleanup(st.Close)
	r := &fixture{keys: f.keys, uri: f.uri, rules: f.rules}
	r.Service, err = New(st, f.keys, func() *policy.Policy { return f.rules }, func() time.Time { return f.time().Add(off) }, slog.New(slog.DiscardHandler))
	must(t, err)
	return r
}

// Of as many refreshes of one token at once as one likes, at two cells, each is answered, one of the answers is the
// session's, and the session lives. Whoever comes with another of the answers is taken for a thief.
func TestParallelRefreshes(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	other := f.replica(t, 0)
	for round := range 5 {
		alice := newPerson("alice" + string(rune('a'+round)))
		first, err := f.signup(t.Context(), alice)
		must(t, err)
		const n = 16
		answers := make([]*wire.Session, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				var err error
				if answers[i], err = []*fixture{f, other}[i%2].refresh(t.Context(), alice, first.RefreshToken); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		present := -1
		must(t, f.store.UpdateSession(t.Context(), ids.ID(first.RefreshToken[:ids.Size]), f.time(), func(s *store.Session) (bool, audit.Event, error) {
			for i, a := range answers {
				if bytes.Equal(hashRefresh(a.RefreshToken), s.RefreshHash) {
					present = i
				}
			}
			if !bytes.Equal(s.PreviousHash, hashRefresh(first.RefreshToken)) {
				t.Error("the token that all came with would not be taken once more")
			}
			return false, audit.Event{}, nil
		}))
		if present < 0 {
			t.Fatal("the session has a token that nobody got")
		}
		for _, a := range answers { // All access tokens open connections.
			_, err := other.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: a.AccessToken, Proof: alice.proof()}, exporter)
			must(t, err)
		}
		next, err := f.refresh(t.Context(), alice, answers[present].RefreshToken)
		must(t, err)
		_, err = other.refresh(t.Context(), alice, answers[(present+1)%n].RefreshToken)
		wantCode(t, err, wire.CodeReusedToken)
		_, err = f.refresh(t.Context(), alice, next.RefreshToken)
		wantCode(t, err, wire.CodeInvalidToken)
	}
}

// Replicas whose clocks differ by minutes take each other's tokens; a token of a clock that was far off opens nothing.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	f.lasting(15*time.Minute, 2*time.Hour, 3*time.Hour)
	ahead, behind := f.replica(t, 5*time.Minute), f.replica(t, -5*time.Minute)
	all := map[string]*fixture{"right": f, "ahead": ahead, "behind": behind}
	for by, issuer := range all {
		alice := newPerson("alice " + by)
		alice.name = "alice" + by
		s, err := issuer.signup(t.Context(), alice)
		must(t, err)
		for at, checker := range all {
			if _, err := checker.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: alice.proof()}, exporter); err != nil {
				t.Errorf("issued by the one %s, at the one %s: %v", by, at, err)
			}
			if s, err = checker.refresh(t.Context(), alice, s.RefreshToken); err != nil {
				t.Fatalf("begun at the one %s, refreshed at the one %s: %v", by, at, err)
			}
		}
		if end := f.time().Add(3*time.Hour + 5*time.Minute); s.RefreshExpiresAt.After(end) {
			t.Errorf("the session of the one %s lasts %s too long", by, s.RefreshExpiresAt.Sub(end))
		}
	}
	alice := newPerson("alice")
	p := Principal{AccountID: alice.cert.AccountID, DeviceID: alice.cert.DeviceID, SessionID: ids.New(), DeviceKey: alice.cert.DeviceKey}
	for _, x := range []struct {
		left time.Duration
		ok   bool
	}{{-100 * 365 * 24 * time.Hour, false}, {-time.Millisecond, false}, {0, false}, {time.Millisecond, true}, {24 * time.Hour, true}, {24*time.Hour + 11*time.Minute, false}, {10 * 365 * 24 * time.Hour, false}} {
		p.ExpiresAt = f.time().Add(x.left).Truncate(time.Millisecond).Add(time.Millisecond)
		if x.left == 0 {
			p.ExpiresAt = f.time().Truncate(time.Millisecond)
		}
		_, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: f.tokens.issue(p), Proof: alice.proof()}, exporter)
		if (err == nil) != x.ok || err != nil && !wire.HasCode(err, wire.CodeExpiredToken) {
			t.Errorf("with %s left: %v", x.left, err)
		}
	}
}

// What was made for one connection, one device, one session or one kind of token serves no other.
func TestTokensServeNothingElse(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice, bob := newPerson("alice"), newPerson("bob")
	hers, err := f.signup(t.Context(), alice)
	must(t, err)
	his, err := f.signup(t.Context(), bob)
	must(t, err)
	elsewhere := bytes.Repeat([]byte{8}, devicecert.ExporterSize)
	far := makeService(t) // Another cell, with keys of its own.
	foreign, err := far.signup(t.Context(), alice)
	must(t, err)
	for what, x := range map[string]struct {
		access, proof, exporter []byte
		code                    wire.Code
	}{
		"another connection's proof":      {hers.AccessToken, alice.proof(), elsewhere, wire.CodeInvalidProof},
		"another device's proof":          {hers.AccessToken, bob.proof(), exporter, wire.CodeInvalidProof},
		"another device's token":          {his.AccessToken, alice.proof(), exporter, wire.CodeInvalidProof},
		"no proof":                        {hers.AccessToken, nil, exporter, wire.CodeInvalidProof},
		"a refresh token":                 {hers.RefreshToken, alice.proof(), exporter, wire.CodeInvalidToken},
		"another cell's token":            {foreign.AccessToken, alice.proof(), exporter, wire.CodeInvalidToken},
		"his names under her MAC":         {append(bytes.Clone(his.AccessToken[:accessBody]), hers.AccessToken[accessBody:]...), bob.proof(), exporter, wire.CodeInvalidToken},
		"her token with his session":      {splice(hers.AccessToken, his.AccessToken, 36, 52), alice.proof(), exporter, wire.CodeInvalidToken},
		"her token with his device's key": {splice(hers.AccessToken, his.AccessToken, 52, 84), bob.proof(), exporter, wire.CodeInvalidToken},
	} {
		_, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: x.access, Proof: x.proof}, x.exporter)
		if !wire.HasCode(err, x.code) {
			t.Errorf("authenticate with %s: %v, want %s", what, err, x.code)
		}
	}
	for what, x := range map[string]struct {
		token, proof, exporter []byte
		device                 ids.ID
		code                   wire.Code
	}{
		"another connection's proof": {hers.RefreshToken, alice.proof(), elsewhere, alice.cert.DeviceID, wire.CodeInvalidProof},
		"an access token":            {hers.AccessToken, alice.proof(), exporter, alice.cert.DeviceID, wire.CodeInvalidToken},
		"another cell's token":       {foreign.RefreshToken, alice.proof(), exporter, alice.cert.DeviceID, wire.CodeInvalidToken},
		"her secret for his session": {splice(his.RefreshToken, hers.RefreshToken, ids.Size, refreshSize), alice.proof(), exporter, alice.cert.DeviceID, wire.CodeInvalidToken},
	} {
		_, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: x.token, DeviceID: x.device, Proof: x.proof}, x.exporter)
		if !wire.HasCode(err, x.code) {
			t.Errorf("refresh with %s: %v, want %s", what, err, x.code)
		}
	}
	for p, s := range map[*person]*wire.Session{alice: hers, bob: his} { // None of that ended a session.
		_, err := f.refresh(t.Context(), p, s.RefreshToken)
		must(t, err)
	}
}

func splice(into, from []byte, at, end int) []byte {
	b := bytes.Clone(into)
	copy(b[at:end], from[at:end])
	return b
}
