package e2elocal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/internal/logging"
	"quicproquo.dev/internal/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(cleaner{pgtest.Wrap(m)}) }

// cleaner removes the program that was built for the tests.
type cleaner struct{ pgtest.Runner }

func (c cleaner) Run() int {
	defer func() { _ = os.RemoveAll(programDir) }()
	return c.Runner.Run()
}

const password = "correct horse battery staple"

// cell is a running cell with its own database.
type cell struct {
	t      *testing.T
	dir    string
	ca     *pki.CA
	server *server.Server
	addr   string

	logged  celltest.Log // By the cell, and by the SDK.
	secrets *celltest.Secrets
	mu      sync.Mutex
	opened  []client.Options // Profiles that were made.
}

// makeCell starts a cell. Its policy is the default, as change leaves it.
func makeCell(t *testing.T, change ...func(*policy.Policy)) *cell {
	t.Helper()
	c := &cell{t: t, dir: t.TempDir(), addr: "127.0.0.1:0", secrets: celltest.SecretsOf(t)}
	c.secrets.Text("a passphrase", password)
	c.writeFiles(change)
	config := c.config()
	if err := server.Migrate(t.Context(), config, c.log()); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(c.end)
	return c
}

// end stops the cell, and looks at what it has logged, and its clients.
func (c *cell) end() {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.opened {
		learnProfile(c.t, c.secrets, o)
	}
	c.secrets.Check(c.t, "the cell, or the SDK,", c.logged.String())
}

func (c *cell) writeFiles(change []func(*policy.Policy)) {
	c.t.Helper()
	var err error
	if c.ca, err = pki.NewCA("test", time.Now(), time.Hour); err != nil {
		c.t.Fatal(err)
	}
	cert, key, err := c.ca.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	keys, err := cellkeys.Generate().Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("cert.pem", cert)
	c.write("key.pem", key)
	c.write("keys.yaml", keys)
	c.write("database", []byte(pgtest.New(c.t)))
	c.write("policy.yaml", makePolicy(c.t, change))
}

func makePolicy(t *testing.T, change []func(*policy.Policy)) []byte {
	t.Helper()
	p := policy.Default()
	for _, f := range change {
		f(p)
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *cell) write(name string, b []byte) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), b, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cell) config() *server.Config {
	c.t.Helper()
	c.write("cell.yaml", fmt.Appendf(nil, "version: %s\nlisten: %q\nopsListen: 127.0.0.1:0\ndatabaseURIFile: %q\nkeysFile: %q\npolicyFile: %q\ncertFile: %q\nkeyFile: %q\ndrainTimeout: 100ms\n",
		server.Version, c.addr, c.path("database"), c.path("keys.yaml"), c.path("policy.yaml"), c.path("cert.pem"), c.path("key.pem")))
	config, err := server.LoadConfig(c.path("cell.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	return config
}

func (c *cell) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cell) log() *slog.Logger {
	to := io.Writer(&c.logged)
	if testing.Verbose() && os.Getenv("E2E_LOG") != "" {
		to = io.MultiWriter(to, os.Stderr)
	}
	return logging.New(to, logging.Options{Level: slog.LevelDebug})
}

func (c *cell) start() {
	c.t.Helper()
	var err error
	c.server, err = server.Start(context.Background(), c.config(), server.Release{Name: "cell", Version: "test"}, c.log())
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = c.server.Addr().String()
	c.secrets.Own(c.addr)
	c.secrets.Own(c.server.OpsAddr().String())
}

func (c *cell) stop() {
	if c.server == nil {
		return
	}
	if err := c.server.Stop(context.Background()); err != nil {
		c.t.Error("stopping the cell:", err)
	}
	c.server = nil
}

// restart stops the cell and starts it on the same address and data.
func (c *cell) restart() {
	c.t.Helper()
	c.stop()
	c.start()
}

var profiles atomic.Int64

// options returns those of a new profile.
func (c *cell) options() client.Options {
	o := client.Options{Profile: filepath.Join(c.t.TempDir(), fmt.Sprint("profile-", profiles.Add(1))), Passphrase: []byte(password),
		Endpoint: c.addr, Pin: c.ca.Pin(), KDF: keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1}, Log: c.log(), DeviceName: "test"}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = append(c.opened, o)
	return o
}

// person is somebody with a device.
type person struct {
	*client.Client
	t    *testing.T
	name string
	opts client.Options
}

func (c *cell) signup(name string) *person {
	c.t.Helper()
	p := &person{t: c.t, name: name, opts: c.options()}
	var err error
	if p.Client, err = client.Signup(c.t.Context(), p.opts, name); err != nil {
		c.t.Fatalf("%s signs up: %v", name, err)
	}
	c.t.Cleanup(p.Close)
	return p
}

// login adds a device to an account, with a profile of its own.
func (c *cell) login(name string) *person {
	c.t.Helper()
	p := &person{t: c.t, name: name, opts: c.options()}
	var err error
	if p.Client, err = client.Login(c.t.Context(), p.opts, name); err != nil {
		c.t.Fatalf("%s logs in: %v", name, err)
	}
	c.t.Cleanup(p.Close)
	return p
}

// again opens the same profile as another process would.
func (p *person) again() *person {
	p.t.Helper()
	q := *p
	var err error
	if q.Client, err = client.Open(p.t.Context(), p.opts); err != nil {
		p.t.Fatalf("%s opens the profile: %v", p.name, err)
	}
	p.t.Cleanup(q.Close)
	return &q
}

func (p *person) dm(to *person, text string) *client.Sent {
	p.t.Helper()
	sent, err := p.SendDM(p.t.Context(), to.name, text)
	if err != nil {
		p.t.Fatalf("%s writes to %s: %v", p.name, to.name, err)
	}
	return sent
}

// read returns what Read hands out until caught up, but for notices.
func (p *person) read() []client.Message {
	p.t.Helper()
	var list []client.Message
	err := p.Read(p.t.Context(), false, func(m client.Message) error {
		if m.Notice == nil {
			list = append(list, m)
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("%s reads: %v", p.name, err)
	}
	return list
}

// expect reads and compares the texts.
func (p *person) expect(texts ...string) []client.Message {
	p.t.Helper()
	list := p.read()
	checkTexts(p.t, p.name, list, texts...)
	return list
}

func checkTexts(t *testing.T, who string, list []client.Message, texts ...string) {
	t.Helper()
	for i, m := range list {
		if m.Failure != nil {
			t.Errorf("%s reads a failure: %+v", who, *m.Failure)
		} else if i < len(texts) && m.Text != texts[i] {
			t.Errorf("%s reads %q as message %d, want %q", who, m.Text, i, texts[i])
		}
	}
	if len(list) != len(texts) {
		t.Errorf("%s reads %d messages, want %d", who, len(list), len(texts))
	}
}

// crashImage returns somebody whose process died just now: a copy of the profile as it lies on disk. The original must
// not be used any more, for its ratchets go on from the same place.
func (p *person) crashImage() *person {
	p.t.Helper()
	q := *p
	q.opts.Profile = filepath.Join(p.t.TempDir(), "image")
	if err := os.CopyFS(q.opts.Profile, os.DirFS(p.opts.Profile)); err != nil {
		p.t.Fatal(err)
	}
	return (&q).again()
}
