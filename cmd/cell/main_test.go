package main

import (
	"os"
	"path/filepath"
	"strings"
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
	if config := os.Getenv(asWriter); config != "" {
		write(config)
	}
	goleak.VerifyTestMain(pgtest.Wrap(m))
}

const patience = 30 * time.Second // Before a test has failed.

func start(t *testing.T, args ...string) *celltest.Program {
	t.Helper()
	return celltest.RunSelf(t, patience, []string{asProgram + "=1", "QPQ_DATABASE_URI="}, args...)
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
	for end := time.Now().Add(patience); !strings.Contains(p.Printed(), "cell is ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready:\n%s", p.Printed())
		}
	}
	alice.Reconnect(c) // Her token and data outlived the other process.
	must(t, p.Process.Signal(syscall.SIGTERM))
	if g, ok := alice.Conn.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwayDraining {
		t.Errorf("%+v", g)
	}
	alice.Conn.Close()
	if code := p.Exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := p.Printed()
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
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Printed(), "run `cell migrate` first") {
		t.Errorf("before: exit code %d:\n%s", code, p.Printed())
	}
	for range 2 { // Again does no harm.
		p := start(t, "migrate", "--config", c.ConfigFile())
		if code := p.Exit(t); code != 0 {
			t.Errorf("exit code %d:\n%s", code, p.Printed())
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
		if code := p.Exit(t); code != x.code || !strings.Contains(p.Printed(), x.want) {
			t.Errorf("%v: exit code %d:\n%s", x.args, code, p.Printed())
		}
	}
}
