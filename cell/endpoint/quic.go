package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/session"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/wire"
)

const (
	handshakePatience = 10 * time.Second
	idle              = 45 * time.Second
	keepAlive         = 15 * time.Second
	streamWindow      = 256 << 10
	connectionWindow  = 1 << 20
	maxStreamWindow   = 8 << 20
	uniStreams        = 8
)

// QUIC is the endpoint that clients connect to.
type QUIC struct {
	socket    *net.UDPConn
	transport *quic.Transport
	listener  *quic.Listener
	services  *session.Services
	metrics   *telemetry.Metrics
	log       *slog.Logger

	mu       sync.Mutex
	sessions map[*session.Session]struct{}
	running  sync.WaitGroup
}

// Listen opens the UDP address. Serve accepts. reset keys the stateless resets (RFC 9000 §10.3) by which clients of a
// process that died learn from its successor at the same address that their connection is gone.
func Listen(address string, c *Certificate, reset quic.StatelessResetKey, services *session.Services) (*QUIC, error) {
	udp, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("the UDP address %q: %w", address, err)
	}
	socket, err := net.ListenUDP("udp", udp)
	if err != nil {
		return nil, fmt.Errorf("listening on UDP %s: %w", address, err)
	}
	transport := &quic.Transport{Conn: socket, StatelessResetKey: &reset} // The bare socket: wrapped, quic-go loses segmentation offload.
	listener, err := transport.Listen(TLSConfig(c), &quic.Config{
		HandshakeIdleTimeout:           handshakePatience,
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     2 * maxStreamWindow,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          uniStreams,
	})
	if err != nil {
		return nil, errors.Join(err, transport.Close(), socket.Close())
	}
	return &QUIC{socket: socket, transport: transport, listener: listener, services: services, metrics: services.Metrics,
		log: services.Log, sessions: map[*session.Session]struct{}{}}, nil
}

// Addr is the address that is listened on.
func (q *QUIC) Addr() net.Addr { return q.socket.LocalAddr() }

// Serve accepts connections until Drain or Close. Each is handed to a goroutine of its own at once: the queue of
// handshakes is short.
func (q *QUIC) Serve(ctx context.Context) error {
	for {
		conn, err := q.listener.Accept(ctx)
		if errors.Is(err, quic.ErrServerClosed) || ctx.Err() != nil {
			return nil //nolint:nilerr // The end that was asked for.
		}
		if err != nil {
			return fmt.Errorf("accepting connections: %w", err)
		}
		q.metrics.Handshakes.WithLabelValues("ok").Inc()
		s := session.New(q.services, conn)
		q.mu.Lock()
		q.sessions[s] = struct{}{}
		q.mu.Unlock()
		q.running.Go(func() {
			s.Serve(ctx)
			q.mu.Lock()
			delete(q.sessions, s)
			q.mu.Unlock()
		})
	}
}

// Drain takes no new connections, asks the clients to leave within grace and waits until they have, or grace is over.
func (q *QUIC) Drain(ctx context.Context, grace time.Duration) {
	_ = q.listener.Close() // Live connections stay.
	q.mu.Lock()
	open := make([]*session.Session, 0, len(q.sessions))
	for s := range q.sessions {
		open = append(open, s)
	}
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, grace+time.Second)
	defer cancel()
	for _, s := range open {
		go s.GoAway(ctx, wire.GoAwayDraining, grace)
	}
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

// Close ends every connection and waits for its session.
func (q *QUIC) Close() error {
	err := errors.Join(q.listener.Close(), q.transport.Close())
	q.running.Wait()
	return errors.Join(err, q.socket.Close())
}
