package session

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"quicproquo.dev/cell/admin"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Admin answers the calls of schema/admin.capnp: *admin.Service.
type Admin interface {
	Authenticate(ctx context.Context, r *wire.AdminAuthenticateRequest, chain []*x509.Certificate) (*wire.AdminSession, *admin.Admin, error)
	Check(a *admin.Admin) error
	Call(ctx context.Context, a *admin.Admin, r wire.Request) (wire.Response, error)
	Denied(ctx context.Context, by authz.Subject, about ids.ID, first bool) error
}

// permit asks the Authorizer whether the connection may make a request. What a stranger may not, he may after logging in.
func (s *Session) permit(request wire.Request) error {
	subject, action := s.subject(), authz.ActionOf(request)
	authorizer := s.Authorizer
	if authorizer == nil {
		authorizer = authz.Table{}
	}
	object := authz.ObjectOf(request)
	err := authorizer.Authorize(s.ctx, subject, action, object)
	var denied *authz.DeniedError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &denied):
		return err
	case subject.Role == authz.Stranger && action.IsAdmin():
		return wire.Errorf(wire.CodeUnauthenticated, "authenticate this connection as an admin's first")
	case subject.Role == authz.Stranger:
		return wire.Errorf(wire.CodeUnauthenticated, "authenticate this connection first")
	}
	return s.denied(subject, action, object)
}

// denied answers, once it is recorded, what an account tried of an admin, or an admin of a role or a kind that he has not.
func (s *Session) denied(subject authz.Subject, action authz.Action, object authz.Object) error {
	message := "%s is not for %s"
	switch {
	case action.IsAdmin() && !subject.Role.IsAdmin():
		message = "%s is not for a connection of a device (%s); open one with an admin's credential"
	case !action.IsAdmin() && subject.Role.IsAdmin():
		message = "%s is not for a connection of an admin (%s); open one for a device"
	}
	verdict := wire.Errorf(wire.CodePermissionDenied, message, action, subject.Role)
	if s.Admin == nil || !action.IsAdmin() && !subject.Role.IsAdmin() {
		return verdict
	}
	ctx, cancel := context.WithTimeout(s.ctx, callPatience)
	defer cancel()
	if err := s.Admin.Denied(ctx, subject, object.Account, s.overstepped.CompareAndSwap(false, true)); err != nil {
		return err
	}
	return verdict
}

// subject is who the connection speaks for, whether or not that has ended meanwhile: the call finds out.
func (s *Session) subject() authz.Subject {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.admin != nil:
		return s.admin.Subject()
	case s.principal != nil:
		return authz.Subject{Role: authz.Member, Account: s.principal.AccountID, Device: s.principal.DeviceID}
	}
	return authz.Subject{Role: authz.Stranger}
}

// dispatchAdmin runs a call of schema/admin.capnp. permit has let it through.
func (s *Session) dispatchAdmin(request wire.Request, reply answer) {
	if s.Admin == nil {
		reply(nil, wire.Errorf(wire.CodeUnknownMethod, "method %s is not served here", request.Method()))
		return
	}
	if r, ok := request.(*wire.AdminAuthenticateRequest); ok {
		reply(s.authenticateAdmin(r))
		return
	}
	a, err := s.whichAdmin()
	if err != nil {
		reply(nil, err)
		return
	}
	beside(s, reply, func(ctx context.Context) (wire.Response, error) { return s.Admin.Call(ctx, a, request) })
}

// authenticateAdmin runs in the reader: it changes who the connection speaks for.
func (s *Session) authenticateAdmin(r *wire.AdminAuthenticateRequest) (wire.Response, error) {
	ctx, cancel := context.WithTimeout(s.ctx, callPatience)
	defer cancel()
	s.auth.Lock()
	defer s.auth.Unlock()
	out, a, err := s.Admin.Authenticate(ctx, r, s.chain())
	if err == nil {
		err = s.becomeAdmin(a)
	}
	return response(out, err)
}

// chain is the client's certificate chain, leaf first, which the handshake has verified; nil: there is none.
func (s *Session) chain() []*x509.Certificate {
	if s.conn == nil { // A session without a network.
		return nil
	}
	return s.conn.ConnectionState().TLS.PeerCertificates
}

// becomeAdmin lets the connection speak for a, until a's credential ends. It is never both an admin's and a device's.
func (s *Session) becomeAdmin(a *admin.Admin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.principal != nil {
		return errOtherDevice()
	}
	if s.admin == nil {
		close(s.authed)
	} else {
		s.adminExpiry.Stop()
	}
	s.admin = a
	s.adminExpiry = time.AfterFunc(a.Expires.Sub(s.Now()), func() { s.expireAdmin(a) })
	return nil
}

// mayBecome refuses to let an admin's connection speak for a device. It needs s.mu.
func (s *Session) mayBecome(p identity.Principal) error {
	if s.admin != nil || s.principal != nil && s.principal.DeviceID != p.DeviceID {
		return errOtherDevice()
	}
	return nil
}

// expireAdmin asks an admin whose credential has ended to come back, unless he has shown another meanwhile.
func (s *Session) expireAdmin(a *admin.Admin) {
	defer s.guard()
	s.mu.Lock()
	stale := s.admin == a
	s.mu.Unlock()
	if stale {
		s.GoAway(wire.GoAwayTokenExpired, tokenGrace)
	}
}

// whichAdmin returns the connection's admin while the credential lasts and the policy has not changed its mind.
func (s *Session) whichAdmin() (*admin.Admin, error) {
	s.mu.Lock()
	a := s.admin
	s.mu.Unlock()
	if a == nil {
		return nil, wire.Errorf(wire.CodeUnauthenticated, "authenticate this connection as an admin's first")
	}
	if err := s.Admin.Check(a); err != nil {
		return nil, err
	}
	return a, nil
}
