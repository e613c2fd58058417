package conn

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// authority is a CA made for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func makeAuthority(t *testing.T) *authority {
	t.Helper()
	key := makeKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return &authority{makeCert(t, template, template, key.Public(), key), key}
}

func makeKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func makeCert(t *testing.T, template, parent *x509.Certificate, public any, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a server's chain: leaf, then CA.
func (a *authority) issue(t *testing.T, ip string, notAfter time.Time) tls.Certificate {
	t.Helper()
	key := makeKey(t)
	leaf := makeCert(t, &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.ParseIP(ip)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key}
}

func (a *authority) trust(t *testing.T) Trust {
	t.Helper()
	trust, err := TrustCA(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func (a *authority) pin(t *testing.T) Trust {
	t.Helper()
	sum := sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
	trust, err := TrustPin(hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// fakeCell answers hello, and hands everything else to handle.
type fakeCell struct {
	endpoint string
	handle   func(*peer, wire.Envelope)
	hello    wire.Body // Nil: the usual answer.
}

// peer is one connection as the fake cell sees it.
type peer struct {
	t       *testing.T
	quic    *quic.Conn
	control *quic.Stream
}

func (f *fakeCell) start(t *testing.T, conf *tls.Config) *fakeCell {
	t.Helper()
	l, err := quic.ListenAddr("127.0.0.1:0", conf, &quic.Config{MaxIncomingUniStreams: 4})
	if err != nil {
		t.Fatal(err)
	}
	f.endpoint = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			q, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go f.serve(t, q)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return f
}

func (f *fakeCell) serve(t *testing.T, q *quic.Conn) {
	control, err := q.AcceptStream(context.Background())
	if err != nil {
		return
	}
	p := &peer{t, q, control}
	go func() {
		for {
			s, err := q.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			if b, err := frame.Read(s, wire.MaxFrame); err == nil {
				f.take(p, b)
			}
		}
	}()
	r := bufio.NewReader(control)
	for {
		b, err := frame.Read(r, frame.ControlLimit)
		if err != nil {
			return
		}
		f.take(p, b)
	}
}

func (f *fakeCell) take(p *peer, b []byte) {
	env, err := wire.Unmarshal(b)
	if err != nil {
		p.t.Errorf("the client sent: %v", err)
		return
	}
	switch _, isHello := env.Body.(*wire.HelloRequest); {
	case isHello && f.hello != nil:
		p.answer(env.CorrelationID, f.hello)
	case isHello:
		p.answer(env.CorrelationID, &wire.HelloResponse{Server: "fake", Version: schema.Version, CellID: ids.New()})
	case f.handle != nil:
		f.handle(p, env)
	}
}

func (p *peer) answer(id uint64, body wire.Body) {
	p.write(p.marshal(id, body))
}

func (p *peer) marshal(id uint64, body wire.Body) []byte {
	b, err := wire.Marshal(wire.Envelope{CorrelationID: id, Body: body})
	if err != nil {
		p.t.Error(err)
	}
	return b
}

func (p *peer) write(b []byte) { p.control.Write(b) } //nolint:errcheck // the client sees what is missing.

// alone sends bytes on a stream of their own.
func (p *peer) alone(b []byte) {
	s, err := p.quic.OpenUniStreamSync(context.Background())
	if err != nil {
		return
	}
	s.Write(b) //nolint:errcheck // as above.
	s.Close()  //nolint:errcheck // as above.
}

func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}
}

// makeCell starts a fake cell and returns a connection to it.
func makeCell(t *testing.T, handle func(*peer, wire.Envelope)) *Conn {
	t.Helper()
	ca := makeAuthority(t)
	f := (&fakeCell{handle: handle}).start(t, serverTLS(ca.issue(t, "127.0.0.1", time.Now().Add(time.Hour))))
	c, err := Dial(t.Context(), Options{Endpoint: f.endpoint, Trust: ca.trust(t), Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func parse(der []byte) (*x509.Certificate, error) { return x509.ParseCertificate(der) }
