package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxChain bounds the certificates that VerifyPinned looks at: a leaf, a CA,
// and during a rotation the cross-signed CA.
const maxChain = 8

// ErrPinMismatch tells that no CA of the server's chain has the expected pin:
// it is another cell, an impostor, or a cell whose CA has been replaced.
var ErrPinMismatch = errors.New("the server's certificate authority does not have the expected pin")

// PinOf returns the pin of a certificate's key.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// ParsePin reads a pin. Upper-case digits are accepted too. The error says
// what is wrong with the text.
func ParsePin(s string) (pin [32]byte, err error) {
	const digits = 2 * len(pin)
	if i := strings.IndexFunc(s, notHex); i >= 0 {
		return pin, fmt.Errorf("the pin has the character %q at position %d, but consists of %d hexadecimal digits", s[i:i+1], i+1, digits)
	}
	if len(s) != digits {
		return pin, fmt.Errorf("the pin has %d digits instead of %d: give the whole SHA-256 of the CA's public key", len(s), digits)
	}
	_, err = hex.Decode(pin[:], []byte(s))
	return pin, err
}

func notHex(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F')
}

// VerifyPinned accepts a server's certificate chain, leaf first, if a CA in it
// has the pin, the leaf is valid at now up to that CA, and it is for host, a
// DNS name or an IP address. Nothing else is trusted, the system's roots
// neither.
//
// Errors: ErrPinMismatch; else those of x509.Certificate.Verify, wrapped.
//
// With crypto/tls, call it from VerifyConnection, which runs for resumed
// connections too, with InsecureSkipVerify set.
func VerifyPinned(rawCerts [][]byte, pin [32]byte, host string, now time.Time) error {
	if host == "" {
		return errors.New("verifying the server: no host name was given") // x509 would skip the check
	}
	chain, err := parseChain(rawCerts)
	if err != nil {
		return err
	}
	roots, others, found := split(chain[1:], pin)
	if !found {
		return fmt.Errorf("%w %x; it presented %s", ErrPinMismatch, pin, presented(chain))
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: others,
		DNSName:       host,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("verifying the server against the pinned CA: %w", err)
	}
	return nil
}

func parseChain(rawCerts [][]byte) ([]*x509.Certificate, error) {
	if len(rawCerts) == 0 {
		return nil, errors.New("verifying the server: it presented no certificate")
	}
	if len(rawCerts) > maxChain {
		return nil, fmt.Errorf("verifying the server: it presented %d certificates, at most %d are read", len(rawCerts), maxChain)
	}
	chain := make([]*x509.Certificate, len(rawCerts))
	for i, raw := range rawCerts {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("verifying the server: certificate %d cannot be read: %w", i, err)
		}
		chain[i] = cert
	}
	return chain, nil
}

// split makes the pinned CA the only root. Two of its certificates, such as
// the self-signed one and a cross-signed one, are both roots.
func split(cas []*x509.Certificate, pin [32]byte) (roots, others *x509.CertPool, found bool) {
	roots, others = x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range cas {
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		if cert.IsCA && bytes.Equal(sum[:], pin[:]) {
			roots.AddCert(cert)
			found = true
			continue
		}
		others.AddCert(cert)
	}
	return roots, others, found
}

func presented(chain []*x509.Certificate) string {
	var pins []string
	for _, cert := range chain[1:] {
		if cert.IsCA {
			pins = append(pins, PinOf(cert))
		}
	}
	if len(pins) == 0 {
		return "no CA certificate"
	}
	return strings.Join(pins, ", ")
}
