package endpoint

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/pki"
)

// ErrNoClientCAs says that client certificates are asked for, but nothing says which are right.
var ErrNoClientCAs = errors.New("there is no bundle of client CAs")

// ClientCAs are the CAs whose client certificates are taken. They are read anew by Reload, and safe for concurrent use.
type ClientCAs struct {
	file    string
	current atomic.Pointer[clientCAs]
}

// clientCAs is one reading of the file. It is never changed.
type clientCAs struct {
	pool *x509.CertPool
	hash [sha256.Size]byte
}

// NewClientCAs is for the PEM file of that name, which nothing reads before Reload; "" is none.
func NewClientCAs(file string) *ClientCAs { return &ClientCAs{file: file} }

// Reload reads the file again; on an error the CAs before stay in use. The error is ErrNoClientCAs when no file is named.
func (c *ClientCAs) Reload() error {
	if c.file == "" {
		return ErrNoClientCAs
	}
	b, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("reading the client CAs: %w", err)
	}
	if now := c.current.Load(); now != nil && now.hash == sha256.Sum256(b) {
		return nil
	}
	cas, err := pki.ParseCAs(b)
	if err != nil {
		return fmt.Errorf("the client CAs in %s: %w", c.file, err)
	}
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca)
	}
	c.current.Store(&clientCAs{pool, sha256.Sum256(b)})
	return nil
}

// Verify judges a client's chain, leaf first, by the CAs in use now.
func (c *ClientCAs) Verify(chain []*x509.Certificate, now time.Time) error {
	cas := c.current.Load()
	if cas == nil {
		return ErrNoClientCAs
	}
	return cas.verify(chain, now)
}

// verify takes a chain that leads to one of the CAs, now, from a certificate that says to be a client's. One that says
// nothing of its use may be anything's, and x509 would take it.
func (c *clientCAs) verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the client has no certificate")
	}
	leaf := chain[0]
	if leaf.IsCA || !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return errors.New("the client's certificate is not one for clients")
	}
	o := x509.VerifyOptions{Roots: c.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(o)
	return err
}

// Clients is what handshakes make of client certificates. Both parts may change between one handshake and the next.
type Clients struct {
	Mode func() policy.CertificateMode
	CAs  *ClientCAs
}

// NoClients asks no client for a certificate.
func NoClients() Clients {
	return Clients{func() policy.CertificateMode { return policy.CertificatesNone }, NewClientCAs("")}
}

// Check says why a mode cannot be begun with. It reads the CAs that the mode takes.
func (c Clients) Check(mode policy.CertificateMode) error {
	if mode == policy.CertificatesNone {
		return nil
	}
	err := c.CAs.Reload()
	if errors.Is(err, ErrNoClientCAs) {
		err = errors.New("the configuration names no clientCAFile")
	}
	if err != nil {
		return fmt.Errorf("the policy's access.clientCertificates is %s, which takes a bundle of client CAs: %w", mode, err)
	}
	return nil
}

// asking makes the TLS configuration of each handshake, from base, which asks for no client certificates.
type asking struct {
	Clients
	base *tls.Config
	last atomic.Pointer[asked]
}

// asked is a configuration and what it was made for.
type asked struct {
	mode   policy.CertificateMode
	cas    *clientCAs
	config *tls.Config
}

// configFor is a tls.Config.GetConfigForClient. A resumed session is judged by the configuration of that moment: crypto/tls
// takes no ticket whose client certificate does not lead to one of ClientCAs any more, or that lacks one which is required,
// and goes through the whole handshake instead; what it does take comes by VerifyConnection like any other.
func (a *asking) configFor(*tls.ClientHelloInfo) (*tls.Config, error) {
	mode, cas := a.Mode(), a.CAs.current.Load()
	if mode == policy.CertificatesNone {
		return nil, nil //nolint:nilnil // crypto/tls goes on with base.
	}
	if cas == nil {
		return nil, ErrNoClientCAs // Check had refused it.
	}
	if last := a.last.Load(); last != nil && last.mode == mode && last.cas == cas {
		return last.config, nil
	}
	made := &asked{mode, cas, a.make(mode, cas)}
	a.last.Store(made)
	return made.config, nil
}

func (a *asking) make(mode policy.CertificateMode, cas *clientCAs) *tls.Config {
	c := a.base.Clone()
	c.GetConfigForClient = nil
	c.ClientCAs, c.ClientAuth = cas.pool, tls.RequireAndVerifyClientCert
	if mode == policy.CertificatesOptional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if err := a.base.VerifyConnection(s); err != nil || len(s.PeerCertificates) == 0 && mode == policy.CertificatesOptional {
			return err
		}
		return cas.verify(s.PeerCertificates, time.Now())
	}
	return c
}
