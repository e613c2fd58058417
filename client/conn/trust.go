package conn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/internal/pki"
)

var (
	// ErrWrongCA says that the cell's certificate was not issued by the expected CA.
	ErrWrongCA = errors.New("the cell's certificate does not come from the given CA")
	// ErrWrongPin says that no CA in the cell's chain has the pinned key.
	ErrWrongPin = errors.New("the cell's CA does not have the pinned key")
	// ErrWrongHost says that the certificate is the CA's, but for another host, or outside its lifetime.
	ErrWrongHost = errors.New("the cell's certificate does not hold for this address")
	// ErrNoTrust says that there is neither a CA nor a pin to know the cell by.
	ErrNoTrust = errors.New("there is nothing to know the cell by: give its CA file or its pin")
	// ErrInvalidCA says that a CA file holds no certificate.
	ErrInvalidCA = errors.New("the CA file holds no PEM certificate")
	// ErrInvalidPin says that a pin is not 64 hex digits.
	ErrInvalidPin = errors.New("a pin is 64 hex digits: the SHA-256 of the CA's public key")
	// ErrTLS says that the cell negotiated something this client does not take.
	ErrTLS = errors.New("the cell's TLS is not acceptable")
)

// Trust is how a client knows its cell: by the CA's certificates or by the pin of the CA's key.
type Trust struct {
	pool *x509.CertPool
	pin  *[32]byte
}

// TrustCA trusts what the certificates in pem issue.
func TrustCA(pem []byte) (Trust, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return Trust{}, ErrInvalidCA
	}
	return Trust{pool: pool}, nil
}

// TrustPin trusts what the CA issues whose SubjectPublicKeyInfo has this SHA-256, in hex. The cell presents that CA
// in its chain.
func TrustPin(pin string) (Trust, error) {
	b, err := pki.ParsePin(pin)
	if err != nil {
		return Trust{}, fmt.Errorf("%w: %w", ErrInvalidPin, err)
	}
	return Trust{pin: &b}, nil
}

func (t Trust) empty() bool { return t == Trust{} }

// verify judges a presented chain, leaf first.
func (t Trust) verify(chain []*x509.Certificate, host string) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it presented no certificate", ErrTLS)
	}
	if t.pin != nil {
		return explain(pki.VerifyPinned(raw(chain), *t.pin, host, time.Now()), ErrWrongPin,
			"check --pin against the cell's own; a cell that was set up anew has a new one")
	}
	return explain(verifyCA(chain, t.pool, host), ErrWrongCA, "check that --ca is this cell's own")
}

// verifyCA looks at the host last: a stranger's certificate is a stranger's, whatever host it is for.
func verifyCA(chain []*x509.Certificate, roots *x509.CertPool, host string) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return err
	}
	return chain[0].VerifyHostname(host)
}

// explain tells a chain from elsewhere from one that only does not hold here and now.
func explain(err, untrusted error, advice string) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pki.ErrPinMismatch), errors.As(err, &unknown):
		return fmt.Errorf("%w: %s (%w)", untrusted, advice, err)
	}
	return fmt.Errorf("%w: use a name or address that it holds, and check the clock (%w)", ErrWrongHost, err)
}

func raw(chain []*x509.Certificate) [][]byte {
	list := make([][]byte, len(chain))
	for i, c := range chain {
		list[i] = c.Raw
	}
	return list
}

// suites are the cipher suites taken. crypto/tls does not let TLS 1.3 suites be configured, so they are checked.
var suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// tlsConfig verifies in VerifyConnection alone, which runs for resumed connections too.
func (t Trust) tlsConfig(host string, verdict *error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{ALPN},
		ServerName:         host,
		CurvePreferences:   []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of it, and pins.
		VerifyConnection: func(s tls.ConnectionState) error {
			*verdict = t.judge(s, host)
			return *verdict
		},
	}
}

func (t Trust) judge(s tls.ConnectionState, host string) error {
	switch {
	case s.Version != tls.VersionTLS13:
		return fmt.Errorf("%w: %s, it must be TLS 1.3", ErrTLS, tls.VersionName(s.Version))
	case s.NegotiatedProtocol != ALPN:
		return fmt.Errorf("%w: it does not speak %s", ErrTLS, ALPN)
	case !slices.Contains(suites, s.CipherSuite):
		return fmt.Errorf("%w: cipher suite %s", ErrTLS, tls.CipherSuiteName(s.CipherSuite))
	}
	return t.verify(s.PeerCertificates, host)
}
