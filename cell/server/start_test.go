package server_test

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg/pgtest"
)

// start tries to start a cell whose configuration was changed, and returns why it did not.
func start(t *testing.T, c *celltest.Cell, change func(*server.Config)) error {
	t.Helper()
	config := c.Config(t)
	if change != nil {
		change(config)
	}
	s, err := server.Start(t.Context(), config, server.Release{Name: "cell", Version: "test"}, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Error("it started")
		_ = s.Stop(t.Context())
	}
	return err
}

func write(t *testing.T, c *celltest.Cell, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A start that fails says why, tells no secret, and leaves nothing open: the next one succeeds.
func TestStartRefusals(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenTCP, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer takenTCP.Close()
	c := celltest.Prepare(t)
	keep := func(name string) func() {
		b, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return func() { write(t, c, name, string(b)) }
	}
	for _, x := range []struct {
		name, file, content, want string
		change                    func(*server.Config)
	}{
		{name: "empty database", want: "cell migrate", file: "database-uri", content: pgtest.New(t)},
		{name: "no database", want: "the database is unavailable", file: "database-uri", content: "postgres://somebody:hunter2@127.0.0.1:1/x"},
		{name: "no URI", want: "is empty: write a PostgreSQL connection string", file: "database-uri", content: "\n"},
		{name: "a broken URI", want: "not a PostgreSQL connection string", file: "database-uri", content: "postgres://somebody:hunter2@[/x"},
		{name: "no URI file", want: "set databaseURIFile", change: func(c *server.Config) { c.DatabaseURIFile = "" }},
		{name: "invalid policy", want: "maxPayloadBytes", file: "policy.yaml", content: "version: quicproquo.dev/policy/v1\nlimits:\n  maxPayloadBytes: 1\n"},
		{name: "no policy", want: "reading the policy", change: func(c *server.Config) { c.PolicyFile += ".none" }},
		{name: "broken keys", want: "keys file", file: "keys.yaml", content: "hunter2"},
		{name: "no keys", want: "reading the keys file", change: func(c *server.Config) { c.KeysFile += ".none" }},
		{name: "no certificate", want: "reading the certificate", change: func(c *server.Config) { c.CertFile += ".none" }},
		{name: "a certificate without its key", want: "belongs together", file: "tls.key", content: "hunter2"},
		{name: "UDP port taken", want: "listening on UDP " + taken.LocalAddr().String(), change: func(c *server.Config) { c.Listen = taken.LocalAddr().String() }},
		{name: "ops port taken", want: "listening on TCP " + takenTCP.Addr().String(), change: func(c *server.Config) { c.OpsListen = takenTCP.Addr().String() }},
		{name: "no address", want: "UDP address", change: func(c *server.Config) { c.Listen = "here" }},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.file != "" {
				defer keep(x.file)()
				write(t, c, x.file, x.content)
			}
			begin := time.Now()
			err := start(t, c, x.change)
			if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want it to say %q", err, x.want)
			}
			if strings.HasSuffix(x.name, "port taken") && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v is no EADDRINUSE", err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	c.Start(t)
	alive(t, c.Dial(t))
}

func TestStartDoesNotWaitForABackup(t *testing.T) {
	t.Parallel()
	c := celltest.Prepare(t)
	// A partition whose day is long over, which a backup reads: it cannot be removed now.
	c.Execute(t, `CREATE TABLE messages_20200101 PARTITION OF messages FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00')`)
	release := c.Hold(t, `LOCK TABLE messages IN ACCESS SHARE MODE`)
	c.Start(t)
	alive(t, c.Dial(t))
	release()
}
