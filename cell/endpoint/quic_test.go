package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/session"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv(clientsEnv) != "" {
		os.Exit(clients())
	}
	goleak.VerifyTestMain(m)
}

const patience = 20 * time.Second // Before a test has failed.

// cell is an endpoint that serves strangers: there is nothing behind its sessions.
type cell struct {
	*QUIC
	ca      *pki.CA
	dir     string
	cert    *Certificate
	clients Clients
	metrics *telemetry.Metrics
}

// tweak changes a cell before it listens.
type tweak struct {
	suites       []uint16 // Instead of Suites.
	authPatience time.Duration
	policy       func(*policy.Limits)
	asked        *atomic.Int64 // Counts how often the certificate is asked for.
	clients      func(*cell) Clients
}

func makeCell(t testing.TB, x tweak) *cell {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now(), time.Hour)
	must(t, err)
	c := &cell{ca: ca, dir: t.TempDir(), metrics: telemetry.New()}
	c.issue(t)
	c.cert, err = LoadCertificate(c.path("tls.crt"), c.path("tls.key"))
	must(t, err)
	rules := policy.Default()
	if x.policy != nil {
		x.policy(&rules.Limits)
	}
	services := &session.Services{Cell: store.Cell{ID: ids.New()}, Policy: func() *policy.Policy { return rules }, Metrics: c.metrics,
		Limits: limits.New(func() *policy.Policy { return rules }, time.Now), Logins: session.NewLoginGate(), Log: slog.New(slog.DiscardHandler), Now: time.Now, Server: "test", AuthPatience: x.authPatience}
	c.clients = NoClients()
	if x.clients != nil {
		c.clients = x.clients(c)
	}
	config := TLSConfig(c.cert, c.clients)
	if x.suites != nil {
		config = tlsConfig(c.cert, c.clients, x.suites)
	}
	if x.asked != nil {
		get := config.GetCertificate
		config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			x.asked.Add(1)
			return get(h)
		}
	}
	c.QUIC, err = listen("127.0.0.1:0", config, Keys{Reset: quic.StatelessResetKey{1}}, services)
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- c.Serve(context.Background()) }()
	t.Cleanup(func() {
		must(t, c.Close())
		must(t, <-served)
	})
	return c
}

func (c *cell) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cell) issue(t testing.TB) {
	t.Helper()
	cert, key, err := c.ca.IssueServer([]string{"127.0.0.1"}, time.Now(), time.Hour)
	must(t, err)
	must(t, os.WriteFile(c.path("tls.crt"), cert, 0o600))
	must(t, os.WriteFile(c.path("tls.key"), key, 0o600))
}

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cell) dial(t testing.TB, change func(*tls.Config)) (*quic.Conn, error) {
	t.Helper()
	return c.dialWithin(t, patience, change)
}

func (c *cell) dialWithin(t testing.TB, patience time.Duration, change func(*tls.Config)) (*quic.Conn, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.Certificate())
	config := &tls.Config{RootCAs: roots, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}
	if change != nil {
		change(config)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, c.Addr().String(), config, nil)
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	}
	return conn, err
}

// greet says hello on a fresh control stream and waits for the answer: the handshake is complete on both sides.
func greet(t *testing.T, conn *quic.Conn) *quic.Stream {
	t.Helper()
	stream, err := conn.OpenStream()
	must(t, err)
	must(t, hello(stream))
	return stream
}

func hello(stream *quic.Stream) error {
	b, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: &wire.HelloRequest{MinVersion: 1, MaxVersion: 1}})
	if err != nil {
		return err
	}
	if _, err = stream.Write(b); err != nil {
		return err
	}
	_ = stream.SetReadDeadline(time.Now().Add(patience))
	_, err = frame.Read(stream, frame.ControlLimit)
	return err
}

// ended waits for the end of a connection and returns why.
func ended(t *testing.T, conn *quic.Conn) error {
	t.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(patience):
		t.Fatal("the connection did not end")
	}
	return context.Cause(conn.Context())
}

func TestHandshakesThatAreTaken(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	for name, x := range map[string]struct {
		change func(*tls.Config)
		curve  tls.CurveID
	}{
		"by default, hybrid":         {nil, tls.X25519MLKEM768},
		"X25519 preferred by client": {func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.X25519MLKEM768} }, tls.X25519MLKEM768},
		"X25519 alone":               {func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, tls.X25519},
		"another ALPN besides":       {func(c *tls.Config) { c.NextProtos = []string{"h3", ALPN} }, tls.X25519MLKEM768},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := c.dial(t, x.change)
			must(t, err)
			greet(t, conn)
			state := conn.ConnectionState().TLS
			if state.CurveID != x.curve || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != ALPN {
				t.Errorf("%s, version %x, ALPN %q", state.CurveID, state.Version, state.NegotiatedProtocol)
			}
			if len(state.PeerCertificates) != 2 {
				t.Errorf("the chain has %d certificates, want leaf and CA", len(state.PeerCertificates))
			}
		})
	}
}

func TestHandshakesThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		tweak  tweak
		change func(*tls.Config)
		want   string
	}{
		"wrong ALPN":       {change: func(c *tls.Config) { c.NextProtos = []string{"h3"} }, want: "no application protocol"},
		"no ALPN":          {change: func(c *tls.Config) { c.NextProtos = nil }, want: "no application protocol"},
		"P-256 alone":      {change: func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, want: "handshake failure"},
		"another CA":       {change: func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }, want: "x509"},
		"suite off a list": {tweak: tweak{suites: []uint16{0xffff}}, want: "bad certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := makeCell(t, x.tweak)
			conn, err := c.dial(t, x.change)
			if err == nil {
				err = ended(t, conn) // The server judges after the client does.
			}
			if !strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want it to say %q", err, x.want)
			}
			for end := time.Now().Add(patience); testutil.ToFloat64(c.metrics.Handshakes.WithLabelValues("failed")) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it was not counted")
				}
			}
		})
	}
}

func TestEverySuiteIsOnTheList(t *testing.T) {
	t.Parallel()
	for _, id := range Suites() {
		if err := verifyConnection(tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: id, NegotiatedProtocol: ALPN}, Suites()); err != nil {
			t.Error(err)
		}
	}
	for name, s := range map[string]tls.ConnectionState{
		"TLS 1.2":       {Version: tls.VersionTLS12, CipherSuite: tls.TLS_AES_128_GCM_SHA256, NegotiatedProtocol: ALPN},
		"another suite": {Version: tls.VersionTLS13, CipherSuite: 0x1304, NegotiatedProtocol: ALPN}, // TLS_AES_128_CCM_SHA256.
		"another ALPN":  {Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, NegotiatedProtocol: "h3"},
	} {
		if verifyConnection(s, Suites()) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestResumedHandshakesAreJudgedToo(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	cache := tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		conn, err := c.dial(t, func(c *tls.Config) { c.ClientSessionCache = cache })
		must(t, err)
		greet(t, conn)
		if got := conn.ConnectionState(); got.TLS.DidResume != resumed || got.Used0RTT {
			t.Fatalf("resumed %v, 0-RTT %v", got.TLS.DidResume, got.Used0RTT)
		}
	}
}

func TestASecondBidirectionalStreamIsRefused(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	conn, err := c.dial(t, nil)
	must(t, err)
	stream := greet(t, conn)
	if _, err := conn.OpenStream(); !errors.As(err, new(*quic.StreamLimitReachedError)) {
		t.Fatalf("a second stream: %v", err)
	}
	must(t, hello(stream))
}

func TestClientsThatDoNotAuthenticateAreClosedInTime(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{authPatience: 200 * time.Millisecond})
	silent, err := c.dial(t, nil)
	must(t, err)
	greeting, err := c.dial(t, nil)
	must(t, err)
	greet(t, greeting)
	for name, conn := range map[string]*quic.Conn{"no control stream": silent, "hello and no more": greeting} {
		var e *quic.ApplicationError
		if err := ended(t, conn); !errors.As(err, &e) || e.ErrorCode != session.CloseAuth {
			t.Errorf("%s: ended with %v", name, err)
		}
	}
}

func TestACertificateIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	serial := func() string {
		conn, err := c.dial(t, nil)
		must(t, err)
		greet(t, conn)
		return conn.ConnectionState().TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	c.issue(t)
	if serial() != first {
		t.Fatal("replaced before Reload")
	}
	must(t, c.cert.Reload())
	second := serial()
	if second == first {
		t.Fatal("not replaced")
	}
	for name, content := range map[string]string{"tls.crt": "no certificate", "tls.key": "hunter2"} {
		must(t, os.WriteFile(c.path(name), []byte(content), 0o600))
		if err := c.cert.Reload(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a broken %s: %v", name, err)
		}
	}
	if serial() != second {
		t.Error("a broken file replaced the certificate")
	}
}

func TestDrainTellsAndWaits(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	leaving, err := c.dial(t, nil)
	must(t, err)
	staying, err := c.dial(t, nil)
	must(t, err)
	streams := []*quic.Stream{greet(t, leaving), greet(t, staying)}
	drained := make(chan time.Duration)
	const grace = time.Second
	go func() {
		begin := time.Now()
		c.Drain(t.Context(), grace)
		drained <- time.Since(begin)
	}()
	for _, s := range streams {
		b, err := frame.Read(s, frame.ControlLimit)
		must(t, err)
		e, err := wire.Unmarshal(b)
		must(t, err)
		if g, ok := e.Body.(*wire.GoAway); !ok || g.Reason != wire.GoAwayDraining || g.Grace != grace {
			t.Fatalf("%+v", e.Body)
		}
	}
	must(t, leaving.CloseWithError(0, ""))
	var e *quic.ApplicationError
	if err := ended(t, staying); !errors.As(err, &e) || e.ErrorCode != session.CloseGoAway {
		t.Errorf("who stays: %v", err)
	}
	if took := <-drained; took < grace {
		t.Errorf("drained after %s though somebody stayed", took)
	}
	if _, err := c.dialWithin(t, time.Second, nil); err == nil { // It is not even answered.
		t.Error("a draining endpoint takes connections")
	}
}

func TestDrainEndsWithTheLastClient(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	conn, err := c.dial(t, nil)
	must(t, err)
	stream := greet(t, conn)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		c.Drain(t.Context(), time.Hour)
	}()
	_, err = frame.Read(stream, frame.ControlLimit) // GoAway.
	must(t, err)
	must(t, conn.CloseWithError(0, ""))
	select {
	case <-drained:
	case <-time.After(patience):
		t.Fatal("it waits though nobody is left")
	}
}

func TestCloseTellsClients(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	conn, err := c.dial(t, nil)
	must(t, err)
	greet(t, conn)
	must(t, c.Close())
	var e *quic.ApplicationError
	if err := ended(t, conn); !errors.As(err, &e) || e.ErrorCode != session.CloseDone || !e.Remote {
		t.Errorf("ended with %v", err)
	}
}

func TestListenRefusals(t *testing.T) {
	t.Parallel()
	c := makeCell(t, tweak{})
	for address, want := range map[string]string{"nowhere": "UDP address", c.Addr().String(): "listening on UDP"} {
		q, err := Listen(address, c.cert, NoClients(), Keys{}, &session.Services{Metrics: c.metrics})
		if err == nil {
			_ = q.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := LoadCertificate(c.path("none"), c.path("tls.key")); err == nil {
		t.Error("a certificate that is not there")
	}
}
