package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/session"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/wire"
)

const (
	handshakePatience = 5 * time.Second // Without a packet; twice that in all.
	connectionIDSize  = 8               // Bytes. Quic-go's 4 would collide, once in a while, at ten thousand connections.
	idle              = 45 * time.Second
	keepAlive         = 15 * time.Second
	streamWindow      = 256 << 10
	connectionWindow  = 1 << 20
	maxStreamWindow   = 8 << 20
	closePatience     = 5 * time.Second // For sessions to end before their connections are cut.
)

// Keys are what endpoints share with those that come after them, or stand beside them.
type Keys struct {
	// Reset keys the stateless resets (RFC 9000 §10.3) by which clients of a process that died learn from its successor
	// at the same address that their connection is gone. No two pods may share it: a packet that strays would end a
	// connection that lives.
	Reset quic.StatelessResetKey
	// Token keys the tokens of Retry packets. All pods share it: the packet that brings one back may reach another.
	Token quic.TokenGeneratorKey
}

// QUIC is the endpoint that clients connect to.
type QUIC struct {
	socket    *net.UDPConn
	limits    *limits.Limiter
	transport *quic.Transport
	listener  *quic.Listener
	services  *session.Services
	metrics   *telemetry.Metrics

	retried, refused lately // Of quic-go's goroutine for newcomers.

	mu       sync.Mutex
	sessions map[*session.Session]struct{}
	serving  chan struct{} // Closed when Serve ends; nil before it began.
	closed   bool
	running  sync.WaitGroup // Sessions; grows only while Serve runs.
	closing  func() error
}

// Listen opens the UDP address. Serve accepts.
func Listen(address string, c *Certificate, clients Clients, keys Keys, services *session.Services) (*QUIC, error) {
	return listen(address, TLSConfig(c, clients), keys, services)
}

func listen(address string, config *tls.Config, keys Keys, services *session.Services) (*QUIC, error) {
	udp, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("the UDP address %q: %w", address, err)
	}
	socket, err := net.ListenUDP("udp", udp)
	if err != nil {
		return nil, fmt.Errorf("listening on UDP %s: %w", address, err)
	}
	q := &QUIC{socket: socket, limits: services.Limits, services: services, metrics: services.Metrics, sessions: map[*session.Session]struct{}{}}
	q.closing = sync.OnceValue(q.close)
	q.transport = q.newTransport(keys)
	settings := settings()
	if q.listener, err = q.transport.Listen(config, settings); err != nil {
		return nil, errors.Join(err, q.transport.Close(), socket.Close())
	}
	return q, nil
}

// newTransport has newcomers judged before they cost a handshake.
func (q *QUIC) newTransport(keys Keys) *quic.Transport {
	return &quic.Transport{
		Conn:                q.socket, // The bare socket: wrapped, quic-go loses segmentation offload.
		ConnectionIDLength:  connectionIDSize,
		StatelessResetKey:   &keys.Reset,
		TokenGeneratorKey:   &keys.Token,
		MaxTokenAge:         time.Nanosecond, // Of a token from an earlier connection: see admit.
		VerifySourceAddress: q.needsRetry,
		ConnContext:         q.admit,
	}
}

func settings() *quic.Config {
	c := &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakePatience,
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     2 * maxStreamWindow,
	}
	session.Configure(c)
	return c
}

// Addr is the address that is listened on.
func (q *QUIC) Addr() net.Addr { return q.socket.LocalAddr() }

// Serve accepts connections until Drain or Close. Each is handed to a goroutine of its own at once: the queue of
// handshakes is short.
func (q *QUIC) Serve(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	if !q.begin(done) {
		return nil
	}
	for {
		conn, err := q.listener.Accept(ctx)
		if errors.Is(err, quic.ErrServerClosed) || ctx.Err() != nil {
			return nil //nolint:nilerr // The end that was asked for.
		}
		if err != nil {
			return fmt.Errorf("accepting connections: %w", err)
		}
		if !q.completed(conn) {
			q.running.Go(func() { _ = conn.CloseWithError(session.CloseFull, "too many connections from your address") })
			continue
		}
		s := session.New(q.services, conn)
		q.register(s)
		q.running.Go(func() {
			defer q.unregister(s)
			s.Serve(ctx)
		})
	}
}

// begin notes that Serve runs; false when the endpoint is closed already.
func (q *QUIC) begin(done chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.serving = done
	return true
}

func (q *QUIC) register(s *session.Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sessions[s] = struct{}{}
}

func (q *QUIC) unregister(s *session.Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.sessions, s)
}

// stopAccepting returns the sessions there are; there will be no more.
func (q *QUIC) stopAccepting() ([]*session.Session, error) {
	q.mu.Lock()
	q.closed = true
	serving := q.serving
	q.mu.Unlock()
	err := q.listener.Close() // Live connections stay.
	if serving != nil {
		<-serving // It takes what was in the queue, and ends.
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	open := make([]*session.Session, 0, len(q.sessions))
	for s := range q.sessions {
		open = append(open, s)
	}
	return open, err
}

// Drain takes no new connections, asks the clients to leave within grace and waits until they have, or grace is over.
func (q *QUIC) Drain(ctx context.Context, grace time.Duration) {
	open, _ := q.stopAccepting() // Close reports the error.
	for _, s := range open {
		go s.GoAway(wire.GoAwayDraining, grace)
	}
	q.wait(ctx, grace+time.Second)
}

// wait returns when all sessions have ended, but not later than patience from now.
func (q *QUIC) wait(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	left := make(chan struct{})
	go func() {
		q.running.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// Close ends every connection, telling its client, and waits for the sessions. It may be called again.
func (q *QUIC) Close() error { return q.closing() }

func (q *QUIC) close() error {
	open, err := q.stopAccepting()
	for _, s := range open {
		s.Close()
	}
	q.wait(context.Background(), closePatience)
	err = errors.Join(err, q.transport.Close())
	q.running.Wait()
	return errors.Join(err, q.socket.Close())
}
