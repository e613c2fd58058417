package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/bytemare/opaque"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

var exporter = bytes.Repeat([]byte{7}, devicecert.ExporterSize)

// fixture is a Service on a database of its own, at a time that the test moves.
type fixture struct {
	*Service
	mu    sync.Mutex
	clock time.Time
	rules *policy.Policy
	keys  *cellkeys.Keys
	uri   string
}

func makeService(t testing.TB) *fixture {
	t.Helper()
	uri := pgtest.New(t)
	st, err := store.Open(t.Context(), store.Options{URI: uri, Sealer: testSealer(t)})
	must(t, err)
	t.Cleanup(st.Close)
	must(t, st.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	f := &fixture{clock: time.Now(), rules: policy.Default(), keys: cellkeys.Generate(), uri: uri}
	must(t, st.EnsurePartitions(t.Context(), f.clock, 48*time.Hour, []time.Duration{time.Duration(f.rules.Retention.Inbox)}, time.Hour)) // For notices.
	f.Service, err = New(st, f.keys, func() *policy.Policy { return f.rules }, f.time, slog.New(slog.DiscardHandler))
	must(t, err)
	return f
}

func testSealer(t testing.TB) *store.Sealer {
	t.Helper()
	s, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	must(t, err)
	return s
}

func (f *fixture) time() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clock
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = f.clock.Add(d)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person is an account's client side, with one device.
type person struct {
	name         string
	root, device ed25519.PrivateKey
	cert         *devicecert.Certificate
}

func newPerson(name string) *person {
	p := &person{name: name}
	_, p.root, _ = ed25519.GenerateKey(nil)
	return p.withDevice(ids.New())
}

// withDevice is the same account with a fresh device.
func (p person) withDevice(account ids.ID) *person {
	_, p.device, _ = ed25519.GenerateKey(nil)
	p.cert = devicecert.Issue(p.root, account, ids.New(), p.device.Public().(ed25519.PublicKey), time.Now())
	return &p
}

func (p *person) proof() []byte { return devicecert.Prove(p.device, exporter) }

// quickly is a key stretching that takes no time; the cell does not see how it is done.
func quickly() *opaque.ClientOptions {
	o := opaqueconf.ClientOptions()
	o.KSFParameters = []uint64{1, 64, 1}
	return o
}

func (f *fixture) signup(ctx context.Context, p *person) (*wire.Session, error) {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, err
	}
	request, err := client.RegistrationInit([]byte("password"))
	if err != nil {
		return nil, err
	}
	answer, err := f.SignupStart(ctx, &wire.SignupStartRequest{Name: p.name, RegistrationRequest: request.Serialize()})
	if err != nil {
		return nil, err
	}
	response, err := client.Deserialize.RegistrationResponse(answer.RegistrationResponse)
	if err != nil {
		return nil, err
	}
	record, _, err := client.RegistrationFinalize(response, nil, nil, quickly())
	if err != nil {
		return nil, err
	}
	session, who, err := f.SignupFinish(ctx, &wire.SignupFinishRequest{Name: p.name, RegistrationRecord: record.Serialize(),
		WrappedRootKey: []byte("wrapped"), Certificate: p.cert.Marshal(), Proof: p.proof()}, exporter)
	if err == nil && (who.AccountID != p.cert.AccountID || who.DeviceID != p.cert.DeviceID || !who.DeviceKey.Equal(p.cert.DeviceKey)) {
		return nil, errors.New("the connection speaks for another")
	}
	return session, err
}

// loginStart sends a KE1 and returns the answer and the client that can go on.
func (f *fixture) loginStart(t *testing.T, name, password string) (*opaque.Client, *wire.LoginStartResponse, *Login) {
	t.Helper()
	client, err := opaqueconf.Configuration().Client()
	must(t, err)
	ke1, err := client.GenerateKE1([]byte(password))
	must(t, err)
	answer, login, err := f.LoginStart(t.Context(), &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()}, exporter)
	must(t, err)
	return client, answer, login
}

func (f *fixture) login(t *testing.T, p *person) *Login {
	t.Helper()
	client, answer, login := f.loginStart(t, p.name, "password")
	ke2, err := client.Deserialize.KE2(answer.KE2)
	must(t, err)
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	must(t, err)
	out, err := f.LoginFinish(t.Context(), login, &wire.LoginFinishRequest{KE3: ke3.Serialize()})
	must(t, err)
	if out.AccountID != p.cert.AccountID || string(out.WrappedRootKey) != "wrapped" {
		t.Fatalf("%+v", out)
	}
	return login
}

func TestUnknownNamesAnswerAsKnownOnes(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	answers := map[string][2][]byte{}
	for _, name := range []string{"alice", "nobody"} {
		_, one, l1 := f.loginStart(t, name, "password")
		_, two, l2 := f.loginStart(t, name, "password")
		if len(one.KE2) != 320 || len(two.KE2) != 320 {
			t.Errorf("%s: KE2 of %d and %d bytes", name, len(one.KE2), len(two.KE2))
		}
		if bytes.Equal(one.KE2, two.KE2) {
			t.Errorf("%s: the same KE2 twice", name)
		}
		answers[name] = [2][]byte{one.KE2, two.KE2}
		for _, l := range []*Login{l1, l2} {
			_, err := f.LoginFinish(t.Context(), l, &wire.LoginFinishRequest{KE3: bytes.Repeat([]byte{1}, 64)})
			if !wire.HasCode(err, wire.CodeInvalidCredentials) {
				t.Errorf("%s: %v", name, err)
			}
			if want := "invalidCredentials: unknown name or wrong password"; err != nil && err.Error() != want {
				t.Errorf("%s: %v", name, err)
			}
			if _, _, err := f.StartSession(t.Context(), l, &wire.StartSessionRequest{}, exporter); !wire.HasCode(err, wire.CodeUnauthenticated) {
				t.Errorf("%s: a session after a failed login: %v", name, err)
			}
		}
	}
	// Nothing of a KE2 stays the same from one login to the next, except the evaluated element of equal requests, and
	// here requests differ.
	const element = 32
	for name, a := range answers {
		if bytes.Equal(a[0][element:], a[1][element:]) {
			t.Errorf("%s: KE2 repeats itself", name)
		}
	}
}

func TestNoKE3OpensAnUnknownName(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, _, login := f.loginStart(t, "nobody", "password")
	if _, err := f.LoginFinish(t.Context(), login, &wire.LoginFinishRequest{KE3: login.clientMAC}); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("even the right MAC of the fake record: %v", err)
	}
	if login.proven {
		t.Error("the login is proven")
	}
}

func TestMessagesThatAreNoOPAQUE(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	ctx := t.Context()
	for _, n := range []int{0, 1, 31, 33, 95, 97, 1024} {
		junk := bytes.Repeat([]byte{0xff}, n)
		_, err := f.SignupStart(t.Context(), &wire.SignupStartRequest{Name: "x", RegistrationRequest: junk})
		wantField(t, err, "registrationRequest")
		_, _, err = f.LoginStart(ctx, &wire.LoginStartRequest{Name: "x", KE1: junk}, exporter)
		wantField(t, err, "ke1")
		_, _, err = f.SignupFinish(ctx, &wire.SignupFinishRequest{Name: "x", RegistrationRecord: junk}, exporter)
		wantField(t, err, "registrationRecord")
		_, err = f.LoginFinish(t.Context(), &Login{}, &wire.LoginFinishRequest{KE3: junk})
		wantField(t, err, "ke3")
	}
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != wire.CodeInvalidArgument || len(e.Details) == 0 || e.Details[0].Value != field {
		t.Errorf("%s: %v", field, err)
	}
}

func TestSignupIsForOneNameAndOneID(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("Alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	for what, p := range map[string]*person{
		"the name":       newPerson("aLICE"),
		"the account id": {name: "other", root: alice.root, device: alice.device, cert: alice.withDevice(alice.cert.AccountID).cert},
	} {
		if what == "the account id" {
			p = alice.withDevice(alice.cert.AccountID)
			p.name = "other"
		}
		if _, err := f.signup(t.Context(), p); !wire.HasCode(err, wire.CodeAlreadyExists) {
			t.Errorf("%s again: %v", what, err)
		}
	}
	thief := newPerson("thief") // Takes alice's device id.
	thief.cert = devicecert.Issue(thief.root, ids.New(), alice.cert.DeviceID, thief.device.Public().(ed25519.PublicKey), time.Now())
	if _, err := f.signup(t.Context(), thief); !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Errorf("the device id again: %v", err)
	}
	names := make(chan error, 8)
	for range cap(names) { // All at once: one gets it.
		go func() {
			_, err := f.signup(context.WithoutCancel(t.Context()), newPerson("wanted"))
			names <- err
		}()
	}
	won := 0
	for range cap(names) {
		switch err := <-names; {
		case err == nil:
			won++
		case !wire.HasCode(err, wire.CodeAlreadyExists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d got the name", won)
	}
}

func TestDevicesAreAddedOnceAndBounded(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	add := func(p *person) error {
		_, _, err := f.StartSession(context.WithoutCancel(t.Context()), f.login(t, alice), &wire.StartSessionRequest{Certificate: p.cert.Marshal(), Proof: p.proof()}, exporter)
		return err
	}
	laptop := alice.withDevice(alice.cert.AccountID)
	results := make(chan error, 4)
	for range cap(results) { // A client that retries before it was answered.
		go func() { results <- add(laptop) }()
	}
	ok := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			ok++
		case !wire.HasCode(err, wire.CodeAlreadyExists):
			t.Errorf("adding a device twice: %v", err)
		}
	}
	if ok == 0 {
		t.Error("nobody added the device")
	}
	must(t, add(laptop)) // Known now: a further session.
	stolen := alice.withDevice(alice.cert.AccountID)
	stolen.cert = devicecert.Issue(alice.root, alice.cert.AccountID, laptop.cert.DeviceID, stolen.device.Public().(ed25519.PublicKey), time.Now())
	if err := add(stolen); !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Errorf("a known device id with another key: %v", err)
	}
	for range wire.MaxDevices - 2 {
		must(t, add(alice.withDevice(alice.cert.AccountID)))
	}
	if err := add(alice.withDevice(alice.cert.AccountID)); !wire.HasCode(err, wire.CodePermissionDenied) {
		t.Errorf("device %d: %v", wire.MaxDevices+1, err)
	}
	must(t, add(laptop))
}

// refresher is a client's and the cell's view of one session's refresh tokens.
type refresher struct {
	tokens   [][]byte // In the order in which they were given out.
	spent    int      // Index of the newest one that was used.
	revoked  bool
	lastUsed time.Time
	ends     time.Time // However often it is used.
}

// verdict is what becomes of token i, by the rules of docs/protocol.md.
func (r *refresher) verdict(i int, now time.Time, ttl time.Duration) wire.Code {
	known := i == len(r.tokens)-1 || i == r.spent
	over := !now.Before(r.lastUsed.Add(ttl)) || !now.Before(r.ends)
	switch {
	case over && known:
		return wire.CodeExpiredToken
	case over, r.revoked:
		return wire.CodeInvalidToken
	case known:
		return 0
	default:
		r.revoked = true
		return wire.CodeReusedToken
	}
}

// Any order of old, present and late refreshes: the present token and the one before are taken, anything older ends
// the session.
func TestRefreshRotation(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	ctx := context.WithoutCancel(t.Context())
	rapid.Check(t, func(rt *rapid.T) {
		p := newPerson("p" + ids.New().String())
		session, err := f.signup(ctx, p)
		if err != nil {
			rt.Fatal(err)
		}
		ttl := time.Duration(f.rules.Sessions.RefreshTokenTTL)
		r := &refresher{tokens: [][]byte{session.RefreshToken}, spent: -1, lastUsed: f.time(), ends: f.time().Add(time.Duration(f.rules.Sessions.MaxAge))}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			f.advance(time.Duration(rapid.SampledFrom([]int64{0, int64(time.Hour), int64(ttl - time.Millisecond), int64(ttl)}).Draw(rt, "wait")))
			back := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 3}).Draw(rt, "back")
			i := max(0, len(r.tokens)-1-back)
			want := r.verdict(i, f.time(), ttl)
			next, who, err := f.Refresh(ctx, &wire.RefreshSessionRequest{RefreshToken: r.tokens[i], DeviceID: p.cert.DeviceID, Proof: p.proof()}, exporter)
			if want != 0 {
				if !wire.HasCode(err, want) {
					rt.Fatalf("token %d of %d: %v, want %s", i, len(r.tokens), err, want)
				}
				continue
			}
			if err != nil || who.DeviceID != p.cert.DeviceID {
				rt.Fatalf("token %d of %d: %v", i, len(r.tokens), err)
			}
			if i == len(r.tokens)-1 {
				r.spent = i
			}
			r.tokens, r.lastUsed = append(r.tokens, next.RefreshToken), f.time()
			if got, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: next.AccessToken, Proof: p.proof()}, exporter); err != nil || got.DeviceID != p.cert.DeviceID {
				rt.Fatalf("the new access token: %v", err)
			}
		}
	})
}

func TestRefreshNeedsItsDevice(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice, eve := newPerson("alice"), newPerson("eve")
	session, err := f.signup(t.Context(), alice)
	must(t, err)
	_, err = f.signup(t.Context(), eve)
	must(t, err)
	try := func(token []byte, device ids.ID, proof []byte) error {
		_, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: token, DeviceID: device, Proof: proof}, exporter)
		return err
	}
	made := append(bytes.Clone(session.RefreshToken[:ids.Size]), make([]byte, 32)...)
	for _, x := range []struct {
		what   string
		token  []byte
		device ids.ID
		proof  []byte
		code   wire.Code
	}{
		{"a stolen token, alice's device named", session.RefreshToken, alice.cert.DeviceID, eve.proof(), wire.CodeInvalidProof},
		{"a stolen token, eve's device named", session.RefreshToken, eve.cert.DeviceID, eve.proof(), wire.CodeInvalidToken},
		{"an unknown device", session.RefreshToken, ids.New(), alice.proof(), wire.CodeInvalidToken},
		{"a token cut off", session.RefreshToken[:10], alice.cert.DeviceID, alice.proof(), wire.CodeInvalidToken},
		{"another session", append(bytes.Repeat([]byte{5}, ids.Size), session.RefreshToken[ids.Size:]...), alice.cert.DeviceID, alice.proof(), wire.CodeInvalidToken},
		{"a made-up token of eve for alice's session", made, eve.cert.DeviceID, eve.proof(), wire.CodeInvalidToken},
	} {
		if err := try(x.token, x.device, x.proof); !wire.HasCode(err, x.code) {
			t.Errorf("%s: %v, want %s", x.what, err, x.code)
		}
	}
	must(t, try(session.RefreshToken, alice.cert.DeviceID, alice.proof())) // None of that has revoked the session.
}

func TestANewLoginEndsTheDevicesOlderSession(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	first, err := f.signup(t.Context(), alice)
	must(t, err)
	second, _, err := f.StartSession(t.Context(), f.login(t, alice), &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	must(t, err)
	for _, x := range []struct {
		token []byte
		ok    bool
	}{{first.RefreshToken, false}, {second.RefreshToken, true}} {
		_, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: x.token, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, exporter)
		if (err == nil) != x.ok || err != nil && !wire.HasCode(err, wire.CodeInvalidToken) {
			t.Errorf("%v", err)
		}
	}
}
