package conn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/quic-go/quic-go"
)

// ErrInvalidCertificate says that a client certificate's files cannot be used.
var ErrInvalidCertificate = errors.New("the client certificate cannot be used")

// LoadCertificate reads a client certificate's PEM chain, leaf first, and its private key.
func LoadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	chain, err := os.ReadFile(certFile) //nolint:gosec // the file that the user names.
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidCertificate, err)
	}
	key, err := os.ReadFile(keyFile) //nolint:gosec // the file that the user names.
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidCertificate, err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil { // Its text may say more of the key than it should.
		return nil, fmt.Errorf("%w: %s and %s are no PEM certificate and private key that belong together", ErrInvalidCertificate, certFile, keyFile)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		return nil, fmt.Errorf("%w: the one in %s is valid from %s to %s", ErrInvalidCertificate, certFile,
			pair.Leaf.NotBefore.Format(time.RFC3339), pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &pair, nil
}

// CertificateError says that a cell asks for a client certificate, or does not take the one that was shown.
type CertificateError struct {
	Endpoint string
	Shown    bool // A certificate was.
	Cause    error
}

// Error implements error.
func (e *CertificateError) Error() string {
	if !e.Shown {
		return fmt.Sprintf("the cell at %s takes no clients without a certificate: get one from whoever runs it, and name its files", e.Endpoint)
	}
	return fmt.Sprintf("the cell at %s does not take this client certificate: it has to be one for clients (extended key usage clientAuth), valid now, of a CA that the cell trusts (%v)", e.Endpoint, e.Cause)
}

// Unwrap returns the cause.
func (e *CertificateError) Unwrap() error { return e.Cause }

// TLS alerts (RFC 8446 §6.2) by which a cell refuses a client's certificate, or the lack of one.
const (
	alertBadCertificate      = 42 // The first of those about what is wrong with one;
	alertCertificateUnknown  = 46 // the last.
	alertUnknownCA           = 48
	alertCertificateRequired = 116

	cryptoErrors = 0x100 // In QUIC an alert is this much more (RFC 9001 §4.8).
)

// judged tells of a refused certificate, or lack of one; nil for any other error. The cell's verdict comes after this side's
// handshake is done, with the first thing that is asked.
func (p remote) judged(err error) error {
	var transport *quic.TransportError
	if !errors.As(err, &transport) || !transport.Remote || !transport.ErrorCode.IsCryptoError() {
		return nil
	}
	switch alert := transport.ErrorCode - cryptoErrors; {
	case alert == alertCertificateRequired, p.shown && (alert >= alertBadCertificate && alert <= alertCertificateUnknown || alert == alertUnknownCA):
		return &CertificateError{p.endpoint, p.shown, err}
	}
	return nil
}
