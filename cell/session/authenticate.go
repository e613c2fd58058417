package session

import (
	"context"
	"time"

	"quicproquo.dev/cell/identity"
	"quicproquo.dev/schema/devicecert"
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
		return response(s.Identity.SignupStart(r))
	case *wire.SignupFinishRequest:
		return s.begin(s.Identity.SignupFinish(ctx, r, s.exporter))
	case *wire.LoginStartRequest:
		return s.loginStart(ctx, r)
	case *wire.LoginFinishRequest:
		return s.loginFinish(r)
	case *wire.StartSessionRequest:
		return s.begin(s.Identity.StartSession(ctx, s.login, r, s.exporter))
	case *wire.RefreshSessionRequest:
		return s.begin(s.Identity.Refresh(ctx, r, s.exporter))
	case *wire.AuthenticateRequest:
		p, err := s.Identity.Authenticate(r, s.exporter)
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

// checkBound refuses, before anything is changed, what would make a connection speak for a second device.
func (s *Session) checkBound(request wire.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal == nil {
		return nil
	}
	same := true
	switch r := request.(type) {
	case *wire.SignupFinishRequest:
		same = false // A new account has a new device.
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
	out, login, err := s.Identity.LoginStart(ctx, r)
	s.login = login // Whatever was there before is void.
	return response(out, err)
}

func (s *Session) loginFinish(r *wire.LoginFinishRequest) (wire.Response, error) {
	if s.login == nil {
		return nil, wire.Errorf(wire.CodeUnauthenticated, "loginStart comes first")
	}
	out, err := s.Identity.LoginFinish(s.login, r)
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

// become lets the connection speak for p until p's token ends. A connection stays with its first device.
func (s *Session) become(p identity.Principal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal != nil && s.principal.DeviceID != p.DeviceID {
		return errOtherDevice()
	}
	if s.principal == nil {
		close(s.authed)
	} else {
		s.expiry.Stop()
	}
	s.principal = &p
	s.expiry = time.AfterFunc(p.ExpiresAt.Sub(s.Now()), func() { s.expire(p) })
	return nil
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

func (s *Session) isAuthenticated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principal != nil
}

// whoami returns the connection's device while its token lasts.
func (s *Session) whoami() (identity.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal == nil {
		return identity.Principal{}, wire.Errorf(wire.CodeUnauthenticated, "authenticate this connection first")
	}
	if !s.Now().Before(s.principal.ExpiresAt) {
		return identity.Principal{}, wire.Errorf(wire.CodeExpiredToken, "the access token has expired; refresh the session")
	}
	return *s.principal, nil
}
