package identity

import (
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/revocation"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Revocations is what this package asks of *revocation.Watcher.
type Revocations interface {
	Revoked(s revocation.Subject) store.RevocationKind
	Poke()
}

// Connect has the Service know what was revoked, and has announce told of notices that were stored. Call it before the
// Service is used; without it, access tokens are good until they end.
func (s *Service) Connect(r Revocations, announce func([]*store.Message)) {
	s.revocations, s.announce = r, announce
}

// nothingRevoked stands in for a Watcher.
type nothingRevoked struct{}

func (nothingRevoked) Revoked(revocation.Subject) store.RevocationKind { return 0 }
func (nothingRevoked) Poke()                                           {}

// Subject is what of a principal can be revoked.
func (p Principal) Subject() revocation.Subject {
	return revocation.Subject{Account: p.AccountID, Device: p.DeviceID, Session: p.SessionID}
}

// ErrEnded is the answer to who speaks for something that was revoked.
func ErrEnded(kind store.RevocationKind) *wire.Error {
	if kind == store.RevokedDevice {
		return errRevoked()
	}
	return wire.Errorf(wire.CodeInvalidToken, "the session was ended; refresh it, or log in again")
}

// ended is ErrEnded if something of p was revoked.
func (s *Service) ended(p Principal) error {
	if kind := s.revocations.Revoked(p.Subject()); kind != 0 {
		return ErrEnded(kind)
	}
	return nil
}

// revokedBy is called after a change that may have revoked something, and returns its error.
func (s *Service) revokedBy(err error) error {
	if err == nil {
		s.revocations.Poke()
	}
	return err
}

// tell announces notices that were stored.
func (s *Service) tell(notices []*store.Message) {
	if len(notices) > 0 {
		s.announce(notices)
	}
}

// notice makes a notice of what happened to a device, or with a zero device to an account.
func (s *Service) notice(kind wire.NoticeKind, account, device ids.ID, now time.Time) (store.Notice, error) {
	b, err := wire.MarshalNotice(wire.Notice{Kind: kind, AccountID: account, DeviceID: device})
	return store.Notice{Account: account, Device: device, Payload: b, At: now, Until: now.Add(time.Duration(s.policy().Retention.Inbox))}, err
}

// seen notes that a device was seen today, once a day.
func (s *Service) seen(ctx context.Context, d *store.Device) {
	today := s.now().UTC().Truncate(24 * time.Hour)
	if !d.LastSeen.Before(today) {
		return
	}
	if err := s.store.DeviceSeen(ctx, d.ID, today); err != nil {
		s.log.WarnContext(ctx, "that a device was seen was not stored", "device", d.ID, "error", err)
	}
}

// ListDevices returns the devices of the caller's account.
func (s *Service) ListDevices(ctx context.Context, p Principal) (*wire.DeviceList, error) {
	list, err := s.store.Devices(ctx, p.AccountID)
	if err != nil {
		return nil, err
	}
	out := &wire.DeviceList{}
	for i := range list {
		d := &list[i]
		out.Devices = append(out.Devices, wire.Device{DeviceID: d.ID, Name: d.Name, Certificate: d.Certificate, AddedAt: d.CreatedAt, LastSeenAt: d.LastSeen})
	}
	return out, nil
}

// RenameDevice gives a device of the caller's account another name.
func (s *Service) RenameDevice(ctx context.Context, p Principal, r *wire.RenameDeviceRequest) (*wire.Done, error) {
	err := s.store.RenameDevice(ctx, p.AccountID, r.DeviceID, r.Name, audit.DeviceRenamed(p.AccountID, r.DeviceID).At(s.now()))
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoDevice()
	}
	if err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}

func errNoDevice() *wire.Error {
	return wire.Errorf(wire.CodeNotFound, "your account has no such device")
}

// RevokeDevice ends a device of the caller's account for good. A device may end itself; for another one, l must be a login
// of the account, proven on the caller's connection.
func (s *Service) RevokeDevice(ctx context.Context, p Principal, l *Login, r *wire.RevokeDeviceRequest) (*wire.Done, error) {
	var proof *store.Proof
	reason := audit.ReasonByDevice
	if r.DeviceID != p.DeviceID {
		if err := s.mayChange(p, l); err != nil {
			return nil, err
		}
		by := l.proof()
		proof, reason = &by, audit.ReasonByPassword
	}
	err := s.revokeDevice(ctx, p.AccountID, r.DeviceID, proof, audit.ByAccount(p.AccountID), reason)
	if errors.Is(err, store.ErrChanged) {
		l.proven = false
		return nil, errProvenBefore()
	}
	if err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}

// mayChange refuses a change of the caller's account by a login that is not proven, or is another account's.
func (s *Service) mayChange(p Principal, l *Login) error {
	if err := l.check(s.now()); err != nil {
		return err
	}
	if err := s.mayStart(l); err != nil {
		return err
	}
	if l.account.ID != p.AccountID {
		return wire.Errorf(wire.CodeUnauthenticated, "the password that was proven on this connection is another account's")
	}
	return nil
}

// RevokeDeviceByAdmin ends a device of any account, for whoever may: the caller has checked that. by is recorded. notFound:
// the account has no such device.
func (s *Service) RevokeDeviceByAdmin(ctx context.Context, account, device ids.ID, by audit.By) error {
	return s.revokeDevice(ctx, account, device, nil, by, audit.ReasonByAdmin)
}

func (s *Service) revokeDevice(ctx context.Context, account, device ids.ID, proof *store.Proof, by audit.By, reason audit.Reason) error {
	now := s.now()
	n, err := s.notice(wire.NoticeDeviceRevoked, account, device, now)
	if err != nil {
		return err
	}
	told, err := s.store.RevokeDevice(ctx, &n, proof, audit.DeviceRevoked(by, account, device, reason).At(now),
		audit.SessionRevoked(by, account, device, ids.ID{}, audit.ReasonDeviceRevoked).At(now))
	if errors.Is(err, store.ErrNotFound) {
		return errNoDevice()
	}
	if err := s.revokedBy(err); err != nil {
		return err
	}
	s.tell(told)
	s.log.InfoContext(ctx, "device revoked", "account", account, "device", device)
	return nil
}
