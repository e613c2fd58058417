package identity

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Audit has what is refused, and what is not stored with a change of its own, told to sink. Call it before the Service is used.
func (s *Service) Audit(sink audit.Sink) { s.audit = sink }

// told returns verdict once the event is stored. An event that cannot be stored is answered as that: nobody finds out
// what a try would have led to while nothing is recorded.
func (s *Service) told(ctx context.Context, e audit.Event, verdict error) error {
	if err := s.audit.Record(ctx, e.At(s.now())); err != nil {
		return err
	}
	return verdict
}

// counted returns verdict, of which the event tells together with others like it: strangers can cause as many as they like,
// and nothing that they could want depends on it.
func (s *Service) counted(ctx context.Context, e audit.Event, verdict error) error {
	s.audit.Tally(ctx, e.At(s.now()))
	return verdict
}

// tellPatience is how long a login's verdict waits for its event, where no request's deadline says so.
const tellPatience = 5 * time.Second

// toldFrom is told for a call that has no context of its own.
func (s *Service) toldFrom(from netip.Addr, e audit.Event, verdict error) error {
	ctx, cancel := context.WithTimeout(audit.WithAddress(context.Background(), from), tellPatience)
	defer cancel()
	return s.told(ctx, e, verdict)
}

// reasonOf is why a wire error refused, in the words of the audit log.
func reasonOf(err error) audit.Reason {
	var e *wire.Error
	if !errors.As(err, &e) {
		return audit.ReasonOther
	}
	switch e.Code {
	case wire.CodeInvalidProof:
		return audit.ReasonInvalidProof
	case wire.CodeInvalidToken:
		return audit.ReasonInvalidToken
	case wire.CodeExpiredToken:
		return audit.ReasonExpiredToken
	case wire.CodeReusedToken:
		return audit.ReasonReusedToken
	case wire.CodeAccountDisabled:
		return audit.ReasonAccountDisabled
	case wire.CodeDeviceRevoked:
		return audit.ReasonDeviceRevoked
	case wire.CodeAlreadyExists:
		return audit.ReasonIDTaken
	case wire.CodePermissionDenied: // Of what comes here: more devices than an account may have.
		return audit.ReasonTooMany
	}
	return audit.ReasonOther
}

// refused tells of a device or session that was refused for what the caller sent. What the database's state is to blame
// for is no verdict, and is passed on.
func (s *Service) refused(ctx context.Context, account, device ids.ID, event func(account, device ids.ID, r audit.Reason) audit.Event, err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Retryable {
		return err
	}
	return s.told(ctx, event(account, device, reasonOf(err)), err)
}

// Abandoned tells of a login that was begun, and that its connection will not finish. Others, nil among them, are none.
func (s *Service) Abandoned(l *Login) {
	if l == nil || l.server == nil || !l.provenAt.IsZero() {
		return
	}
	ctx := audit.WithAddress(context.Background(), l.from)
	s.audit.Tally(ctx, audit.LoginAbandoned(l.accountID()).At(s.now()))
}
