package server_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// duty is the name of an admin.
const duty = "whoever is on duty"

// adminCalls are all admin calls but adminAuthenticate, about an account that there is not.
func adminCalls() []wire.Request {
	id := ids.New()
	return []wire.Request{
		&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, &wire.AdminResetCodeRequest{Name: "nobody", Lifetime: time.Hour},
		&wire.AdminGetAccountRequest{Name: "nobody"}, &wire.AdminSetDisabledRequest{AccountID: id, Disabled: true},
		&wire.AdminRevokeDeviceRequest{AccountID: id, DeviceID: id}, &wire.AdminEndSessionsRequest{AccountID: id},
		&wire.AdminDeleteAccountRequest{AccountID: id, Name: "nobody"}, &wire.AdminExportAuditRequest{},
	}
}

func TestAnAdminByToken(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	id, device := alice.Certificate.AccountID, alice.Certificate.DeviceID
	conn := c.Dial(t)
	expires := time.Now().Add(time.Hour)
	s := celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{Token: c.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), time.Hour)})
	if s.Name != duty || s.Role != wire.AdminRoleCellAdmin || s.ExpiresAt.Sub(expires).Abs() > 10*time.Second {
		t.Errorf("%+v", s)
	}
	for _, by := range []*wire.AdminGetAccountRequest{{Name: "alice"}, {Name: "ALICE"}, {AccountID: id}} {
		a := celltest.Must[*wire.AdminAccount](conn, by)
		if a.AccountID != id || a.Name != "alice" || a.Disabled || len(a.Devices) != 1 || a.Devices[0].DeviceID != device {
			t.Errorf("%+v: %+v", by, a)
		}
	}
	minted := celltest.Must[*wire.Codes](conn, &wire.AdminInviteRequest{Count: 3, Lifetime: time.Hour})
	if len(minted.Codes) != 3 || minted.Codes[0] == minted.Codes[1] {
		t.Errorf("%d codes", len(minted.Codes))
	}
	if reset := celltest.Must[*wire.Codes](conn, &wire.AdminResetCodeRequest{Name: "alice", Lifetime: time.Hour}); len(reset.Codes) != 1 {
		t.Errorf("%d codes", len(reset.Codes))
	}

	celltest.Must[*wire.Done](conn, &wire.AdminSetDisabledRequest{AccountID: id, Disabled: true})
	alice.Conn.Ended(t)
	if _, err := alice.LoginOn(c.Dial(t), "alice", alice.Password); !wire.HasCode(err, wire.CodeAccountDisabled) {
		t.Errorf("a disabled account logs in: %v", err)
	}
	if !celltest.Must[*wire.AdminAccount](conn, &wire.AdminGetAccountRequest{AccountID: id}).Disabled {
		t.Error("it is not shown as disabled")
	}
	celltest.Must[*wire.Done](conn, &wire.AdminSetDisabledRequest{AccountID: id})
	alice.Return(c)
	celltest.Must[*wire.Done](conn, &wire.AdminEndSessionsRequest{AccountID: id})
	alice.Conn.Ended(t)
	alice.Conn = c.Dial(t)
	alice.Begin()
	celltest.Must[*wire.Done](conn, &wire.AdminRevokeDeviceRequest{AccountID: id, DeviceID: device})
	alice.Conn.Ended(t)
	celltest.Must[*wire.Done](conn, &wire.AdminRevokeDeviceRequest{AccountID: id, DeviceID: device}) // Once more is no error.

	conn.Refused(&wire.AdminDeleteAccountRequest{AccountID: id, Name: "bob"}, wire.CodeInvalidArgument)
	celltest.Must[*wire.AdminAccount](conn, &wire.AdminGetAccountRequest{AccountID: id})
	celltest.Must[*wire.Done](conn, &wire.AdminDeleteAccountRequest{AccountID: id, Name: "alice"})
	conn.Refused(&wire.AdminGetAccountRequest{Name: "alice"}, wire.CodeNotFound)

	log := c.AwaitAudit(t, map[string]uint64{"admin.login success": 1, "admin.invite_minted success": 3, "account.disabled success": 1, "account.enabled success": 1})
	by := log.Find(audit.KindAdminLogin)[0].By
	for _, kind := range []audit.Kind{audit.KindInviteMinted, audit.KindAccountDisabled, audit.KindAccountEnabled, audit.KindDeviceRevoked, audit.KindAccountDeleted} {
		events := log.Find(kind)
		if len(events) == 0 {
			t.Errorf("no %s", kind)
		}
		for _, e := range events {
			if e.Actor != "admin" || e.By != by {
				t.Errorf("%s is by %s %s, want admin %s", kind, e.Actor, e.By, by)
			}
		}
	}
	if strings.Contains(log.Export, minted.Codes[0]) || strings.Contains(c.Log.String(), minted.Codes[0]) {
		t.Error("an invitation stands in a log")
	}
}

// An auditor reads; everything else is denied, and recorded.
func TestAnAuditor(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	c.Signup(t, "alice")
	conn := c.Admin(t, admintoken.Auditor)
	celltest.Must[*wire.AdminAccount](conn, &wire.AdminGetAccountRequest{Name: "alice"})
	celltest.Must[*wire.ExportPage](conn, &wire.AdminExportAuditRequest{})
	for _, r := range adminCalls() {
		switch r.(type) {
		case *wire.AdminGetAccountRequest:
			conn.Refused(r, wire.CodeNotFound)
		case *wire.AdminExportAuditRequest:
		default:
			conn.Refused(r, wire.CodePermissionDenied)
		}
	}
	c.AwaitAudit(t, map[string]uint64{"admin.access denied not_authorized": 6})
}

// A connection is an admin's or a device's.
func TestAdminsAndDevicesAreApart(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	for _, r := range append(adminCalls(), &wire.AdminAuthenticateRequest{Token: c.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), time.Hour)}) {
		alice.Conn.Refused(r, wire.CodePermissionDenied)
		c.Dial(t).Refused(adminCalls()[0], wire.CodeUnauthenticated)
	}
	alive(t, alice.Conn)
	conn := c.Admin(t, admintoken.CellAdmin)
	for _, r := range []wire.Request{
		&wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(conn)},
		&wire.LoginStartRequest{Name: "alice", KE1: []byte("x")}, &wire.SignupStartRequest{Name: "bob", RegistrationRequest: []byte("x")},
		&wire.GetAccountRequest{Name: "alice"}, &wire.SubscribeRequest{}, &wire.AckRequest{}, &wire.EndSessionRequest{}, &wire.ListDevicesRequest{},
		&wire.ExportAccountRequest{}, &wire.DeleteAccountRequest{Name: "alice"}, &wire.KeyPackageStatusRequest{}, &wire.OpenDMRequest{AccountID: alice.Certificate.AccountID},
	} {
		conn.Refused(r, wire.CodePermissionDenied)
	}
	alive(t, conn)
	log := c.AwaitAudit(t, map[string]uint64{"admin.access denied not_authorized": 9 + 12})
	actors := map[string]bool{}
	for _, e := range log.Find(audit.KindAdminAccess) {
		actors[e.Actor] = true
	}
	if !actors["admin"] || !actors["account"] {
		t.Errorf("denied are %v", actors)
	}
}

func TestAdminTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	c, other := celltest.New(t, celltest.Unlimited()), celltest.New(t)
	good := c.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), time.Hour)
	tampered := bytes.Clone(good)
	tampered[4] ^= 3 // The role.
	alice := c.Signup(t, "alice")
	for what, x := range map[string]struct {
		token []byte
		code  wire.Code
	}{
		"none": {nil, wire.CodeUnauthenticated}, "nonsense": {[]byte("nonsense"), wire.CodeInvalidToken}, "another role": {tampered, wire.CodeInvalidToken},
		"cut off": {good[:len(good)-1], wire.CodeInvalidToken}, "too long": {make([]byte, wire.MaxToken+1), wire.CodeInvalidArgument},
		"expired":      {c.AdminToken(t, admintoken.CellAdmin, duty, time.Now().Add(-2*time.Hour), time.Hour), wire.CodeExpiredToken},
		"not yet":      {c.AdminToken(t, admintoken.CellAdmin, duty, time.Now().Add(2*time.Hour), time.Hour), wire.CodeInvalidToken},
		"another cell": {other.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), time.Hour), wire.CodeInvalidToken},
		"a session's":  {alice.Session.AccessToken, wire.CodeInvalidToken},
	} {
		conn := c.Dial(t)
		conn.Refused(&wire.AdminAuthenticateRequest{Token: x.token}, x.code)
		conn.Refused(adminCalls()[0], wire.CodeUnauthenticated)
		celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{Token: good}) // The connection is none the worse.
		if conn.Close(); strings.Contains(c.Log.String(), string(x.token)) && len(x.token) > 0 {
			t.Errorf("%s: it stands in the log", what)
		}
	}
	// An admin's token is no device's.
	alice.Conn.Refused(&wire.AuthenticateRequest{AccessToken: good, Proof: alice.Proof(alice.Conn)}, wire.CodeInvalidToken)
	c.AwaitAudit(t, map[string]uint64{"admin.login failure invalid_token": 5, "admin.login failure expired_token": 1, "admin.login failure invalid_proof": 1, "admin.login success": 9})
}

// The limit of logins holds for admins' tokens, of which nobody can guess one, but many could be tried.
func TestAdminLoginsAreLimited(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Limits.LoginsPerMinute = 5 }))
	conn := c.Dial(t)
	for range 5 {
		conn.Refused(&wire.AdminAuthenticateRequest{Token: []byte("guess")}, wire.CodeInvalidToken)
	}
	conn.Refused(&wire.AdminAuthenticateRequest{Token: []byte("guess")}, wire.CodeRateLimited)
}

func TestAnAdminsTokenEnds(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	conn := c.Dial(t)
	celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{Token: c.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), 2*time.Second)})
	if g, ok := conn.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwayTokenExpired {
		t.Fatalf("%+v", g)
	}
	conn.Refused(&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, wire.CodeExpiredToken)
	celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{Token: c.AdminToken(t, admintoken.Auditor, duty, time.Now(), time.Hour)})
	conn.Refused(&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, wire.CodePermissionDenied) // The newer credential counts.
}

func TestBadAdminCalls(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	conn := c.Admin(t, admintoken.CellAdmin)
	for _, x := range []struct {
		request wire.Request
		code    wire.Code
	}{
		{&wire.AdminInviteRequest{Count: 0, Lifetime: time.Hour}, wire.CodeInvalidArgument},
		{&wire.AdminInviteRequest{Count: 101, Lifetime: time.Hour}, wire.CodeInvalidArgument},
		{&wire.AdminInviteRequest{Count: 1, Lifetime: time.Second}, wire.CodeInvalidArgument},
		{&wire.AdminInviteRequest{Count: 1, Lifetime: 366 * 24 * time.Hour}, wire.CodeInvalidArgument},
		{&wire.AdminResetCodeRequest{Name: "nobody", Lifetime: time.Hour}, wire.CodeNotFound},
		{&wire.AdminResetCodeRequest{Name: "nobody"}, wire.CodeInvalidArgument},
		{&wire.AdminResetCodeRequest{Name: "\u200b", Lifetime: time.Hour}, wire.CodeInvalidArgument},
		{&wire.AdminResetCodeRequest{Lifetime: time.Hour}, wire.CodeInvalidArgument},
		{&wire.AdminGetAccountRequest{Name: "nobody"}, wire.CodeNotFound},
		{&wire.AdminGetAccountRequest{AccountID: ids.New()}, wire.CodeNotFound},
		{&wire.AdminGetAccountRequest{Name: strings.Repeat("x", 257)}, wire.CodeInvalidArgument},
		{&wire.AdminSetDisabledRequest{AccountID: ids.New(), Disabled: true}, wire.CodeNotFound},
		{&wire.AdminSetDisabledRequest{AccountID: ids.New()}, wire.CodeNotFound},
		{&wire.AdminRevokeDeviceRequest{AccountID: ids.New(), DeviceID: ids.New()}, wire.CodeNotFound},
		{&wire.AdminEndSessionsRequest{AccountID: ids.New()}, wire.CodeNotFound},
		{&wire.AdminDeleteAccountRequest{AccountID: ids.New(), Name: "nobody"}, wire.CodeNotFound},
		{&wire.AdminExportAuditRequest{After: []byte("x")}, wire.CodeInvalidCursor},
		{&wire.AdminExportAuditRequest{After: make([]byte, 65)}, wire.CodeInvalidArgument},
		{&wire.AdminExportAuditRequest{After: bytes.Repeat([]byte{1}, 9)[:8]}, wire.CodeInvalidCursor},
		{&wire.AdminExportAuditRequest{After: append([]byte{1}, bytes.Repeat([]byte{255}, 8)...)}, wire.CodeInvalidCursor},
		{&wire.AdminExportAuditRequest{After: append([]byte{2}, bytes.Repeat([]byte{255}, 16)...)}, wire.CodeInvalidCursor},
		{&wire.AdminExportAuditRequest{After: append([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{9}, 7)...)}, wire.CodeInvalidCursor},
	} {
		conn.Refused(x.request, x.code)
	}
	alive(t, conn)
}

// An invitation of an admin makes one account.
func TestAnInvitationOfAnAdmin(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) { p.Signup = policy.SignupInvitation }))
	c.Dial(t).Refused(&wire.SignupStartRequest{Name: "alice", RegistrationRequest: make([]byte, 32)}, wire.CodeInvalidInvitation)
	if minted := celltest.Must[*wire.Codes](c.Admin(t, admintoken.CellAdmin), &wire.AdminInviteRequest{Count: 2, Lifetime: time.Hour}); len(minted.Codes) != 2 ||
		time.Until(minted.ExpiresAt) > time.Hour || time.Until(minted.ExpiresAt) < 50*time.Minute {
		t.Errorf("%+v", minted.ExpiresAt)
	}
}

// export fetches all pages and returns the lines.
func export(t *testing.T, conn *celltest.Conn, after []byte) (lines []byte, pages int) {
	t.Helper()
	for {
		p := celltest.Must[*wire.ExportPage](conn, &wire.AdminExportAuditRequest{After: after})
		lines = append(lines, p.Lines...)
		if pages++; len(p.Next) == 0 {
			return lines, pages
		}
		after = p.Next
	}
}

// Pages put together are the export that "cell audit export" writes, and verify.
func TestTheAuditLogIsExported(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	conn := c.Admin(t, admintoken.Auditor)
	admin := c.Admin(t, admintoken.CellAdmin)
	for range 12 { // Enough for several pages, in few checkpoints.
		for range 3 {
			admin.Send(&wire.AdminInviteRequest{Count: 40, Lifetime: time.Hour})
		}
		celltest.Must[*wire.Codes](admin, &wire.AdminInviteRequest{Count: 40, Lifetime: time.Hour})
	}
	whole := c.AwaitAudit(t, map[string]uint64{"admin.invite_minted success": 12 * 160})
	lines, pages := export(t, conn, nil)
	if pages < 3 {
		t.Errorf("%d pages: the test shows too little", pages)
	}
	if got, want := string(lines), whole.Export; !strings.HasPrefix(got, want) { // The server may have signed more since.
		t.Errorf("%d bytes of %d pages are not the %d bytes of the log", len(got), pages, len(want))
	}
	verify(t, c, lines)
	if n := strings.Count(string(lines), `"type":"header"`); n != 1 {
		t.Errorf("%d headers", n)
	}

	// It goes on where it ended.
	last := bytes.Count(lines, []byte(`"type":"checkpoint"`))
	celltest.Must[*wire.Codes](admin, &wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour})
	log := c.Audit(t)
	more, _ := export(t, conn, binary.BigEndian.AppendUint64([]byte{1}, uint64(last))) //nolint:gosec // small.
	verify(t, c, append(slices.Clone(lines), more...))
	if !bytes.Contains(more, []byte(`"kind":"admin.invite_minted"`)) {
		t.Errorf("what came since is missing:\n%s", more)
	}
	// That somebody exports is recorded once for each run, not for each page.
	if n := log.Count("admin.audit_exported success"); n != 1 {
		t.Errorf("%d exports are recorded", n)
	}
	// A place in the middle, shown by somebody who was not there, is an export of its own.
	half := celltest.Must[*wire.ExportPage](conn, &wire.AdminExportAuditRequest{})
	stranger := c.Admin(t, admintoken.Auditor)
	celltest.Must[*wire.ExportPage](stranger, &wire.AdminExportAuditRequest{After: half.Next})
	if n := c.Audit(t).Count("admin.audit_exported success"); n != 4 {
		t.Errorf("%d exports are recorded", n)
	}
}

// An export that was under way when the log was pruned begins anew, and then begins where the log does.
func TestAnExportAcrossAPruning(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	conn, admin := c.Admin(t, admintoken.Auditor), c.Admin(t, admintoken.CellAdmin)
	for range 8 {
		celltest.Must[*wire.Codes](admin, &wire.AdminInviteRequest{Count: 100, Lifetime: time.Hour})
	}
	c.AwaitAudit(t, map[string]uint64{"admin.invite_minted success": 800})
	first := celltest.Must[*wire.ExportPage](conn, &wire.AdminExportAuditRequest{})
	if len(first.Next) == 0 {
		t.Fatal("one page: the test shows nothing")
	}
	a, err := server.OpenAudit(t.Context(), c.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Store.Close()
	celltest.Must[*wire.Codes](admin, &wire.AdminInviteRequest{Count: 100, Lifetime: time.Hour})
	c.Audit(t) // The last checkpoint stays.
	upTo, removed, err := a.Store.PruneAudit(t.Context(), time.Now(), time.Now())
	if err != nil || removed == 0 {
		t.Fatalf("%d rows were removed, %v: the test shows nothing", removed, err)
	}
	conn.Refused(&wire.AdminExportAuditRequest{After: first.Next}, wire.CodeInvalidCursor)
	for _, after := range [][]byte{nil, binary.BigEndian.AppendUint64([]byte{1}, upTo)} {
		lines, _ := export(t, conn, after)
		verify(t, c, lines)
		if bytes.Count(lines, []byte(`"kind":"admin.invite_minted"`)) != 100 || !bytes.Contains(lines, []byte(`"type":"pruned"`)) {
			t.Errorf("after %x:\n%.2000s", after, lines)
		}
	}
}

// What was changed in the database is not handed out as if nothing had happened.
func TestAChangedLogIsNotExported(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	conn := c.Admin(t, admintoken.Auditor)
	c.Audit(t)
	c.Execute(t, `SET session_replication_role = replica; UPDATE audit_checkpoints SET body = '\x00'`)
	if e := conn.Refused(&wire.AdminExportAuditRequest{}, wire.CodeInternal); !strings.Contains(e.Message, "cell audit verify") {
		t.Error(e)
	}
}

func verify(t *testing.T, c *celltest.Cell, lines []byte) {
	t.Helper()
	a, err := server.OpenAudit(t.Context(), c.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Store.Close()
	if _, err := audit.VerifyExport(bytes.NewReader(lines), &audit.Verifier{Trust: a.Keys.Trust()}, nil); err != nil {
		t.Errorf("the export does not verify: %v", err)
	}
}

// Without an audit log, an admin does nothing.
func TestNothingUnrecorded(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	conn, fresh := c.Admin(t, admintoken.CellAdmin), c.Dial(t)
	c.Execute(t, `ALTER TABLE audit_events RENAME TO audit_events_hidden`)
	defer c.Execute(t, `ALTER TABLE audit_events_hidden RENAME TO audit_events`)
	token := c.AdminToken(t, admintoken.CellAdmin, duty, time.Now(), time.Hour)
	for _, x := range []struct {
		conn *celltest.Conn
		call wire.Request
	}{{conn, &wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}}, {conn, &wire.AdminExportAuditRequest{}},
		{fresh, &wire.AdminAuthenticateRequest{Token: token}}, {fresh, &wire.AdminAuthenticateRequest{Token: []byte("nonsense")}}} {
		if out, err := x.conn.Call(x.call); err == nil || wire.HasCode(err, wire.CodeInvalidToken) {
			t.Errorf("%s was answered: %+v, %v", x.call.Method(), out, err)
		}
	}
	fresh.Refused(&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, wire.CodeUnauthenticated)
}

// clientCertificate is one of ca's.
func clientCertificate(t *testing.T, ca *pki.CA, name string, uris ...string) *tls.Certificate {
	t.Helper()
	cert, key, err := ca.IssueClient(name, uris, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("clients", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestAnAdminByCertificate(t *testing.T) {
	t.Parallel()
	const uri = "spiffe://example.org/ops"
	ca, others := newCA(t), newCA(t)
	admins := []policy.Admin{{Name: uri, Role: policy.RoleCellAdmin}, {Name: "auditor", Role: policy.RoleAuditor}}
	c := celltest.New(t, celltest.Unlimited(), celltest.WithClientCA(ca, policy.CertificatesOptional, admins...))
	enter := func(cert *tls.Certificate) (*celltest.Conn, *wire.AdminSession, error) {
		conn, err := c.DialAs(t, cert)
		if err != nil {
			t.Fatal(err)
		}
		out, err := conn.Call(&wire.AdminAuthenticateRequest{})
		s, _ := out.(*wire.AdminSession)
		return conn, s, err
	}
	for what, x := range map[string]struct {
		cert *tls.Certificate
		role wire.AdminRole // 0: refused.
		code wire.Code
	}{
		"by URI":                    {clientCertificate(t, ca, "whoever", uri), wire.AdminRoleCellAdmin, 0},
		"by one of its URIs":        {clientCertificate(t, ca, "", "https://example.org/", uri), wire.AdminRoleCellAdmin, 0},
		"by common name":            {clientCertificate(t, ca, "auditor"), wire.AdminRoleAuditor, 0},
		"a URI as common name":      {clientCertificate(t, ca, uri), wire.AdminRoleCellAdmin, 0},
		"a name beside another URI": {clientCertificate(t, ca, "auditor", "spiffe://example.org/web"), 0, wire.CodePermissionDenied},
		"another name":              {clientCertificate(t, ca, "Auditor"), 0, wire.CodePermissionDenied},
		"a longer URI":              {clientCertificate(t, ca, "", uri+"/x"), 0, wire.CodePermissionDenied},
		"no name":                   {clientCertificate(t, ca, ""), 0, wire.CodePermissionDenied},
	} {
		conn, s, err := enter(x.cert)
		if x.role == 0 {
			if !wire.HasCode(err, x.code) {
				t.Errorf("%s: %+v, %v", what, s, err)
			}
			conn.Refused(adminCalls()[0], wire.CodeUnauthenticated)
			continue
		}
		if err != nil || s.Role != x.role || s.ExpiresAt.Sub(x.cert.Leaf.NotAfter).Abs() > time.Second {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}

	// A certificate does not make a device's connection an admin's, nor is it in the way of one.
	conn, err := c.DialAs(t, clientCertificate(t, ca, "", uri))
	if err != nil {
		t.Fatal(err)
	}
	alice := c.SignupAt(t, conn, "alice")
	alice.Conn.Refused(&wire.AdminAuthenticateRequest{}, wire.CodePermissionDenied)

	// The policy and the CAs of the moment count for a connection that is there, too.
	conn, _, err = enter(clientCertificate(t, ca, "", uri))
	if err != nil {
		t.Fatal(err)
	}
	invite := &wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}
	celltest.Must[*wire.Codes](conn, invite)
	rules := func(admins ...policy.Admin) {
		c.WritePolicy(t, policyWith(t, func(p *policy.Policy) {
			p.Access = policy.Access{ClientCertificates: policy.CertificatesOptional, Admins: admins}
		}))
		c.Reload(t)
	}
	rules(policy.Admin{Name: uri, Role: policy.RoleAuditor})
	conn.Refused(invite, wire.CodeUnauthenticated)
	if s := celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{}); s.Role != wire.AdminRoleAuditor {
		t.Errorf("%+v", s)
	}
	rules()
	conn.Refused(&wire.AdminExportAuditRequest{}, wire.CodeUnauthenticated)
	conn.Refused(&wire.AdminAuthenticateRequest{}, wire.CodePermissionDenied)
	rules(admins...)
	celltest.Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{})
	celltest.Must[*wire.Codes](conn, invite)
	c.WriteClientCAs(t, others)
	c.Reload(t)
	conn.Refused(invite, wire.CodeUnauthenticated)
	conn.Refused(&wire.AdminAuthenticateRequest{}, wire.CodeUnauthenticated)
	c.AwaitAudit(t, map[string]uint64{"admin.login failure not_authorized": 5, "admin.login failure invalid_proof": 1})
}

// required is required of everybody: of people's devices as well.
func TestClientCertificatesOfEverybody(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	c := celltest.New(t, celltest.WithClientCA(ca, policy.CertificatesRequired))
	conn, err := c.DialAs(t, clientCertificate(t, ca, "laptop 7"))
	if err != nil {
		t.Fatal(err)
	}
	c.SignupAt(t, conn, "alice")
	conn.Refused(&wire.AdminInviteRequest{Count: 1, Lifetime: time.Hour}, wire.CodePermissionDenied)
	if conn, err := c.DialAs(t, &tls.Certificate{}); err == nil {
		conn.Ended(t)
	}
}

// The start-up says what is missing; a policy that cannot be served does not replace one that is.
func TestClientCertificatesWithoutTheirCAs(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for what, x := range map[string]struct {
		change func(c *celltest.Cell)
		want   string
	}{
		"no file":      {func(c *celltest.Cell) { _ = os.Remove(filepath.Join(c.Dir, "client-ca.crt")) }, "client-ca.crt: no such file"},
		"an empty one": {func(c *celltest.Cell) { c.WriteClientCAs(t) }, "there is no certificate"},
	} {
		c := celltest.Prepare(t, celltest.WithClientCA(ca, policy.CertificatesRequired))
		x.change(c)
		s, err := server.Start(t.Context(), c.Config(t), server.Release{}, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = s.Stop(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "access.clientCertificates is required") {
			t.Errorf("%s: %v", what, err)
		}
	}
	c := celltest.New(t) // With a name of a file that is not there, and a policy that does not need it.
	c.WritePolicy(t, policyWith(t, func(p *policy.Policy) { p.Access.ClientCertificates = policy.CertificatesRequired }))
	for range 3 {
		c.Reload(t)
	}
	alive(t, c.Dial(t))
	if n := strings.Count(c.Log.String(), "access.clientCertificates is required"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	c.WriteClientCAs(t, ca)
	c.Reload(t)
	if _, err := c.Dial(t).QUIC.AcceptUniStream(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
}
