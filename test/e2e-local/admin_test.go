package e2elocal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/pki"
)

// buildAdmin builds kubectl-qpq once, beside qpq.
var buildAdmin = sync.OnceValues(func() (string, error) {
	qpq, err := buildQPQ()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(qpq), "kubectl-qpq")
	out, err := exec.Command("go", "build", "-o", path, "quicproquo.dev/cmd/kubectl-qpq").CombinedOutput() //nolint:gosec // fixed.
	if err != nil {
		return "", fmt.Errorf("building kubectl-qpq: %w: %s", err, out)
	}
	return path, nil
})

// devCell is a cell that kubectl-qpq dev serves, and its admin.
type devCell struct {
	t                     *testing.T
	binary, connection    string
	Endpoint, CAFile, Pin string
}

// makeDevCell serves a cell. files are there before it starts, by name.
func makeDevCell(t *testing.T, spec string, files map[string][]byte) *devCell {
	t.Helper()
	binary, err := buildAdmin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	manifest := filepath.Join(dir, "cell.yaml")
	text := "apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: test}\nspec: " + spec + "\n"
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "cell"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, "cell", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &devCell{t: t, binary: binary, connection: filepath.Join(dir, "cell", "connection.json")}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "dev", "-f", manifest, "--dir", filepath.Join(dir, "cell"), "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the cell ended with %v:\n%s", err, &log)
		}
	})
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(c.connection)
		if err == nil && json.Unmarshal(b, c) == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatal("the cell is not ready")
		}
	}
}

// admin runs a verb of kubectl-qpq and returns its standard output.
func (c *devCell) admin(args ...string) string {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(c.binary, append(args, "--connection", c.connection)...) //nolint:gosec // our own.
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("kubectl-qpq %q: %v: %s", args, err, &errs)
	}
	return strings.TrimSpace(out.String())
}

// person is a user of qpq who knows the cell by its pin.
func (c *devCell) person() *user {
	c.t.Helper()
	binary, err := buildQPQ()
	if err != nil {
		c.t.Fatal(err)
	}
	return &user{c.t, binary, filepath.Join(c.t.TempDir(), "profile"), &cell{t: c.t, secrets: celltest.SecretsOf(c.t)}, []string{"QPQ_CELL=" + c.Endpoint, "QPQ_PIN=" + c.Pin}}
}

// What an admin does with kubectl-qpq is what people meet with qpq: an invitation
// lets one in, disabling shuts out, enabling lets in again, deleting is for good.
func TestAnAdminAndThePeople(t *testing.T) {
	t.Parallel()
	c := makeDevCell(t, "{signup: invitation}", nil)
	alice, bob := c.person(), c.person()
	alice.fails("invalidInvitation", "signup", "alice")
	invitation := c.admin("invite", "--for", "10m")
	alice.with("QPQ_CODE="+invitation).ok("signup", "alice", "--json")
	bob.with("QPQ_CODE="+invitation).fails("invalidInvitation", "signup", "bob") // It is spent.
	two := strings.Fields(c.admin("invite", "--count", "2"))
	if len(two) != 2 {
		t.Fatalf("%q", two)
	}
	bob.with("QPQ_CODE="+two[1]).ok("signup", "bob", "--json")
	alice.ok("dm", "bob", "hello", "--json")

	c.admin("disable", "alice")
	alice.fails("accountDisabled", "dm", "bob", "hello?")
	alice.fails("accountDisabled", "login", "alice")
	c.admin("enable", "alice")
	for end := time.Now().Add(time.Minute); ; { // The server hears of it within a second.
		exit, _, errs := alice.run("login", "alice", "--json")
		if exit == 0 {
			break
		}
		if !strings.Contains(errs, "invalidToken") || time.Now().After(end) {
			t.Fatalf("an enabled account does not get in: %s", errs)
		}
	}
	alice.ok("dm", "bob", "hello again", "--json")
	c.admin("end-sessions", "bob")
	bob.ok("login", "bob", "--json")
	if got := bob.ok("read", "--json"); len(got) < 2 {
		t.Errorf("bob reads %v", got)
	}
	c.admin("delete-account", "alice", "--yes", "alice")
	alice.fails("invalidCredentials", "login", "alice")
}

// A cell that asks everybody for a certificate, as people meet it.
func TestProgramClientCertificate(t *testing.T) {
	t.Parallel()
	ca, err := pki.NewCA("clients", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.NewCA("others", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := makeDevCell(t, "{access: {clientCertificates: required, clientCASecretRef: {name: client-ca}}}", map[string][]byte{"client-ca.crt": ca.CertPEM()})
	certificate := func(ca *pki.CA) (cert, key string) {
		certPEM, keyPEM, err := ca.IssueClient("laptop", nil, time.Now(), time.Hour)
		dir := t.TempDir()
		cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		if err = errors.Join(err, os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	alice := c.person()
	alice.fails("clientCertificate", "signup", "alice")
	if exit, _, errs := alice.run("signup", "alice"); exit != 1 || !strings.Contains(errs, "takes no clients without a certificate") || !strings.Contains(errs, "--client-cert FILE --client-key FILE") {
		t.Errorf("exit %d: %s", exit, errs)
	}
	cert, key := certificate(foreign)
	alice.fails("clientCertificate", "signup", "alice", "--client-cert", cert, "--client-key", key)
	cert, key = certificate(ca)
	alice.fails("invalidClientCertificate", "signup", "alice", "--client-cert", cert, "--client-key", cert)
	if exit, _, errs := alice.with("QPQ_CLIENT_CERT="+cert).run("signup", "alice"); exit != 2 || !strings.Contains(errs, "two files") {
		t.Errorf("half a certificate: exit %d: %s", exit, errs)
	}
	alice.ok("signup", "alice", "--json", "--client-cert", cert, "--client-key", key)
	alice.fails("clientCertificate", "dm", "nobody", "hello") // The profile does not keep it.
	alice.with("QPQ_CLIENT_CERT="+cert, "QPQ_CLIENT_KEY="+key).ok("read", "--json")
}
