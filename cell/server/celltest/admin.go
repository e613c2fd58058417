package celltest

import (
	"crypto/tls"
	"os"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/wire"
)

const clientCAFile = "client-ca.crt"

// WithClientCA has the cell ask for client certificates of ca, of which those of admins make admin calls.
func WithClientCA(ca *pki.CA, mode policy.CertificateMode, admins ...policy.Admin) Option {
	return func(s *setup) {
		s.clientCA = ca
		s.policy.Access = policy.Access{ClientCertificates: mode, Admins: admins}
	}
}

// WriteClientCAs writes the bundle of client CAs, which the cell reads at the next Reload.
func (c *Cell) WriteClientCAs(t testing.TB, cas ...*pki.CA) {
	t.Helper()
	var b []byte
	for _, ca := range cas {
		b = append(b, ca.CertPEM()...)
	}
	must(t, os.WriteFile(c.path(clientCAFile), b, 0o600))
}

// AdminToken mints a token of the cell, usable from now on for life.
func (c *Cell) AdminToken(t testing.TB, role admintoken.Role, name string, now time.Time, life time.Duration) []byte {
	t.Helper()
	keys, err := cellkeys.Load(c.path("keys.yaml"))
	must(t, err)
	tokens, err := admintoken.New(keys.Tokens)
	must(t, err)
	token, err := tokens.Mint(role, name, now, life)
	must(t, err)
	return token
}

// Admin opens a connection of an admin.
func (c *Cell) Admin(t testing.TB, role admintoken.Role) *Conn {
	t.Helper()
	conn := c.Dial(t)
	Must[*wire.AdminSession](conn, &wire.AdminAuthenticateRequest{Token: c.AdminToken(t, role, "test", time.Now(), time.Hour)})
	return conn
}

// DialAs opens a connection with a client certificate, or says why the cell closed it: its verdict comes after the client's.
func (c *Cell) DialAs(t testing.TB, cert *tls.Certificate) (*Conn, error) {
	t.Helper()
	config := c.tls()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	q, err := c.dial(t, config)
	if err != nil {
		return nil, err
	}
	return newConn(t, q), nil
}
