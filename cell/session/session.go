// Package session is one client connection: hello, authentication, dispatch of requests, pushes, credit, goodbye.
//
// One goroutine reads the control stream and dispatches; one writes it. Calls that change who the connection speaks
// for, and those that only queue, run in the reader, so that they keep the client's order; calls that wait for the
// database run beside it, a bounded number at a time. A frame too large for the control stream travels alone on a
// unidirectional stream.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/channels"
	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/keys"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	authPatience    = 30 * time.Second // From the handshake to an authenticated device.
	strangerLimit   = 16 << 10         // Bytes of a frame before authentication.
	inFlight        = 1024             // Requests of a connection that are not answered yet.
	concurrentCalls = 16               // Of those, waiting for the database.
	largeStreams    = 4                // Large frames under way to the client.
	tokenGrace      = 30 * time.Second // From the access token's end to the connection's.
	replacedGrace   = 2 * time.Second
	largePatience   = 60 * time.Second // For a large frame to arrive.
	lingerTime      = 500 * time.Millisecond
	skipLimit       = 2 * wire.MaxFrame // Bytes of an oversize frame that are read over; beyond it the connection ends.
)

// Application error codes of CONNECTION_CLOSE (docs/protocol.md).
const (
	CloseDone     quic.ApplicationErrorCode = 0
	CloseProtocol quic.ApplicationErrorCode = 1
	CloseAuth     quic.ApplicationErrorCode = 2
	CloseGoAway   quic.ApplicationErrorCode = 3
)

// Services are what sessions share.
type Services struct {
	Identity *identity.Service
	Keys     *keys.Service
	Channels *channels.Service
	Lane     *delivery.Lane
	Hub      *delivery.Hub
	Cell     store.Cell
	Policy   func() *policy.Policy
	Metrics  *telemetry.Metrics
	Log      *slog.Logger
	Now      func() time.Time
	Server   string // Name and version, told in hello.
}

// Session is one connection. Serve runs it; GoAway may be called from elsewhere.
type Session struct {
	*Services
	conn     *quic.Conn
	log      *slog.Logger
	exporter []byte
	writer   *writer
	tokens   chan struct{} // Requests in flight.
	calls    chan struct{} // Calls waiting for the database.
	large    chan struct{} // Large frames being sent.
	group    sync.WaitGroup
	ready    chan struct{} // Closed when writer is there.

	auth  sync.Mutex // Held through a call that changes who the connection speaks for; before mu.
	login *identity.Login

	mu        sync.Mutex
	principal *identity.Principal
	sub       *delivery.Subscription
	authed    chan struct{} // Closed once authenticated.
	expiry    *time.Timer
}

// New returns the session of an accepted connection.
func New(s *Services, conn *quic.Conn) *Session {
	id := ids.New()
	return &Session{Services: s, conn: conn, log: s.Log.With("connection", id.String()[:16]),
		tokens: make(chan struct{}, inFlight), calls: make(chan struct{}, concurrentCalls), large: make(chan struct{}, largeStreams),
		ready: make(chan struct{}), authed: make(chan struct{})}
}

// Serve runs the session until the connection ends or ctx does, and leaves nothing running.
func (s *Session) Serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(telemetry.WithLogger(ctx, s.log))
	stop := context.AfterFunc(s.conn.Context(), cancel)
	defer stop()
	s.Metrics.Connections.Inc()
	defer s.Metrics.Connections.Dec()
	code, err := s.serve(ctx)
	cancel()
	s.stopTimers()
	reason := ""
	if err != nil {
		reason = err.Error()
		s.log.DebugContext(ctx, "connection ends", "reason", reason)
	}
	s.group.Wait()
	_ = s.conn.CloseWithError(code, reason)
}

func (s *Session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
}

func (s *Session) serve(ctx context.Context) (quic.ApplicationErrorCode, error) {
	tls := s.conn.ConnectionState().TLS
	exporter, err := tls.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	if err != nil {
		return CloseProtocol, err
	}
	s.exporter = exporter
	hurry, done := context.WithTimeout(ctx, authPatience)
	defer done()
	stream, err := s.conn.AcceptStream(hurry)
	if err != nil {
		return CloseAuth, errors.New("no control stream was opened in time")
	}
	s.writer = newWriter(stream, func(n int) {
		for range n {
			<-s.tokens
		}
	})
	close(s.ready)
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	var written sync.WaitGroup
	written.Go(func() { s.writer.run(writing) })
	s.group.Go(func() { s.acceptLarge(ctx) })
	code, err := s.read(ctx, stream)
	stopWriting()
	_ = stream.SetWriteDeadline(time.Now().Add(time.Second))
	written.Wait()
	if code == CloseProtocol {
		s.linger(ctx, stream)
	}
	return code, err
}

// linger gives the client time to read why the connection ends: a close overtakes what was written before it.
func (s *Session) linger(ctx context.Context, stream *quic.Stream) {
	_ = stream.Close()
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// read dispatches the control stream's frames until it ends.
func (s *Session) read(ctx context.Context, stream *quic.Stream) (quic.ApplicationErrorCode, error) {
	stop := context.AfterFunc(ctx, func() { stream.CancelRead(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	_ = stream.SetReadDeadline(time.Now().Add(authPatience))
	for {
		limit := strangerLimit
		if s.isAuthenticated() {
			limit = frame.ControlLimit
			_ = stream.SetReadDeadline(time.Time{})
		}
		b, err := frame.Read(stream, limit)
		switch tooLarge := (*frame.TooLargeError)(nil); {
		case err == nil:
			if !s.take(ctx, b) {
				return CloseDone, nil
			}
		case errors.As(err, &tooLarge):
			if !s.skip(stream, tooLarge) {
				return CloseProtocol, err
			}
		case errors.Is(err, frame.ErrMalformed):
			s.connectionError(wire.Errorf(wire.CodeMalformed, "%v", err))
			return CloseProtocol, err
		case errors.Is(err, io.EOF):
			return CloseDone, nil
		case ctx.Err() == nil && !s.isAuthenticated():
			return CloseAuth, fmt.Errorf("not authenticated in time: %w", err)
		default:
			return CloseDone, err
		}
	}
}

// skip reads over an oversize frame of tolerable size, so that the connection survives it.
func (s *Session) skip(stream io.Reader, e *frame.TooLargeError) bool {
	s.connectionError(wire.Errorf(wire.CodeFrameTooLarge, "%v; larger frames travel on a stream of their own", e).With("limit", fmt.Sprint(e.Limit)))
	if e.Size > skipLimit || !s.isAuthenticated() {
		return false
	}
	_, err := io.CopyN(io.Discard, stream, int64(e.Size)-int64(e.TableSize)) //nolint:gosec // at most skipLimit.
	return err == nil
}

// connectionError tells the client of an error that answers no request.
func (s *Session) connectionError(e *wire.Error) {
	s.send(context.Background(), wire.Envelope{Body: e}, false)
}

// acceptLarge takes frames that travel alone, once the connection is authenticated.
func (s *Session) acceptLarge(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.authed:
	}
	for {
		stream, err := s.conn.AcceptUniStream(ctx)
		if err != nil {
			return
		}
		s.group.Go(func() { s.readLarge(ctx, stream) })
	}
}

func (s *Session) readLarge(ctx context.Context, stream *quic.ReceiveStream) {
	stop := context.AfterFunc(ctx, func() { stream.CancelRead(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	_ = stream.SetReadDeadline(time.Now().Add(largePatience))
	b, err := frame.Read(stream, s.largeLimit())
	var tooLarge *frame.TooLargeError
	switch {
	case err == nil:
		s.take(ctx, b)
	case errors.As(err, &tooLarge):
		s.connectionError(wire.Errorf(wire.CodeFrameTooLarge, "%v", err).With("limit", fmt.Sprint(tooLarge.Limit)))
		stream.CancelRead(quic.StreamErrorCode(CloseProtocol))
	case ctx.Err() == nil:
		s.connectionError(wire.Errorf(wire.CodeMalformed, "a frame on a stream of its own: %v", err))
		stream.CancelRead(quic.StreamErrorCode(CloseProtocol))
	}
}

// largeLimit leaves room for a group's GroupInfo and Welcomes, and for any payload that policy lets in.
func (s *Session) largeLimit() int { return wire.MaxFrame }

// take waits for a place among the requests in flight and dispatches one frame; false when the session ends.
func (s *Session) take(ctx context.Context, b []byte) bool {
	select {
	case s.tokens <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	start := s.Now()
	e, err := wire.Unmarshal(b)
	reply := s.replier(ctx, e.CorrelationID, start)
	if err != nil {
		reply("unknown", nil, err)
		return true
	}
	request, ok := e.Body.(wire.Request)
	if !ok {
		reply("unknown", nil, wire.Errorf(wire.CodeMalformed, "a client sends requests only"))
		return true
	}
	s.dispatch(ctx, request, func(body wire.Response, err error) { reply(request.Method(), body, err) })
	return true
}

// replier returns the function that answers one request, once.
func (s *Session) replier(ctx context.Context, correlation uint64, start time.Time) func(string, wire.Response, error) {
	return func(method string, body wire.Response, err error) {
		e, code := wire.Envelope{CorrelationID: correlation, Body: body}, "ok"
		if err != nil {
			answer := s.errorOf(ctx, method, correlation, err)
			e.Body, code = answer, answer.Code.String()
		}
		s.Metrics.Requests.WithLabelValues(method, code).Observe(s.Now().Sub(start).Seconds())
		s.send(ctx, e, true)
	}
}

// errorOf makes any error one of the taxonomy; what has no code is the cell's fault and goes to the log.
func (s *Session) errorOf(ctx context.Context, method string, correlation uint64, err error) *wire.Error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrUnavailable):
		s.log.WarnContext(ctx, "database unavailable", "method", method, "correlation", correlation, "error", err)
		return wire.RetryAfterf(wire.CodeBusy, time.Second, "the cell's database is not available at the moment; try again")
	case errors.Is(err, store.ErrNotFound):
		return wire.Errorf(wire.CodeNotFound, "there is no such thing, or none that you may see")
	}
	s.log.ErrorContext(ctx, "request failed", "method", method, "correlation", correlation, "error", err)
	return wire.Errorf(wire.CodeInternal, "the cell failed; its log has this under correlation id %d", correlation)
}

// send puts an envelope on its way and never waits, except for a large frame's turn.
func (s *Session) send(ctx context.Context, e wire.Envelope, response bool) {
	b, err := wire.Marshal(e)
	if err != nil {
		s.log.ErrorContext(ctx, "encoding a message failed", "error", err)
		b, _ = wire.Marshal(wire.Envelope{CorrelationID: e.CorrelationID, Body: wire.Errorf(wire.CodeInternal, "the cell failed to encode its answer")})
	}
	switch {
	case len(b) > frame.ControlLimit:
		s.group.Go(func() {
			_ = s.sendLarge(ctx, b)
			if response {
				<-s.tokens
			}
		})
	case response:
		s.writer.respond(b)
	default:
		_ = s.writer.push(ctx, b)
	}
}

// push sends a push and waits for space: the Pusher of this session's subscription.
func (s *Session) push(ctx context.Context, p wire.Push) error {
	b, err := wire.Marshal(wire.Envelope{Body: p})
	if err != nil {
		return err
	}
	if len(b) > frame.ControlLimit {
		return s.sendLarge(ctx, b)
	}
	return s.writer.push(ctx, b)
}

// sendLarge sends one frame on a stream of its own.
func (s *Session) sendLarge(ctx context.Context, b []byte) error {
	select {
	case s.large <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.large }()
	stream, err := s.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { stream.CancelWrite(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	if _, err := stream.Write(b); err != nil {
		return err
	}
	return stream.Close()
}

// GoAway tells the client to leave and closes the connection after grace.
//
// It returns at once when the connection ends meanwhile.
func (s *Session) GoAway(ctx context.Context, reason wire.GoAwayReason, grace time.Duration) {
	select {
	case <-s.ready:
	case <-s.conn.Context().Done():
		return
	case <-ctx.Done():
		return
	}
	if err := s.push(ctx, &wire.GoAway{Reason: reason, Grace: grace}); err != nil {
		return
	}
	time.AfterFunc(grace, func() { _ = s.conn.CloseWithError(CloseGoAway, reason.String()) })
}
