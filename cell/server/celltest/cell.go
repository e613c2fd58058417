// Package celltest runs whole cells for tests, on a real PostgreSQL, and speaks to them frame by frame.
package celltest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/internal/pki"
)

// Cell is a cell under test. Its files and database outlive Stop, so that Start serves the same cell again.
type Cell struct {
	Dir      string
	Database string // Connection string.
	CA       *pki.CA
	Addr     string // UDP, as HOST:PORT; stays the same over a restart.
	OpsURL   string
	Log      *Log

	server *server.Server
}

// Option changes a cell before it starts.
type Option func(*setup)

type setup struct{ policy *policy.Policy }

// WithPolicy changes the policy, which starts as the default.
func WithPolicy(change func(*policy.Policy)) Option {
	return func(s *setup) { change(s.policy) }
}

// New makes and starts a cell that is stopped when the test ends. The package's TestMain must be pgtest's.
func New(t testing.TB, options ...Option) *Cell {
	t.Helper()
	s := setup{policy.Default()}
	for _, o := range options {
		o(&s)
	}
	c := &Cell{Dir: t.TempDir(), Database: pgtest.New(t), Addr: "127.0.0.1:0", Log: &Log{}}
	c.prepare(t, s)
	config := c.config(t)
	must(t, server.Migrate(t.Context(), config, c.logger()))
	c.Start(t)
	t.Cleanup(func() { c.Stop(t) })
	return c
}

func (c *Cell) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Cell) prepare(t testing.TB, s setup) {
	t.Helper()
	var err error
	c.CA, err = pki.NewCA("test cell", time.Now(), time.Hour)
	must(t, err)
	cert, key, err := c.CA.IssueServer([]string{"127.0.0.1", "localhost"}, time.Now(), time.Hour)
	must(t, err)
	keys, err := cellkeys.Generate().Marshal()
	must(t, err)
	rules, err := s.policy.Marshal()
	must(t, err)
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key, "keys.yaml": keys, "policy.yaml": rules,
		"database-uri": []byte(c.Database), "ca.crt": c.CA.CertPEM()} {
		must(t, os.WriteFile(c.path(name), content, 0o600))
	}
}

// CAFile is the path of the CA's certificate.
func (c *Cell) CAFile() string { return c.path("ca.crt") }

func (c *Cell) config(t testing.TB) *server.Config {
	t.Helper()
	b, err := yaml.Marshal(server.Config{Version: server.Version, Listen: c.Addr, OpsListen: "127.0.0.1:0", DatabaseURIFile: c.path("database-uri"),
		KeysFile: c.path("keys.yaml"), PolicyFile: c.path("policy.yaml"), CertFile: c.path("tls.crt"), KeyFile: c.path("tls.key"), DrainTimeout: "500ms"})
	must(t, err)
	must(t, os.WriteFile(c.path("cell.yaml"), b, 0o600))
	config, err := server.LoadConfig(c.path("cell.yaml"))
	must(t, err)
	return config
}

// Start serves the cell, again after a Stop.
func (c *Cell) Start(t testing.TB) {
	t.Helper()
	s, err := server.Start(t.Context(), c.config(t), server.Release{Name: "cell", Version: "test"}, c.logger())
	must(t, err)
	c.server, c.Addr, c.OpsURL = s, s.Addr().String(), "http://"+s.OpsAddr().String()
}

// Stop drains and stops the cell, if it runs.
func (c *Cell) Stop(t testing.TB) {
	t.Helper()
	if c.server == nil {
		return
	}
	must(t, c.server.Stop(context.WithoutCancel(t.Context())))
	c.server = nil
}

func (c *Cell) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(c.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
