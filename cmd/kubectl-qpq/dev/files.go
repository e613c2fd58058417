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
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/filelock"
	"quicproquo.dev/internal/pki"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	certLifetime = 365 * 24 * time.Hour // Issued anew at every start.
	drainTimeout = "2s"
)

// files are the paths of what the server reads and of what is told.
type files struct{ config, connection, ca, pin string }

// What a folder holds besides the files that prepare writes.
const (
	databaseDir    = "postgres"
	keysFile       = "keys.yaml"
	connectionFile = "connection.json"
	lockFile       = "lock"
	clientCAFile   = "client-ca.crt" // Of the user's own.
)

// lock takes a folder for this process, until the returned function is called or the process ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("%s serves a cell already; stop that, or choose another folder with --dir", dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { filelock.Release(f) }, nil
}

// prepareSecrets removes what a process that was killed had told, and finds the CA and the cell's keys, or makes
// them. To make new keys for old data would lock everybody out.
func prepareSecrets(dir, name string) (*pki.CA, error) {
	for _, name := range []string{connectionFile, adminTokenFile, auditorTokenFile} {
		if err := forget(filepath.Join(dir, name)); err != nil {
			return nil, err // A stale one would say that the cell is ready.
		}
	}
	ca, err := authority(dir, name)
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(dir, keysFile)
	if exists(filepath.Join(dir, databaseDir)) && !exists(keys) {
		return nil, fmt.Errorf("%s is missing, without which the data in %s cannot be used: bring it back, or begin anew in an empty folder", keys, dir)
	}
	return ca, generateKeys(keys)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// forget removes a file that may not be there.
func forget(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// prepare writes everything else the server reads into o.Dir.
func prepare(o Options, cell *v1alpha1.MessagingCell, ca *pki.CA, databaseURI string) (files, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	f := files{config: in("cell.yaml"), connection: in(connectionFile), ca: in(pki.CertFile), pin: ca.Pin()}
	cert, key, err := ca.IssueServer(hosts(o, cell), time.Now(), certLifetime)
	if err != nil {
		return f, fmt.Errorf("issuing the certificate: %w", err)
	}
	policy, err := resources.PolicyFile(cell)
	if err != nil {
		return f, err
	}
	config, err := yaml.Marshal(server.Config{Version: server.Version, Listen: listenAddress(o, cell), OpsListen: "127.0.0.1:0",
		DatabaseURIFile: in("database-uri"), KeysFile: in(keysFile), PolicyFile: in("policy.yaml"),
		CertFile: in("tls.crt"), KeyFile: in("tls.key"), ClientCAFile: in(clientCAFile), DrainTimeout: drainTimeout})
	if err != nil {
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
	if host, _, err := net.SplitHostPort(o.Listen); err == nil && host != "" && !net.ParseIP(host).IsUnspecified() {
		list = append(list, host)
	}
	return list
}

// reachable is an address that clients on this machine can connect to, by a name that the certificate has.
func reachable(listening net.Addr) string {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil || !net.ParseIP(host).IsUnspecified() {
		return listening.String()
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// connection is what DIR/connection.json says, once the cell is ready.
type connection struct {
	Endpoint string `json:"endpoint"` // HOST:PORT for qpq --cell.
	CAFile   string `json:"caFile"`   // For qpq --ca.
	Pin      string `json:"pin"`      // For qpq --pin: hex SHA-256 of the CA's SPKI.
	OpsURL   string `json:"opsURL"`   // With /livez, /readyz, /metrics.
	// AdminTokenFile holds an admin's credential, renewed while the cell runs.
	AdminTokenFile string `json:"adminTokenFile"`
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
     kubectl-qpq account alice --connection %s
`, c.Endpoint, c.CAFile, c.Pin, c.OpsURL, dir, c.Endpoint, c.CAFile, filepath.Join(dir, connectionFile))
}
