// Package session is one client connection: hello, authentication, dispatch of requests, pushes, credit, goodbye.
//
// One goroutine reads the control stream and dispatches; one writes it. Calls that change who the connection speaks
// for, and those that only queue, run in the reader, so that they keep the client's order; calls that wait for the
// database run beside it, a bounded number at a time. A frame too large for the control stream travels alone on a
// unidirectional stream.
//
// What a client can make a session hold is bounded: requests in flight, answers that it does not read, large frames
// each way, messages pushed and not acknowledged. At a bound the session reads no further, and QUIC's flow control
// holds the client back. A panic ends the connection, not the process.
package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	authPatience    = 30 * time.Second // From the handshake to an authenticated device.
	inFlight        = 1024             // Requests of a connection that are not answered yet.
	concurrentCalls = 16               // Of those, waiting for the database.
	tokenGrace      = 30 * time.Second // From the access token's end to the connection's.
	replacedGrace   = 2 * time.Second
	lastWrites      = time.Second // For what is queued when the session ends.
	lingerTime      = 500 * time.Millisecond
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
	Identity Identity
	Keys     Keys
	Channels Channels
	Lane     *delivery.Lane
	Hub      *delivery.Hub
	Cell     store.Cell
	Policy   func() *policy.Policy
	Metrics  *telemetry.Metrics
	Log      *slog.Logger
	Now      func() time.Time
	Server   string // Name and version, told in hello.

	// AuthPatience is how long a connection may stay unauthenticated; 0: 30 s.
	AuthPatience time.Duration
}

// Identity answers the calls of schema/auth.capnp: *identity.Service.
type Identity interface {
	SignupStart(r *wire.SignupStartRequest) (*wire.SignupStartResponse, error)
	SignupFinish(ctx context.Context, r *wire.SignupFinishRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	LoginStart(ctx context.Context, r *wire.LoginStartRequest) (*wire.LoginStartResponse, *identity.Login, error)
	LoginFinish(l *identity.Login, r *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error)
	StartSession(ctx context.Context, l *identity.Login, r *wire.StartSessionRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	Refresh(ctx context.Context, r *wire.RefreshSessionRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	Authenticate(r *wire.AuthenticateRequest, exporter []byte) (identity.Principal, error)
}

// Keys answers the calls of schema/keys.capnp: *keys.Service.
type Keys interface {
	Upload(ctx context.Context, p identity.Principal, r *wire.UploadKeyPackagesRequest) (*wire.KeyPackageStatus, error)
	Status(ctx context.Context, p identity.Principal) (*wire.KeyPackageStatus, error)
	Claim(ctx context.Context, p identity.Principal, r *wire.ClaimKeyPackagesRequest) (*wire.ClaimKeyPackagesResponse, error)
}

// Channels answers the calls of schema/channels.capnp: *channels.Service.
type Channels interface {
	GetAccount(ctx context.Context, r *wire.GetAccountRequest) (*wire.Account, error)
	OpenDM(ctx context.Context, p identity.Principal, r *wire.OpenDMRequest) (*wire.Channel, error)
	CreateGroup(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error)
}

// Session is one connection. Serve runs it; GoAway and Close may be called from elsewhere, at any time.
type Session struct {
	*Services
	conn     *quic.Conn
	log      *slog.Logger
	exporter []byte
	writer   *writer
	tokens   chan struct{} // Requests in flight.
	calls    chan struct{} // Calls waiting for the database.
	largeOut chan struct{} // Large frames being sent.
	group    sync.WaitGroup
	ready    chan struct{} // Closed when writer is there.

	ctx    context.Context // The session's life: what it starts ends with it.
	cancel context.CancelCauseFunc

	auth  sync.Mutex // Held through a call that changes who the connection speaks for; before mu.
	login *identity.Login

	mu        sync.Mutex
	principal *identity.Principal
	sub       *delivery.Subscription
	authed    chan struct{} // Closed once authenticated.
	expiry    *time.Timer
}

// Configure sets what a session needs of its connection: the control stream and no other, and so many streams for
// large frames, of which each counts until the session gives it back.
func Configure(c *quic.Config) {
	c.MaxIncomingStreams, c.MaxIncomingUniStreams, c.RequireStreamCreditRelease = 1, largeIn, true
}

// New returns the session of an accepted connection, whose listener was given what Configure sets.
func New(s *Services, conn *quic.Conn) *Session {
	n := newSession(conn.Context(), s)
	n.conn = conn
	return n
}

func newSession(ctx context.Context, s *Services) *Session {
	n := &Session{Services: s, log: s.Log.With("connection", ids.New().String()[:16]),
		tokens: make(chan struct{}, inFlight), calls: make(chan struct{}, concurrentCalls),
		largeOut: make(chan struct{}, largeOut), ready: make(chan struct{}), authed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancelCause(ctx)
	return n
}

// ending says why a session ends and what the client is told.
type ending struct {
	code   quic.ApplicationErrorCode
	reason string
}

// Error implements error.
func (e *ending) Error() string { return e.reason }

// end ends the session; the first reason stands.
func (s *Session) end(code quic.ApplicationErrorCode, reason string) { s.cancel(&ending{code, reason}) }

// Close ends the session with its connection, without waiting.
func (s *Session) Close() { s.end(CloseDone, "the server is going away") }

// guard is deferred in every goroutine of the session.
func (s *Session) guard() {
	if r := recover(); r != nil {
		s.Metrics.Panicked(s.log, "a session", r)
		s.end(CloseDone, "the cell failed; its log has the reason")
	}
}

// goGuarded runs f beside the others; Serve waits for it.
func (s *Session) goGuarded(f func()) {
	s.group.Go(func() {
		defer s.guard()
		f()
	})
}

// Serve runs the session until the connection ends or ctx does, and leaves nothing running.
func (s *Session) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	s.Metrics.Connections.Inc()
	defer s.Metrics.Connections.Dec()
	timer := time.AfterFunc(cmp.Or(s.AuthPatience, authPatience), s.hurry)
	defer timer.Stop()
	s.serve()
	s.end(CloseDone, "")
	s.group.Wait()
	s.stopTimers()
	e := &ending{CloseDone, ""}
	errors.As(context.Cause(s.ctx), &e)
	s.log.DebugContext(s.ctx, "connection ends", "code", uint64(e.code), "reason", e.reason)
	_ = s.conn.CloseWithError(e.code, e.reason)
}

// hurry ends a session that is not authenticated yet.
func (s *Session) hurry() {
	if !s.isAuthenticated() {
		s.end(CloseAuth, "not authenticated in time")
	}
}

func (s *Session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
}

// serve reads the control stream until the session ends, and writes what is queued then.
func (s *Session) serve() {
	defer s.guard()
	state := s.conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	if err != nil {
		s.end(CloseProtocol, "the TLS connection has no exporter")
		return
	}
	s.exporter = exporter
	stream, err := s.conn.AcceptStream(s.ctx)
	if err != nil {
		return
	}
	s.writer = newWriter(stream, s.answered)
	close(s.ready)
	writing, stopWriting := context.WithCancel(context.WithoutCancel(s.ctx))
	var written sync.WaitGroup
	written.Go(func() { s.write(writing) })
	defer func() {
		stopWriting()
		_ = stream.SetWriteDeadline(time.Now().Add(lastWrites))
		written.Wait()
		s.linger(stream)
	}()
	s.goGuarded(s.acceptLarge)
	s.read(stream)
}

// write is the writer's goroutine. Without it there is no session: nothing can be answered.
func (s *Session) write(ctx context.Context) {
	defer s.guard()
	if err := s.writer.run(ctx); err != nil {
		s.end(CloseDone, "the control stream cannot be written")
	}
}

// answered gives back the places of requests whose responses are written.
func (s *Session) answered(n int) {
	for range n {
		<-s.tokens
	}
}

// linger gives the client time to read why the connection ends: a close overtakes what was written before it.
func (s *Session) linger(stream *quic.Stream) {
	var e *ending
	if !errors.As(context.Cause(s.ctx), &e) || e.code != CloseProtocol {
		return
	}
	_ = stream.Close()
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.conn.Context().Done():
	}
}

// GoAway tells the client to leave and ends the session after grace. It returns at once when the session ends
// meanwhile.
func (s *Session) GoAway(reason wire.GoAwayReason, grace time.Duration) {
	timer := time.AfterFunc(grace, func() { s.end(CloseGoAway, reason.String()) })
	context.AfterFunc(s.ctx, func() { timer.Stop() })
	select {
	case <-s.ready:
		_ = s.push(s.ctx, &wire.GoAway{Reason: reason, Grace: grace}) // Without it, grace ends the session all the same.
	case <-s.ctx.Done():
	}
}
