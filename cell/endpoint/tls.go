// Package endpoint is where a cell meets the network: the QUIC endpoint with its TLS policy on UDP, and the HTTP ops
// port with liveness, readiness and metrics.
package endpoint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
)

// ALPN is the protocol that clients must ask for.
const ALPN = "qpq/1"

// Suites returns the TLS 1.3 cipher suites that are taken. Go offers a fixed list, so the choice is enforced when a
// handshake is verified.
func Suites() []uint16 {
	return []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
}

// Certificate is the cell's certificate with the CA's appended, so that clients can pin the CA; it is read anew by
// Reload.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a PEM chain and its key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	return c, c.Reload()
}

// Reload reads the files again; on an error the certificate before stays in use.
func (c *Certificate) Reload() error {
	chain, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the certificate's key: %w", err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return errors.New("the certificate and its key are no PEM pair that belongs together")
	}
	c.current.Store(&cert)
	return nil
}

// TLSConfig is TLS 1.3 only, hybrid key exchange preferred, ALPN required, client certificates as clients says.
func TLSConfig(c *Certificate, clients Clients) *tls.Config { return tlsConfig(c, clients, Suites()) }

func tlsConfig(c *Certificate, clients Clients, suites []uint16) *tls.Config {
	base := &tls.Config{
		MinVersion:       tls.VersionTLS13,
		NextProtos:       []string{ALPN},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		VerifyConnection: func(s tls.ConnectionState) error { return verifyConnection(s, suites) },
	}
	base.GetConfigForClient = (&asking{Clients: clients, base: base}).configFor
	return base
}

func verifyConnection(s tls.ConnectionState, suites []uint16) error {
	switch {
	case s.Version != tls.VersionTLS13:
		return fmt.Errorf("TLS version %s is not taken, only TLS 1.3", tls.VersionName(s.Version))
	case !slices.Contains(suites, s.CipherSuite):
		return fmt.Errorf("cipher suite %s is not taken", tls.CipherSuiteName(s.CipherSuite))
	case s.NegotiatedProtocol != ALPN:
		return fmt.Errorf("ALPN %q is not taken, only %q", s.NegotiatedProtocol, ALPN)
	}
	return nil
}
