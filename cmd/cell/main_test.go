package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/wire"
)

// asProgram makes the test binary the program itself.
const asProgram = "QPQ_TEST_RUN_CELL"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(pgtest.Wrap(m))
}

const patience = 30 * time.Second // Before a test has failed.

// process is a running program.
type process struct {
	*exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	p := &process{Cmd: exec.Command(self, args...)}
	p.Env = append(os.Environ(), asProgram+"=1", "QPQ_DATABASE_URI=")
	p.Stdout, p.Stderr = p, p
	must(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// exit waits for the end and returns the exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { _ = p.Process.Kill() })
	defer timer.Stop()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestServeUntilSIGTERM(t *testing.T) {
	t.Parallel()
	c := celltest.New(t) // Finds a free port, and makes alice known.
	alice := c.Signup(t, "alice")
	c.Stop(t)
	c.Config(t)
	p := start(t, "serve", "--config", c.ConfigFile())
	for end := time.Now().Add(patience); !strings.Contains(p.output(), "cell is ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready:\n%s", p.output())
		}
	}
	alice.Reconnect(c) // Her token and data outlived the other process.
	must(t, p.Process.Signal(syscall.SIGTERM))
	if g, ok := alice.Conn.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwayDraining {
		t.Errorf("%+v", g)
	}
	alice.Conn.Close()
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := p.output()
	if !strings.Contains(out, "cell is draining") || !strings.Contains(out, "cell has stopped") {
		t.Errorf("output:\n%s", out)
	}
	if strings.Contains(out, c.Database) || strings.Contains(out, "alice") {
		t.Errorf("the log holds a secret or a name:\n%s", out)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	c := celltest.Prepare(t)
	must(t, os.WriteFile(filepath.Join(c.Dir, "database-uri"), []byte(pgtest.New(t)+"\n"), 0o600))
	c.Config(t)
	p := start(t, "serve", "--config", c.ConfigFile())
	if code := p.exit(t); code != 1 || !strings.Contains(p.output(), "run `cell migrate` first") {
		t.Errorf("before: exit code %d:\n%s", code, p.output())
	}
	for range 2 { // Again does no harm.
		p := start(t, "migrate", "--config", c.ConfigFile())
		if code := p.exit(t); code != 0 {
			t.Errorf("exit code %d:\n%s", code, p.output())
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, 0, "cell "},
		{[]string{"serve"}, 1, `"config"`},
		{[]string{"serve", "--config", "/nowhere/cell.yaml"}, 1, "/nowhere/cell.yaml"},
		{[]string{"serve", "now", "--config", "x"}, 1, "now"},
		{[]string{"fly"}, 1, "fly"},
	} {
		p := start(t, x.args...)
		if code := p.exit(t); code != x.code || !strings.Contains(p.output(), x.want) {
			t.Errorf("%v: exit code %d:\n%s", x.args, code, p.output())
		}
	}
}
