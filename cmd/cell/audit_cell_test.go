package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// recorded is what life records, at least so often.
var recorded = map[string]uint64{
	"account.created success": 4, "account.signup_refused denied name_taken": 1, "account.signup_refused denied signup_closed": 1,
	"account.password_changed success by_password": 1, "account.password_changed success by_recovery_code": 1, "account.recovery_codes_set success": 1,
	"account.recovery success by_recovery_code": 1, "account.recovery failure not_found": 1,
	"auth.login success": 4, "auth.login failure wrong_password": 1, "auth.login failure unknown_name": 1, "auth.login denied locked_out": 1,
	"auth.login_abandoned failure abandoned": 6, "auth.lockout denied locked_out": 1,
	"auth.session_started success": 1, "auth.session_started denied foreign_certificate": 1,
	"auth.session_refreshed success": 2, "auth.session_refreshed failure invalid_proof": 1, "auth.session_revoked success reused_token": 1,
	"auth.session_ended success logout": 1, "auth.connection success": 2, "auth.connection failure invalid_token": 1, "auth.connection failure invalid_proof": 1,
	"device.added success by_password": 1, "device.renamed success": 1, "device.revoked success by_device": 1,
	"key.packages_uploaded success": 1, "key.packages_uploaded failure invalid_package": 1, "key.packages_claimed success": 1, "key.packages_claimed denied no_package": 1,
	"key.server_rotated success": 6, "channel.direct_opened success": 1, "channel.group_created success": 1, "channel.group_created denied conflict": 1, "channel.access denied not_member": 1,
	"admin.invite_used denied invalid_invite": 1, "admin.policy_replaced success": 4,
	"limit.reached denied rate_limited": 1, "limit.reached denied too_many_connections": 1,
	"audit.chain_started success": 2, "audit.chain_ended success": 2,
}

// elsewhere is where the events of the other kinds are tested.
var elsewhere = map[audit.Kind]string{
	audit.KindRootKeyReset: "cell/identity", audit.KindOPAQUERenewed: "cell/identity", audit.KindResetCodeMinted: "cell/identity", audit.KindInviteMinted: "cell/identity",
	audit.KindAccountDeleted: "cell/identity", audit.KindAccountDisabled: "cell/identity", audit.KindAccountEnabled: "cell/identity", audit.KindAccountExported: "cell/identity",
	audit.KindAdminLogin: "cell/server", audit.KindAdminAccess: "cell/server",
	audit.KindAuditExported: "TestAuditExport", audit.KindAuditPruned: "TestAuditPrune", audit.KindSubjectResolved: "TestAuditSubject",
	audit.KindChainLost: "cell/store", audit.KindLogRolledBack: "cell/audit", audit.KindFaultFound: "cell/audit", audit.KindEventsSuppressed: "cell/audit",
	audit.KindGroupOpened: "cell/server", audit.KindMemberAdded: "cell/server", audit.KindMemberRemoved: "cell/server", audit.KindRoleChanged: "cell/server",
	audit.KindChannelRetention: "cell/server", audit.KindGenerationVoted: "cell/server", audit.KindAccountBlocked: "cell/server", audit.KindAccountUnblocked: "cell/server",
	// Of what no release does yet.
	audit.KindInviteRevoked: "",
}

func TestEveryKindOfEventIsAccountedFor(t *testing.T) {
	t.Parallel()
	var have []string
	for what := range recorded {
		kind, _, _ := strings.Cut(what, " ")
		have = append(have, kind)
	}
	for k := range elsewhere {
		have = append(have, k.String())
	}
	slices.Sort(have)
	if have = slices.Compact(have); !slices.Equal(have, audit.KindNames()) {
		t.Errorf("tested: %v\nthere are: %v", have, audit.KindNames())
	}
}

// life is a day in a cell of two servers, with what goes wrong in it. It returns the secrets and names that came up.
func life(t *testing.T, one, two *celltest.Cell) (secrets map[string][]byte) {
	t.Helper()
	alice, bob, carol := one.Signup(t, "alice"), two.Signup(t, "robert"), two.Signup(t, "carol")
	secrets = map[string][]byte{}
	secrets["device's name"] = []byte("carol's tablet")
	for _, p := range []*celltest.Person{alice, bob, carol} {
		secrets["name "+p.Name], secrets["password of "+p.Name] = []byte(p.Name), []byte(p.Password)
		secrets["access token of "+p.Name], secrets["refresh token of "+p.Name] = p.Session.AccessToken, p.Session.RefreshToken
		secrets["account of "+p.Name], secrets["device of "+p.Name] = p.Certificate.AccountID[:], p.Certificate.DeviceID[:]
	}
	passwords(t, one, alice)
	wrongLogins(t, one, alice)
	guesses(t, two, alice)
	secrets["channel"] = rooms(t, one, two, alice, bob, carol)
	sessions(t, one, two, bob, carol)
	code := secretCodes(t, two, alice)
	secrets["recovery code"], secrets["recovery key"] = code[:], code.Derive(codes.Recovery).Public()
	newPolicies(t, one)
	return secrets
}

// register is an OPAQUE registration on a connection, from its start on.
func register(t *testing.T, conn *celltest.Conn, password string, start func(request []byte) wire.Request) (record []byte, key uint32) {
	t.Helper()
	client, err := opaqueconf.Configuration().Client()
	must(t, err)
	request, err := client.RegistrationInit([]byte(password))
	must(t, err)
	answer := celltest.Must[*wire.SignupStartResponse](conn, start(request.Serialize()))
	response, err := client.Deserialize.RegistrationResponse(answer.RegistrationResponse)
	must(t, err)
	o := opaqueconf.ClientOptions()
	o.KSFParameters = []uint64{1, 64, 1}
	r, _, err := client.RegistrationFinalize(response, nil, nil, o)
	must(t, err)
	return r.Serialize(), answer.OpaqueKey
}

func setPassword(t *testing.T, conn *celltest.Conn, password string) {
	t.Helper()
	record, key := register(t, conn, password, func(request []byte) wire.Request { return &wire.SetPasswordStartRequest{RegistrationRequest: request} })
	celltest.Must[*wire.Done](conn, &wire.SetPasswordFinishRequest{RegistrationRecord: record, OpaqueKey: key, WrappedRootKey: []byte("wrapped")})
}

func loggedIn(t *testing.T, c *celltest.Cell, p *celltest.Person) *celltest.Conn {
	t.Helper()
	conn := c.Dial(t)
	_, err := p.LoginOn(conn, p.Name, p.Password)
	must(t, err)
	return conn
}

func passwords(t *testing.T, c *celltest.Cell, p *celltest.Person) {
	t.Helper()
	if _, err := p.SignupOn(c.Dial(t), "ALICE"); !wire.HasCode(err, wire.CodeAlreadyExists) {
		t.Fatalf("a taken name: %v", err)
	}
	conn := loggedIn(t, c, p)
	p.Password = "another password of alice"
	setPassword(t, conn, p.Password)
}

func wrongLogins(t *testing.T, c *celltest.Cell, p *celltest.Person) {
	t.Helper()
	conn := c.Dial(t)
	for _, name := range []string{p.Name, "nobody"} {
		if _, err := p.LoginOn(conn, name, "wrong"); !errors.Is(err, celltest.ErrWrongPassword) {
			t.Fatal(err)
		}
		conn.Refused(&wire.LoginFinishRequest{KE3: bytes.Repeat([]byte{7}, 64)}, wire.CodeInvalidCredentials)
	}
	_, root, _ := ed25519.GenerateKey(nil)
	_, device, _ := ed25519.GenerateKey(nil)
	conn = loggedIn(t, c, p)
	for _, signer := range []ed25519.PrivateKey{root, p.Root} {
		cert := devicecert.Issue(signer, p.Certificate.AccountID, ids.New(), device.Public().(ed25519.PublicKey), time.Now())
		r := &wire.StartSessionRequest{Certificate: cert.Marshal(), Proof: devicecert.Prove(device, conn.Exporter())}
		if bytes.Equal(signer, root) {
			conn.Refused(r, wire.CodePermissionDenied)
		} else {
			celltest.Must[*wire.Session](conn, r)
		}
	}
}

// guesses guess a password until it is refused to look at them.
func guesses(t *testing.T, c *celltest.Cell, p *celltest.Person) {
	t.Helper()
	conn, err := c.DialFrom(t, "127.0.0.9")
	must(t, err)
	for range 20 {
		_, err := p.LoginOn(conn, p.Name, "a guess")
		if wire.HasCode(err, wire.CodeRateLimited) {
			conn.Close()
			return
		}
		if !errors.Is(err, celltest.ErrWrongPassword) {
			t.Fatal(err)
		}
	}
	t.Fatal("guessing goes on")
}

// rooms are KeyPackages and channels, and returns the id of one.
func rooms(t *testing.T, one, two *celltest.Cell, alice, bob, carol *celltest.Person) []byte {
	t.Helper()
	bob.Upload(2)
	bob.Conn.Refused(&wire.UploadKeyPackagesRequest{OneTime: [][]byte{carol.KeyPackage()}}, wire.CodeInvalidKeyPackage)
	dm := alice.Create(bob)
	carol.Conn.Refused(dm.Request, wire.CodeNotFound)
	alice.Upload(1)
	second := bob.Open(alice)
	bob.Conn.Refused(second.Request, wire.CodeGenerationConflict)
	bob.Conn.Refused(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: carol.Certificate.AccountID}, wire.CodeNoKeyPackage)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, dm.Message(t, "the content of a message"))
	return dm.Channel[:]
}

// sessions are what becomes of tokens.
func sessions(t *testing.T, one, two *celltest.Cell, bob, carol *celltest.Person) {
	t.Helper()
	conn := two.Dial(t)
	bad := bytes.Clone(bob.Session.AccessToken)
	bad[20] ^= 1
	conn.Refused(&wire.AuthenticateRequest{AccessToken: bad, Proof: bob.Proof(conn)}, wire.CodeInvalidToken)
	conn.Refused(&wire.AuthenticateRequest{AccessToken: bob.Session.AccessToken, Proof: carol.Proof(conn)}, wire.CodeInvalidProof)
	bob.Reconnect(one)
	refresh := func(token []byte, by *celltest.Person) (*wire.Session, error) {
		conn := one.Dial(t)
		body, err := conn.Call(&wire.RefreshSessionRequest{RefreshToken: token, DeviceID: bob.Certificate.DeviceID, Proof: by.Proof(conn)})
		s, _ := body.(*wire.Session)
		return s, err
	}
	first := bob.Session.RefreshToken
	if _, err := refresh(first, carol); !wire.HasCode(err, wire.CodeInvalidProof) {
		t.Fatal(err)
	}
	next, err := refresh(first, bob)
	must(t, err)
	_, err = refresh(next.RefreshToken, bob)
	must(t, err)
	if _, err := refresh(first, bob); !wire.HasCode(err, wire.CodeReusedToken) {
		t.Fatal(err)
	}
	carol.Reconnect(one)
	celltest.Must[*wire.Done](carol.Conn, &wire.RenameDeviceRequest{DeviceID: carol.Certificate.DeviceID, Name: "carol's tablet"})
	celltest.Must[*wire.Done](carol.Conn, &wire.EndSessionRequest{})
}

// secretCodes sets a recovery code and uses it.
func secretCodes(t *testing.T, c *celltest.Cell, p *celltest.Person) *codes.Code {
	t.Helper()
	code := codes.New()
	keys := code.Derive(codes.Recovery)
	celltest.Must[*wire.Done](loggedIn(t, c, p), &wire.SetRecoveryCodesRequest{RecoveryCodes: []wire.RecoveryCode{{RecoveryKey: keys.Public(), WrappedRootKey: []byte("wrapped")}}})
	conn := c.Dial(t)
	none := codes.New().Derive(codes.Recovery)
	conn.Refused(&wire.RecoverRequest{Name: p.Name, RecoveryKey: none.Public(), Proof: none.Prove(conn.Exporter())}, wire.CodeInvalidCredentials)
	celltest.Must[*wire.RecoverResponse](conn, &wire.RecoverRequest{Name: p.Name, RecoveryKey: keys.Public(), Proof: keys.Prove(conn.Exporter())})
	p.Password = "a third password of alice"
	setPassword(t, conn, p.Password)
	loggedIn(t, c, p)
	return &code
}

// newPolicies change what the cell lets, one after the other.
func newPolicies(t *testing.T, c *celltest.Cell) {
	t.Helper()
	use := func(change func(*policy.Policy)) {
		t.Helper()
		p := policy.Default()
		change(p)
		b, err := p.Marshal()
		must(t, err)
		c.WritePolicy(t, b)
		c.Reload(t)
		c.Reload(t) // That changes nothing, and is not told of.
	}
	use(func(p *policy.Policy) { p.Signup = policy.SignupInvitation })
	client, err := opaqueconf.Configuration().Client()
	must(t, err)
	request, err := client.RegistrationInit([]byte("password"))
	must(t, err)
	signup := &wire.SignupStartRequest{Name: "dave", RegistrationRequest: request.Serialize()}
	c.Dial(t).Refused(signup, wire.CodeInvalidInvitation)
	use(func(p *policy.Policy) { p.Signup = policy.SignupClosed })
	c.Dial(t).Refused(signup, wire.CodeSignupClosed)
	use(func(p *policy.Policy) {
		p.Limits.ConnectionsPerIP, p.Limits.RequestsPerSecond, p.Limits.RequestBurst = 2, 1, 5
	})
	for i := range 3 {
		conn, err := c.DialFrom(t, "127.0.0.10")
		if (err == nil) != (i < 2) {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		if err == nil { // The client has done its handshake before the server has; after an answer both have.
			celltest.Must[*wire.HelloResponse](conn, &wire.HelloRequest{MinVersion: 1, MaxVersion: 1})
		}
	}
	conn, err := c.DialFrom(t, "127.0.0.11")
	must(t, err)
	for i := range 10 {
		if _, err := conn.Call(&wire.HelloRequest{MinVersion: 1, MaxVersion: 1}); (err == nil) != (i < 5) && i < 6 {
			t.Fatalf("request %d: %v", i+1, err)
		}
	}
	c.WriteCertificate(t)
	c.Reload(t)
	use(func(*policy.Policy) {})
	erika := c.Signup(t, "erika")
	celltest.Must[*wire.Done](erika.Conn, &wire.RevokeDeviceRequest{DeviceID: erika.Certificate.DeviceID})
}

// A cell of two servers records what happens in it, names nobody, and it is found when a row of that is changed.
func TestTheAuditLogOfACell(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Limits.LoginsPerMinute = 600 }))
	two := one.Replica(t)
	secrets := life(t, one, two)
	two.Stop(t)
	one.Stop(t)
	l := one.Audit(t)
	for _, what := range slices.Sorted(maps.Keys(recorded)) {
		if n := l.Count(what); n < recorded[what] {
			t.Errorf("%q: %d times, want %d", what, n, recorded[what])
		}
	}
	addressed := 0
	for _, e := range l.Events {
		if e.Address != "" {
			addressed++
		} else if strings.HasPrefix(e.Kind, "auth.") && e.Actor == "stranger" {
			t.Errorf("nobody knows from where: %+v", e)
		}
	}
	if e := l.Find(audit.KindAuthenticated); len(e) == 0 || e[0].Address == "" || addressed < 20 {
		t.Errorf("%d events have addresses; %+v", addressed, e)
	}
	if e := l.Find(audit.KindPolicyReplaced); len(e) != 5 { // The first at the start; the second server started with the same.
		t.Errorf("%d policies", len(e))
	}
	if e := l.Find(audit.KindServerKeyRotated); len(e) != 6 { // Five at the start, and the certificate.
		t.Errorf("%+v", e)
	}
	namesNobody(t, l.Export, secrets)
	wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", one.ConfigFile())
	if t.Failed() {
		t.Log(l.Export)
	}
	flip := `UPDATE audit_events SET body = set_byte(body, 7, get_byte(body, 7) # 1) WHERE (writer, seq) = (SELECT writer, seq FROM audit_events ORDER BY hash LIMIT 1)`
	for _, x := range []struct {
		sql  string
		code int
		want string
	}{{flip, 1, "THE AUDIT LOG WAS CHANGED: edited"}, {flip, 0, "the audit log is sound"},
		{`DELETE FROM audit_events WHERE (writer, seq) = (SELECT writer, seq FROM audit_events ORDER BY hash LIMIT 1)`, 1, "THE AUDIT LOG WAS CHANGED"}} {
		tamperAsOwner(t, one, x.sql)
		wantRun(t, x.code, x.want, "audit", "verify", "--config", one.ConfigFile())
	}
}

// tamperAsOwner runs SQL as the owner of the tables may, who takes the triggers away first.
func tamperAsOwner(t *testing.T, c *celltest.Cell, sql string) {
	t.Helper()
	c.Execute(t, `DO $$ BEGIN ALTER TABLE audit_events DISABLE TRIGGER USER; `+sql+`; ALTER TABLE audit_events ENABLE TRIGGER USER; END $$`)
}

// namesNobody checks that no secret is in a text, in clear or as such texts have bytes.
func namesNobody(t *testing.T, text string, secrets map[string][]byte) {
	t.Helper()
	if strings.Contains(text, "127.0.0") {
		t.Error("the export has an address")
	}
	lower := strings.ToLower(text)
	for what, secret := range secrets {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret)} {
			if strings.Contains(text, form) || strings.Contains(lower, strings.ToLower(form)) {
				t.Errorf("the export has the %s as %s", what, form)
			}
		}
	}
}

// serving runs the cell as a program of its own.
func serving(t *testing.T, c *celltest.Cell) *celltest.Program {
	t.Helper()
	c.Config(t)
	p := start(t, "serve", "--config", c.ConfigFile())
	for end := time.Now().Add(patience); !strings.Contains(p.Printed(), "cell is ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready:\n%s", p.Printed())
		}
	}
	return p
}

// Of two servers of a cell one is killed with SIGKILL while people come and go, again and again. What was answered is in
// the log, the log verifies each time, the other server does not notice, and the next process goes on.
func TestACellIsKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	lives := celltest.New(t, celltest.Unlimited())
	dies := *lives // The same cell, run by other processes.
	signups := uint64(0)
	for round := range 3 {
		dies.Addr = freeAddress(t)
		p := serving(t, &dies)
		dead, killed := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var answered atomic.Uint64
		for i, c := range []*celltest.Cell{lives, &dies} {
			all.Go(func() { comeAndGo(dead, t, c, fmt.Sprintf("r%dc%dn", round, i), c == lives, &answered) })
		}
		for end := time.Now().Add(patience); answered.Load() < 20; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("nobody comes:\n%s", p.Printed())
			}
		}
		must(t, p.Process.Signal(syscall.SIGKILL))
		p.Exit(t)
		wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", lives.ConfigFile())
		killed()
		all.Wait()
		signups += answered.Load()
		l := lives.Audit(t)
		if n := l.Count("account.created success"); n < signups || n > signups+1 { // One may have been stored and not answered.
			t.Errorf("%d signups are recorded, %d were answered", n, signups)
		} else {
			signups = n
		}
	}
	lives.Signup(t, "alice").Conn.Close()
	lives.Stop(t)
	wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", lives.ConfigFile())
	if l := lives.Audit(t); len(l.Find(audit.KindChainLost))+len(l.Find(audit.KindFaultFound)) != 0 || l.Count("audit.chain_ended success") == 0 || l.Report.Chains < 4 {
		t.Errorf("%+v; a fault was found that was none, or nothing ended:\n%s", l.Report, l.Export)
	}
}

// comeAndGo signs people up until ctx ends. A server that is to die may do so in the middle.
func comeAndGo(ctx context.Context, t *testing.T, c *celltest.Cell, prefix string, lives bool, answered *atomic.Uint64) {
	t.Helper()
	for n := 0; ctx.Err() == nil; n++ {
		m := &mortal{TB: t, ctx: ctx}
		if lives {
			m.ctx = t.Context()
		}
		done := make(chan bool)
		go func() {
			signed := false
			defer func() { done <- signed }()
			conn := c.Dial(m)
			defer context.AfterFunc(m.ctx, conn.Close)()
			c.SignupAt(m, conn, fmt.Sprint(prefix, n))
			signed = true
			conn.Close()
		}()
		if <-done {
			answered.Add(1)
			continue
		}
		if lives || ctx.Err() == nil && !m.died.Load() {
			t.Error("a signup failed at the server that lives:", m.why)
		}
		<-ctx.Done() // Nobody is there any more.
	}
}

// mortal is a test whose failure ends the goroutine, and no more.
type mortal struct {
	testing.TB
	ctx  context.Context //nolint:containedctx // As a test has one.
	died atomic.Bool
	why  string
}

func (m *mortal) Context() context.Context { return m.ctx }
func (m *mortal) Fatal(args ...any)        { m.end(fmt.Sprint(args...)) }
func (m *mortal) Fatalf(format string, args ...any) {
	m.end(fmt.Sprintf(format, args...))
}

func (m *mortal) end(why string) {
	m.why = why
	m.died.Store(true)
	runtime.Goexit()
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	must(t, c.Close())
	return c.LocalAddr().String()
}
