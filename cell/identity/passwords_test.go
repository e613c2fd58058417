package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/bytemare/opaque"
	"pgregory.net/rapid"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// loginWith proves a password, or says why it is not proven.
func (f *fixture) loginWith(ctx context.Context, name, password string) (*Login, *wire.LoginFinishResponse, error) {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, nil, err
	}
	ke1, err := client.GenerateKE1([]byte(password))
	if err != nil {
		return nil, nil, err
	}
	answer, l, err := f.LoginStart(ctx, &wire.LoginStartRequest{Name: name, KE1: ke1.Serialize()}, exporter)
	if err != nil {
		return nil, nil, err
	}
	ke2, err := client.Deserialize.KE2(answer.KE2)
	if err != nil {
		return nil, nil, err
	}
	ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
	if err != nil {
		return l, nil, errWrong
	}
	out, err := f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: ke3.Serialize()})
	return l, out, err
}

// setting is a password that a client is about to set.
func (f *fixture) setting(l *Login, password string) (*wire.SetPasswordFinishRequest, error) {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return nil, err
	}
	request, err := client.RegistrationInit([]byte(password))
	if err != nil {
		return nil, err
	}
	answer, err := f.SetPasswordStart(l, &wire.SetPasswordStartRequest{RegistrationRequest: request.Serialize()})
	if err != nil {
		return nil, err
	}
	return finishRegistration(client, answer)
}

func finishRegistration(client *opaque.Client, answer *wire.SignupStartResponse) (*wire.SetPasswordFinishRequest, error) {
	response, err := client.Deserialize.RegistrationResponse(answer.RegistrationResponse)
	if err != nil {
		return nil, err
	}
	record, _, err := client.RegistrationFinalize(response, nil, nil, quickly())
	if err != nil {
		return nil, err
	}
	return &wire.SetPasswordFinishRequest{RegistrationRecord: record.Serialize(), OpaqueKey: answer.OpaqueKey, WrappedRootKey: []byte("wrapped anew")}, nil
}

func (f *fixture) setPassword(ctx context.Context, l *Login, password string) error {
	r, err := f.setting(l, password)
	if err != nil {
		return err
	}
	_, err = f.SetPasswordFinish(ctx, l, r, ids.ID{})
	return err
}

func TestSetPassword(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	l := f.login(t, alice)
	must(t, f.setPassword(t.Context(), l, "second"))
	must(t, f.setPassword(t.Context(), l, "third")) // The login goes on with what it set.
	for password, want := range map[string]error{"password": errWrong, "second": errWrong, "third": nil} {
		if _, out, err := f.loginWith(t.Context(), "alice", password); !errors.Is(err, want) || err == nil && string(out.WrappedRootKey) != "wrapped anew" {
			t.Errorf("%s: %v", password, err)
		}
	}
	_, _, err = f.StartSession(t.Context(), l, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	must(t, err)
}

// Whoever proved a password that has been changed since can do nothing with that any more.
func TestAnOldProofIsOfNoUse(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	thief, other, late := f.login(t, alice), f.login(t, alice), f.login(t, alice)
	prepared, err := f.setting(thief, "the thief's")
	must(t, err)
	must(t, f.setPassword(t.Context(), f.login(t, alice), "second"))
	_, err = f.SetPasswordFinish(t.Context(), thief, prepared, ids.ID{})
	wantUnauthenticated(t, "setPasswordFinish", err)
	_, err = f.SetPasswordFinish(t.Context(), thief, prepared, ids.ID{})
	wantUnauthenticated(t, "again", err)
	_, err = f.SetRecoveryCodes(t.Context(), other, &wire.SetRecoveryCodesRequest{RecoveryCodes: []wire.RecoveryCode{{RecoveryKey: make([]byte, 32), WrappedRootKey: []byte{1}}}}, ids.ID{})
	wantUnauthenticated(t, "setRecoveryCodes", err)
	_, _, err = f.StartSession(t.Context(), late, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	wantUnauthenticated(t, "startSession", err)
	fresh, _, err := f.loginWith(t.Context(), "alice", "second")
	must(t, err)
	f.advance(provenFor + time.Millisecond)
	wantUnauthenticated(t, "too long ago", f.setPassword(t.Context(), fresh, "third"))
}

func wantUnauthenticated(t *testing.T, what string, err error) {
	t.Helper()
	if !wire.HasCode(err, wire.CodeUnauthenticated) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestPasswordCallsNeedALogin(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	_, _, unproven := f.loginStart(t, "alice", "password")
	for what, l := range map[string]*Login{"none": nil, "one that is not finished": unproven} {
		_, err := f.SetPasswordStart(l, &wire.SetPasswordStartRequest{RegistrationRequest: make([]byte, 32)})
		wantUnauthenticated(t, what+": setPasswordStart", err)
		_, err = f.SetPasswordFinish(t.Context(), l, &wire.SetPasswordFinishRequest{}, ids.ID{})
		wantUnauthenticated(t, what+": setPasswordFinish", err)
		_, err = f.SetRecoveryCodes(t.Context(), l, &wire.SetRecoveryCodesRequest{}, ids.ID{})
		wantUnauthenticated(t, what+": setRecoveryCodes", err)
		_, _, err = f.ResetAccount(t.Context(), l, &wire.ResetAccountRequest{}, exporter)
		wantUnauthenticated(t, what+": resetAccount", err)
	}
	for _, l := range []*Login{f.login(t, &person{name: "alice", cert: f.certOf(t, "alice")})} {
		_, err := f.SetPasswordStart(l, &wire.SetPasswordStartRequest{RegistrationRequest: make([]byte, 31)})
		wantField(t, err, "registrationRequest")
		_, err = f.SetPasswordFinish(t.Context(), l, &wire.SetPasswordFinishRequest{RegistrationRecord: make([]byte, 192)}, ids.ID{})
		wantField(t, err, "registrationRecord")
		good, err := f.setting(l, "x")
		must(t, err)
		good.OpaqueKey = 77
		_, err = f.SetPasswordFinish(t.Context(), l, good, ids.ID{})
		wantField(t, err, "opaqueKey")
		if _, _, err = f.ResetAccount(t.Context(), l, &wire.ResetAccountRequest{}, exporter); !wire.HasCode(err, wire.CodePermissionDenied) {
			t.Errorf("a reset by password: %v", err)
		}
	}
}

func (f *fixture) certOf(t *testing.T, name string) *devicecert.Certificate {
	t.Helper()
	a, err := f.store.AccountByName(t.Context(), name)
	must(t, err)
	return &devicecert.Certificate{AccountID: a.ID}
}

func TestEndOtherSessions(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	own, err := f.signup(t.Context(), alice)
	must(t, err)
	laptop := alice.withDevice(alice.cert.AccountID)
	other, _, err := f.StartSession(t.Context(), f.login(t, alice), &wire.StartSessionRequest{Certificate: laptop.cert.Marshal(), Proof: laptop.proof()}, exporter)
	must(t, err)
	eve := newPerson("eve")
	strangers, err := f.signup(t.Context(), eve)
	must(t, err)
	l := f.login(t, alice)
	r, err := f.setting(l, "second")
	must(t, err)
	r.EndOtherSessions = true
	_, err = f.SetPasswordFinish(t.Context(), l, r, alice.cert.DeviceID)
	must(t, err)
	for what, x := range map[string]struct {
		p  *person
		s  *wire.Session
		ok bool
	}{"the own": {alice, own, true}, "the other": {laptop, other, false}, "a stranger's": {eve, strangers, true}} {
		_, _, err := f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: x.s.RefreshToken, DeviceID: x.p.cert.DeviceID, Proof: x.p.proof()}, exporter)
		if (err == nil) != x.ok {
			t.Errorf("%s session: %v", what, err)
		}
	}
}

func TestEndSession(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	s, err := f.signup(t.Context(), alice)
	must(t, err)
	p, err := f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: alice.proof()}, exporter)
	must(t, err)
	for range 2 {
		_, err = f.EndSession(t.Context(), p)
		must(t, err)
	}
	_, _, err = f.Refresh(t.Context(), &wire.RefreshSessionRequest{RefreshToken: s.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: alice.proof()}, exporter)
	if !wire.HasCode(err, wire.CodeInvalidToken) {
		t.Errorf("its refresh token: %v", err)
	}
}

// withCodes signs somebody up with recovery codes and returns their keys.
func (f *fixture) withCodes(t *testing.T, p *person, n int) []codes.Keys {
	t.Helper()
	_, err := f.signup(t.Context(), p)
	must(t, err)
	return f.setCodes(t, f.login(t, p), n)
}

func (f *fixture) setCodes(t *testing.T, l *Login, n int) []codes.Keys {
	t.Helper()
	var keys []codes.Keys
	r := &wire.SetRecoveryCodesRequest{}
	for range n {
		k := codes.New().Derive(codes.Recovery)
		keys = append(keys, k)
		r.RecoveryCodes = append(r.RecoveryCodes, wire.RecoveryCode{RecoveryKey: k.Public(), WrappedRootKey: []byte("wrapped by code")})
	}
	_, err := f.SetRecoveryCodes(t.Context(), l, r, ids.ID{})
	must(t, err)
	return keys
}

func (f *fixture) recover(name string, k codes.Keys) (*wire.RecoverResponse, *Login, error) {
	return f.Recover(context.Background(), &wire.RecoverRequest{Name: name, RecoveryKey: k.Public(), Proof: k.Prove(exporter)}, exporter)
}

func TestRecoveryCodesServeOnce(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	keys := f.withCodes(t, alice, 3)
	out, l, err := f.recover("ALICE", keys[0])
	must(t, err)
	if out.AccountID != alice.cert.AccountID || !bytes.Equal(out.RootKey, alice.cert.RootKey) || string(out.WrappedRootKey) != "wrapped by code" {
		t.Errorf("%+v", out)
	}
	// Proving a code changes nothing; a session needs a new password first.
	_, _, err = f.StartSession(t.Context(), l, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	wantUnauthenticated(t, "a session before the password", err)
	_, err = f.SetRecoveryCodes(t.Context(), l, &wire.SetRecoveryCodesRequest{}, ids.ID{})
	wantUnauthenticated(t, "codes before the password", err)
	_, _, err = f.ResetAccount(t.Context(), l, &wire.ResetAccountRequest{}, exporter)
	if !wire.HasCode(err, wire.CodePermissionDenied) {
		t.Errorf("a reset by a recovery code: %v", err)
	}
	_, twin, err := f.recover("alice", keys[0]) // On two connections at once: one of them spends it.
	must(t, err)
	must(t, f.setPassword(t.Context(), l, "second"))
	wantUnauthenticated(t, "the code a second time", f.setPassword(t.Context(), twin, "third"))
	if _, _, err := f.recover("alice", keys[0]); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("a spent code: %v", err)
	}
	_, _, err = f.StartSession(t.Context(), l, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	must(t, err)
	if _, _, err := f.loginWith(t.Context(), "alice", "second"); err != nil {
		t.Error(err)
	}
	// The others still serve, until fresh ones take their place.
	_, l, err = f.recover("alice", keys[1])
	must(t, err)
	must(t, f.setPassword(t.Context(), l, "third"))
	fresh := f.setCodes(t, l, 1)
	if _, _, err := f.recover("alice", keys[2]); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("a replaced code: %v", err)
	}
	_, _, err = f.recover("alice", fresh[0])
	must(t, err)
}

func TestRecoverRefusals(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice, bob := newPerson("alice"), newPerson("bob")
	hers, his := f.withCodes(t, alice, 1)[0], f.withCodes(t, bob, 1)[0]
	elsewhere := bytes.Repeat([]byte{9}, devicecert.ExporterSize)
	for what, x := range map[string]struct {
		name  string
		key   ed25519.PublicKey
		proof []byte
		code  wire.Code
	}{
		"another's name":         {"bob", hers.Public(), hers.Prove(exporter), wire.CodeInvalidCredentials},
		"an unknown name":        {"nobody", hers.Public(), hers.Prove(exporter), wire.CodeInvalidCredentials},
		"an unknown code":        {"alice", codes.New().Derive(codes.Recovery).Public(), nil, wire.CodeInvalidProof},
		"another connection's":   {"alice", hers.Public(), hers.Prove(elsewhere), wire.CodeInvalidProof},
		"another code's proof":   {"alice", hers.Public(), his.Prove(exporter), wire.CodeInvalidProof},
		"a device's proof":       {"alice", hers.Public(), devicecert.Prove(hers.Signing, exporter), wire.CodeInvalidProof},
		"a key that is none":     {"alice", make([]byte, 32), make([]byte, 64), wire.CodeInvalidProof},
		"the name of nobody":     {" ", hers.Public(), hers.Prove(exporter), wire.CodeInvalidArgument},
		"an unknown code proven": {"alice", nil, nil, wire.CodeInvalidCredentials},
	} {
		if x.key == nil {
			k := codes.New().Derive(codes.Recovery)
			x.key, x.proof = k.Public(), k.Prove(exporter)
		}
		if _, l, err := f.Recover(t.Context(), &wire.RecoverRequest{Name: x.name, RecoveryKey: x.key, Proof: x.proof}, exporter); !wire.HasCode(err, x.code) || l != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := f.recover("alice", hers)
	must(t, err)
	l := f.login(t, bob)
	_, err = f.SetRecoveryCodes(t.Context(), l, &wire.SetRecoveryCodesRequest{RecoveryCodes: []wire.RecoveryCode{{RecoveryKey: hers.Public(), WrappedRootKey: []byte{1}}}}, ids.ID{})
	if !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Errorf("bob claims alice's code: %v", err)
	}
}

// resetting is what a client sends to start over.
func (f *fixture) resetting(t *testing.T, l *Login, p *person) *wire.ResetAccountRequest {
	t.Helper()
	r, err := f.setting(l, "all new")
	must(t, err)
	return &wire.ResetAccountRequest{RegistrationRecord: r.RegistrationRecord, OpaqueKey: r.OpaqueKey, WrappedRootKey: []byte("new root"),
		Certificate: p.cert.Marshal(), Proof: p.proof()}
}

func TestResetAccount(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	keys := f.withCodes(t, alice, 1)
	login := f.login(t, alice)
	text, _, err := f.ResetCode(t.Context(), "ALICE", time.Hour, audit.ByOperator())
	must(t, err)
	if _, _, err := f.ResetCode(t.Context(), "nobody", time.Hour, audit.ByOperator()); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("a code for nobody: %v", err)
	}
	code, err := codes.Parse(codes.Reset, text)
	must(t, err)
	k := code.Derive(codes.Reset)
	out, l, err := f.recover("alice", k)
	must(t, err)
	if out.WrappedRootKey != nil || out.AccountID != alice.cert.AccountID {
		t.Errorf("%+v", out)
	}
	if err := f.setPassword(t.Context(), l, "x"); !wire.HasCode(err, wire.CodePermissionDenied) {
		t.Errorf("a password by a reset code: %v", err)
	}
	_, newRoot, _ := ed25519.GenerateKey(nil)
	again := person{name: "alice", root: newRoot}.withDevice(alice.cert.AccountID)
	stranger := newPerson("x")
	for what, x := range map[string]struct {
		p    *person
		code wire.Code
	}{"another account": {stranger, wire.CodePermissionDenied}, "the same root": {alice.withDevice(alice.cert.AccountID), wire.CodeInvalidArgument}} {
		if _, _, err := f.ResetAccount(t.Context(), l, f.resetting(t, l, x.p), exporter); !wire.HasCode(err, x.code) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stolen := *again
	stolen.cert = devicecert.Issue(newRoot, alice.cert.AccountID, alice.cert.DeviceID, again.device.Public().(ed25519.PublicKey), time.Now())
	if _, _, err := f.ResetAccount(t.Context(), l, f.resetting(t, l, &stolen), exporter); !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Errorf("a device id that is taken: %v", err)
	}
	_, who, err := f.ResetAccount(t.Context(), l, f.resetting(t, l, again), exporter)
	must(t, err)
	if who.AccountID != alice.cert.AccountID || who.DeviceID != again.cert.DeviceID {
		t.Errorf("%+v", who)
	}
	// Nothing of before is of use.
	_, _, err = f.StartSession(t.Context(), login, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	wantUnauthenticated(t, "a login of before", err)
	if _, _, err := f.recover("alice", keys[0]); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("a recovery code of before: %v", err)
	}
	if _, _, err := f.recover("alice", k); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("the reset code again: %v", err)
	}
	if d, err := f.store.Device(t.Context(), alice.cert.DeviceID); err != nil || !d.Revoked {
		t.Errorf("the old device: %+v, %v", d, err)
	}
	if _, _, err := f.loginWith(t.Context(), "alice", "password"); !errors.Is(err, errWrong) {
		t.Errorf("the old password: %v", err)
	}
	fresh, res, err := f.loginWith(t.Context(), "alice", "all new")
	must(t, err)
	if !again.cert.RootKey.Equal(ed25519.PublicKey(res.RootKey)) {
		t.Error("the root key is not the new one")
	}
	if _, _, err := f.StartSession(t.Context(), fresh, &wire.StartSessionRequest{Certificate: alice.withDevice(alice.cert.AccountID).cert.Marshal(), Proof: alice.proof()}, exporter); err == nil {
		t.Error("a device of the old root key was added")
	}
}

func TestCodesOfAnAdminExpire(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	f.rules.Signup = policy.SignupInvitation
	ctx := t.Context()
	for _, life := range []time.Duration{0, time.Second, 366 * 24 * time.Hour, -time.Hour} {
		if _, _, err := f.Invite(ctx, life, audit.ByAdmin("x")); !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("an invitation for %s: %v", life, err)
		}
		if _, _, err := f.ResetCode(ctx, "alice", life, audit.ByOperator()); !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("a reset code for %s: %v", life, err)
		}
	}
	invite := func() []byte {
		text, expires, err := f.Invite(ctx, time.Hour, audit.ByAdmin("x"))
		must(t, err)
		if !expires.Equal(f.time().Add(time.Hour)) {
			t.Errorf("it expires at %s", expires)
		}
		c, err := codes.Parse(codes.Invitation, text)
		must(t, err)
		return c[:]
	}
	alice := newPerson("alice")
	late := invite()
	f.advance(time.Hour)
	used := invite()
	for what, x := range map[string][]byte{"none": nil, "expired": late, "made up": bytes.Repeat([]byte{1}, codes.Size), "short": used[:15]} {
		if err := f.signupBy(ctx, alice, x); !wire.HasCode(err, wire.CodeInvalidInvitation) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, f.signupBy(ctx, alice, used))
	if err := f.signupBy(ctx, newPerson("bob"), used); !wire.HasCode(err, wire.CodeInvalidInvitation) {
		t.Errorf("used: %v", err)
	}
	once := invite()
	results := make(chan error, 6)
	for i := range cap(results) {
		go func() {
			results <- f.signupBy(context.WithoutCancel(ctx), newPerson("racer"+string(rune('a'+i))), once)
		}()
	}
	won := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			won++
		case !wire.HasCode(err, wire.CodeInvalidInvitation):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d accounts by one invitation", won)
	}
	f.rules.Signup = policy.SignupClosed
	if err := f.signupBy(ctx, newPerson("carol"), invite()); !wire.HasCode(err, wire.CodeSignupClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := f.SignupFinish(ctx, f.finishing(t, newPerson("dave")), exporter); !wire.HasCode(err, wire.CodeSignupClosed) {
		t.Errorf("closed between start and finish: %v", err)
	}
	f.rules.Signup = policy.SignupOpen
	must(t, f.signupBy(ctx, newPerson("erin"), bytes.Repeat([]byte{1}, codes.Size)))
	text, _, err := f.ResetCode(ctx, "alice", time.Minute, audit.ByOperator())
	must(t, err)
	code, err := codes.Parse(codes.Reset, text)
	must(t, err)
	f.advance(time.Minute)
	if _, _, err := f.recover("alice", code.Derive(codes.Reset)); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("an expired reset code: %v", err)
	}
}

// finishing is a signupFinish that a registration under an open policy has prepared.
func (f *fixture) finishing(t *testing.T, p *person) *wire.SignupFinishRequest {
	t.Helper()
	client, err := opaqueconf.Configuration().Client()
	must(t, err)
	request, err := client.RegistrationInit([]byte("password"))
	must(t, err)
	answer, err := f.registration(p.name, request.Serialize())
	must(t, err)
	r, err := finishRegistration(client, answer)
	must(t, err)
	return &wire.SignupFinishRequest{Name: p.name, RegistrationRecord: r.RegistrationRecord, OpaqueKey: r.OpaqueKey, WrappedRootKey: []byte("wrapped"),
		Certificate: p.cert.Marshal(), Proof: p.proof()}
}

func (f *fixture) signupBy(ctx context.Context, p *person, invitation []byte) error {
	client, err := opaqueconf.Configuration().Client()
	if err != nil {
		return err
	}
	request, err := client.RegistrationInit([]byte("password"))
	if err != nil {
		return err
	}
	answer, err := f.SignupStart(ctx, &wire.SignupStartRequest{Name: p.name, RegistrationRequest: request.Serialize(), Invitation: invitation})
	if err != nil {
		return err
	}
	r, err := finishRegistration(client, answer)
	if err != nil {
		return err
	}
	_, _, err = f.SignupFinish(ctx, &wire.SignupFinishRequest{Name: p.name, RegistrationRecord: r.RegistrationRecord, OpaqueKey: r.OpaqueKey,
		WrappedRootKey: []byte("wrapped"), Certificate: p.cert.Marshal(), Proof: p.proof(), Invitation: invitation}, exporter)
	return err
}

// rotated is the same cell after a restart with other OPAQUE keys.
func (f *fixture) rotated(t *testing.T, keepPrevious bool) {
	t.Helper()
	if keepPrevious {
		f.keys.RotateOPAQUE()
	} else {
		f.keys.PreviousOPAQUE = nil
	}
	servers, err := newOPAQUEKeys(f.keys)
	must(t, err)
	f.opaque = servers
}

func TestRegistrationsMoveToTheNewKeys(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	for _, name := range []string{"alice", "late"} {
		_, err := f.signup(t.Context(), newPerson(name))
		must(t, err)
	}
	if _, out, err := f.loginWith(t.Context(), "alice", "password"); err != nil || out.SetPassword {
		t.Fatalf("before: %+v, %v", out, err)
	}
	inFlight := f.finishing(t, newPerson("inflight")) // Registered with the key that is about to be the previous one.
	f.rotated(t, true)
	_, _, err := f.SignupFinish(t.Context(), inFlight, exporter)
	must(t, err)
	if _, _, err := f.loginWith(t.Context(), "inflight", "password"); err != nil {
		t.Errorf("a signup across the rotation: %v", err)
	}
	l, out, err := f.loginWith(t.Context(), "alice", "password")
	if err != nil || !out.SetPassword {
		t.Fatalf("after: %+v, %v", out, err)
	}
	must(t, f.setPassword(t.Context(), l, "password"))
	if _, out, err = f.loginWith(t.Context(), "alice", "password"); err != nil || out.SetPassword {
		t.Fatalf("registered anew: %+v, %v", out, err)
	}
	f.rotated(t, false)
	if _, _, err = f.loginWith(t.Context(), "alice", "password"); err != nil {
		t.Errorf("with the old keys gone: %v", err)
	}
	_, late, err := f.loginWith(t.Context(), "late", "password")
	_, nobody, err2 := f.loginWith(t.Context(), "nobody", "password")
	if !errors.Is(err, errWrong) || !errors.Is(err2, errWrong) || late != nil || nobody != nil {
		t.Errorf("who did not log in: %v; nobody: %v", err, err2)
	}
	if _, _, err := f.SignupFinish(t.Context(), f.under(t, "gone", 1), exporter); err == nil {
		t.Error("a registration under a key that is gone was taken")
	}
}

func (f *fixture) under(t *testing.T, name string, key uint32) *wire.SignupFinishRequest {
	t.Helper()
	r := f.finishing(t, newPerson(name))
	r.OpaqueKey = key
	return r
}

// What a name that nobody has answers to one and the same KE1 does not tell it from names that exist: the evaluated
// element stays the same from login to login, and over a rotation with some chance.
func TestNobodysAnswersAreSteady(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	_, err := f.signup(t.Context(), newPerson("alice"))
	must(t, err)
	same := f.ke1(t, "x").KE1
	element := func(name string) string {
		answer, _, err := f.LoginStart(t.Context(), &wire.LoginStartRequest{Name: name, KE1: same}, exporter)
		must(t, err)
		return string(answer.KE2[:32])
	}
	before := map[string]string{}
	names := []string{"alice"}
	for i := range 24 {
		names = append(names, "nobody"+string(rune('a'+i)))
	}
	for _, n := range names {
		if before[n] = element(n); element(n) != before[n] {
			t.Errorf("%s: two answers to one KE1", n)
		}
	}
	f.rotated(t, true)
	moved := 0
	for _, n := range names[1:] {
		if element(n) != before[n] {
			moved++
		}
	}
	if moved == 0 || moved == len(names)-1 || element("alice") != before["alice"] {
		t.Errorf("%d of %d answers moved with the rotation: those of names that nobody has must do what the others do", moved, len(names)-1)
	}
}

// No message whatever makes the service fail, and none is taken that was changed.
func TestTamperedPasswordMessages(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	keys := f.withCodes(t, alice, 1)[0]
	ctx := context.WithoutCancel(t.Context())
	rapid.Check(t, func(rt *rapid.T) {
		junk := func(b []byte, label string) []byte {
			b = bytes.Clone(b)
			switch rapid.IntRange(0, 2).Draw(rt, label+" how") {
			case 0:
				b[rapid.IntRange(0, len(b)-1).Draw(rt, label+" at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, label+" xor"))
			case 1:
				b = b[:rapid.IntRange(0, len(b)-1).Draw(rt, label+" cut")]
			default:
				b = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, label)
			}
			return b
		}
		f.advance(time.Hour)
		known := func(what string, err error) {
			var e *wire.Error
			if err != nil && !errors.As(err, &e) || wire.HasCode(err, wire.CodeInternal) {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		good := &wire.RecoverRequest{Name: "alice", RecoveryKey: keys.Public(), Proof: keys.Prove(exporter)}
		bad := *good
		if rapid.Bool().Draw(rt, "key") {
			bad.RecoveryKey = junk(good.RecoveryKey, "key")
		} else {
			bad.Proof = junk(good.Proof, "proof")
		}
		_, l, err := f.Recover(ctx, &bad, exporter)
		if known("recover", err); err == nil || l != nil {
			rt.Fatal("a changed recovery was taken")
		}
		l2, _, err := f.loginWith(ctx, "alice", "password")
		if err != nil {
			rt.Fatal(err)
		}
		r, err := f.setting(l2, "password")
		if err != nil {
			rt.Fatal(err)
		}
		r.WrappedRootKey = []byte("wrapped")
		if _, err = f.SetPasswordStart(l2, &wire.SetPasswordStartRequest{RegistrationRequest: junk(make([]byte, 32), "request")}); err != nil {
			known("setPasswordStart", err)
		}
		start := f.ke1(t, "alice")
		start.DeviceID, start.Proof = alice.cert.DeviceID, junk(alice.proof(), "device")
		_, _, err = f.LoginStart(ctx, start, exporter)
		known("loginStart", err)
		_, err = f.LoginFinish(ctx, l2, &wire.LoginFinishRequest{KE3: junk(make([]byte, 64), "ke3")})
		if known("loginFinish", err); err == nil {
			rt.Fatal("a changed KE3 was taken")
		}
	})
}
