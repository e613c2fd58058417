package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// withAudit has a fixture keep an audit log.
func (f *fixture) withAudit(t testing.TB) *audit.Recorder {
	t.Helper()
	seeds, err := f.keys.AuditSeeds()
	must(t, err)
	keys, err := audit.NewKeys(seeds...)
	must(t, err)
	must(t, f.store.EnableAudit(t.Context(), keys))
	r := audit.NewRecorder(f.store, audit.Options{Now: f.time})
	f.Audit(r)
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
	return r
}

// events exports what was recorded, one line an event, without what differs each time.
func (f *fixture) events(t *testing.T, r *audit.Recorder, account audit.Ref) []string {
	t.Helper()
	must(t, r.Close(t.Context()))
	cell, err := f.store.Cell(t.Context())
	must(t, err)
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, cell.ID, 0, true)
	must(t, err)
	x.Filter, x.OnlyMatching = audit.Filter{Account: account}, true
	must(t, f.store.VisitAudit(t.Context(), 0, x))
	var list []string
	for _, l := range strings.Split(out.String(), "\n") {
		if !strings.Contains(l, `"type":"event"`) || strings.Contains(l, `"kind":"audit.`) {
			continue
		}
		var what []string
		for _, field := range []string{"kind", "outcome", "reason", "actor"} {
			if _, rest, ok := strings.Cut(l, `"`+field+`":"`); ok {
				value, _, _ := strings.Cut(rest, `"`)
				what = append(what, value)
			}
		}
		list = append(list, strings.Join(what, " "))
	}
	return list
}

// What an account and its tokens go through is in the audit log, with the reason where it was refused.
func TestTheAuditLogOfALogin(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	ctx := audit.WithAddress(t.Context(), netip.MustParseAddr("192.0.2.7"))
	alice := newPerson("alice")
	session, err := f.signup(ctx, alice)
	must(t, err)
	_, err = f.signup(ctx, newPerson("alice"))
	wantCode(t, err, wire.CodeAlreadyExists)
	for _, name := range []string{"alice", "nobody"} {
		_, _, l := f.loginStart(t, name, "password")
		_, err := f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: bytes.Repeat([]byte{1}, 64)})
		wantCode(t, err, wire.CodeInvalidCredentials)
	}
	second := alice.withDevice(alice.cert.AccountID)
	_, _, err = f.StartSession(ctx, f.login(t, alice), &wire.StartSessionRequest{Certificate: second.cert.Marshal(), Proof: second.proof()}, exporter)
	must(t, err)
	stranger := newPerson("stranger").withDevice(alice.cert.AccountID)
	_, _, err = f.StartSession(ctx, f.login(t, alice), &wire.StartSessionRequest{Certificate: stranger.cert.Marshal(), Proof: stranger.proof()}, exporter)
	wantCode(t, err, wire.CodePermissionDenied)
	_, err = f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: alice.proof()}, exporter)
	must(t, err)
	_, err = f.Authenticate(t.Context(), &wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: second.proof()}, exporter)
	wantCode(t, err, wire.CodeInvalidProof)
	refresh := func(token []byte, p *person) (*wire.Session, error) {
		s, _, err := f.Refresh(ctx, &wire.RefreshSessionRequest{DeviceID: alice.cert.DeviceID, RefreshToken: token, Proof: p.proof()}, exporter)
		return s, err
	}
	first := session.RefreshToken
	next, err := refresh(first, alice)
	must(t, err)
	_, err = refresh(next.RefreshToken, second)
	wantCode(t, err, wire.CodeInvalidProof)
	next, err = refresh(next.RefreshToken, alice)
	must(t, err)
	_, err = refresh(first, alice)
	wantCode(t, err, wire.CodeReusedToken)
	_, err = refresh(next.RefreshToken, alice)
	wantCode(t, err, wire.CodeInvalidToken)

	ref, err := f.store.AuditRef(ctx, alice.cert.AccountID)
	must(t, err)
	hers := f.events(t, r, ref)
	for _, want := range []string{"account.created success account", "auth.login failure wrong_password stranger", "auth.login success stranger", "device.added success by_password account",
		"auth.session_started success account", "auth.session_started denied foreign_certificate account", "auth.connection success account", "auth.connection failure invalid_proof stranger",
		"auth.session_refreshed success account", "auth.session_refreshed failure invalid_proof stranger", "auth.session_revoked success reused_token cell",
		"auth.session_refreshed failure invalid_token stranger"} {
		n := 0
		for _, e := range hers {
			if e == want {
				n++
			}
		}
		wanted := 1
		if want == "auth.login success stranger" || want == "auth.session_refreshed success account" {
			wanted = 2
		}
		if n != wanted {
			t.Errorf("%q is there %d times, want %d, in\n%s", want, n, wanted, strings.Join(hers, "\n"))
		}
	}
	all := strings.Join(f.events(t, r, audit.Ref{}), "\n")
	for _, want := range []string{"auth.login failure unknown_name stranger", "account.signup_refused denied name_taken stranger"} {
		if !strings.Contains(all, want) || strings.Contains(strings.Join(hers, "\n"), want) {
			t.Errorf("%q is not there, or told of alice, in\n%s", want, all)
		}
	}
}

func wantCode(t *testing.T, err error, code wire.Code) {
	t.Helper()
	if !wire.HasCode(err, code) {
		t.Fatalf("want %s, got %v", code, err)
	}
}

// While nothing can be recorded no password is judged, right or wrong, and no session begins.
func TestNothingIsAnsweredThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	r := f.withAudit(t)
	must(t, r.Close(t.Context())) // From now on it is busy.
	for _, ke3 := range [][]byte{bytes.Repeat([]byte{1}, 64), nil} {
		client, answer, l := f.loginStart(t, "alice", "password")
		if ke3 == nil {
			ke2, err := client.Deserialize.KE2(answer.KE2)
			must(t, err)
			right, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
			must(t, err)
			ke3 = right.Serialize()
		}
		_, err := f.LoginFinish(t.Context(), l, &wire.LoginFinishRequest{KE3: ke3})
		wantCode(t, err, wire.CodeBusy)
		_, _, err = f.StartSession(t.Context(), l, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
		wantCode(t, err, wire.CodeUnauthenticated)
	}
}

var _ store.AuditVisitor = (*audit.Exporter)(nil)

// The server's part of a login, with an audit log and without.
func BenchmarkLoginWithAudit(b *testing.B) {
	for _, withAudit := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[withAudit], func(b *testing.B) { benchmarkLogin(b, withAudit) })
	}
}

func makeBenchService(b *testing.B) *fixture {
	b.Helper()
	sealer, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	must(b, err)
	st, err := store.Open(b.Context(), store.Options{URI: pgtest.New(b, pgtest.Durable()), Sealer: sealer})
	must(b, err)
	b.Cleanup(st.Close)
	quiet := slog.New(slog.DiscardHandler)
	must(b, st.Migrate(b.Context(), quiet))
	f := &fixture{clock: time.Now(), rules: policy.Default(), keys: cellkeys.Generate()}
	f.Service, err = New(st, f.keys, func() *policy.Policy { return f.rules }, f.time, quiet)
	must(b, err)
	return f
}

func beginLogin(b *testing.B) (*opaque.Client, []byte) {
	b.Helper()
	client, err := opaqueconf.Configuration().Client()
	must(b, err)
	ke1, err := client.GenerateKE1([]byte("password"))
	must(b, err)
	return client, ke1.Serialize()
}

func benchmarkLogin(b *testing.B, withAudit bool) {
	f := makeBenchService(b)
	if withAudit {
		f.withAudit(b)
	}
	alice := newPerson("alice")
	_, err := f.signup(b.Context(), alice)
	must(b, err)
	var took time.Duration
	timed := func(step func() error) {
		start := time.Now()
		err := step()
		took += time.Since(start)
		must(b, err)
	}
	for range b.N {
		client, ke1 := beginLogin(b)
		var answer *wire.LoginStartResponse
		var l *Login
		timed(func() (err error) {
			answer, l, err = f.LoginStart(b.Context(), &wire.LoginStartRequest{Name: "alice", KE1: ke1, DeviceID: ids.ID{}}, exporter)
			return err
		})
		ke2, err := client.Deserialize.KE2(answer.KE2)
		must(b, err)
		ke3, _, _, err := client.GenerateKE3(ke2, nil, nil, quickly())
		must(b, err)
		timed(func() error {
			_, err := f.LoginFinish(b.Context(), l, &wire.LoginFinishRequest{KE3: ke3.Serialize()})
			return err
		})
		timed(func() error {
			_, _, err := f.StartSession(b.Context(), l, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
			return err
		})
	}
	b.ReportMetric(float64(took.Microseconds())/float64(b.N), "server-µs/login")
}

func has(list []string, want string) (n int) {
	for _, e := range list {
		if e == want {
			n++
		}
	}
	return n
}

// What is done with invitations, passwords, codes and root keys is in the audit log, once each, with who did it.
func TestTheAuditLogOfCodesAndResets(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	ctx := t.Context()
	f.rules.Signup = policy.SignupInvitation
	text, _, err := f.Invite(ctx, time.Hour, audit.ByAdmin("Marked Admin"))
	must(t, err)
	invitation, err := codes.Parse(codes.Invitation, text)
	must(t, err)
	alice := newPerson("alice")
	must(t, f.signupBy(ctx, alice, invitation[:]))
	wantCode(t, f.signupBy(ctx, newPerson("bob"), invitation[:]), wire.CodeInvalidInvitation)
	f.rules.Signup = policy.SignupOpen
	withCodes := newPerson("carol")
	request := f.finishing(t, withCodes)
	request.RecoveryCodes = []wire.RecoveryCode{{RecoveryKey: codes.New().Derive(codes.Recovery).Public(), WrappedRootKey: []byte("w")}}
	_, _, err = f.SignupFinish(ctx, request, exporter)
	must(t, err)

	f.rotated(t, true)
	l := f.login(t, alice)
	must(t, f.setPassword(ctx, l, "password")) // Under the cell's new keys.
	set, err := f.setting(l, "second")
	must(t, err)
	set.EndOtherSessions = true
	_, err = f.SetPasswordFinish(ctx, l, set, ids.ID{})
	must(t, err)

	text, _, err = f.ResetCode(ctx, "alice", time.Hour, audit.ByAdmin("Marked Admin"))
	must(t, err)
	reset, err := codes.Parse(codes.Reset, text)
	must(t, err)
	_, l, err = f.recover("alice", reset.Derive(codes.Reset))
	must(t, err)
	_, newRoot, _ := ed25519.GenerateKey(nil)
	again := person{name: "alice", root: newRoot}.withDevice(alice.cert.AccountID)
	start := f.resetting(t, l, again)
	start.RecoveryCodes = []wire.RecoveryCode{{RecoveryKey: codes.New().Derive(codes.Recovery).Public(), WrappedRootKey: []byte("w")}}
	_, _, err = f.ResetAccount(ctx, l, start, exporter)
	must(t, err)

	ref, err := f.store.AuditRef(ctx, alice.cert.AccountID)
	must(t, err)
	hers, all := f.events(t, r, ref), f.events(t, r, audit.Ref{})
	for _, want := range []string{"account.created success by_invite account", "admin.invite_used success account", "account.opaque_renewed success account",
		"account.password_changed success by_password account", "auth.session_revoked success password_changed account",
		"admin.reset_code_minted success admin", "account.root_key_reset success by_admin account", "account.recovery_codes_set success account"} {
		if n := has(hers, want); n != 1 {
			t.Errorf("%q is there %d times of alice, in\n%s", want, n, strings.Join(hers, "\n"))
		}
	}
	for want, n := range map[string]int{"admin.invite_minted success admin": 1, "admin.invite_used denied invalid_invite stranger": 1, "account.recovery_codes_set success account": 2} {
		if has(all, want) != n {
			t.Errorf("%q is not there %d times, in\n%s", want, n, strings.Join(all, "\n"))
		}
	}
}

// A login that was begun and not finished is told of, one that was, and a code, are not.
func TestAbandonedLoginsAreTold(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	alice := newPerson("alice")
	keys := f.withCodes(t, alice, 1)
	_, _, begun := f.loginStart(t, "alice", "password")
	_, _, nobodys := f.loginStart(t, "nobody", "password")
	_, _, junk := f.loginStart(t, "alice", "password")
	_, err := f.LoginFinish(t.Context(), junk, &wire.LoginFinishRequest{KE3: []byte("junk")})
	wantCode(t, err, wire.CodeInvalidArgument)
	_, recovery, err := f.recover("alice", keys[0])
	must(t, err)
	used := f.login(t, alice)
	must(t, f.setPassword(t.Context(), used, "second"))
	for _, l := range []*Login{nil, begun, nobodys, recovery, used} {
		f.Abandoned(l)
	}
	ref, err := f.store.AuditRef(t.Context(), alice.cert.AccountID)
	must(t, err)
	must(t, r.Close(t.Context()))
	const what = "auth.login_abandoned failure abandoned stranger"
	if hers, all := f.events(t, r, ref), f.events(t, r, audit.Ref{}); has(hers, what) != 1 || has(all, what) != 2 { // Hers are two in one.
		t.Errorf("%s", strings.Join(all, "\n"))
	}
}

// What strangers cause as often as they like takes an event for all of it, not one each.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	ctx := audit.WithAddress(t.Context(), netip.MustParseAddr("192.0.2.7"))
	alice, eve := newPerson("alice"), newPerson("eve")
	s, err := f.signup(t.Context(), alice)
	must(t, err)
	begun := f.ke1(t, "alice")
	for range 50 {
		_, _, err := f.Refresh(ctx, &wire.RefreshSessionRequest{RefreshToken: s.RefreshToken, DeviceID: ids.New(), Proof: eve.proof()}, exporter)
		wantCode(t, err, wire.CodeInvalidToken)
		_, _, err = f.Refresh(ctx, &wire.RefreshSessionRequest{RefreshToken: s.RefreshToken, DeviceID: alice.cert.DeviceID, Proof: eve.proof()}, exporter)
		wantCode(t, err, wire.CodeInvalidProof)
		_, err = f.Authenticate(ctx, &wire.AuthenticateRequest{AccessToken: s.AccessToken, Proof: eve.proof()}, exporter)
		wantCode(t, err, wire.CodeInvalidProof)
		if _, l, err := f.LoginStart(ctx, begun, exporter); err == nil {
			f.Abandoned(l)
		}
		f.rules.Signup = policy.SignupClosed
		wantCode(t, f.signupBy(ctx, eve, nil), wire.CodeSignupClosed)
		f.rules.Signup = policy.SignupInvitation
		wantCode(t, f.signupBy(ctx, eve, make([]byte, codes.Size)), wire.CodeInvalidInvitation)
	}
	all := f.events(t, r, audit.Ref{})
	for what, most := range map[string]int{"auth.session_refreshed failure invalid_token stranger": 1, "auth.session_refreshed failure invalid_proof stranger": 1,
		"auth.connection failure invalid_proof stranger": 1, "auth.login_abandoned failure abandoned stranger": 1, "auth.login denied locked_out stranger": 1,
		"account.signup_refused denied signup_closed stranger": 1, "admin.invite_used denied invalid_invite stranger": 1} {
		if n := has(all, what); n == 0 || n > most+1 { // The period may have ended in between.
			t.Errorf("%q is there %d times", what, n)
		}
	}
	if len(all) > 20 {
		t.Errorf("%d events:\n%s", len(all), strings.Join(all, "\n"))
	}
}
