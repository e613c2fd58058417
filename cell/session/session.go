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
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/admin"
	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/limits"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/revocation"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/cell/telemetry"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	helloPatience   = 10 * time.Second // From the handshake to the first request.
	authPatience    = 30 * time.Second // From the handshake to an authenticated device.
	framePatience   = 10 * time.Second // For the rest of a frame on the control stream, three times as long once authenticated.
	inFlight        = 1024             // Requests of a connection that are not answered yet.
	concurrentCalls = 16               // Of those, waiting for the database.
	tokenGrace      = 30 * time.Second // From the access token's end to the connection's.
	replacedGrace   = 2 * time.Second
	revokedGrace    = 500 * time.Millisecond // For the client to read what it is told; nothing more is served.
	lastWrites      = time.Second            // For what is queued when the session ends.
	lingerTime      = 500 * time.Millisecond
)

// Application error codes of CONNECTION_CLOSE (docs/protocol.md).
const (
	CloseDone     quic.ApplicationErrorCode = 0
	CloseProtocol quic.ApplicationErrorCode = 1
	CloseAuth     quic.ApplicationErrorCode = 2
	CloseGoAway   quic.ApplicationErrorCode = 3
	CloseFull     quic.ApplicationErrorCode = 4
	CloseSlow     quic.ApplicationErrorCode = 5
)

// Services are what sessions share.
type Services struct {
	Identity Identity
	Keys     Keys
	Channels Channels
	Lane     *delivery.Lane
	Hub      *delivery.Hub
	Revoked  Revocations // Nil: nothing is.
	Admin    Admin       // Nil: nobody is one.
	// Authorizer decides what each request takes; nil: authz.Table.
	Authorizer authz.Authorizer
	Cell       store.Cell
	Limits     *limits.Limiter
	Logins     *limits.Gate // Before the costly steps of a login or signup; see NewLoginGate.
	Policy     func() *policy.Policy
	Metrics    *telemetry.Metrics
	Log        *slog.Logger
	Now        func() time.Time
	Server     string // Name and version, told in hello.

	// AuthPatience is how long a connection may stay unauthenticated (0: 30 s), HelloPatience how long without any
	// request (0: 10 s), FramePatience how long a frame may take that has begun (0: 10 s; three times that once
	// authenticated), OversizePatience how long one that is only read over (0: 60 s).
	AuthPatience, HelloPatience, FramePatience, OversizePatience time.Duration
}

// NewLoginGate is for Services.Logins. A step takes half a millisecond of a processor, and waits for the database: two at
// a time for each processor keep it busy. What waits is done within a good part of a second.
func NewLoginGate() *limits.Gate { return limits.NewGate(2*runtime.GOMAXPROCS(0), 256, 2*time.Second) }

// Identity answers the calls of schema/auth.capnp: *identity.Service.
type Identity interface {
	SignupStart(ctx context.Context, r *wire.SignupStartRequest) (*wire.SignupStartResponse, error)
	SignupFinish(ctx context.Context, r *wire.SignupFinishRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	LoginStart(ctx context.Context, r *wire.LoginStartRequest, exporter []byte) (*wire.LoginStartResponse, *identity.Login, error)
	Abandoned(l *identity.Login)
	LoginFinish(ctx context.Context, l *identity.Login, r *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error)
	StartSession(ctx context.Context, l *identity.Login, r *wire.StartSessionRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	Refresh(ctx context.Context, r *wire.RefreshSessionRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	Authenticate(ctx context.Context, r *wire.AuthenticateRequest, exporter []byte) (identity.Principal, error)
	SetPasswordStart(l *identity.Login, r *wire.SetPasswordStartRequest) (*wire.SignupStartResponse, error)
	SetPasswordFinish(ctx context.Context, l *identity.Login, r *wire.SetPasswordFinishRequest, device ids.ID) (*wire.Done, error)
	Recover(ctx context.Context, r *wire.RecoverRequest, exporter []byte) (*wire.RecoverResponse, *identity.Login, error)
	SetRecoveryCodes(ctx context.Context, l *identity.Login, r *wire.SetRecoveryCodesRequest, device ids.ID) (*wire.Done, error)
	ResetAccount(ctx context.Context, l *identity.Login, r *wire.ResetAccountRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	EndSession(ctx context.Context, p identity.Principal) (*wire.Done, error)
	ListDevices(ctx context.Context, p identity.Principal) (*wire.DeviceList, error)
	RenameDevice(ctx context.Context, p identity.Principal, r *wire.RenameDeviceRequest) (*wire.Done, error)
	RevokeDevice(ctx context.Context, p identity.Principal, l *identity.Login, r *wire.RevokeDeviceRequest) (*wire.Done, error)
	StartDeviceLink(ctx context.Context, r *wire.StartDeviceLinkRequest) (*wire.DeviceLink, error)
	GetDeviceLink(ctx context.Context, r *wire.GetDeviceLinkRequest) (*wire.DeviceLink, error)
	ApproveDeviceLink(ctx context.Context, p identity.Principal, l *identity.Login, r *wire.ApproveDeviceLinkRequest) (*wire.Done, error)
	FinishDeviceLink(ctx context.Context, r *wire.FinishDeviceLinkRequest, exporter []byte) (*wire.Session, identity.Principal, error)
	DeleteAccount(ctx context.Context, l *identity.Login, r *wire.DeleteAccountRequest) (*wire.Done, error)
	ExportAccount(ctx context.Context, p identity.Principal, r *wire.ExportAccountRequest) (*wire.ExportPage, error)
}

// Keys answers the calls of schema/keys.capnp: *keys.Service.
type Keys interface {
	Upload(ctx context.Context, p identity.Principal, r *wire.UploadKeyPackagesRequest) (*wire.KeyPackageStatus, error)
	Status(ctx context.Context, p identity.Principal) (*wire.KeyPackageStatus, error)
	Claim(ctx context.Context, p identity.Principal, r *wire.ClaimKeyPackagesRequest) (*wire.ClaimKeyPackagesResponse, error)
}

// Channels answers the calls of schema/channels.capnp and contacts.capnp, and what changes MLS groups: *channels.Service.
type Channels interface {
	GetAccount(ctx context.Context, r *wire.GetAccountRequest) (*wire.Account, error)
	OpenDM(ctx context.Context, p identity.Principal, r *wire.OpenDMRequest) (*wire.Channel, error)
	CreateGroup(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error)
	OpenGroup(ctx context.Context, p identity.Principal, r *wire.OpenGroupRequest) (*wire.Channel, error)
	GetChannel(ctx context.Context, p identity.Principal, r *wire.GetChannelRequest) (*wire.ChannelDetails, error)
	ListChannels(ctx context.Context, p identity.Principal, r *wire.ListChannelsRequest) (*wire.ChannelList, error)
	SetRole(ctx context.Context, p identity.Principal, r *wire.SetRoleRequest) (*wire.Done, error)
	SetRetention(ctx context.Context, p identity.Principal, r *wire.SetRetentionRequest) (*wire.Done, error)
	GetGroupInfo(ctx context.Context, p identity.Principal, r *wire.GetGroupInfoRequest) (*wire.ChannelGroupInfo, error)
	VoteGeneration(ctx context.Context, p identity.Principal, r *wire.VoteGenerationRequest) (*wire.GenerationVotes, error)
	Commit(ctx context.Context, p identity.Principal, r *wire.CommitRequest) (*wire.CommitResponse, error)
	Propose(ctx context.Context, p identity.Principal, r *wire.ProposeRequest) (*wire.EnqueueResponse, error)
	ListContacts(ctx context.Context, p identity.Principal, r *wire.ListContactsRequest) (*wire.ContactList, error)
	AcceptContact(ctx context.Context, p identity.Principal, r *wire.AcceptContactRequest) (*wire.Done, error)
	BlockAccount(ctx context.Context, p identity.Principal, r *wire.BlockAccountRequest) (*wire.Done, error)
}

// Revocations tells what is revoked: *revocation.Watcher.
type Revocations interface {
	Watch(s revocation.Subject, revoke func(store.RevocationKind)) (stop func(), kind store.RevocationKind)
}

// Session is one connection. Serve runs it; GoAway and Close may be called from elsewhere, at any time.
type Session struct {
	*Services
	conn        *quic.Conn
	log         *slog.Logger
	exporter    []byte
	writer      *writer
	tokens      chan struct{} // Requests in flight.
	calls       chan struct{} // Calls waiting for the database.
	largeOut    chan struct{} // Large frames being sent.
	group       sync.WaitGroup
	ready       chan struct{} // Closed when writer is there.
	limits      *limits.Conn
	greeted     atomic.Bool // A request has come.
	overstepped atomic.Bool // It has been denied something, which is recorded.

	ctx    context.Context // The session's life: what it starts ends with it.
	cancel context.CancelCauseFunc

	auth  sync.Mutex // Held through a call that changes who the connection speaks for; before mu.
	login *identity.Login

	mu          sync.Mutex
	principal   *identity.Principal
	sub         *delivery.Subscription
	authed      chan struct{} // Closed once authenticated.
	expiry      *time.Timer
	admin       *admin.Admin // Nil, or principal is.
	adminExpiry *time.Timer
	unwatch     func()               // Ends the watch of principal.
	revoked     store.RevocationKind // What of principal was revoked; 0: nothing.
}

// Configure sets what a session needs of its connection: the control stream and no other, and so many streams for
// large frames, of which each counts until the session gives it back.
func Configure(c *quic.Config) {
	c.MaxIncomingStreams, c.MaxIncomingUniStreams, c.RequireStreamCreditRelease = 1, largeIn, true
}

// New returns the session of an accepted connection, whose listener was given what Configure sets.
func New(s *Services, conn *quic.Conn) *Session {
	n := newSession(conn.Context(), s, address(conn.RemoteAddr()))
	n.conn = conn
	return n
}

// address is the client's, when the connection began.
func address(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr()
	}
	return netip.Addr{}
}

func newSession(ctx context.Context, s *Services, client netip.Addr) *Session {
	n := &Session{Services: s, log: s.Log.With("connection", ids.New().String()[:16]),
		tokens: make(chan struct{}, inFlight), calls: make(chan struct{}, concurrentCalls),
		largeOut: make(chan struct{}, largeOut), ready: make(chan struct{}), authed: make(chan struct{})}
	n.limits = s.Limits.Open(client)
	n.ctx, n.cancel = context.WithCancelCause(audit.WithAddress(ctx, client))
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
	stopHurry := s.hurry()
	defer stopHurry()
	s.serve()
	s.end(CloseDone, "")
	s.group.Wait()
	if s.login != nil {
		s.Identity.Abandoned(s.login)
	}
	s.stopTimers()
	s.limits.Close()
	e := &ending{CloseDone, ""}
	errors.As(context.Cause(s.ctx), &e)
	s.log.DebugContext(s.ctx, "connection ends", "code", uint64(e.code), "reason", e.reason)
	_ = s.conn.CloseWithError(e.code, e.reason)
}

// hurry ends the session if it is without a request, or not authenticated, when it should be.
func (s *Session) hurry() (stop func()) {
	auth := cmp.Or(s.AuthPatience, authPatience)
	hello := min(cmp.Or(s.HelloPatience, helloPatience), auth)
	first := time.AfterFunc(hello, func() {
		if !s.greeted.Load() {
			s.tooSlow(CloseAuth, "hello", "nothing was asked in time")
		}
	})
	second := time.AfterFunc(auth, func() {
		if !s.isAuthenticated() {
			s.tooSlow(CloseAuth, "login", "not authenticated in time")
		}
	})
	return func() {
		first.Stop()
		second.Stop()
	}
}

func (s *Session) tooSlow(code quic.ApplicationErrorCode, phase, reason string) {
	if s.ctx.Err() == nil {
		s.Metrics.TooSlow.WithLabelValues(phase).Inc()
	}
	s.end(code, reason)
}

func (s *Session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
		s.unwatch()
	}
	if s.adminExpiry != nil {
		s.adminExpiry.Stop()
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
