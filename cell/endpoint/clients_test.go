package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/pki"
)

// asker is a cell that asks for client certificates, whose mode and CAs a test changes.
type asker struct {
	*cell
	mode atomic.Pointer[policy.CertificateMode]
}

func makeAsker(t *testing.T, mode policy.CertificateMode, cas ...*pki.CA) *asker {
	t.Helper()
	a := &asker{}
	a.set(mode)
	a.cell = makeCell(t, tweak{clients: func(c *cell) Clients {
		a.cell = c
		a.trust(t, cas...)
		clients := Clients{func() policy.CertificateMode { return *a.mode.Load() }, NewClientCAs(c.path("client-ca.crt"))}
		must(t, clients.CAs.Reload())
		return clients
	}})
	return a
}

func (a *asker) set(mode policy.CertificateMode) { a.mode.Store(&mode) }

// trust writes the bundle.
func (a *asker) trust(t *testing.T, cas ...*pki.CA) {
	t.Helper()
	var b []byte
	for _, ca := range cas {
		b = append(b, ca.CertPEM()...)
	}
	must(t, os.WriteFile(a.path("client-ca.crt"), b, 0o600))
}

// reload is trust and has the cell read it.
func (a *asker) reload(t *testing.T, cas ...*pki.CA) {
	t.Helper()
	a.trust(t, cas...)
	must(t, a.clients.CAs.Reload())
}

// try connects with a certificate, nil for none, and returns the session's TLS state as the cell has it, or why not.
func (a *asker) try(t *testing.T, cert *tls.Certificate, cache tls.ClientSessionCache) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := a.dial(t, func(c *tls.Config) {
		c.ClientSessionCache = cache
		if cert != nil { // Certificates would keep back what the cell does not ask for.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
	})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	stream, err := conn.OpenStream()
	if err == nil {
		err = hello(stream)
	}
	if err != nil { // The cell's verdict comes after the client's.
		return tls.ConnectionState{}, ended(t, conn)
	}
	return conn.ConnectionState().TLS, nil
}

func makeCA(t *testing.T, lifetime time.Duration) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("clients", time.Now(), lifetime)
	must(t, err)
	return ca
}

// certificate is one of ca's for a client, valid until life from now; it begins two hours ago.
func certificate(t *testing.T, ca *pki.CA, life time.Duration) *tls.Certificate {
	t.Helper()
	cert, key, err := ca.IssueClient("ops", nil, time.Now().Add(-2*time.Hour), 2*time.Hour+life)
	must(t, err)
	return pair(t, cert, key)
}

func pair(t *testing.T, cert, key []byte) *tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(cert, key)
	must(t, err)
	return &c
}

// odd is a leaf of ca's that IssueClient does not make.
func odd(t *testing.T, ca *pki.CA, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	keyPEM, err := ca.KeyPEM()
	must(t, err)
	block, _ := pem.Decode(keyPEM)
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "odd"}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate(), &key.PublicKey, signer)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The whole table: what is shown, by mode.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ours, foreign, old := makeCA(t, time.Hour), makeCA(t, time.Hour), makeCA(t, time.Nanosecond)
	server := func() *tls.Certificate {
		cert, key, err := ours.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
		must(t, err)
		return pair(t, cert, key)
	}
	notOurs := certificate(t, ours, time.Hour)
	notOurs.PrivateKey = certificate(t, ours, time.Hour).PrivateKey // Stolen, without its key.
	for name, x := range map[string]struct {
		cert               *tls.Certificate
		optional, required string // Part of the error; "" is taken.
	}{
		"none":             {nil, "", "certificate required"},
		"ours":             {certificate(t, ours, time.Hour), "", ""},
		"another CA's":     {certificate(t, foreign, time.Hour), "unknown certificate authority", "unknown certificate authority"},
		"expired":          {certificate(t, ours, -time.Minute), "expired certificate", "expired certificate"},
		"not yet valid":    {odd(t, ours, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "expired certificate", "expired certificate"},
		"a server's":       {server(), "bad certificate", "bad certificate"},
		"of no stated use": {odd(t, ours, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "bad certificate", "bad certificate"},
		"for any use":      {odd(t, ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "bad certificate", "bad certificate"},
		"for code and mail": {odd(t, ours, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection}
		}), "bad certificate", "bad certificate"},
		"a CA's": {odd(t, ours, func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}), "bad certificate", "bad certificate"},
		"with another's key": {notOurs, "error decrypting message", "error decrypting message"},
		"of an ended CA":     {odd(t, old, func(*x509.Certificate) {}), "expired certificate", "expired certificate"},
	} {
		for mode, want := range map[policy.CertificateMode]string{
			policy.CertificatesNone: "", policy.CertificatesOptional: x.optional, policy.CertificatesRequired: x.required,
		} {
			t.Run(string(mode)+"/"+name, func(t *testing.T) {
				t.Parallel()
				_, err := makeAsker(t, mode, ours, old).try(t, x.cert, nil)
				if want == "" != (err == nil) || err != nil && !containsAny(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			})
		}
	}
}

func containsAny(text, alternatives string) bool {
	for part := range strings.SplitSeq(alternatives, "|") {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// A certificate that a CA of the bundle issued through another one is taken with that one, and not without it.
func TestAnIntermediateLeadsToTheBundle(t *testing.T) {
	t.Parallel()
	root := makeCA(t, time.Hour)
	a := makeAsker(t, policy.CertificatesRequired, root)
	middle := odd(t, root, func(c *x509.Certificate) { c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil })
	middlePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: middle.Certificate[0]})
	key, err := x509.MarshalPKCS8PrivateKey(middle.PrivateKey)
	must(t, err)
	ca, err := pki.ParseCA(middlePEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	must(t, err)
	leaf := certificate(t, ca, time.Hour)
	if _, err := a.try(t, leaf, nil); err == nil {
		t.Error("taken without what leads to the bundle")
	}
	leaf.Certificate = append(leaf.Certificate, middle.Certificate[0])
	if _, err := a.try(t, leaf, nil); err != nil {
		t.Error(err)
	}
}

// A change of mode or bundle holds for the next handshake, and leaves connections alone.
func TestClientCertificatesChange(t *testing.T) {
	t.Parallel()
	first, second := makeCA(t, time.Hour), makeCA(t, time.Hour)
	a := makeAsker(t, policy.CertificatesNone, first)
	old, next := certificate(t, first, time.Hour), certificate(t, second, time.Hour)
	expect := func(what string, cert *tls.Certificate, taken bool) {
		t.Helper()
		if _, err := a.try(t, cert, nil); (err == nil) != taken {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("none", nil, true)
	conn, err := a.dial(t, nil)
	must(t, err)
	stream := greet(t, conn)
	a.set(policy.CertificatesRequired)
	expect("required, without", nil, false)
	expect("required, with", old, true)
	a.reload(t, first, second)
	expect("both CAs, the old one's", old, true)
	expect("both CAs, the new one's", next, true)
	a.reload(t, second)
	expect("the new CA, the old one's", old, false)
	expect("the new CA, the new one's", next, true)
	a.set(policy.CertificatesOptional)
	expect("optional, without", nil, true)
	expect("optional, the old one's", old, false)
	for _, broken := range []string{"", "no PEM", string(first.CertPEM()) + "more"} {
		must(t, os.WriteFile(a.path("client-ca.crt"), []byte(broken), 0o600))
		if a.clients.CAs.Reload() == nil {
			t.Errorf("%.20q was taken", broken)
		}
		expect("after a broken file", next, true)
		expect("after a broken file, the old one's", old, false)
	}
	must(t, hello(stream)) // Whoever was there stays.
}

// A session ticket holds what a client proved once. It must be worth no more than the certificate is now.
func TestResumptionCarriesNoOldVerdict(t *testing.T) {
	t.Parallel()
	first, second := makeCA(t, time.Hour), makeCA(t, time.Hour)
	cert := certificate(t, first, time.Hour)
	begin := func(t *testing.T, mode policy.CertificateMode, cert *tls.Certificate) (*asker, tls.ClientSessionCache) {
		t.Helper()
		a, cache := makeAsker(t, mode, first), &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(1), put: make(chan struct{}, 64)}
		if _, err := a.try(t, cert, cache); err != nil {
			t.Fatal(err)
		}
		select {
		case <-cache.put:
		case <-time.After(patience):
			t.Fatal("no ticket came")
		}
		return a, cache
	}
	t.Run("the same CA", func(t *testing.T) {
		t.Parallel()
		for _, mode := range []policy.CertificateMode{policy.CertificatesOptional, policy.CertificatesRequired} {
			a, cache := begin(t, mode, cert)
			state, err := a.try(t, cert, cache)
			if err != nil || !state.DidResume {
				t.Errorf("%s: %v, resumed %v: the test shows nothing", mode, err, state.DidResume)
			}
		}
	})
	t.Run("the CA was removed", func(t *testing.T) {
		t.Parallel()
		for _, mode := range []policy.CertificateMode{policy.CertificatesOptional, policy.CertificatesRequired} {
			a, cache := begin(t, mode, cert)
			a.reload(t, second)
			if state, err := a.try(t, cert, cache); err == nil {
				t.Errorf("%s: taken, resumed %v", mode, state.DidResume)
			}
		}
	})
	t.Run("a certificate of a new CA goes through the whole handshake", func(t *testing.T) {
		t.Parallel()
		a, cache := begin(t, policy.CertificatesRequired, cert)
		a.reload(t, second)
		state, err := a.try(t, certificate(t, second, time.Hour), cache)
		if err != nil || state.DidResume {
			t.Errorf("%v, resumed %v", err, state.DidResume)
		}
	})
	t.Run("it became required", func(t *testing.T) {
		t.Parallel()
		a, cache := begin(t, policy.CertificatesOptional, nil)
		a.set(policy.CertificatesRequired)
		if state, err := a.try(t, nil, cache); err == nil {
			t.Errorf("taken without a certificate, resumed %v", state.DidResume)
		}
	})
	t.Run("it expired", func(t *testing.T) {
		t.Parallel()
		a, cache := begin(t, policy.CertificatesRequired, certificate(t, first, 3*time.Second))
		end := time.Now().Add(3 * time.Second)
		for {
			state, err := a.try(t, nil, cache)
			if past := time.Now().After(end.Add(time.Second)); past || err != nil {
				if err == nil {
					t.Errorf("taken after its end, resumed %v", state.DidResume)
				}
				return
			}
		}
	})
}

// tickets tells when a ticket came.
type tickets struct {
	tls.ClientSessionCache
	put chan struct{}
}

// Put implements tls.ClientSessionCache.
func (c *tickets) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, s)
	select {
	case c.put <- struct{}{}:
	default:
	}
}

func TestClientCAFiles(t *testing.T) {
	t.Parallel()
	ca := makeCA(t, time.Hour)
	leaf, leafKey, err := ca.IssueClient("ops", nil, time.Now(), time.Hour)
	must(t, err)
	for name, x := range map[string]struct{ content, want string }{
		"one":               {string(ca.CertPEM()), ""},
		"two, with blanks":  {"\n" + string(ca.CertPEM()) + "\n\n" + string(ca.CertPEM()) + " \n", ""},
		"empty":             {"", "there is no certificate"},
		"blank":             {" \n", "there is no certificate"},
		"no PEM":            {"trust everybody", "no PEM"},
		"PEM and more":      {string(ca.CertPEM()) + "and more", "no PEM"},
		"a leaf":            {string(leaf), `"CN=ops", is not a CA's`},
		"a CA and a leaf":   {string(ca.CertPEM()) + string(leaf), "certificate 2"},
		"a key":             {string(leafKey), `PEM block "PRIVATE KEY"`},
		"not a certificate": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "certificate 1 cannot be read"},
		"too many":          {strings.Repeat(string(ca.CertPEM()), pki.MaxBundle+1), "more than 64"},
	} {
		file := filepath.Join(t.TempDir(), "ca.crt")
		must(t, os.WriteFile(file, []byte(x.content), 0o600))
		err := NewClientCAs(file).Reload()
		if x.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	if err := NewClientCAs(filepath.Join(t.TempDir(), "absent")).Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestAModeTakesItsCAs(t *testing.T) {
	t.Parallel()
	absent := NewClientCAs(filepath.Join(t.TempDir(), "absent"))
	for mode, want := range map[policy.CertificateMode]string{policy.CertificatesNone: "", policy.CertificatesOptional: "absent", policy.CertificatesRequired: "absent"} {
		err := Clients{CAs: absent}.Check(mode)
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	err := NoClients().Check(policy.CertificatesRequired)
	if err == nil || !strings.Contains(err.Error(), "access.clientCertificates is required") || !strings.Contains(err.Error(), "names no clientCAFile") {
		t.Error(err)
	}
	if _, err := (&asking{Clients: Clients{func() policy.CertificateMode { return policy.CertificatesRequired }, absent}}).configFor(nil); !errors.Is(err, ErrNoClientCAs) {
		t.Errorf("a handshake that cannot be judged: %v", err)
	}
	if err := absent.Verify(nil, time.Now()); !errors.Is(err, ErrNoClientCAs) {
		t.Error(err)
	}
}

// Without client certificates, a handshake costs what it did.
func TestNoCopyForThoseWhoAskNoClient(t *testing.T) {
	a := &asking{Clients: NoClients()}
	if n := testing.AllocsPerRun(100, func() { _, _ = a.configFor(nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
