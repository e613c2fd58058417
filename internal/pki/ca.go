// Package pki is a cell's own certificate authority and the pin by which
// clients recognize it.
//
// A pin is the SHA-256 of the CA's SubjectPublicKeyInfo (RFC 5280 §4.1.2.7),
// the same quantity that RFC 7469 §2.4 pins, written in lower-case hex. It
// names a key, not a certificate: a CA certificate may be renewed, or
// cross-signed by another CA, and keep its pin.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"
)

// backdate lets certificates begin a little before they are made, for peers
// whose clock is late.
const backdate = 5 * time.Minute

// CA is a certificate authority with an ECDSA P-256 key. It is immutable and
// may be used from any goroutine.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a key and a self-signed CA certificate that is valid until
// now+lifetime.
func NewCA(commonName string, now time.Time, lifetime time.Duration) (*CA, error) {
	if commonName == "" {
		return nil, errors.New("a CA needs a common name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a CA key: %w", err)
	}
	template, err := newTemplate(commonName, now, lifetime)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	cert, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key}, nil
}

// Certificate is the CA's own certificate. The caller must not change it.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Pin is the CA's pin.
func (ca *CA) Pin() string { return PinOf(ca.cert) }

// IssueServer makes a key and a TLS server certificate for the given DNS names
// and IP addresses. It is valid until now+lifetime, or as long as the CA if
// that is shorter. certPEM is the chain to present: the leaf, then the CA,
// without which a client that knows only the pin has nothing to check it
// against. keyPEM is the PKCS #8 private key.
func (ca *CA) IssueServer(hosts []string, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	template, err := serverTemplate(hosts, now, lifetime)
	if err != nil {
		return nil, nil, err
	}
	leaf, keyPEM, err := ca.issue(template, now)
	if err != nil {
		return nil, nil, err
	}
	return append(encodeCert(leaf), encodeCert(ca.cert)...), keyPEM, nil
}

// IssueClient makes a key and a TLS client certificate for whom commonName and
// uris name, either of which may be missing. It is valid until now+lifetime, or
// as long as the CA if that is shorter. certPEM is the leaf alone.
func (ca *CA) IssueClient(commonName string, uris []string, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	template, err := newTemplate(commonName, now, lifetime)
	if err != nil {
		return nil, nil, err
	}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil || uri.Scheme == "" {
			return nil, nil, fmt.Errorf("%q is not a URI (write one such as spiffe://example.org/ops)", text)
		}
		template.URIs = append(template.URIs, uri)
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	leaf, keyPEM, err := ca.issue(template, now)
	if err != nil {
		return nil, nil, err
	}
	return encodeCert(leaf), keyPEM, nil
}

// issue makes a key, and signs its certificate while the CA is valid.
func (ca *CA) issue(template *x509.Certificate, now time.Time) (leaf *x509.Certificate, keyPEM []byte, err error) {
	if now.After(ca.cert.NotAfter) {
		return nil, nil, fmt.Errorf("the CA %q expired on %s: make a new one", ca.cert.Subject.CommonName, ca.cert.NotAfter.Format(time.DateOnly))
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	if leaf, err = sign(template, ca.cert, key, ca.key); err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return leaf, keyPEM, err
}

func serverTemplate(hosts []string, now time.Time, lifetime time.Duration) (*x509.Certificate, error) {
	if len(hosts) == 0 {
		return nil, errors.New("a server certificate needs at least one DNS name or IP address")
	}
	template, err := newTemplate("quicproquo cell", now, lifetime)
	if err != nil {
		return nil, err
	}
	for _, host := range hosts {
		ip := net.ParseIP(host)
		switch {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case isDNSName(host):
			template.DNSNames = append(template.DNSNames, host)
		default:
			return nil, fmt.Errorf("%q is neither a DNS name nor an IP address (write it without scheme, port or brackets)", host)
		}
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return template, nil
}

func newTemplate(commonName string, now time.Time, lifetime time.Duration) (*x509.Certificate, error) {
	if lifetime <= 0 {
		return nil, fmt.Errorf("a certificate's lifetime must be positive, not %v", lifetime)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // RFC 5280 §4.1.2.2: positive
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(lifetime),
	}, nil
}

func sign(template, parent *x509.Certificate, subject, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &subject.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// isDNSName accepts RFC 1123 host names, with an optional wildcard label.
func isDNSName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return strings.IndexFunc(label, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}
