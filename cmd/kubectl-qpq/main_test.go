package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/pki"
)

// asProgram makes the test binary the program itself.
const asProgram = "QPQ_TEST_RUN_KUBECTL_QPQ"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const patience = 2 * time.Minute // Before a test has failed; PostgreSQL is set up meanwhile.

func start(t *testing.T, args ...string) *celltest.Program {
	t.Helper()
	return celltest.RunSelf(t, patience, []string{asProgram + "=1"}, args...)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const sample = "apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata:\n  name: test\n"

func manifest(t *testing.T, spec string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cell.yaml")
	must(t, os.WriteFile(path, []byte(sample+"spec: "+spec+"\n"), 0o600))
	return path
}

// running is a cell that `dev` serves.
type running struct {
	*celltest.Program
	dir                           string
	Endpoint, CAFile, Pin, OpsURL string
}

// serve starts `dev` and waits until it says how to reach the cell.
func serve(t *testing.T, dir, listen string) *running {
	t.Helper()
	return serveSpec(t, dir, listen, "{}")
}

func serveSpec(t *testing.T, dir, listen, spec string) *running {
	t.Helper()
	r := &running{Program: start(t, "dev", "-f", manifest(t, spec), "--dir", dir, "--listen", listen), dir: dir}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "connection.json"))
		if err == nil {
			must(t, json.Unmarshal(b, r))
			return r
		}
		if time.Now().After(end) || !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("not ready (%v):\n%s", err, r.Printed())
		}
	}
}

// cell lets tests talk to it.
func (r *running) cell(t *testing.T) *celltest.Cell {
	t.Helper()
	ca, err := pki.Load(r.dir)
	must(t, err)
	return &celltest.Cell{Addr: r.Endpoint, CA: ca}
}

func (r *running) get(t *testing.T, path string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.OpsURL+path, http.NoBody)
	must(t, err)
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(b)
}

// stop ends it by a signal, and wants nothing left running or claimed.
func (r *running) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(r.dir, "postgres", "data", "postmaster.pid"))
	must(t, err)
	must(t, r.Process.Signal(signal))
	if code := r.Exit(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, r.Printed())
	}
	if _, err := os.Stat(filepath.Join(r.dir, "connection.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("connection.json is left: %v", err)
	}
	postmaster, _, _ := strings.Cut(string(pid), "\n")
	if _, err := os.Stat("/proc/" + postmaster); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("PostgreSQL (%s) is left: %v", postmaster, err)
	}
}

func TestDevKeepsItsData(t *testing.T) {
	t.Parallel()
	locked := filepath.Join(t.TempDir(), "locked") // Only its owner can enter: PostgreSQL runs as another user.
	must(t, os.Mkdir(locked, 0o700))
	dir := filepath.Join(locked, "cell")
	first := serve(t, dir, "127.0.0.1:0")
	if got := first.get(t, "/readyz"); !strings.Contains(got, "ok") {
		t.Errorf("/readyz: %s", got)
	}
	ca, err := pki.Load(dir)
	must(t, err)
	if first.Pin != ca.Pin() || first.CAFile != filepath.Join(dir, "ca.crt") {
		t.Errorf("%+v", first)
	}
	alice := first.cell(t).Signup(t, "alice")
	alice.Conn.Close()

	t.Run("the folder is taken", func(t *testing.T) {
		p := start(t, "dev", "-f", manifest(t, "{}"), "--dir", dir, "--listen", "127.0.0.1:0")
		if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "serves a cell already") || !strings.Contains(p.Printed(), "--dir") {
			t.Errorf("exit code %d:\n%s", code, p.Printed())
		}
		if _, err := os.Stat(filepath.Join(dir, "connection.json")); err != nil {
			t.Errorf("the other's connection.json: %v", err)
		}
	})
	t.Run("the port is taken", func(t *testing.T) {
		p := start(t, "dev", "-f", manifest(t, "{}"), "--dir", t.TempDir(), "--listen", first.Endpoint)
		if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "address already in use") || !strings.Contains(p.Printed(), "--listen") {
			t.Errorf("exit code %d:\n%s", code, p.Printed())
		}
	})
	first.stop(t, syscall.SIGTERM)

	stale := filepath.Join(dir, "connection.json") // As of a process that was killed.
	must(t, os.WriteFile(stale, []byte("stale"), 0o600))
	must(t, os.Rename(filepath.Join(dir, "keys.yaml"), filepath.Join(dir, "keys.away")))
	p := start(t, "dev", "-f", manifest(t, "{}"), "--dir", dir, "--listen", "127.0.0.1:0")
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "keys.yaml is missing") {
		t.Errorf("data without keys: exit code %d:\n%s", code, p.Printed())
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale connection.json: %v", err)
	}
	must(t, os.Rename(filepath.Join(dir, "keys.away"), filepath.Join(dir, "keys.yaml")))

	second := serve(t, dir, "127.0.0.1:0")
	if second.Pin != first.Pin {
		t.Errorf("another pin: %s, then %s", first.Pin, second.Pin)
	}
	cell := second.cell(t)
	if out, err := alice.LoginOn(cell.Dial(t), "alice", alice.Password); err != nil || out.AccountID != alice.Certificate.AccountID {
		t.Errorf("the old login: %+v, %v", out, err)
	}
	alice.Reconnect(cell) // The old token, too.
	alice.Conn.Close()
	second.stop(t, syscall.SIGINT)
}

func TestDevRefusesWhatAClusterWould(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ name, file, want string }{
		{"a value out of range", manifest(t, "{limits: {maxPayloadBytes: 1}}"), "spec.limits.maxPayloadBytes"},
		{"an unknown field", manifest(t, "{limts: {}}"), "spec.limts"},
		{"no manifest", filepath.Join(t.TempDir(), "none.yaml"), "none.yaml"},
	} {
		dir := filepath.Join(t.TempDir(), "cell")
		p := start(t, "dev", "-f", x.file, "--dir", dir)
		if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), x.want) {
			t.Errorf("%s: exit code %d:\n%s", x.name, code, p.Printed())
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the folder was made: %v", x.name, err)
		}
	}
	p := start(t, "dev")
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "filename") {
		t.Errorf("no -f: exit code %d:\n%s", code, p.Printed())
	}
}

func TestDevNames(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "cell.yaml") // The default folder is named after the cell.
	must(t, os.WriteFile(bad, []byte(strings.Replace(sample, "name: test", "name: ../../outside", 1)+"spec: {}\n"), 0o600))
	p := start(t, "dev", "-f", bad)
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "metadata.name") {
		t.Errorf("exit code %d:\n%s", code, p.Printed())
	}
}
