package identity

import (
	"bytes"
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func (s *Service) newSession(cert *devicecert.Certificate, now time.Time) (store.Session, Principal, *wire.Session) {
	id := ids.New()
	refresh := newRefreshToken(id)
	row := store.Session{ID: id, DeviceID: cert.DeviceID, RefreshHash: hashRefresh(refresh), CreatedAt: now,
		ExpiresAt: s.refreshEnd(now, now)}
	p := Principal{AccountID: cert.AccountID, DeviceID: cert.DeviceID, SessionID: id, DeviceKey: cert.DeviceKey, ExpiresAt: s.accessEnd(now, now)}
	return row, p, s.session(p, refresh, row.ExpiresAt)
}

func (s *Service) session(p Principal, refresh []byte, refreshExpiry time.Time) *wire.Session {
	return &wire.Session{AccessToken: s.tokens.issue(p), AccessExpiresAt: p.ExpiresAt, RefreshToken: refresh, RefreshExpiresAt: refreshExpiry}
}

// StartSession starts a device's session after a proven login, and adds the device when the account does not have
// it yet: the certificate must be signed by the account's root.
func (s *Service) StartSession(ctx context.Context, l *Login, r *wire.StartSessionRequest, exporter []byte) (*wire.Session, Principal, error) {
	if err := s.mayStart(l); err != nil {
		return nil, Principal{}, err
	}
	if err := s.holds(ctx, l); err != nil {
		return nil, Principal{}, err
	}
	cert, err := proven(r.Certificate, r.Proof, exporter)
	if err != nil {
		return nil, Principal{}, s.refused(ctx, l.account.ID, ids.ID{}, audit.SessionRefused, err)
	}
	if cert.AccountID != l.account.ID || !bytes.Equal(cert.RootKey, l.account.RootKey) {
		return nil, Principal{}, s.told(ctx, audit.SessionRefused(l.account.ID, ids.ID{}, audit.ReasonForeignCertificate),
			wire.Errorf(wire.CodePermissionDenied, "the certificate is not signed by this account's root key"))
	}
	now := s.now()
	session, p, out := s.newSession(cert, now)
	if err := s.startDevice(ctx, cert, r.DeviceName, session, now); err != nil {
		return nil, Principal{}, s.refused(ctx, l.account.ID, cert.DeviceID, audit.SessionRefused, err)
	}
	return out, p, nil
}

func (s *Service) startDevice(ctx context.Context, cert *devicecert.Certificate, name string, session store.Session, now time.Time) error {
	d, err := s.store.Device(ctx, cert.DeviceID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return s.addDevice(ctx, cert, name, session, now)
	case err != nil:
		return err
	case d.AccountID != cert.AccountID || !d.Key.Equal(cert.DeviceKey):
		return errDeviceTaken()
	case d.Revoked:
		return errRevoked()
	}
	if err := s.revokedBy(s.store.CreateSession(ctx, session, audit.SessionStarted(d.AccountID, d.ID, session.ID).At(now))); err != nil {
		return notAdded(err)
	}
	s.seen(ctx, &d)
	return nil
}

func (s *Service) addDevice(ctx context.Context, cert *devicecert.Certificate, name string, session store.Session, now time.Time) error {
	n, err := s.notice(wire.NoticeDeviceAdded, cert.AccountID, cert.DeviceID, now)
	if err != nil {
		return err
	}
	told, err := s.store.AddDevice(ctx, device(cert, name, now), session, wire.MaxDevices, &n,
		audit.DeviceAdded(cert.AccountID, cert.DeviceID, audit.ReasonByPassword).At(now), audit.SessionStarted(cert.AccountID, cert.DeviceID, session.ID).At(now))
	if err != nil {
		return notAdded(err)
	}
	s.tell(told)
	s.log.InfoContext(ctx, "device added", "account", cert.AccountID, "device", cert.DeviceID)
	return nil
}

// notAdded is the answer to a device that was not added, or whose session was not started.
func notAdded(err error) error {
	switch {
	case errors.Is(err, store.ErrExists): // Made at this moment by another call, or the id of something else.
		return errDeviceTaken()
	case errors.Is(err, store.ErrTooMany):
		return wire.Errorf(wire.CodePermissionDenied, "the account has %d devices, and no more are taken; revoke one, or use one of them", wire.MaxDevices)
	case errors.Is(err, store.ErrRevoked):
		return errRevoked()
	}
	return disabled(err)
}

func errDeviceTaken() *wire.Error {
	return wire.Errorf(wire.CodeAlreadyExists, "that device id is taken; make a new one").With("field", "certificate")
}

func errRevoked() *wire.Error {
	return wire.Errorf(wire.CodeDeviceRevoked, "this device was revoked; add a new device")
}

// Refresh trades a refresh token for a new one and a new access token. The token before the present one is taken
// once more, since the answer that carried the present one may have been lost; anything older revokes the session.
func (s *Service) Refresh(ctx context.Context, r *wire.RefreshSessionRequest, exporter []byte) (*wire.Session, Principal, error) {
	if len(r.RefreshToken) != refreshSize {
		return nil, Principal{}, errRefresh()
	}
	d, err := s.store.Device(ctx, r.DeviceID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, Principal{}, s.counted(ctx, audit.RefreshRefused(ids.ID{}, ids.ID{}, audit.ReasonInvalidToken), errRefresh())
	}
	if err != nil {
		return nil, Principal{}, err
	}
	if d.Revoked {
		return nil, Principal{}, s.counted(ctx, audit.RefreshRefused(d.AccountID, d.ID, audit.ReasonDeviceRevoked), errRevoked())
	}
	if !devicecert.VerifyProof(d.Key, exporter, r.Proof) {
		return nil, Principal{}, s.counted(ctx, audit.RefreshRefused(d.AccountID, d.ID, audit.ReasonInvalidProof), errProof())
	}
	if d.Disabled {
		return nil, Principal{}, s.refused(ctx, d.AccountID, d.ID, audit.RefreshRefused, ErrDisabled())
	}
	out, p, err := s.rotate(ctx, d, r.RefreshToken)
	if err == nil {
		s.seen(ctx, &d)
	}
	return out, p, err
}

func (s *Service) rotate(ctx context.Context, d store.Device, token []byte) (*wire.Session, Principal, error) {
	now := s.now()
	id := ids.ID(token[:ids.Size])
	next := newRefreshToken(id)
	var expires, accessEnd time.Time
	err := s.store.UpdateSession(ctx, id, now, func(n *store.Session) (bool, audit.Event, error) {
		switch s.judge(n, d.ID, token, now) {
		case tokenPresent:
			n.PreviousHash = n.RefreshHash
		case tokenPrevious: // The answer that carried the present one was lost.
		case tokenExpired:
			return false, audit.RefreshRefused(d.AccountID, d.ID, audit.ReasonExpiredToken).At(now), errSessionOver()
		case tokenReused:
			return true, audit.SessionRevoked(audit.ByCell(), d.AccountID, d.ID, id, audit.ReasonReusedToken).At(now),
				wire.Errorf(wire.CodeReusedToken, "that refresh token was used before; the session is revoked, log in again")
		default:
			return false, audit.RefreshRefused(d.AccountID, d.ID, audit.ReasonInvalidToken).At(now), errRefresh()
		}
		n.RefreshHash = hashRefresh(next)
		n.ExpiresAt = s.refreshEnd(n.CreatedAt, now)
		expires, accessEnd = n.ExpiresAt, s.accessEnd(n.CreatedAt, now)
		return false, audit.SessionRefreshed(d.AccountID, d.ID, id).At(now), nil
	})
	if wire.HasCode(err, wire.CodeReusedToken) {
		s.revocations.Poke()
	}
	if errors.Is(err, store.ErrNotFound) {
		err = s.refused(ctx, d.AccountID, d.ID, audit.RefreshRefused, errRefresh())
	}
	if err != nil {
		return nil, Principal{}, err
	}
	p := Principal{AccountID: d.AccountID, DeviceID: d.ID, SessionID: id, DeviceKey: d.Key, ExpiresAt: accessEnd}
	return s.session(p, next, expires), p, nil
}

func errRefresh() *wire.Error {
	return wire.Errorf(wire.CodeInvalidToken, "that refresh token is not valid here; log in again")
}

// Authenticate binds an access token to the connection of exporter, without asking the database.
func (s *Service) Authenticate(ctx context.Context, r *wire.AuthenticateRequest, exporter []byte) (Principal, error) {
	p, err := s.tokens.check(r.AccessToken, s.now())
	if err == nil && !devicecert.VerifyProof(p.DeviceKey, exporter, r.Proof) {
		err = errProof()
	}
	if err == nil {
		err = s.ended(p)
	}
	if err != nil { // Of an access token that is not the cell's, nothing in it is believed.
		s.audit.Tally(ctx, audit.TokenRefused(p.AccountID, p.DeviceID, reasonOf(err)))
		return Principal{}, err
	}
	s.audit.Note(ctx, audit.ConnectionAuthenticated(p.AccountID, p.DeviceID, p.SessionID))
	return p, nil
}
