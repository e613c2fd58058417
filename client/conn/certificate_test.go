package conn

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// client issues a client certificate.
func (a *authority) client(t *testing.T, notAfter time.Time) *tls.Certificate {
	t.Helper()
	key := makeKey(t)
	leaf := makeCert(t, &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a.cert, key.Public(), a.key)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	a, foreign := makeAuthority(t), makeAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for name, x := range map[string]struct {
		mode tls.ClientAuthType
		cert *tls.Certificate
		want string // "" is taken.
	}{
		"not asked for, none":    {tls.NoClientCert, nil, ""},
		"not asked for, one":     {tls.NoClientCert, foreign.client(t, time.Now().Add(time.Hour)), ""},
		"optional, none":         {tls.VerifyClientCertIfGiven, nil, ""},
		"optional, ours":         {tls.VerifyClientCertIfGiven, a.client(t, time.Now().Add(time.Hour)), ""},
		"optional, another CA's": {tls.VerifyClientCertIfGiven, foreign.client(t, time.Now().Add(time.Hour)), "does not take this client certificate"},
		"required, ours":         {tls.RequireAndVerifyClientCert, a.client(t, time.Now().Add(time.Hour)), ""},
		"required, none":         {tls.RequireAndVerifyClientCert, nil, "takes no clients without a certificate"},
		"required, another CA's": {tls.RequireAndVerifyClientCert, foreign.client(t, time.Now().Add(time.Hour)), "does not take this client certificate"},
		"required, expired":      {tls.RequireAndVerifyClientCert, a.client(t, time.Now().Add(-time.Hour)), "does not take this client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := serverTLS(a.issue(t, "127.0.0.1", time.Now().Add(time.Hour)))
			config.ClientAuth, config.ClientCAs = x.mode, pool
			f := (&fakeCell{}).start(t, config)
			c, err := Dial(t.Context(), Options{Endpoint: f.endpoint, Trust: a.trust(t), Certificate: x.cert})
			if c != nil {
				c.Close()
			}
			var refused *CertificateError
			switch {
			case x.want == "" && err != nil:
				t.Error(err)
			case x.want != "" && (!errors.As(err, &refused) || refused.Shown != (x.cert != nil) || !strings.Contains(err.Error(), x.want)):
				t.Errorf("got %v, want %q", err, x.want)
			case err != nil && (Transient(err) || !strings.Contains(err.Error(), f.endpoint)):
				t.Errorf("%v, transient %v", err, Transient(err))
			}
		})
	}
}

func TestLoadCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	save := func(name string, c *tls.Certificate) (cert, key string) {
		t.Helper()
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		return write(name+".crt", "CERTIFICATE", c.Certificate[0]), write(name+".key", "PRIVATE KEY", der)
	}
	a := makeAuthority(t)
	cert, key := save("good", a.client(t, time.Now().Add(time.Hour)))
	otherCert, _ := save("other", a.client(t, time.Now().Add(time.Hour)))
	oldCert, oldKey := save("old", a.client(t, time.Now().Add(-time.Hour)))
	if c, err := LoadCertificate(cert, key); err != nil || len(c.Certificate) != 1 {
		t.Errorf("%v, %v", c, err)
	}
	for name, x := range map[string]struct{ cert, key, want string }{
		"no certificate": {filepath.Join(dir, "none"), key, "none: no such file"}, "no key": {cert, filepath.Join(dir, "none"), "none: no such file"},
		"another's key": {otherCert, key, "belong together"}, "the wrong way round": {key, cert, "belong together"}, "expired": {oldCert, oldKey, "is valid from"},
	} {
		if _, err := LoadCertificate(x.cert, x.key); !errors.Is(err, ErrInvalidCertificate) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
