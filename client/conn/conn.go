package conn

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/wire"
)

const (
	// ALPN names the protocol in the TLS handshake.
	ALPN = "qpq/1"

	handshakeTimeout = 5 * time.Second
	idleTimeout      = 45 * time.Second
	keepAlive        = 15 * time.Second
	streamWindow     = 256 << 10
	connWindow       = 1 << 20
	maxAloneStreams  = 8
	// pushQueue holds more than the largest credit lets a cell have in flight.
	pushQueue  = wire.MaxCredit + 64
	writeQueue = 64
)

// Options says where the cell is and how to know it.
type Options struct {
	Endpoint string // HOST:PORT.
	Trust    Trust
	Client   string // Name and version of the client, for the cell's logs.
	// Certificate is shown to a cell that asks for one; nil is none.
	Certificate *tls.Certificate
}

// Conn is one connection to a cell, past its hello. It is safe for concurrent use.
type Conn struct {
	remote  remote
	quic    *quic.Conn
	control *quic.Stream
	hello   *wire.HelloResponse
	pushes  chan wire.Push
	writes  chan []byte
	calls   calls
	stop    context.CancelCauseFunc
	ctx     context.Context // Ends when the connection does; its cause says why.
	wg      sync.WaitGroup
}

// Dial connects and says hello. Errors: ErrNoTrust, ErrWrongCA, ErrWrongPin, ErrWrongHost, ErrTLS,
// *CertificateError, *UnreachableError, *RefusedError, or *wire.Error when the cell refuses the hello. Close the connection when done with it.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	q, err := dialQUIC(ctx, o)
	if err != nil {
		return nil, err
	}
	control, err := q.OpenStream()
	if err != nil {
		return nil, errors.Join(o.remote().broken(err), q.CloseWithError(0, ""))
	}
	c := newConn(q, control, o.remote())
	if err := c.sayHello(ctx, o.Client); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func dialQUIC(ctx context.Context, o Options) (*quic.Conn, error) {
	host, _, err := net.SplitHostPort(o.Endpoint)
	switch {
	case err != nil:
		return nil, wire.Errorf(wire.CodeInvalidArgument, "the cell's address %q is not HOST:PORT", o.Endpoint)
	case o.Trust.empty():
		return nil, ErrNoTrust
	}
	var verdict error
	config := o.Trust.tlsConfig(host, &verdict)
	if o.Certificate != nil { // Certificates would be kept back when the cell names other CAs, and nobody would know why.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.Certificate, nil }
	}
	q, err := quic.DialAddr(ctx, o.Endpoint, config, quicConfig())
	switch {
	case err == nil:
		return q, nil
	case verdict != nil:
		return nil, verdict
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connecting to %s: %w", o.Endpoint, ctx.Err())
	}
	return nil, o.remote().refused(err)
}

// remote is the cell that a connection leads to, and what it was shown.
type remote struct {
	endpoint string
	shown    bool // A client certificate.
}

func (o Options) remote() remote { return remote{o.Endpoint, o.Certificate != nil} }

// refused tells a cell that answered and refused from one that did not answer.
func (p remote) refused(err error) error {
	if judged := p.judged(err); judged != nil {
		return judged
	}
	var transport *quic.TransportError
	if errors.As(err, &transport) && transport.ErrorCode.IsCryptoError() {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if refuses(err) {
		return &RefusedError{p.endpoint, err}
	}
	return &UnreachableError{p.endpoint, err}
}

// broken tells a cell that closes a connection because it has too many from one that broke.
func (p remote) broken(err error) error {
	if judged := p.judged(err); judged != nil {
		return judged
	}
	if refuses(err) {
		return &RefusedError{p.endpoint, err}
	}
	return &LostError{err}
}

func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          maxAloneStreams,
	}
}

func newConn(q *quic.Conn, control *quic.Stream, p remote) *Conn {
	c := &Conn{remote: p, quic: q, control: control, pushes: make(chan wire.Push, pushQueue), writes: make(chan []byte, writeQueue)}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	c.wg.Go(c.readControl)
	c.wg.Go(c.acceptAlone)
	c.wg.Go(c.write)
	c.wg.Go(c.shutdown)
	return c
}

func (c *Conn) sayHello(ctx context.Context, client string) error {
	hello, err := Call[*wire.HelloResponse](ctx, c, &wire.HelloRequest{Client: client, MinVersion: schema.Version, MaxVersion: schema.Version})
	if err != nil {
		return err
	}
	if hello.Version != schema.Version {
		return wire.Errorf(wire.CodeUnsupportedVersion, "the cell speaks schema version %d, this client %d: update the older one",
			hello.Version, schema.Version)
	}
	c.hello = hello
	return nil
}

// Hello returns what the cell said of itself. It must not be changed.
func (c *Conn) Hello() *wire.HelloResponse { return c.hello }

// Pushes returns what the cell sends unasked, in the order of arrival. The channel is never closed: watch Done.
func (c *Conn) Pushes() <-chan wire.Push { return c.pushes }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Err returns why the connection ended: ErrClosed, ErrProtocol, *LostError, *RefusedError, or the cell's *wire.Error; nil while it
// lives.
func (c *Conn) Err() error {
	if c.ctx.Err() == nil {
		return nil
	}
	return context.Cause(c.ctx)
}

// Prove returns the device's proof for this connection, by its TLS exporter.
func (c *Conn) Prove(device ed25519.PrivateKey) ([]byte, error) {
	exporter, err := c.Exporter()
	if err != nil {
		return nil, err
	}
	return devicecert.Prove(device, exporter), nil
}

// Exporter returns this connection's TLS exporter, which proofs sign.
func (c *Conn) Exporter() ([]byte, error) {
	state := c.quic.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	if err != nil {
		return nil, fmt.Errorf("exporting keying material: %w", err)
	}
	return exporter, nil
}

// Close ends the connection and waits for its goroutines. Open calls fail with ErrClosed.
func (c *Conn) Close() {
	c.stop(ErrClosed)
	c.wg.Wait()
}

// shutdown closes the QUIC connection once, whoever ended it.
func (c *Conn) shutdown() {
	<-c.ctx.Done()
	c.quic.CloseWithError(0, "") //nolint:errcheck // it is over either way.
	c.calls.failAll(context.Cause(c.ctx))
}

// lost ends the connection because a read or write failed.
func (c *Conn) lost(err error) {
	if errors.Is(err, ErrProtocol) {
		c.stop(err)
		return
	}
	c.stop(c.remote.broken(err))
}
