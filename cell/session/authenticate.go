package session

import (
	"context"
	"time"

	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// authenticate runs the calls of schema/auth.capnp, in the reader: they change who the connection speaks for.
func (s *Session) authenticate(request wire.Request) (wire.Response, error) {
	ctx, cancel := context.WithTimeout(s.ctx, callPatience)
	defer cancel()
	s.auth.Lock() // A frame on a stream of its own is dispatched beside the reader.
	defer s.auth.Unlock()
	if err := s.checkBound(request); err != nil {
		return nil, err
	}
	switch r := request.(type) {
	case *wire.SignupStartRequest:
		return s.gated(ctx, func() (wire.Response, error) { return response(s.Identity.SignupStart(ctx, r)) })
	case *wire.SignupFinishRequest:
		return s.begin(s.Identity.SignupFinish(ctx, r, s.exporter))
	case *wire.LoginStartRequest:
		return s.gated(ctx, func() (wire.Response, error) { return s.loginStart(ctx, r) })
	case *wire.LoginFinishRequest:
		return s.loginFinish(ctx, r)
	case *wire.SetPasswordStartRequest:
		return s.gated(ctx, func() (wire.Response, error) { return response(s.Identity.SetPasswordStart(s.login, r)) })
	case *wire.SetPasswordFinishRequest:
		return response(s.Identity.SetPasswordFinish(ctx, s.login, r, s.device()))
	case *wire.RecoverRequest:
		return s.recoverLogin(ctx, r)
	case *wire.SetRecoveryCodesRequest:
		return response(s.Identity.SetRecoveryCodes(ctx, s.login, r, s.device()))
	case *wire.ResetAccountRequest:
		return s.begin(s.Identity.ResetAccount(ctx, s.login, r, s.exporter))
	case *wire.DeleteAccountRequest:
		return response(s.Identity.DeleteAccount(ctx, s.login, r))
	case *wire.StartSessionRequest:
		return s.begin(s.Identity.StartSession(ctx, s.login, r, s.exporter))
	case *wire.RefreshSessionRequest:
		return s.begin(s.Identity.Refresh(ctx, r, s.exporter))
	case *wire.StartDeviceLinkRequest:
		return response(s.Identity.StartDeviceLink(ctx, r))
	case *wire.GetDeviceLinkRequest:
		return response(s.Identity.GetDeviceLink(ctx, r))
	case *wire.FinishDeviceLinkRequest:
		return s.begin(s.Identity.FinishDeviceLink(ctx, r, s.exporter))
	case *wire.ApproveDeviceLinkRequest:
		return asDevice(s, func(p identity.Principal) (*wire.Done, error) {
			return s.Identity.ApproveDeviceLink(ctx, p, s.login, r)
		})
	case *wire.RevokeDeviceRequest:
		return asDevice(s, func(p identity.Principal) (*wire.Done, error) { return s.Identity.RevokeDevice(ctx, p, s.login, r) })
	case *wire.AuthenticateRequest:
		p, err := s.Identity.Authenticate(ctx, r, s.exporter)
		if err == nil {
			err = s.become(p)
		}
		if err != nil {
			return nil, err
		}
		return &wire.AuthenticateResponse{AccountID: p.AccountID, DeviceID: p.DeviceID}, nil
	}
	return nil, wire.Errorf(wire.CodeUnknownMethod, "method %s is not served here", request.Method())
}

// asDevice runs a call that takes both an authenticated device and what its connection has proven besides.
func asDevice[R wire.Response](s *Session, call func(identity.Principal) (R, error)) (wire.Response, error) {
	p, err := s.whoami()
	if err != nil {
		return nil, err
	}
	return response(call(p))
}

// loginRetry is when a login is to be tried again that found too many others.
const loginRetry = time.Second

// gated runs a costly step when it is its turn, or answers busy: a flood of them leaves the processors to who is in.
func (s *Session) gated(ctx context.Context, step func() (wire.Response, error)) (wire.Response, error) {
	if !s.enter(ctx) {
		s.Metrics.Busy.WithLabelValues("logins").Inc()
		return nil, wire.RetryAfterf(wire.CodeBusy, loginRetry, "too many people log in at the moment; try again")
	}
	defer s.Logins.Leave()
	return step()
}

func (s *Session) enter(ctx context.Context) bool {
	defer s.held("logins")()
	return s.Logins.Enter(ctx)
}

// checkBound refuses, before anything is changed, what would make a connection speak for a second device.
func (s *Session) checkBound(request wire.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal == nil {
		return nil
	}
	same := true
	switch r := request.(type) {
	case *wire.SignupFinishRequest, *wire.ResetAccountRequest, *wire.FinishDeviceLinkRequest:
		same = false // A new account has a new device, and a link is one.
	case *wire.StartSessionRequest:
		cert, err := devicecert.Parse(r.Certificate)
		same = err != nil || cert.DeviceID == s.principal.DeviceID // What does not parse is refused with its reason.
	case *wire.RefreshSessionRequest:
		same = r.DeviceID == s.principal.DeviceID
	}
	if !same {
		return errOtherDevice()
	}
	return nil
}

func errOtherDevice() *wire.Error {
	return wire.Errorf(wire.CodePermissionDenied, "this connection speaks for another device already; open a new one")
}

// response keeps a nil pointer from becoming a non-nil interface.
func response[R wire.Response](r R, err error) (wire.Response, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Session) loginStart(ctx context.Context, r *wire.LoginStartRequest) (wire.Response, error) {
	s.Identity.Abandoned(s.login)
	out, login, err := s.Identity.LoginStart(ctx, r, s.exporter)
	s.login = login // Whatever was there before is void.
	return response(out, err)
}

// recoverLogin proves a code in the place of a password.
func (s *Session) recoverLogin(ctx context.Context, r *wire.RecoverRequest) (wire.Response, error) {
	s.Identity.Abandoned(s.login)
	out, login, err := s.Identity.Recover(ctx, r, s.exporter)
	s.login = login
	return response(out, err)
}

// device is the connection's own, zero while there is none.
func (s *Session) device() ids.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal == nil {
		return ids.ID{}
	}
	return s.principal.DeviceID
}

func (s *Session) loginFinish(ctx context.Context, r *wire.LoginFinishRequest) (wire.Response, error) {
	if s.login == nil {
		return nil, wire.Errorf(wire.CodeUnauthenticated, "loginStart comes first")
	}
	out, err := s.Identity.LoginFinish(ctx, s.login, r)
	if err != nil {
		s.login = nil // One try for each KE1.
	}
	return response(out, err)
}

// begin makes a fresh session the connection's own.
func (s *Session) begin(out *wire.Session, p identity.Principal, err error) (wire.Response, error) {
	if err == nil {
		s.login = nil
		err = s.become(p)
	}
	return response(out, err)
}

// become lets the connection speak for p until p's token ends or something of p is revoked. A connection stays with its
// first device.
func (s *Session) become(p identity.Principal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayBecome(p); err != nil {
		return err
	}
	unwatch, err := s.watch(p)
	if err != nil {
		return err
	}
	if s.principal == nil {
		close(s.authed)
	} else {
		s.expiry.Stop()
		s.unwatch()
	}
	s.principal, s.unwatch = &p, unwatch
	s.limits.Login(p.AccountID)
	s.expiry = time.AfterFunc(p.ExpiresAt.Sub(s.Now()), func() { s.expire(p) })
	return nil
}

// watch has the connection end when something of p is revoked, until unwatch is called.
func (s *Session) watch(p identity.Principal) (unwatch func(), err error) {
	if s.Revoked == nil {
		return func() {}, nil
	}
	unwatch, kind := s.Revoked.Watch(p.Subject(), func(kind store.RevocationKind) { s.revoke(p, kind) })
	if kind != 0 {
		return nil, identity.ErrEnded(kind)
	}
	return unwatch, nil
}

// revoke ends a connection of which something was revoked. A call that is under way may be why a session ended: it has begun
// a newer one, for which the connection speaks then.
func (s *Session) revoke(of identity.Principal, kind store.RevocationKind) {
	defer s.guard()
	if kind == store.RevokedSession {
		s.auth.Lock()
		defer s.auth.Unlock()
	}
	if s.isOver(of, kind) {
		s.Metrics.Revoked.Inc()
		s.GoAway(wire.GoAwayRevoked, revokedGrace)
	}
}

// isOver has nothing more served, unless the connection speaks for another session by now.
func (s *Session) isOver(of identity.Principal, kind store.RevocationKind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == store.RevokedSession && s.principal.SessionID != of.SessionID {
		return false
	}
	s.revoked = kind
	return true
}

// expire asks a client whose token has ended to come back with a new one, unless it has refreshed meanwhile.
func (s *Session) expire(p identity.Principal) {
	defer s.guard()
	s.mu.Lock()
	stale := s.principal.ExpiresAt.Equal(p.ExpiresAt)
	s.mu.Unlock()
	if stale {
		s.GoAway(wire.GoAwayTokenExpired, tokenGrace)
	}
}

func (s *Session) isRevoked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked != 0
}

func (s *Session) isAuthenticated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principal != nil || s.admin != nil
}

// whoami returns the connection's device while its token lasts.
func (s *Session) whoami() (identity.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal == nil {
		return identity.Principal{}, wire.Errorf(wire.CodeUnauthenticated, "authenticate this connection first")
	}
	if s.revoked != 0 {
		return identity.Principal{}, identity.ErrEnded(s.revoked)
	}
	if !s.Now().Before(s.principal.ExpiresAt) {
		return identity.Principal{}, wire.Errorf(wire.CodeExpiredToken, "the access token has expired; refresh the session")
	}
	return *s.principal, nil
}
