// Package celltest runs whole cells for tests, on a real PostgreSQL, and speaks to them frame by frame.
package celltest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/logging"
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

	file      string // The configuration's name in Dir.
	configure func(*server.Config)
	server    *server.Server
	secrets   *Secrets // Of the test that made it.
}

// Option changes a cell before it starts.
type Option func(*setup)

type setup struct {
	policy    *policy.Policy
	database  string
	through   func(database string) string
	configure func(*server.Config)
	clientCA  *pki.CA
}

// WithPolicy changes the policy, which starts as the default.
func WithPolicy(change func(*policy.Policy)) Option {
	return func(s *setup) { change(s.policy) }
}

// Unlimited lifts the limits of rates and connections, for tests that ask for more than one client does.
func Unlimited() Option {
	return WithPolicy(func(p *policy.Policy) {
		l := &p.Limits
		l.RequestsPerSecond, l.RequestBurst, l.LookupsPerMinute = 100_000, 200_000, 600_000
		l.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
}

// WithDatabase takes a database other than a fresh one: it is migrated, and left alone when the test ends.
func WithDatabase(uri string) Option { return func(s *setup) { s.database = uri } }

// Through has the cell reach its database by another connection string than its own, such as that of a proxy.
func Through(connect func(database string) string) Option {
	return func(s *setup) { s.through = connect }
}

// WithConfig changes the configuration before each start.
func WithConfig(change func(*server.Config)) Option {
	return func(s *setup) { s.configure = change }
}

// New makes and starts a cell that is stopped when the test ends. The package's TestMain must be pgtest's.
func New(t testing.TB, options ...Option) *Cell {
	t.Helper()
	c := Prepare(t, options...)
	c.Start(t)
	return c
}

// Prepare makes a cell without starting it. It is stopped when the test ends.
func Prepare(t testing.TB, options ...Option) *Cell {
	t.Helper()
	s := setup{policy: policy.Default(), through: func(database string) string { return database }, configure: func(*server.Config) {}}
	for _, o := range options {
		o(&s)
	}
	c := &Cell{Dir: t.TempDir(), Database: s.database, Addr: "127.0.0.1:0", Log: &Log{}, file: "cell.yaml", configure: s.configure, secrets: SecretsOf(t)}
	if c.Database == "" {
		c.Database = newDatabase(t)
	}
	c.prepare(t, s)
	if s.database != "" {
		must(t, server.Migrate(t.Context(), c.Config(t), c.Logger()))
	}
	t.Cleanup(func() { c.end(t, "the cell") })
	return c
}

// end stops the cell, and looks at what it has logged.
func (c *Cell) end(t testing.TB, who string) {
	t.Helper()
	c.Stop(t)
	c.secrets.cell(t, c)
	c.secrets.Check(t, who, c.Log.String())
}

// Replica starts a further server of the same cell, at an address of its own.
func (c *Cell) Replica(t testing.TB) *Cell {
	t.Helper()
	r := *c
	r.Addr, r.Log, r.file, r.server = "127.0.0.1:0", &Log{}, "replica.yaml", nil
	r.Start(t)
	t.Cleanup(func() { r.end(t, "a replica") })
	return &r
}

// At is the same cell at the address of another process that serves it, which is the caller's to run.
func (c *Cell) At(addr string) *Cell {
	r := *c
	r.Addr, r.Log, r.OpsURL, r.server = addr, &Log{}, "", nil
	return &r
}

// Reload has the running cell read its policy and certificate now.
func (c *Cell) Reload(t testing.TB) { c.server.Reload(t.Context()) }

// WritePolicy writes the policy file, which the cell reads at the next Reload.
func (c *Cell) WritePolicy(t testing.TB, content []byte) {
	t.Helper()
	must(t, os.WriteFile(c.path("policy.yaml"), content, 0o600))
}

// WriteCertificate issues a certificate with its key, which the cell reads at the next Reload.
func (c *Cell) WriteCertificate(t testing.TB) {
	t.Helper()
	cert, key, err := c.CA.IssueServer([]string{"127.0.0.1", "localhost"}, time.Now(), time.Hour)
	must(t, err)
	must(t, os.WriteFile(c.path("tls.crt"), cert, 0o600))
	must(t, os.WriteFile(c.path("tls.key"), key, 0o600))
}

func (c *Cell) path(name string) string { return filepath.Join(c.Dir, name) }

func (c *Cell) prepare(t testing.TB, s setup) {
	t.Helper()
	var err error
	c.CA, err = pki.NewCA("test cell", time.Now(), time.Hour)
	must(t, err)
	c.WriteCertificate(t)
	c.WriteKeys(t, cellkeys.Generate())
	rules, err := s.policy.Marshal()
	must(t, err)
	if s.clientCA != nil {
		c.WriteClientCAs(t, s.clientCA)
	}
	for name, content := range map[string][]byte{"policy.yaml": rules,
		"database-uri": []byte(s.through(c.Database)), "ca.crt": c.CA.CertPEM()} {
		must(t, os.WriteFile(c.path(name), content, 0o600))
	}
}

// CAFile is the path of the CA's certificate.
func (c *Cell) CAFile() string { return c.path("ca.crt") }

// ConfigFile is the path of the configuration, as of the last Config or Start.
func (c *Cell) ConfigFile() string { return c.path(c.file) }

// KeysFile is the path of the keys file.
func (c *Cell) KeysFile() string { return c.path("keys.yaml") }

// WriteKeys writes the keys file, which a server reads when it starts.
func (c *Cell) WriteKeys(t testing.TB, k *cellkeys.Keys) {
	t.Helper()
	b, err := k.Marshal()
	must(t, err)
	must(t, os.WriteFile(c.KeysFile(), b, 0o600))
}

// Config writes the configuration file, with Addr as it is now, and returns what is in it.
func (c *Cell) Config(t testing.TB) *server.Config {
	t.Helper()
	made := server.Config{Version: server.Version, Listen: c.Addr, OpsListen: "127.0.0.1:0", DatabaseURIFile: c.path("database-uri"),
		KeysFile: c.path("keys.yaml"), PolicyFile: c.path("policy.yaml"), CertFile: c.path("tls.crt"), KeyFile: c.path("tls.key"),
		ClientCAFile: c.path(clientCAFile), DrainTimeout: "500ms"}
	c.configure(&made)
	b, err := yaml.Marshal(made)
	must(t, err)
	must(t, os.WriteFile(c.ConfigFile(), b, 0o600))
	config, err := server.LoadConfig(c.ConfigFile())
	must(t, err)
	return config
}

// Start serves the cell, again after a Stop.
func (c *Cell) Start(t testing.TB) {
	t.Helper()
	s, err := server.Start(t.Context(), c.Config(t), server.Release{Name: "cell", Version: "test"}, c.Logger())
	must(t, err)
	c.server, c.Addr, c.OpsURL = s, s.Addr().String(), "http://"+s.OpsAddr().String()
	c.secrets.Own(c.Addr)
	c.secrets.Own(c.OpsURL)
}

// Ops is what the ops port answers to a GET.
func (c *Cell) Ops(t testing.TB, path string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.OpsURL+path, http.NoBody)
	must(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
	answer, err := client.Do(request)
	must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(b)
}

// Metric is a series' value as the ops port shows it, with its labels as they are written there; 0 when it is not there.
func (c *Cell) Metric(t testing.TB, series string) float64 {
	t.Helper()
	for line := range strings.Lines(c.Ops(t, "/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, err)
			return v
		}
	}
	return 0
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

// Logger is what the cell logs with, to Log, as programs do.
func (c *Cell) Logger() *slog.Logger {
	return logging.New(c.Log, logging.Options{Level: slog.LevelDebug})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
