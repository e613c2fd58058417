// Package admin is the verbs of kubectl-qpq that ask something of a cell that runs, as one of its admins.
package admin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/internal/admintoken"
)

// flags say which cell is meant, and as whom.
type flags struct {
	cell, namespace, kubeconfig, context string
	connection                           string
	endpoint, ca, pin                    string
	clientCert, clientKey                string
	auditor                              bool
}

func (f *flags) add(to *pflag.FlagSet) {
	to.StringVar(&f.cell, "cell", "", "`NAME` of a MessagingCell in the cluster (default: the only one there is)")
	to.StringVarP(&f.namespace, "namespace", "n", "", "the cell's namespace, `NAME` (default: the one of your kubeconfig)")
	to.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` (default: as kubectl)")
	to.StringVar(&f.context, "context", "", "context of the kubeconfig, `NAME`")
	to.StringVar(&f.connection, "connection", "", "a cell of kubectl-qpq dev instead, by its connection.json `FILE`")
	to.StringVar(&f.endpoint, "endpoint", "", "reach the cell at `HOST:PORT`, whatever its status says")
	to.StringVar(&f.ca, "ca", "", "know the cell by its CA's certificate in this PEM `FILE`")
	to.StringVar(&f.pin, "pin", "", "know the cell by its CA's pin, `HEX`")
	to.StringVar(&f.clientCert, "client-cert", "", "be the admin of this client certificate, in this PEM `FILE`, instead of a token's")
	to.StringVar(&f.clientKey, "client-key", "", "the client certificate's private key, in this PEM `FILE`")
	to.BoolVar(&f.auditor, "auditor", false, "use the token that may only look")
}

// target is a cell and a credential for it.
type target struct {
	endpoint    string
	trust       conn.Trust
	token       []byte // Nil: the certificate.
	certificate *tls.Certificate
	where       string // The token came from, for errors.
}

var errFlags = errors.New("the flags do not go together")

// check finds contradictions before anything is asked of anybody.
func (f *flags) check() error {
	switch {
	case (f.clientCert == "") != (f.clientKey == ""):
		return fmt.Errorf("%w: a client certificate is two files, --client-cert FILE and --client-key FILE", errFlags)
	case f.ca != "" && f.pin != "":
		return fmt.Errorf("%w: know the cell by --ca or by --pin", errFlags)
	case f.connection != "" && (f.cell != "" || f.namespace != "" || f.kubeconfig != "" || f.context != ""):
		return fmt.Errorf("%w: --connection is for a cell without a cluster", errFlags)
	case f.clientCert != "" && f.auditor:
		return fmt.Errorf("%w: what a client certificate may, the cell's policy says; --auditor chooses between tokens", errFlags)
	}
	return nil
}

// bare reports whether nothing but the flags is needed: address, trust and certificate.
func (f *flags) bare() bool {
	return f.connection == "" && f.cell == "" && f.endpoint != "" && f.clientCert != "" && (f.ca != "" || f.pin != "")
}

// resolve finds the cell and the credential.
func (f *flags) resolve(ctx context.Context) (*target, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	t := &target{}
	var known place
	var err error
	switch {
	case f.bare():
	case f.connection != "":
		known, err = f.fromConnection()
	default:
		known, err = f.fromCluster(ctx)
	}
	if err != nil {
		return nil, err
	}
	if t.endpoint = f.endpoint; t.endpoint == "" {
		t.endpoint = known.endpoint
	}
	if t.trust, err = f.trustIn(known); err != nil {
		return nil, err
	}
	if f.clientCert != "" {
		t.certificate, err = conn.LoadCertificate(f.clientCert, f.clientKey)
		return t, err
	}
	t.where = known.where
	t.token, err = admintoken.Parse(known.token)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", known.where, err)
	}
	return t, nil
}

// place is what is known of a cell from elsewhere than the flags.
type place struct {
	endpoint, pin string
	ca            []byte
	token, where  string
}

func (f *flags) trustIn(known place) (conn.Trust, error) {
	switch {
	case f.ca != "":
		b, err := os.ReadFile(f.ca)
		if err != nil {
			return conn.Trust{}, fmt.Errorf("--ca: %w", err)
		}
		return conn.TrustCA(b)
	case f.pin != "":
		return conn.TrustPin(f.pin)
	case known.pin != "":
		return conn.TrustPin(known.pin)
	case len(known.ca) > 0:
		return conn.TrustCA(known.ca)
	}
	return conn.Trust{}, errors.New("nothing says how to know the cell: give its CA's certificate with --ca FILE, or its pin with --pin HEX")
}

// fromConnection reads what kubectl-qpq dev has written.
func (f *flags) fromConnection() (place, error) {
	b, err := os.ReadFile(f.connection)
	if errors.Is(err, os.ErrNotExist) {
		return place{}, fmt.Errorf("there is no %s: it is there while kubectl-qpq dev serves the cell", f.connection)
	}
	if err != nil {
		return place{}, err
	}
	var c struct{ Endpoint, Pin, AdminTokenFile string }
	if err := json.Unmarshal(b, &c); err != nil || c.Endpoint == "" || c.Pin == "" {
		return place{}, fmt.Errorf("%s is not a connection.json of kubectl-qpq dev", f.connection)
	}
	p := place{endpoint: c.Endpoint, pin: c.Pin, where: c.AdminTokenFile}
	if f.clientCert != "" {
		return p, nil
	}
	switch {
	case c.AdminTokenFile == "":
		return p, fmt.Errorf("%s names no adminTokenFile: the cell is served by an older release", f.connection)
	case f.auditor:
		p.where = filepath.Join(filepath.Dir(p.where), "auditor-token")
	}
	token, err := os.ReadFile(p.where)
	if err != nil {
		return p, fmt.Errorf("reading the admin token: %w", err)
	}
	p.token = string(token)
	return p, nil
}
