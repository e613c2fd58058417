package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/wire"
)

// does runs a verb that has to succeed, on a cell of `dev`, and returns what it printed.
func (r *running) does(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, append(args, "--connection", filepath.Join(r.dir, "connection.json"))...)
	if code := p.Exit(t); code != 0 {
		t.Fatalf("%q: exit code %d:\n%s", args, code, p.Printed())
	}
	return p.Printed()
}

// fails runs a verb that has to fail and say want.
func (r *running) fails(t *testing.T, want string, args ...string) {
	t.Helper()
	p := start(t, append(args, "--connection", filepath.Join(r.dir, "connection.json"))...)
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), want) || strings.Contains(p.Printed(), "Usage") {
		t.Errorf("%q: exit code %d:\n%s\nwant %q", args, code, p.Printed(), want)
	}
}

// An admin's day, on a cell whose signup is by invitation.
func TestAnAdminsDay(t *testing.T) {
	t.Parallel()
	r := serveSpec(t, filepath.Join(t.TempDir(), "cell"), "127.0.0.1:0", "{signup: invitation, limits: {requestsPerSecond: 1000, requestBurst: 1000}}")
	for _, name := range []string{"admin-token", "auditor-token"} {
		if info, err := os.Stat(filepath.Join(r.dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
	}
	cell := r.cell(t)

	var minted struct {
		Codes     []string
		ExpiresAt time.Time
	}
	must(t, json.Unmarshal([]byte(r.does(t, "invite", "--count", "2", "--for", "1h", "--json")), &minted))
	if len(minted.Codes) != 2 || time.Until(minted.ExpiresAt) > time.Hour {
		t.Fatalf("%+v", minted)
	}
	if out := r.does(t, "invite"); !strings.Contains(out, "good for one account each, until ") {
		t.Errorf("printed is\n%s", out)
	}
	code, err := codes.Parse(codes.Invitation, minted.Codes[0])
	must(t, err)
	alice := cell.SignupInvited(t, "alice", code[:])
	if _, err := alice.SignupOn(cell.Dial(t), "bob"); !wire.HasCode(err, wire.CodeInvalidInvitation) {
		t.Errorf("without an invitation: %v", err)
	}
	id, device := alice.Certificate.AccountID.String(), alice.Certificate.DeviceID.String()

	for _, who := range []string{"alice", "ALICE", id} {
		if out := r.does(t, "account", who); !strings.Contains(out, "name     alice\naccount  "+id+"\nstate    in use\n") || !strings.Contains(out, "device   "+device) {
			t.Errorf("%s is\n%s", who, out)
		}
	}
	var account struct {
		ID      string
		Name    string
		Devices []struct{ ID string }
	}
	must(t, json.Unmarshal([]byte(r.does(t, "account", "alice", "--auditor", "--json")), &account))
	if account.ID != id || account.Name != "alice" || len(account.Devices) != 1 || account.Devices[0].ID != device {
		t.Errorf("%+v", account)
	}
	r.fails(t, "inviting is not for auditor", "invite", "--auditor")

	if out := r.does(t, "disable", "alice"); !strings.Contains(out, "alice (account "+id+") is disabled") {
		t.Error(out)
	}
	alice.Conn.Ended(t)
	if !strings.Contains(r.does(t, "account", id), "state    disabled") {
		t.Error("it is not shown")
	}
	r.does(t, "enable", id)
	alice.Return(cell)
	r.does(t, "end-sessions", "alice")
	alice.Conn.Ended(t)
	r.fails(t, "has no device "+strings.Repeat("0", 31)+"1", "revoke-device", "alice", strings.Repeat("0", 31)+"1")
	r.fails(t, `"phone" is not the id of a device; kubectl-qpq account alice shows them`, "revoke-device", "alice", "phone")
	r.does(t, "revoke-device", "alice", device)
	if strings.Contains(r.does(t, "account", "alice"), device) {
		t.Error("the device is there")
	}
	if out := r.does(t, "reset-code", "alice", "--for", "10m"); !strings.Contains(out, "qpq reset NAME") {
		t.Error(out)
	}
	r.fails(t, "nothing was deleted: repeat the account's name", "delete-account", "alice")
	r.fails(t, "--yes alice", "delete-account", "alice", "--yes", "bob")
	r.does(t, "delete-account", "alice", "--yes", "alice")
	r.fails(t, "there is no such account", "account", "alice")
	r.fails(t, "there is no such account", "disable", id)
	r.fails(t, "one minute to 365 days", "invite", "--for", "1s")
	r.fails(t, "count is 101", "invite", "--count", "101")
	r.fails(t, "give the account's name", "account")
	r.fails(t, "--count N mints several", "invite", "3")

	exports(t, r)
	r.stop(t, syscall.SIGTERM)
	for _, name := range []string{"admin-token", "auditor-token"} {
		if _, err := os.Stat(filepath.Join(r.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	r.fails(t, "while kubectl-qpq dev serves the cell", "invite")
}

// exports exports the log in two parts, which verify together.
func exports(t *testing.T, r *running) {
	t.Helper()
	config, err := server.LoadConfig(filepath.Join(r.dir, "cell.yaml"))
	must(t, err)
	a, err := server.OpenAudit(t.Context(), config)
	must(t, err)
	defer a.Store.Close()
	sign := func() {
		t.Helper()
		if _, err := a.Store.CheckpointAudit(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	sign()
	first := filepath.Join(t.TempDir(), "first.jsonl")
	out := r.does(t, "audit", "export", "--auditor", "--out", first)
	_, after, ok := strings.Cut(strings.TrimSpace(out), "the next export goes on with --after ")
	if !ok || strings.HasPrefix(out, "0 events") {
		t.Fatalf("printed is\n%s", out)
	}
	if info, err := os.Stat(first); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	r.fails(t, "exists already; name another file", "audit", "export", "--out", first)
	sign()
	second := filepath.Join(t.TempDir(), "second.jsonl")
	r.does(t, "audit", "export", "--after", after, "--out", second)
	var both []byte
	for _, path := range []string{first, second} {
		b, err := os.ReadFile(path)
		must(t, err)
		both = append(both, b...)
	}
	if _, err := audit.VerifyExport(bytes.NewReader(both), &audit.Verifier{Trust: a.Keys.Trust()}, nil); err != nil {
		t.Errorf("the exports do not verify: %v", err)
	}
	for _, kind := range []string{"admin.invite_minted", "admin.login", "account.disabled", "device.revoked", "account.deleted", "admin.audit_exported"} {
		if !bytes.Contains(both, []byte(`"kind":"`+kind+`"`)) {
			t.Errorf("there is no %s", kind)
		}
	}
	r.fails(t, "begin anew", "audit", "export", "--after", "9223372036854775807")
}

// A cell that asks for client certificates, and an admin who has one.
func TestAnAdminByCertificate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cell")
	const spec = "{access: {clientCertificates: required, clientCASecretRef: {name: client-ca}, admins: [{name: ops, role: cellAdmin}]}}"
	p := start(t, "dev", "-f", manifest(t, spec), "--dir", dir, "--listen", "127.0.0.1:0")
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "access.clientCertificates is required") || !strings.Contains(p.Printed(), filepath.Join(dir, "client-ca.crt")) {
		t.Errorf("without the CAs: exit code %d:\n%s", code, p.Printed())
	}
	ca, err := pki.NewCA("clients", time.Now(), time.Hour)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "client-ca.crt"), ca.CertPEM(), 0o600))
	r := serveSpec(t, dir, "127.0.0.1:0", spec)
	certificate := func(name string) []string {
		cert, key, err := ca.IssueClient(name, nil, time.Now(), time.Hour)
		must(t, err)
		certFile, keyFile := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
		must(t, errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)))
		return []string{"--client-cert", certFile, "--client-key", keyFile}
	}
	r.does(t, append([]string{"invite"}, certificate("ops")...)...)
	r.fails(t, "access.admins does not name it", append([]string{"invite"}, certificate("somebody")...)...)
	r.fails(t, "takes no clients without a certificate", "invite")
	bare := append([]string{"invite", "--endpoint", r.Endpoint, "--pin", r.Pin}, certificate("ops")...)
	if p := start(t, bare...); p.Exit(t) != 0 {
		t.Errorf("by flags alone:\n%s", p.Printed())
	}
	r.fails(t, "does not have the pinned key", "invite", "--pin", strings.Repeat("0", 64))
	r.fails(t, "does not answer", "invite", "--endpoint", "127.0.0.1:9")
	r.stop(t, syscall.SIGTERM)
}
