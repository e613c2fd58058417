package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 365 * 24 * time.Hour // Issued anew at every start.
	drainTimeout = "2s"
)

// files are the paths of what the server reads and of what is told.
type files struct{ config, connection, ca, pin string }

// prepare writes everything the server reads into o.Dir; keys and the CA are made once and kept.
func prepare(o Options, cell *v1alpha1.MessagingCell, databaseURI string) (files, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	f := files{config: in("cell.yaml"), connection: in("connection.json"), ca: in(pki.CertFile)}
	if err := os.Remove(f.connection); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err // A stale one would say that the cell is ready.
	}
	ca, err := authority(o.Dir, cell.Name)
	if err != nil {
		return f, err
	}
	f.pin = ca.Pin()
	cert, key, err := ca.IssueServer(hosts(o, cell), time.Now(), certLifetime)
	if err != nil {
		return f, fmt.Errorf("issuing the certificate: %w", err)
	}
	policy, err := resources.PolicyFile(cell)
	if err != nil {
		return f, err
	}
	config, err := yaml.Marshal(server.Config{Version: server.Version, Listen: listenAddress(o, cell), OpsListen: "127.0.0.1:0",
		DatabaseURIFile: in("database-uri"), KeysFile: in("keys.yaml"), PolicyFile: in("policy.yaml"),
		CertFile: in("tls.crt"), KeyFile: in("tls.key"), DrainTimeout: drainTimeout})
	if err != nil {
		return f, err
	}
	if err := generateKeys(in("keys.yaml")); err != nil {
		return f, err
	}
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key, "policy.yaml": policy,
		"cell.yaml": config, "database-uri": []byte(databaseURI + "\n")} {
		if err := pki.WriteFile(in(name), content, 0o600); err != nil {
			return f, err
		}
	}
	return f, nil
}

func authority(dir, name string) (*pki.CA, error) {
	ca, err := pki.Load(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if ca, err = pki.NewCA("quicproquo cell "+name, time.Now(), caLifetime); err != nil {
		return nil, err
	}
	return ca, ca.Save(dir)
}

func generateKeys(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := cellkeys.Generate().Marshal()
	if err != nil {
		return err
	}
	return pki.WriteFile(path, b, 0o600)
}

func listenAddress(o Options, cell *v1alpha1.MessagingCell) string {
	if o.Listen != "" {
		return o.Listen
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(cell.Spec.Endpoint.Port)))
}

// hosts are the names and addresses that clients on this machine may use.
func hosts(o Options, cell *v1alpha1.MessagingCell) []string {
	list := []string{"localhost", "127.0.0.1", "::1"}
	if host := cell.Spec.Endpoint.Host; host != "" {
		list = append(list, host)
	}
	if host, _, err := net.SplitHostPort(o.Listen); err == nil && net.ParseIP(host) != nil && !net.ParseIP(host).IsUnspecified() {
		list = append(list, host)
	}
	return list
}

// connection is what DIR/connection.json says, once the cell is ready.
type connection struct {
	Endpoint string `json:"endpoint"` // HOST:PORT for qpq --cell.
	CAFile   string `json:"caFile"`   // For qpq --ca.
	Pin      string `json:"pin"`      // For qpq --pin: hex SHA-256 of the CA's SPKI.
	OpsURL   string `json:"opsURL"`   // With /livez, /readyz, /metrics.
}

func (c connection) write(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(path, append(b, '\n'), 0o600)
}

func (c connection) print(w io.Writer, dir string) {
	fmt.Fprintf(w, `the cell is ready
  endpoint  %s
  CA file   %s
  pin       %s
  ops       %s (/livez, /readyz, /metrics)
  data      %s
try: qpq --cell %s --ca %s --profile alice signup alice
`, c.Endpoint, c.CAFile, c.Pin, c.OpsURL, dir, c.Endpoint, c.CAFile)
}
