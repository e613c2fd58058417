package identity

import (
	"bytes"
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// A link takes a new device into an account by another one: the new one offers itself under an id that follows from a
// code, which people carry to the other; that one approves; the new one finishes. The cell checks the certificate, and that
// whoever finishes holds the device's key. The code, and what it protects, it never sees.

// linkLife is how long a new device has from its offer to its first session.
const linkLife = 10 * time.Minute

// linkBounds keep links from piling up: they come from strangers.
var linkBounds = store.LinkBounds{InAll: 20_000, OfAddress: 8, OfAccount: 8}

// StartDeviceLink stores a new device's offer.
func (s *Service) StartDeviceLink(ctx context.Context, r *wire.StartDeviceLinkRequest) (*wire.DeviceLink, error) {
	if _, err := devicelink.ParseOffer(r.Offer); err != nil {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "%v", err).With("field", "offer")
	}
	now := s.now()
	l := store.Link{ID: r.LinkID, Offer: r.Offer, CreatedAt: now, ExpiresAt: now.Add(linkLife)}
	switch err := s.store.StartLink(ctx, &l, s.place(ctx), linkBounds); {
	case errors.Is(err, store.ErrExists):
		return nil, wire.Errorf(wire.CodeAlreadyExists, "there is another new device with that code; make a fresh one").With("field", "linkId")
	case errors.Is(err, store.ErrTooMany):
		return nil, wire.RetryAfterf(wire.CodeRateLimited, time.Minute, "too many new devices wait for approval; try again in a minute").With("limit", "links")
	case err != nil:
		return nil, err
	}
	return answer(&l), nil
}

func answer(l *store.Link) *wire.DeviceLink {
	return &wire.DeviceLink{Offer: l.Offer, Approval: l.Approval, Certificate: l.Certificate, ExpiresAt: l.ExpiresAt}
}

// GetDeviceLink tells how far a link is, to whoever knows its id.
func (s *Service) GetDeviceLink(ctx context.Context, r *wire.GetDeviceLinkRequest) (*wire.DeviceLink, error) {
	l, err := s.store.Link(ctx, r.LinkID, s.now())
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && l.Finished:
		return nil, errNoLink()
	case err != nil:
		return nil, err
	}
	return answer(&l), nil
}

func errNoLink() *wire.Error {
	return wire.Errorf(wire.CodeLinkExpired, "no new device waits with that code: compare it, or start over on the new device; a code is good for %d minutes, once", int(linkLife/time.Minute))
}

// ApproveDeviceLink has a new device join the caller's account, by a login that was proven on the caller's connection. The
// certificate must be the account's for what was offered.
func (s *Service) ApproveDeviceLink(ctx context.Context, p Principal, l *Login, r *wire.ApproveDeviceLinkRequest) (*wire.Done, error) {
	if err := s.mayChange(p, l); err != nil {
		return nil, err
	}
	link, err := s.store.Link(ctx, r.LinkID, s.now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoLink()
	}
	if err != nil {
		return nil, err
	}
	cert, err := s.offered(ctx, l, &link, r.Certificate)
	if err != nil {
		return nil, err
	}
	link.Account, link.Certificate, link.Name, link.Approval = p.AccountID, r.Certificate, r.DeviceName, r.Approval
	if err := s.store.ApproveLink(ctx, &link, p.DeviceID, l.proof(), linkBounds, s.now()); err != nil {
		return nil, s.notApproved(ctx, l, cert, err)
	}
	return &wire.Done{}, nil
}

// offered checks the certificate of an approval: signed by the account's root key, for the device that was offered.
func (s *Service) offered(ctx context.Context, l *Login, link *store.Link, certificate []byte) (*devicecert.Certificate, error) {
	cert, err := devicecert.Parse(certificate)
	if err != nil {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "%v", err).With("field", "certificate")
	}
	if cert.AccountID != l.account.ID || !bytes.Equal(cert.RootKey, l.account.RootKey) {
		return nil, s.told(ctx, audit.DeviceRefused(l.account.ID, cert.DeviceID, audit.ReasonForeignCertificate),
			wire.Errorf(wire.CodePermissionDenied, "the certificate is not signed by this account's root key"))
	}
	if link.Finished {
		return nil, errNoLink()
	}
	o, err := devicelink.ParseOffer(link.Offer)
	if err != nil {
		return nil, err
	}
	if o.DeviceID != cert.DeviceID || !o.DeviceKey.Equal(cert.DeviceKey) {
		return nil, s.told(ctx, audit.DeviceRefused(l.account.ID, cert.DeviceID, audit.ReasonForeignCertificate),
			wire.Errorf(wire.CodePermissionDenied, "the certificate is not for the device that was offered"))
	}
	return cert, nil
}

// notApproved is the answer to an approval that was not stored.
func (s *Service) notApproved(ctx context.Context, l *Login, cert *devicecert.Certificate, err error) error {
	refused := func(r audit.Reason, verdict error) error {
		return s.told(ctx, audit.DeviceRefused(cert.AccountID, cert.DeviceID, r), verdict)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return errNoLink()
	case errors.Is(err, store.ErrExists):
		return refused(audit.ReasonConflict, wire.Errorf(wire.CodeAlreadyExists, "the new device was approved already; if not by you, start over on it").With("field", "linkId"))
	case errors.Is(err, store.ErrTooMany):
		return refused(audit.ReasonTooMany, wire.RetryAfterf(wire.CodeRateLimited, time.Minute, "too many new devices of your account are approved and not finished; wait for them").With("limit", "links"))
	case errors.Is(err, store.ErrRevoked):
		return errRevoked()
	case errors.Is(err, store.ErrChanged):
		l.proven = false
		return errProvenBefore()
	}
	return err
}

// FinishDeviceLink adds the device of an approved link, which must hold the connection of exporter, and starts its first
// session. The same device may do so again while the link lives: the answer may have been lost.
func (s *Service) FinishDeviceLink(ctx context.Context, r *wire.FinishDeviceLinkRequest, exporter []byte) (*wire.Session, Principal, error) {
	now := s.now()
	link, err := s.store.Link(ctx, r.LinkID, now)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, Principal{}, errNoLink()
	case err != nil:
		return nil, Principal{}, err
	case link.Account.IsZero():
		return nil, Principal{}, wire.Errorf(wire.CodeUnauthenticated, "no device has approved this one yet")
	}
	cert, err := proven(link.Certificate, r.Proof, exporter)
	if err != nil {
		return nil, Principal{}, s.refused(ctx, link.Account, ids.ID{}, audit.DeviceRefused, err)
	}
	session, p, out := s.newSession(cert, now)
	n, err := s.notice(wire.NoticeDeviceAdded, cert.AccountID, cert.DeviceID, now)
	if err != nil {
		return nil, Principal{}, err
	}
	told, err := s.store.FinishLink(ctx, link.ID, &store.NewDevice{Device: device(cert, link.Name, now), RootKey: cert.RootKey, Session: session, Notice: n,
		Events:  []audit.Event{audit.DeviceAdded(cert.AccountID, cert.DeviceID, audit.ReasonByDevice).At(now)},
		Started: audit.SessionStarted(cert.AccountID, cert.DeviceID, session.ID).At(now)}, wire.MaxDevices, now)
	if err := s.revokedBy(err); err != nil {
		return nil, Principal{}, s.refused(ctx, cert.AccountID, cert.DeviceID, audit.DeviceRefused, notFinished(err))
	}
	s.tell(told)
	s.log.InfoContext(ctx, "device added by another", "account", cert.AccountID, "device", cert.DeviceID)
	return out, p, nil
}

// notFinished is the answer to a device that was not added.
func notFinished(err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return errNoLink()
	case errors.Is(err, store.ErrChanged):
		return wire.Errorf(wire.CodePermissionDenied, "the account has started over under another root key; start over on the new device")
	}
	return notAdded(err)
}
