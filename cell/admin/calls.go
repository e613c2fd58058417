package admin

import (
	"context"

	"quicproquo.dev/schema/wire"
)

// Call answers a request of schema/admin.capnp, other than adminAuthenticate.
func (s *Service) Call(ctx context.Context, a *Admin, request wire.Request) (wire.Response, error) {
	by := a.By()
	switch r := request.(type) {
	case *wire.AdminInviteRequest:
		return s.invite(ctx, a, r)
	case *wire.AdminResetCodeRequest:
		code, expires, err := s.o.Identity.ResetCode(ctx, r.Name, r.Lifetime, by)
		if err != nil {
			return nil, err
		}
		return &wire.Codes{Codes: []string{code}, ExpiresAt: expires}, nil
	case *wire.AdminGetAccountRequest:
		out, err := s.o.Identity.AccountForAdmin(ctx, r.Name, r.AccountID)
		if err != nil {
			return nil, err
		}
		return out, nil
	case *wire.AdminSetDisabledRequest:
		return done(s.o.Identity.SetDisabled(ctx, r.AccountID, r.Disabled, by))
	case *wire.AdminRevokeDeviceRequest:
		return done(s.o.Identity.RevokeDeviceByAdmin(ctx, r.AccountID, r.DeviceID, by))
	case *wire.AdminEndSessionsRequest:
		return done(s.o.Identity.EndSessions(ctx, r.AccountID, by))
	case *wire.AdminDeleteAccountRequest:
		return s.deleteAccount(ctx, a, r)
	case *wire.AdminExportAuditRequest:
		out, err := s.exportAudit(ctx, a, r)
		if err != nil {
			return nil, err
		}
		return out, nil
	}
	return nil, wire.Errorf(wire.CodeUnknownMethod, "method %s is not served here", request.Method())
}

func done(err error) (wire.Response, error) {
	if err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}

// invite mints invitations one by one. Of a call that fails half way nobody learns the codes; they end by themselves.
func (s *Service) invite(ctx context.Context, a *Admin, r *wire.AdminInviteRequest) (wire.Response, error) {
	out := &wire.Codes{}
	for i := range r.Count {
		code, expires, err := s.o.Identity.Invite(ctx, r.Lifetime, a.By())
		if err != nil {
			return nil, err
		}
		out.Codes = append(out.Codes, code)
		if i == 0 {
			out.ExpiresAt = expires // The first to end.
		}
	}
	return out, nil
}

// deleteAccount takes the account's name besides its id, for there is no way back.
func (s *Service) deleteAccount(ctx context.Context, a *Admin, r *wire.AdminDeleteAccountRequest) (wire.Response, error) {
	account, err := s.o.Identity.AccountForAdmin(ctx, "", r.AccountID)
	if err != nil {
		return nil, err
	}
	if account.Name != r.Name {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "account %s has another name; nothing was deleted", r.AccountID).With("field", "name")
	}
	return done(s.o.Identity.DeleteAccountByAdmin(ctx, r.AccountID, a.By()))
}
