package server_test

import (
	"encoding/binary"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/wire"
)

// What the cell runs with is recorded when it is another than was recorded last: at the start and while it runs, once by
// however many servers.
func TestKeysAndPoliciesAreRecorded(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	two := c.Replica(t)
	wantState := func(keys, policies int) *celltest.AuditLog {
		t.Helper()
		l := c.Audit(t)
		if k, p := len(l.Find(audit.KindServerKeyRotated)), len(l.Find(audit.KindPolicyReplaced)); k != keys || p != policies {
			t.Fatalf("%d keys and %d policies are recorded, want %d and %d:\n%s", k, p, keys, policies, l.Export)
		}
		return l
	}
	last := func(l *celltest.AuditLog, kind audit.Kind) celltest.AuditEvent {
		var e celltest.AuditEvent
		for _, x := range l.Find(kind) {
			if !x.At.Before(e.At) {
				e = x
			}
		}
		return e
	}
	wantState(5, 1)
	two.Stop(t)
	c.Stop(t)
	c.Start(t)
	wantState(5, 1) // A restart is no news.

	changed := policyWith(t, func(p *policy.Policy) { p.Limits.MaxPayloadBytes = 16 << 10 })
	c.WritePolicy(t, changed)
	c.Reload(t)
	c.Reload(t)
	hash, err := hex.DecodeString(strings.TrimSpace(c.Ops(t, "/policy"))[:16])
	if err != nil {
		t.Fatal(err)
	}
	if e := last(wantState(5, 2), audit.KindPolicyReplaced); e.Details["policyHash"] != binary.BigEndian.Uint64(hash) || e.Actor != "operator" {
		t.Errorf("%+v, while %x is in use", e, hash)
	}
	c.WriteCertificate(t)
	c.Reload(t)
	c.Reload(t)
	if e := last(wantState(6, 2), audit.KindServerKeyRotated); e.Details["keySet"] != uint64(audit.KeySetTLS) || e.Details["keyId"] == 0 {
		t.Errorf("%+v", e)
	}

	c.Stop(t)
	keys, err := cellkeys.Load(filepath.Join(c.Dir, "keys.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	keys.RotateAudit()
	keys.RotateOPAQUE()
	b, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, "keys.yaml", string(b))
	c.WritePolicy(t, policyWith(t, func(*policy.Policy) {})) // Changed while nobody ran.
	c.Start(t)
	l := wantState(8, 3)
	sets := map[uint64]bool{}
	for _, e := range l.Find(audit.KindServerKeyRotated)[5:] {
		sets[e.Details["keySet"]] = true
	}
	if !sets[uint64(audit.KeySetAudit)] || !sets[uint64(audit.KeySetOPAQUE)] {
		t.Errorf("%v", l.Find(audit.KindServerKeyRotated))
	}
	alive(t, c.Dial(t))
}

// A policy that cannot be recorded is not used, and a server that cannot record does not start.
func TestNothingChangesUnrecorded(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	c.Execute(t, `ALTER TABLE audit_events RENAME TO audit_hidden`)
	c.WritePolicy(t, policyWith(t, func(p *policy.Policy) { p.Limits.MaxPayloadBytes = 16 << 10 }))
	c.Reload(t)
	if n := maxPayload(t, alice.Conn); n != policy.MaxPayloadBytes {
		t.Errorf("a policy is used that is not in the audit log")
	}
	if _, err := alice.LoginOn(c.Dial(t), "alice", alice.Password); err == nil {
		t.Error("a login is judged that cannot be recorded")
	}
	again := c.Dial(t) // What there is goes on.
	celltest.Must[*wire.AuthenticateResponse](again, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(again)})
	c.Stop(t)
	if err := start(t, c, nil); err == nil || !strings.Contains(err.Error(), "recording what the cell starts with") {
		t.Errorf("it started, or: %v", err)
	}
	c.Execute(t, `ALTER TABLE audit_hidden RENAME TO audit_events`)
	c.Start(t)
	if n := maxPayload(t, c.Dial(t)); n != 16<<10 {
		t.Errorf("the cap is %d", n)
	}
	if l := c.Audit(t); len(l.Find(audit.KindPolicyReplaced)) != 2 {
		t.Error(l.Export)
	}
}

// What is noted and tallied is in the log soon, while the server runs; it signs the end itself.
func TestARunningServerRecords(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	alice.Reconnect(c)
	conn := c.Dial(t)
	for range 3 {
		conn.Refused(&wire.AuthenticateRequest{AccessToken: make([]byte, 124), Proof: alice.Proof(conn)}, wire.CodeInvalidToken)
	}
	begin := time.Now()
	l := c.AwaitAudit(t, map[string]uint64{"auth.connection success": 1, "auth.connection failure invalid_token": 3})
	if n := len(l.Find(audit.KindAuthenticated)); n > 3 {
		t.Errorf("%d events for one connection and three equal refusals", n)
	}
	if took := time.Since(begin); took > 2*audit.DefaultTallyEvery {
		t.Errorf("it took %s", took)
	}
	c.Stop(t)
	if log := c.Log.String(); !strings.Contains(log, `"audit checkpoint"`) || len(c.Audit(t).Find(audit.KindChainEnded)) == 0 {
		t.Error("it did not sign what it had written, or has not ended its chains")
	}
}
