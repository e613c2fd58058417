// Package jetstream is NATS JetStream under test: one server, a file store, TLS 1.3.
package jetstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"quicproquo.dev/internal/pki"
	"quicproquo.dev/test/load/peer"
)

// Options say what to run.
type Options struct {
	Name    string
	Program string // nats-server.
	Dir     string // For its data; there must be nothing in it.
	CA      *pki.CA
	// Always has every message synced before it is acknowledged. Otherwise, by default, the server syncs every two
	// minutes and acknowledges before.
	Always bool
}

// System is a running server.
type System struct {
	name   string
	server *peer.Server
	url    string
	tls    *tls.Config
	store  string
}

const config = `listen: "%s"
server_name: %s
jetstream {
  store_dir: "%s"
  %s
}
tls {
  cert_file: "%s"
  key_file: "%s"
  min_version: "1.3"
}
`

// Start starts a server.
func Start(ctx context.Context, o Options) (*System, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	cert, key, err := o.CA.IssueServer([]string{"127.0.0.1"}, time.Now(), 24*time.Hour)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	sync := ""
	if o.Always {
		sync = "sync_interval: always"
	}
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key,
		"nats.conf": fmt.Appendf(nil, config, address, o.Name, in("store"), sync, in("tls.crt"), in("tls.key"))} {
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	server, err := peer.StartServer(ctx, in("log"), func(line []byte) bool { return bytes.Contains(line, []byte("Server is ready")) },
		o.Program, "-c", in("nats.conf"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(o.CA.Certificate())
	return &System{name: o.Name, server: server, url: "tls://" + address, store: in("store"),
		tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1"}}, nil
}

func freeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Name implements peer.System.
func (s *System) Name() string { return s.name }

// Processes implements peer.System.
func (s *System) Processes() []int { return []int{s.server.PID()} }

// Counters implements peer.System. The server does not count its syncs; its files hold messages and their index
// together.
func (s *System) Counters(context.Context) (peer.Counters, error) {
	c := peer.Counters{Syncs: -1, WALBytes: -1}
	err := filepath.WalkDir(s.store, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err == nil {
			c.Stored += float64(info.Size())
		}
		return ignoreGone(err)
	})
	return c, err
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// Close implements peer.System.
func (s *System) Close() error { return s.server.Stop() }
