package identity

import (
	"bytes"
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// provenFor is how long what a connection has proven may be used for changes.
const provenFor = 10 * time.Minute

// check refuses a login that is not proven, or was too long ago.
func (l *Login) check(now time.Time) error {
	if l == nil || !l.proven || now.Sub(l.provenAt) > provenFor {
		return wire.Errorf(wire.CodeUnauthenticated, "prove the password, or a recovery code, on this connection first")
	}
	return nil
}

// mayStart refuses a session before a login is proven and, after a recovery, before the password is set anew: that
// spends the code.
func (s *Service) mayStart(l *Login) error {
	if l == nil || !l.proven {
		return wire.Errorf(wire.CodeUnauthenticated, "log in on this connection first")
	}
	if l.code != nil {
		return wire.Errorf(wire.CodeUnauthenticated, "set a new password first")
	}
	return nil
}

// holds checks that what was proven still is so: the password may have been changed, or the account started over.
func (s *Service) holds(ctx context.Context, l *Login) error {
	a, err := s.store.AccountByID(ctx, l.account.ID)
	if err == nil && a.Disabled {
		return ErrDisabled()
	}
	if errors.Is(err, store.ErrNotFound) { // It was deleted.
		return errProvenBefore()
	}
	if err == nil && !(bytes.Equal(a.OPAQUERecord, l.account.OPAQUERecord) && a.RootKey.Equal(l.account.RootKey)) {
		err = errProvenBefore()
	}
	return err
}

func errProvenBefore() *wire.Error {
	return wire.Errorf(wire.CodeUnauthenticated, "the account's password was changed meanwhile; log in again")
}

// outdated reports whether the password is registered under keys that are on their way out.
func (l *Login) outdated(s *Service) bool {
	id, _ := s.opaque.present()
	return l.account.OPAQUEKey != id
}

// proof is by what the login may change the account's secrets.
func (l *Login) proof() store.Proof {
	if l.code != nil {
		return store.Proof{RecoveryKey: l.code.RecoveryKey}
	}
	return store.Proof{OPAQUERecord: l.account.OPAQUERecord}
}

// SetPasswordStart answers an OPAQUE registration request for the account that the login has proven.
func (s *Service) SetPasswordStart(l *Login, r *wire.SetPasswordStartRequest) (*wire.SignupStartResponse, error) {
	if err := l.check(s.now()); err != nil {
		return nil, err
	}
	return s.registration(l.account.Name, r.RegistrationRequest)
}

// SetPasswordFinish replaces the account's password, and spends the recovery code if it was one that was proven. device is
// the connection's own, or zero: its session is not ended with the others.
func (s *Service) SetPasswordFinish(ctx context.Context, l *Login, r *wire.SetPasswordFinishRequest, device ids.ID) (*wire.Done, error) {
	now := s.now()
	if err := l.check(now); err != nil {
		return nil, err
	}
	if l.isReset() {
		return nil, wire.Errorf(wire.CodePermissionDenied, "with a reset code the account starts over: resetAccount")
	}
	password, err := s.registered(r.RegistrationRecord, r.OpaqueKey, r.WrappedRootKey)
	if err != nil {
		return nil, err
	}
	var endBut *ids.ID
	if r.EndOtherSessions {
		endBut = &device
	}
	events := s.passwordEvents(l, device, now)
	if r.EndOtherSessions {
		events = append(events, audit.SessionRevoked(audit.ByAccount(l.account.ID), l.account.ID, ids.ID{}, ids.ID{}, audit.ReasonPasswordChanged).At(now))
	}
	err = s.store.SetPassword(ctx, l.account.ID, l.proof(), password, endBut, now, events...)
	if err := s.revokedBy(err); err != nil {
		return nil, s.changed(ctx, l, device, err)
	}
	l.account.OPAQUERecord, l.account.OPAQUEKey, l.account.WrappedRootKey, l.code = password.OPAQUERecord, password.OPAQUEKey, password.WrappedRootKey, nil
	s.log.InfoContext(ctx, "password set", "account", l.account.ID, "othersEnd", r.EndOtherSessions)
	return &wire.Done{}, nil
}

func (s *Service) passwordEvents(l *Login, device ids.ID, now time.Time) []audit.Event {
	switch {
	case l.code != nil:
		return []audit.Event{audit.Recovered(l.account.ID).At(now), audit.PasswordChanged(l.account.ID, device, audit.ReasonByRecoveryCode).At(now)}
	case l.outdated(s):
		return []audit.Event{audit.OPAQUERenewed(l.account.ID).At(now)}
	}
	return []audit.Event{audit.PasswordChanged(l.account.ID, device, audit.ReasonByPassword).At(now)}
}

// changed is the answer to a change whose proof holds no more.
func (s *Service) changed(ctx context.Context, l *Login, device ids.ID, err error) error {
	if !errors.Is(err, store.ErrChanged) {
		return disabled(err)
	}
	l.proven = false
	return s.told(ctx, audit.PasswordChangeFailed(l.account.ID, device, audit.ReasonConflict), errProvenBefore())
}

func (l *Login) isReset() bool { return l.code != nil && l.code.WrappedRootKey == nil }

// Recover proves a recovery code. A session may follow once the password is set anew. Whether a name exists does not
// matter to who has no code: the code is looked for, not the name.
func (s *Service) Recover(ctx context.Context, r *wire.RecoverRequest, exporter []byte) (*wire.RecoverResponse, *Login, error) {
	name, err := prepareName(r.Name)
	if err != nil {
		return nil, nil, err
	}
	t := attempt{address: s.place(ctx)}
	if t.address != "" {
		t.against(s, addressRule, t.address)
	}
	if err := s.charge(ctx, t, ids.ID{}); err != nil {
		return nil, nil, err
	}
	if !codes.Verify(r.RecoveryKey, exporter, r.Proof) {
		return nil, nil, s.told(ctx, audit.RecoveryFailed(ids.ID{}, audit.ReasonInvalidProof),
			wire.Errorf(wire.CodeInvalidProof, "the code's signature over this connection's TLS exporter does not verify"))
	}
	account, code, err := s.store.RecoveryAccount(ctx, name, r.RecoveryKey, s.now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, s.told(ctx, audit.RecoveryFailed(ids.ID{}, audit.ReasonNotFound),
			wire.Errorf(wire.CodeInvalidCredentials, "unknown name, or no code of it; each code serves once"))
	}
	if err != nil {
		return nil, nil, err
	}
	if account.Disabled {
		return nil, nil, s.told(ctx, audit.RecoveryFailed(account.ID, audit.ReasonAccountDisabled), ErrDisabled())
	}
	s.succeeded(ctx, account.ID, t)
	l := &Login{account: account, from: audit.AddressOf(ctx), known: true, proven: true, provenAt: s.now(), code: &code}
	return &wire.RecoverResponse{AccountID: account.ID, RootKey: account.RootKey, WrappedRootKey: code.WrappedRootKey}, l, nil
}

// SetRecoveryCodes replaces the account's recovery codes, after a login by password.
func (s *Service) SetRecoveryCodes(ctx context.Context, l *Login, r *wire.SetRecoveryCodesRequest, device ids.ID) (*wire.Done, error) {
	now := s.now()
	if err := l.check(now); err != nil {
		return nil, err
	}
	if err := s.mayStart(l); err != nil {
		return nil, err
	}
	err := s.store.SetRecoveryCodes(ctx, l.account.ID, l.proof(), codesOf(r.RecoveryCodes), now,
		audit.RecoveryCodesSet(l.account.ID, device, len(r.RecoveryCodes)).At(now))
	if errors.Is(err, store.ErrExists) {
		return nil, wire.Errorf(wire.CodeAlreadyExists, "one of the codes is there already; make fresh ones").With("field", "recoveryCodes")
	}
	if err != nil {
		return nil, s.changed(ctx, l, device, err)
	}
	return &wire.Done{}, nil
}

func codesOf(list []wire.RecoveryCode) []store.RecoveryCode {
	var out []store.RecoveryCode
	for _, c := range list {
		out = append(out, store.RecoveryCode{RecoveryKey: c.RecoveryKey, WrappedRootKey: c.WrappedRootKey})
	}
	return out
}

// codesSet is the event of codes that come with another change; none without codes.
func codesSet(account, device ids.ID, list []wire.RecoveryCode) audit.Event {
	if len(list) == 0 {
		return audit.Event{}
	}
	return audit.RecoveryCodesSet(account, device, len(list))
}

// ResetAccount starts the account over that a reset code names: another root key, another password, and this device alone.
func (s *Service) ResetAccount(ctx context.Context, l *Login, r *wire.ResetAccountRequest, exporter []byte) (*wire.Session, Principal, error) {
	now := s.now()
	if err := l.check(now); err != nil {
		return nil, Principal{}, err
	}
	if !l.isReset() {
		return nil, Principal{}, wire.Errorf(wire.CodePermissionDenied, "an account starts over by a reset code, which the cell's admin hands out")
	}
	password, err := s.registered(r.RegistrationRecord, r.OpaqueKey, r.WrappedRootKey)
	if err != nil {
		return nil, Principal{}, err
	}
	cert, err := proven(r.Certificate, r.Proof, exporter)
	switch {
	case err != nil:
		return nil, Principal{}, err
	case cert.AccountID != l.account.ID:
		return nil, Principal{}, wire.Errorf(wire.CodePermissionDenied, "the certificate is another account's")
	case bytes.Equal(cert.RootKey, l.account.RootKey):
		return nil, Principal{}, wire.Errorf(wire.CodeInvalidArgument, "the account starts over under another root key; make one").With("field", "certificate")
	}
	n, err := s.notice(wire.NoticeRootKeyReset, cert.AccountID, ids.ID{}, now)
	if err != nil {
		return nil, Principal{}, err
	}
	n.Others = true // None of the account's own devices is left.
	session, p, out := s.newSession(cert, now)
	told, err := s.store.ResetAccount(ctx, &store.Reset{RecoveryKey: l.code.RecoveryKey, RootKey: cert.RootKey, Password: password,
		RecoveryCodes: codesOf(r.RecoveryCodes), Device: device(cert, r.DeviceName, now), Session: session, Notice: n}, now,
		audit.RootKeyReset(l.account.ID, cert.DeviceID, audit.ReasonByAdmin).At(now),
		audit.SessionStarted(l.account.ID, cert.DeviceID, session.ID).At(now), codesSet(l.account.ID, cert.DeviceID, r.RecoveryCodes).At(now))
	switch {
	case errors.Is(err, store.ErrExists):
		return nil, Principal{}, errDeviceTaken()
	case err != nil:
		return nil, Principal{}, s.changed(ctx, l, cert.DeviceID, err)
	}
	s.revocations.Poke()
	s.tell(told)
	s.log.WarnContext(ctx, "account started over under another root key", "account", l.account.ID, "device", cert.DeviceID)
	return out, p, nil
}

// EndSession ends the session of a principal: its refresh tokens are of no use any more.
func (s *Service) EndSession(ctx context.Context, p Principal) (*wire.Done, error) {
	now := s.now()
	err := s.store.EndSession(ctx, p.SessionID, now, audit.SessionEnded(p.AccountID, p.DeviceID, p.SessionID, audit.ReasonLogout).At(now))
	if err := s.revokedBy(err); err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}
