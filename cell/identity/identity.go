// Package identity decides who a connection speaks for: accounts, devices, OPAQUE (RFC 9807) and tokens.
//
// A device is bound three times over: the account's root key signs its certificate, its own key signs the TLS
// exporter of each connection, and tokens name both. A stolen token alone opens nothing.
package identity

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/opaqueconf"
	"quicproquo.dev/schema/wire"
)

// Service answers the calls of schema/auth.capnp. It is safe for concurrent use.
type Service struct {
	store  *store.Store
	opaque *opaque.Server
	fake   *opaque.ClientRecord // Answers for names that do not exist.
	tokens tokens
	policy func() *policy.Policy
	now    func() time.Time
	log    *slog.Logger
}

// New returns a Service with the cell's keys.
func New(s *store.Store, keys *cellkeys.Keys, p func() *policy.Policy, now func() time.Time, log *slog.Logger) (*Service, error) {
	server, err := keys.OPAQUE.Server()
	if err != nil {
		return nil, err
	}
	// One for all: making one takes longer than finding a real one, which would show. What a client sees of it is masked anew each time.
	fake, err := opaqueconf.Configuration().GetFakeRecord(nil)
	if err != nil {
		return nil, err
	}
	return &Service{store: s, opaque: server, fake: fake, tokens: tokens{keys.Tokens}, policy: p, now: now, log: log}, nil
}

// SignupStart answers an OPAQUE registration request; whether the name is free shows at SignupFinish.
func (s *Service) SignupStart(r *wire.SignupStartRequest) (*wire.SignupStartResponse, error) {
	name, err := prepareName(r.Name)
	if err != nil {
		return nil, err
	}
	request, err := s.opaque.Deserialize.RegistrationRequest(r.RegistrationRequest)
	if err != nil {
		return nil, notOPAQUE("registrationRequest")
	}
	response, err := s.opaque.RegistrationResponse(request, []byte(name), nil)
	if err != nil {
		return nil, err
	}
	return &wire.SignupStartResponse{RegistrationResponse: response.Serialize()}, nil
}

func notOPAQUE(field string) *wire.Error {
	return wire.Errorf(wire.CodeInvalidArgument, "%s is not an RFC 9807 message of this protocol's configuration", field).With("field", field)
}

// SignupFinish creates the account with its first device. exporter is the connection's TLS exporter.
func (s *Service) SignupFinish(ctx context.Context, r *wire.SignupFinishRequest, exporter []byte) (*wire.Session, Principal, error) {
	name, err := prepareName(r.Name)
	if err != nil {
		return nil, Principal{}, err
	}
	if _, err := s.opaque.Deserialize.RegistrationRecord(r.RegistrationRecord); err != nil {
		return nil, Principal{}, notOPAQUE("registrationRecord")
	}
	cert, err := proven(r.Certificate, r.Proof, exporter)
	if err != nil {
		return nil, Principal{}, err
	}
	now := s.now()
	session, p, out := s.newSession(cert, now)
	err = s.store.CreateAccount(ctx, store.Account{ID: cert.AccountID, Name: name, RootKey: cert.RootKey,
		OPAQUERecord: r.RegistrationRecord, WrappedRootKey: r.WrappedRootKey, CreatedAt: now}, device(cert, r.DeviceName, now), session)
	if errors.Is(err, store.ErrExists) {
		return nil, Principal{}, wire.Errorf(wire.CodeAlreadyExists, "that name is taken; choose another, or log in if it is yours").With("field", "name")
	}
	if err != nil {
		return nil, Principal{}, err
	}
	s.log.InfoContext(ctx, "account created", "account", cert.AccountID, "device", cert.DeviceID)
	return out, p, nil
}

// proven parses a certificate and checks that its device holds this connection.
func proven(certificate, proof, exporter []byte) (*devicecert.Certificate, error) {
	cert, err := devicecert.Parse(certificate)
	if err != nil {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "%v", err).With("field", "certificate")
	}
	if cert.AccountID.IsZero() || cert.DeviceID.IsZero() {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "the certificate names no account or no device").With("field", "certificate")
	}
	if !devicecert.VerifyProof(cert.DeviceKey, exporter, proof) {
		return nil, errProof()
	}
	return cert, nil
}

func errProof() *wire.Error {
	return wire.Errorf(wire.CodeInvalidProof, "the device's signature over this connection's TLS exporter does not verify")
}

func device(cert *devicecert.Certificate, name string, now time.Time) store.Device {
	return store.Device{ID: cert.DeviceID, AccountID: cert.AccountID, Key: cert.DeviceKey, Certificate: cert.Marshal(), Name: name, CreatedAt: now}
}

func (s *Service) newSession(cert *devicecert.Certificate, now time.Time) (store.Session, Principal, *wire.Session) {
	id := ids.New()
	refresh := newRefreshToken(id)
	row := store.Session{ID: id, DeviceID: cert.DeviceID, RefreshHash: hashRefresh(refresh), CreatedAt: now,
		ExpiresAt: now.Add(time.Duration(s.policy().Sessions.RefreshTokenTTL))}
	p := Principal{AccountID: cert.AccountID, DeviceID: cert.DeviceID, SessionID: id, DeviceKey: cert.DeviceKey}
	return row, s.withExpiry(&p, now), s.session(p, refresh, row.ExpiresAt)
}

func (s *Service) withExpiry(p *Principal, now time.Time) Principal {
	p.ExpiresAt = now.Add(time.Duration(s.policy().Sessions.AccessTokenTTL))
	return *p
}

func (s *Service) session(p Principal, refresh []byte, refreshExpiry time.Time) *wire.Session {
	return &wire.Session{AccessToken: s.tokens.issue(p), AccessExpiresAt: p.ExpiresAt, RefreshToken: refresh, RefreshExpiresAt: refreshExpiry}
}

// Login is a login under way on one connection: after LoginStart, and proven once LoginFinish was right.
type Login struct {
	account   store.Account
	clientMAC []byte
	known     bool
	proven    bool
}

// LoginStart answers KE1 with KE2. A name that does not exist is answered too, and fails only at LoginFinish.
func (s *Service) LoginStart(ctx context.Context, r *wire.LoginStartRequest) (*wire.LoginStartResponse, *Login, error) {
	name, err := prepareName(r.Name)
	if err != nil {
		return nil, nil, err
	}
	ke1, err := s.opaque.Deserialize.KE1(r.KE1)
	if err != nil {
		return nil, nil, notOPAQUE("ke1")
	}
	account, record, known, err := s.record(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	ke2, out, err := s.opaque.GenerateKE2(ke1, record)
	if err != nil {
		return nil, nil, err
	}
	return &wire.LoginStartResponse{KE2: ke2.Serialize()}, &Login{account: account, clientMAC: out.ClientMAC, known: known}, nil
}

// record returns the account's OPAQUE record, or a fake one for a name that does not exist.
func (s *Service) record(ctx context.Context, name string) (store.Account, *opaque.ClientRecord, bool, error) {
	account, err := s.store.AccountByName(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return store.Account{}, &opaque.ClientRecord{RegistrationRecord: s.fake.RegistrationRecord, CredentialIdentifier: []byte(name)}, false, nil
	}
	if err != nil {
		return store.Account{}, nil, false, err
	}
	record, err := s.opaque.Deserialize.RegistrationRecord(account.OPAQUERecord)
	if err != nil {
		return store.Account{}, nil, false, err
	}
	return account, &opaque.ClientRecord{RegistrationRecord: record, CredentialIdentifier: []byte(name)}, true, nil
}

// LoginFinish checks KE3. After success the login is proven and StartSession may follow.
func (s *Service) LoginFinish(l *Login, r *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error) {
	ke3, err := s.opaque.Deserialize.KE3(r.KE3)
	if err != nil {
		return nil, notOPAQUE("ke3")
	}
	if err := s.opaque.LoginFinish(ke3, l.clientMAC); err != nil || !l.known {
		return nil, wire.Errorf(wire.CodeInvalidCredentials, "unknown name or wrong password")
	}
	l.proven = true
	return &wire.LoginFinishResponse{AccountID: l.account.ID, RootKey: l.account.RootKey, WrappedRootKey: l.account.WrappedRootKey}, nil
}

// StartSession starts a device's session after a proven login, and adds the device when the account does not have
// it yet: the certificate must be signed by the account's root.
func (s *Service) StartSession(ctx context.Context, l *Login, r *wire.StartSessionRequest, exporter []byte) (*wire.Session, Principal, error) {
	if l == nil || !l.proven {
		return nil, Principal{}, wire.Errorf(wire.CodeUnauthenticated, "log in on this connection first")
	}
	cert, err := proven(r.Certificate, r.Proof, exporter)
	if err != nil {
		return nil, Principal{}, err
	}
	if cert.AccountID != l.account.ID || !bytes.Equal(cert.RootKey, l.account.RootKey) {
		return nil, Principal{}, wire.Errorf(wire.CodePermissionDenied, "the certificate is not signed by this account's root key")
	}
	now := s.now()
	session, p, out := s.newSession(cert, now)
	if err := s.startDevice(ctx, cert, r.DeviceName, session, now); err != nil {
		return nil, Principal{}, err
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
	return s.store.CreateSession(ctx, session)
}

func (s *Service) addDevice(ctx context.Context, cert *devicecert.Certificate, name string, session store.Session, now time.Time) error {
	err := s.store.AddDevice(ctx, device(cert, name, now), session, wire.MaxDevices)
	switch {
	case errors.Is(err, store.ErrExists): // Made at this moment by another call, or the id of something else.
		return errDeviceTaken()
	case errors.Is(err, store.ErrTooMany):
		return wire.Errorf(wire.CodePermissionDenied, "the account has %d devices, and no more are taken; use one of them", wire.MaxDevices)
	case err == nil:
		s.log.InfoContext(ctx, "device added", "account", cert.AccountID, "device", cert.DeviceID)
	}
	return err
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
		return nil, Principal{}, errRefresh()
	}
	if err != nil {
		return nil, Principal{}, err
	}
	if d.Revoked {
		return nil, Principal{}, errRevoked()
	}
	if !devicecert.VerifyProof(d.Key, exporter, r.Proof) {
		return nil, Principal{}, errProof()
	}
	return s.rotate(ctx, d, r.RefreshToken)
}

func (s *Service) rotate(ctx context.Context, d store.Device, token []byte) (*wire.Session, Principal, error) {
	now := s.now()
	id := ids.ID(token[:ids.Size])
	next := newRefreshToken(id)
	var expires time.Time
	err := s.store.UpdateSession(ctx, id, now, func(n *store.Session) (bool, error) {
		hash := hashRefresh(token)
		switch {
		case n.DeviceID != d.ID || n.Revoked || !now.Before(n.ExpiresAt):
			return false, errRefresh()
		case subtle.ConstantTimeCompare(hash, n.RefreshHash) == 1:
			n.PreviousHash = hash
		case subtle.ConstantTimeCompare(hash, n.PreviousHash) == 1:
		default:
			return true, wire.Errorf(wire.CodeReusedToken, "that refresh token was used before; the session is revoked, log in again")
		}
		n.RefreshHash = hashRefresh(next)
		n.ExpiresAt = now.Add(time.Duration(s.policy().Sessions.RefreshTokenTTL))
		expires = n.ExpiresAt
		return false, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		err = errRefresh()
	}
	if err != nil {
		return nil, Principal{}, err
	}
	p := Principal{AccountID: d.AccountID, DeviceID: d.ID, SessionID: id, DeviceKey: d.Key}
	p = s.withExpiry(&p, now)
	return s.session(p, next, expires), p, nil
}

func errRefresh() *wire.Error {
	return wire.Errorf(wire.CodeInvalidToken, "that refresh token is not valid here; log in again")
}

// Authenticate binds an access token to the connection of exporter, without asking the database.
func (s *Service) Authenticate(r *wire.AuthenticateRequest, exporter []byte) (Principal, error) {
	p, err := s.tokens.check(r.AccessToken, s.now())
	if err != nil {
		return Principal{}, err
	}
	if !devicecert.VerifyProof(p.DeviceKey, exporter, r.Proof) {
		return Principal{}, errProof()
	}
	return p, nil
}

// PrepareName is how names are compared; it refuses what cannot be one.
func (s *Service) PrepareName(name string) (string, error) { return prepareName(name) }
