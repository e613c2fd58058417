package celltest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/endpoint"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

// Patience is how long anything in a test may take before it has failed.
const Patience = 20 * time.Second

// Conn speaks the protocol frame by frame. One goroutine uses it.
type Conn struct {
	QUIC    *quic.Conn
	Control *quic.Stream

	t        testing.TB
	frames   chan []byte // From the control stream and from streams of their own.
	pushes   []wire.Push
	answers  map[uint64]wire.Body
	sequence atomic.Uint64
}

// Dial opens a connection with its control stream. It is closed when the test ends.
func (c *Cell) Dial(t testing.TB) *Conn {
	t.Helper()
	q, err := c.dial(t, c.tls())
	must(t, err)
	return newConn(t, q)
}

// DialFrom is Dial from another address of this machine, such as 127.0.0.2, or the reason why not.
func (c *Cell) DialFrom(t testing.TB, ip string) (*Conn, error) {
	t.Helper()
	dial, closeAll := c.Dialer(t, ip)
	t.Cleanup(closeAll)
	q, err := dial(t.Context())
	if err != nil {
		return nil, err
	}
	return newConn(t, q), nil
}

// Dialer makes any number of connections from one socket at an address of this machine, until closeAll.
func (c *Cell) Dialer(t testing.TB, ip string) (dial func(context.Context) (*quic.Conn, error), closeAll func()) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", c.Addr)
	must(t, err)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	must(t, err)
	transport := &quic.Transport{Conn: socket}
	dial = func(ctx context.Context) (*quic.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		return transport.Dial(ctx, to, c.tls(), nil)
	}
	return dial, func() {
		_ = transport.Close()
		_ = socket.Close()
	}
}

func newConn(t testing.TB, q *quic.Conn) *Conn {
	t.Helper()
	stream, err := q.OpenStream()
	must(t, err)
	conn := &Conn{QUIC: q, Control: stream, t: t, frames: make(chan []byte, 4096), answers: map[uint64]wire.Body{}}
	go conn.pump(stream)
	go conn.pumpLarge()
	t.Cleanup(func() { conn.Close() })
	SecretsOf(t).Client(q.LocalAddr())
	SecretsOf(t).Bytes("a TLS exporter", conn.Exporter())
	return conn
}

func (c *Cell) dial(t testing.TB, config *tls.Config) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	return quic.DialAddr(ctx, c.Addr, config, nil)
}

func (c *Cell) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(c.CA.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{endpoint.ALPN}, MinVersion: tls.VersionTLS13}
}

// DialError tries to connect and returns why it failed.
func (c *Cell) DialError(t testing.TB) error {
	t.Helper()
	q, err := c.dial(t, c.tls())
	if err == nil {
		_ = q.CloseWithError(0, "not wanted")
	}
	return err
}

// Ended waits for the other side to close the connection.
func (c *Conn) Ended(t testing.TB) {
	t.Helper()
	select {
	case <-c.QUIC.Context().Done():
	case <-time.After(Patience):
		t.Fatal("the connection did not end")
	}
}

// Close closes the connection.
func (c *Conn) Close() { _ = c.QUIC.CloseWithError(0, "test ends") }

func (c *Conn) pump(r io.Reader) {
	for {
		b, err := frame.Read(r, wire.MaxFrame)
		if err != nil {
			return
		}
		c.frames <- b
	}
}

func (c *Conn) pumpLarge() {
	for {
		s, err := c.QUIC.AcceptUniStream(c.QUIC.Context())
		if err != nil {
			return
		}
		go c.pump(s)
	}
}

// Exporter is the connection's TLS exporter, which devices sign.
func (c *Conn) Exporter() []byte {
	state := c.QUIC.ConnectionState().TLS
	b, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	must(c.t, err)
	return b
}

// Write sends raw bytes on the control stream.
func (c *Conn) Write(b []byte) {
	c.t.Helper()
	_, err := c.Control.Write(b)
	must(c.t, err)
}

// Send sends a request and returns its correlation id.
func (c *Conn) Send(r wire.Request) uint64 {
	c.t.Helper()
	id := c.sequence.Add(1)
	SecretsOf(c.t).Learn(r)
	b, err := wire.Marshal(wire.Envelope{CorrelationID: id, Body: r})
	must(c.t, err)
	if len(b) > frame.ControlLimit {
		c.SendLarge(b)
	} else {
		c.Write(b)
	}
	return id
}

// SendLarge sends a frame on a stream of its own.
func (c *Conn) SendLarge(b []byte) {
	c.t.Helper()
	s, err := c.QUIC.OpenUniStreamSync(c.t.Context())
	must(c.t, err)
	_, err = s.Write(b)
	must(c.t, err)
	must(c.t, s.Close())
}

// Answer waits for the answer of a correlation id.
func (c *Conn) Answer(id uint64) (wire.Response, error) {
	c.t.Helper()
	for {
		if body, ok := c.answers[id]; ok {
			delete(c.answers, id)
			if e, ok := body.(*wire.Error); ok {
				return nil, e
			}
			return body.(wire.Response), nil
		}
		c.read()
	}
}

// read takes one frame and sorts it.
func (c *Conn) read() {
	c.t.Helper()
	select {
	case b := <-c.frames:
		e, err := wire.Unmarshal(b)
		must(c.t, err)
		SecretsOf(c.t).Learn(e.Body)
		if p, ok := e.Body.(wire.Push); ok {
			c.pushes = append(c.pushes, p)
			return
		}
		c.answers[e.CorrelationID] = e.Body
	case <-c.QUIC.Context().Done():
		c.t.Fatalf("the connection ended: %v", context.Cause(c.QUIC.Context()))
	case <-time.After(Patience):
		c.t.Fatal("nothing came")
	}
}

// Call sends a request and waits for its answer.
func (c *Conn) Call(r wire.Request) (wire.Response, error) {
	c.t.Helper()
	return c.Answer(c.Send(r))
}

// Push waits for the next push.
func (c *Conn) Push() wire.Push {
	c.t.Helper()
	for len(c.pushes) == 0 {
		c.read()
	}
	p := c.pushes[0]
	c.pushes = c.pushes[1:]
	return p
}

// PushWithin returns the next push, or nil when none comes within d.
func (c *Conn) PushWithin(d time.Duration) wire.Push {
	c.t.Helper()
	if len(c.pushes) > 0 {
		return c.Push()
	}
	select {
	case b := <-c.frames:
		e, err := wire.Unmarshal(b)
		must(c.t, err)
		p, _ := e.Body.(wire.Push)
		return p
	case <-time.After(d):
		return nil
	}
}

// Must makes a call that must succeed and returns its answer as R.
func Must[R wire.Response](c *Conn, r wire.Request) R {
	c.t.Helper()
	body, err := c.Call(r)
	if err != nil {
		c.t.Fatalf("%s: %v", r.Method(), err)
	}
	out, ok := body.(R)
	if !ok {
		c.t.Fatalf("%s was answered with a %T", r.Method(), body)
	}
	return out
}

// Refused makes a call that must fail with code, and returns the error.
func (c *Conn) Refused(r wire.Request, code wire.Code) *wire.Error {
	c.t.Helper()
	_, err := c.Call(r)
	if !wire.HasCode(err, code) {
		c.t.Fatalf("%s: want %s, got %v", r.Method(), code, err)
	}
	return err.(*wire.Error) //nolint:errorlint // HasCode saw it.
}
