//go:build linux

package bed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
)

const (
	readyPatience = 60 * time.Second
	readyPoll     = 20 * time.Millisecond
	drainTimeout  = 300 * time.Millisecond
	drainPatience = 20 * time.Second
)

// Files are what all replicas of a cell share: certificate, keys, policy, where the database is.
type Files struct {
	Dir    string
	Binary string // The program cell.
	CA     *pki.CA
}

// NewFiles writes them to dir.
func NewFiles(dir, binary string) (*Files, error) {
	f := &Files{Dir: dir, Binary: binary}
	var err error
	if f.CA, err = pki.NewCA("history", time.Now(), 24*time.Hour); err != nil {
		return nil, err
	}
	cert, key, err := f.CA.IssueServer([]string{"127.0.0.1"}, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	keys, err := cellkeys.Generate().Marshal()
	if err != nil {
		return nil, err
	}
	rules, err := rules().Marshal()
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": key, "keys.yaml": keys, "policy.yaml": rules} {
		if err := os.WriteFile(f.path(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// rules are the default ones without limits of rates: a run asks for more than people do.
func rules() *policy.Policy {
	p := policy.Default()
	l := &p.Limits
	l.RequestsPerSecond, l.RequestBurst, l.LookupsPerMinute, l.LoginsPerMinute, l.ConnectionsPerIP = 100_000, 200_000, 600_000, 600_000, 10_000
	l.TrustedRanges = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	p.MLS.MaxKeyPackagesPerDevice = 1000
	p.Sessions.AccessTokenTTL = policy.Duration(24 * time.Hour)
	return p
}

func (f *Files) path(name string) string { return filepath.Join(f.Dir, name) }

// Migrate brings a database's schema up, by the program.
func (f *Files) Migrate(ctx context.Context, url string) error {
	if err := os.WriteFile(f.path("database"), []byte(url), 0o600); err != nil {
		return err
	}
	c := &Cell{files: f, name: "migrate", Addr: "127.0.0.1:0", ops: "127.0.0.1:0"}
	if err := c.writeConfig(); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, f.Binary, "migrate", "--config", c.config()).CombinedOutput() //nolint:gosec // our own program.
	if err != nil {
		return fmt.Errorf("cell migrate: %w: %s", err, out)
	}
	return nil
}

// Cell is one replica: a process that is killed and started again at the same address. One goroutine uses it.
type Cell struct {
	Addr string // UDP.

	files *Files
	name  string
	ops   string
	proc  *process
	log   *os.File
}

// NewCell prepares a replica.
func (f *Files) NewCell(ctx context.Context, name string) (*Cell, error) {
	udp, err := freePort(ctx, "udp")
	if err != nil {
		return nil, err
	}
	tcp, err := freePort(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	c := &Cell{files: f, name: name, Addr: fmt.Sprint("127.0.0.1:", udp), ops: fmt.Sprint("127.0.0.1:", tcp)}
	if err := c.writeConfig(); err != nil {
		return nil, err
	}
	c.log, err = os.OpenFile(f.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return c, err
}

func (c *Cell) config() string { return c.files.path(c.name + ".yaml") }

func (c *Cell) writeConfig() error {
	f := c.files
	b := fmt.Appendf(nil, "version: quicproquo.dev/cell/v1\nlisten: %q\nopsListen: %q\ndrainTimeout: %s\nlogLevel: warn\n", c.Addr, c.ops, drainTimeout)
	for key, file := range map[string]string{"databaseURIFile": "database", "keysFile": "keys.yaml", "policyFile": "policy.yaml", "certFile": "cert.pem", "keyFile": "key.pem"} {
		b = fmt.Appendf(b, "%s: %q\n", key, f.path(file))
	}
	return os.WriteFile(c.config(), b, 0o600)
}

// Start starts it and waits until it serves. A start that fails, for there is no database yet, is tried again.
func (c *Cell) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	for ; ctx.Err() == nil; sleep(ctx, readyPoll) {
		if c.proc == nil || c.proc.ended() {
			cmd := exec.Command(c.files.Binary, "serve", "--config", c.config()) //nolint:gosec,noctx // our own program; Kill and Stop end it.
			cmd.Stdout, cmd.Stderr = c.log, c.log
			var err error
			if c.proc, err = spawn(cmd); err != nil {
				return err
			}
		}
		if c.ready(ctx) {
			return nil
		}
	}
	return fmt.Errorf("replica %s does not become ready: %s", c.name, c.tail())
}

func (c *Cell) ready(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.ops+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (c *Cell) tail() string {
	b, _ := os.ReadFile(c.log.Name())
	return string(b[max(0, len(b)-2000):])
}

// Log is what it printed.
func (c *Cell) Log() string {
	b, _ := os.ReadFile(c.log.Name())
	return string(b)
}

// Kill ends the process at once.
func (c *Cell) Kill() {
	c.proc.signal(syscall.SIGKILL)
	<-c.proc.done
}

// Drain asks it to end, as Kubernetes does, and waits for that.
func (c *Cell) Drain() error {
	c.proc.signal(syscall.SIGTERM)
	select {
	case <-c.proc.done:
		if !c.proc.cmd.ProcessState.Success() {
			return fmt.Errorf("replica %s ended badly: %s: %s", c.name, c.proc.cmd.ProcessState, c.tail())
		}
		return nil
	case <-time.After(drainPatience):
		return errors.New("the cell does not drain: " + c.tail())
	}
}

// Pause stops the process where it is; Continue lets it go on.
func (c *Cell) Pause() { c.proc.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (c *Cell) Continue() { c.proc.signal(syscall.SIGCONT) }

// Close ends what runs.
func (c *Cell) Close() {
	if c.proc != nil {
		c.proc.signal(syscall.SIGKILL)
		<-c.proc.done
	}
	_ = c.log.Close()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
