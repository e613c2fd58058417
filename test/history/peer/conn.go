package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/endpoint"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

const (
	dialPatience = 1500 * time.Millisecond
	idleTimeout  = 5 * time.Second
	keepAlive    = time.Second
	pushBuffer   = 1024
)

// ErrNoAnswer says that nobody knows what became of a call: its connection ended, or its time.
var ErrNoAnswer = errors.New("no answer came")

// Conn is a connection. Calls may come from any goroutine.
type Conn struct {
	quic    *quic.Conn
	control *quic.Stream
	pushes  chan wire.Push

	writing sync.Mutex // Frames do not mix.
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan wire.Body
	all     sync.WaitGroup
}

// Dial opens a connection with its control stream.
func Dial(ctx context.Context, addr string, ca *x509.Certificate) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	q, err := quic.DialAddr(ctx, addr, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{endpoint.ALPN}, MinVersion: tls.VersionTLS13},
		&quic.Config{HandshakeIdleTimeout: dialPatience, MaxIdleTimeout: idleTimeout, KeepAlivePeriod: keepAlive})
	if err != nil {
		return nil, err
	}
	stream, err := q.OpenStream()
	if err != nil {
		_ = q.CloseWithError(0, "")
		return nil, err
	}
	c := &Conn{quic: q, control: stream, pushes: make(chan wire.Push, pushBuffer), waiting: map[uint64]chan wire.Body{}}
	c.all.Go(func() { c.pump(stream) })
	c.all.Go(c.pumpLarge)
	return c, nil
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.quic.Context().Done() }

// Pushes are what the cell said unasked, in the order in which it came.
func (c *Conn) Pushes() <-chan wire.Push { return c.pushes }

// Close ends the connection, and waits until nothing of it runs.
func (c *Conn) Close() {
	_ = c.quic.CloseWithError(0, "")
	c.all.Wait()
}

func (c *Conn) pump(r io.Reader) {
	for {
		b, err := frame.Read(r, wire.MaxFrame)
		if err != nil {
			if r == io.Reader(c.control) {
				_ = c.quic.CloseWithError(0, "") // Without it there is nothing to wait for.
			}
			return
		}
		c.sort(b)
	}
}

func (c *Conn) pumpLarge() {
	for {
		s, err := c.quic.AcceptUniStream(c.quic.Context())
		if err != nil {
			return
		}
		c.all.Go(func() { c.pump(s) })
	}
}

func (c *Conn) sort(b []byte) {
	e, err := wire.Unmarshal(b)
	if err != nil {
		_ = c.quic.CloseWithError(0, "what came is no message")
		return
	}
	if p, ok := e.Body.(wire.Push); ok {
		select {
		case c.pushes <- p:
		case <-c.quic.Context().Done():
		}
		return
	}
	c.mu.Lock()
	answer := c.waiting[e.CorrelationID]
	delete(c.waiting, e.CorrelationID)
	c.mu.Unlock()
	if answer != nil {
		answer <- e.Body
	}
}

// Exporter is the connection's TLS exporter, which devices sign.
func (c *Conn) Exporter() ([]byte, error) {
	state := c.quic.ConnectionState().TLS
	return state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
}

// Call makes a call and waits for its answer: a *wire.Error is one. Any other error is ErrNoAnswer.
func (c *Conn) Call(ctx context.Context, r wire.Request) (wire.Response, error) {
	answer := make(chan wire.Body, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.waiting[id] = answer
	c.mu.Unlock()
	b, err := wire.Marshal(wire.Envelope{CorrelationID: id, Body: r})
	if err == nil {
		err = c.send(ctx, b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	select {
	case body := <-answer:
		if e, ok := body.(*wire.Error); ok {
			return nil, e
		}
		response, ok := body.(wire.Response)
		if !ok {
			return nil, fmt.Errorf("%w: a %T", ErrNoAnswer, body)
		}
		return response, nil
	case <-c.quic.Context().Done():
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(c.quic.Context()))
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
	}
}

func (c *Conn) send(ctx context.Context, b []byte) error {
	deadline, _ := ctx.Deadline()
	if len(b) <= frame.ControlLimit {
		c.writing.Lock()
		defer c.writing.Unlock()
		if err := c.control.SetWriteDeadline(deadline); err != nil {
			return err
		}
		n, err := c.control.Write(b)
		if err != nil && n > 0 {
			_ = c.quic.CloseWithError(0, "half a frame was written")
		}
		return err
	}
	s, err := c.quic.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Write(b); err != nil {
		return err
	}
	return s.Close()
}

// Ask is Call for an answer of a type.
func Ask[R wire.Response](ctx context.Context, c *Conn, r wire.Request) (R, error) {
	var none R
	body, err := c.Call(ctx, r)
	if err != nil {
		return none, err
	}
	answer, ok := body.(R)
	if !ok {
		return none, fmt.Errorf("%w: %s was answered with a %T", ErrNoAnswer, r.Method(), body)
	}
	return answer, nil
}
