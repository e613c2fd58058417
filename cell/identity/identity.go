// Package identity decides who a connection speaks for: accounts, devices, OPAQUE (RFC 9807) and tokens.
//
// A device is bound three times over: the account's root key signs its certificate, its own key signs the TLS
// exporter of each connection, and tokens name both. A stolen token alone opens nothing.
package identity

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/bytemare/opaque"

	"quicproquo.dev/cell/audit"
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
	form   *opaque.Deserializer // Of OPAQUE messages.
	opaque *opaqueKeys
	decoy  *store.Decoy      // Answers for names that do not exist.
	nobody ed25519.PublicKey // No device has this key.
	tokens tokens
	policy func() *policy.Policy
	now    func() time.Time
	log    *slog.Logger
	audit  audit.Sink // audit.Discard until Audit.

	revocations Revocations
	announce    func([]*store.Message) // Of notices.
	deletions   chan struct{}          // Wakes RunDeletions.
}

// New returns a Service with the cell's keys.
func New(s *store.Store, keys *cellkeys.Keys, p func() *policy.Policy, now func() time.Time, log *slog.Logger) (*Service, error) {
	servers, err := newOPAQUEKeys(keys)
	if err != nil {
		return nil, err
	}
	form, err := opaqueconf.Configuration().Deserializer()
	if err != nil {
		return nil, err
	}
	fake, err := fakeRecord()
	if err != nil {
		return nil, err
	}
	nobody, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	return &Service{store: s, form: form, opaque: servers, decoy: s.NewDecoy(fake, make([]byte, wrappedRootSize)), nobody: nobody,
		tokens: tokens{keys.Tokens}, policy: p, now: now, log: log, audit: audit.Discard,
		revocations: nothingRevoked{}, announce: func([]*store.Message) {}, deletions: make(chan struct{}, 1)}, nil
}

// wrappedRootSize is how long clients make a wrapped root key (docs/protocol.md).
const wrappedRootSize = 61

// SignupStart answers an OPAQUE registration request; whether the name is free shows at SignupFinish.
func (s *Service) SignupStart(ctx context.Context, r *wire.SignupStartRequest) (*wire.SignupStartResponse, error) {
	name, err := newName(r.Name)
	if err != nil {
		return nil, err
	}
	if err := s.maySignUp(ctx, r.Invitation); err != nil {
		return nil, err
	}
	return s.registration(name, r.RegistrationRequest)
}

// registration answers a registration request for a name's password.
func (s *Service) registration(name string, b []byte) (*wire.SignupStartResponse, error) {
	request, err := s.form.RegistrationRequest(b)
	if err != nil {
		return nil, notOPAQUE("registrationRequest")
	}
	id, server := s.opaque.present()
	response, err := server.RegistrationResponse(request, []byte(name), nil)
	if err != nil {
		return nil, err
	}
	return &wire.SignupStartResponse{RegistrationResponse: response.Serialize(), OpaqueKey: id}, nil
}

// registered checks what a client registers: the record, and the cell's key it says it was made with.
func (s *Service) registered(record []byte, key uint32, wrapped []byte) (store.Password, error) {
	if _, err := s.form.RegistrationRecord(record); err != nil {
		return store.Password{}, notOPAQUE("registrationRecord")
	}
	id, ok := s.opaque.registered(key)
	if !ok {
		return store.Password{}, wire.Errorf(wire.CodeInvalidArgument, "opaqueKey is none of this cell's keys; start over").With("field", "opaqueKey")
	}
	return store.Password{OPAQUERecord: record, OPAQUEKey: id, WrappedRootKey: wrapped}, nil
}

func notOPAQUE(field string) *wire.Error {
	return wire.Errorf(wire.CodeInvalidArgument, "%s is not an RFC 9807 message of this protocol's configuration", field).With("field", field)
}

// SignupFinish creates the account with its first device. exporter is the connection's TLS exporter.
func (s *Service) SignupFinish(ctx context.Context, r *wire.SignupFinishRequest, exporter []byte) (*wire.Session, Principal, error) {
	name, err := newName(r.Name)
	if err != nil {
		return nil, Principal{}, err
	}
	password, err := s.registered(r.RegistrationRecord, r.OpaqueKey, r.WrappedRootKey)
	if err != nil {
		return nil, Principal{}, err
	}
	cert, err := proven(r.Certificate, r.Proof, exporter)
	if err != nil {
		return nil, Principal{}, s.counted(ctx, audit.SignupRefused(reasonOf(err)), err)
	}
	invitation, by, err := s.invitation(ctx, r.Invitation)
	if err != nil {
		return nil, Principal{}, err
	}
	now := s.now()
	session, p, out := s.newSession(cert, now)
	events := []audit.Event{audit.AccountCreated(cert.AccountID, cert.DeviceID, session.ID, by).At(now), codesSet(cert.AccountID, cert.DeviceID, r.RecoveryCodes).At(now)}
	if invitation != nil {
		events = append(events, audit.InviteUsed(cert.AccountID).At(now))
	}
	err = s.store.CreateAccount(ctx, store.Account{ID: cert.AccountID, Name: name, RootKey: cert.RootKey,
		OPAQUERecord: password.OPAQUERecord, OPAQUEKey: password.OPAQUEKey, WrappedRootKey: password.WrappedRootKey, CreatedAt: now,
		Skeleton: skeleton(name), Invitation: invitation, RecoveryCodes: codesOf(r.RecoveryCodes)}, device(cert, r.DeviceName, now), session, events...)
	switch {
	case errors.Is(err, store.ErrExists):
		err := wire.Errorf(wire.CodeAlreadyExists, "that name is taken, or looks like one that is; choose another, or log in if it is yours").With("field", "name")
		return nil, Principal{}, s.counted(ctx, audit.SignupRefused(audit.ReasonNameTaken), err)
	case errors.Is(err, store.ErrNoInvitation):
		return nil, Principal{}, s.noInvitation(ctx)
	case err != nil:
		return nil, Principal{}, err
	}
	s.succeeded(ctx, cert.AccountID, attempt{address: s.place(ctx)})
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

// Login is a login under way on one connection: after LoginStart, and proven once LoginFinish was right.
type Login struct {
	account   store.Account
	from      netip.Addr
	server    *opaque.Server
	clientMAC []byte
	attempt   attempt
	known     bool
	skeleton  bool // The account has one.
	proven    bool
	provenAt  time.Time
	code      *store.RecoveryCode // It was not a password that was proven, but this code.
}

// LoginStart answers KE1 with KE2. A name that does not exist is answered too, and fails only at LoginFinish. exporter is
// the connection's TLS exporter, for the proof of a device.
func (s *Service) LoginStart(ctx context.Context, r *wire.LoginStartRequest, exporter []byte) (*wire.LoginStartResponse, *Login, error) {
	name, err := prepareName(r.Name)
	if err != nil {
		return nil, nil, err
	}
	ke1, err := s.form.KE1(r.KE1)
	if err != nil {
		return nil, nil, notOPAQUE("ke1")
	}
	place := s.place(ctx)
	found, err := s.store.LoginAccount(ctx, name, r.DeviceID, place, s.now(), s.decoy)
	if err != nil {
		return nil, nil, err
	}
	l := &Login{account: found.Account, from: audit.AddressOf(ctx), attempt: s.attemptOf(place, name, &found, r, exporter), known: found.Exists, skeleton: found.HasSkeleton}
	if err := s.charge(ctx, l.attempt, l.accountID()); err != nil {
		return nil, nil, err
	}
	record, err := s.record(l, name)
	if err != nil {
		return nil, nil, err
	}
	ke2, out, err := l.server.GenerateKE2(ke1, record)
	if err != nil {
		return nil, nil, err
	}
	l.clientMAC = out.ClientMAC
	return &wire.LoginStartResponse{KE2: ke2.Serialize()}, l, nil
}

// accountID is zero when there is no such account.
func (l *Login) accountID() ids.ID {
	if !l.known {
		return ids.ID{}
	}
	return l.account.ID
}

// record returns the account's OPAQUE record and chooses the cell's key for it. What was registered under a key that is
// gone is of no use, and the account answers as one that does not exist.
func (s *Service) record(l *Login, name string) (*opaque.ClientRecord, error) {
	var ok bool
	if l.server, ok = s.opaque.servers[l.account.OPAQUEKey]; !ok {
		l.server, l.known = s.opaque.ofNobody(name), false
	}
	record, err := s.form.RegistrationRecord(l.account.OPAQUERecord)
	if err != nil {
		return nil, err
	}
	return &opaque.ClientRecord{RegistrationRecord: record, CredentialIdentifier: []byte(name)}, nil
}

// LoginFinish checks KE3. After success the login is proven and StartSession may follow.
func (s *Service) LoginFinish(ctx context.Context, l *Login, r *wire.LoginFinishRequest) (*wire.LoginFinishResponse, error) {
	ke3, err := s.form.KE3(r.KE3)
	if err != nil {
		s.Abandoned(l)
		return nil, notOPAQUE("ke3")
	}
	if l.server == nil {
		return nil, wire.Errorf(wire.CodeUnauthenticated, "loginStart comes first")
	}
	if err := l.server.LoginFinish(ke3, l.clientMAC); err != nil || !l.known {
		reason := audit.ReasonUnknownName
		if l.known {
			reason = audit.ReasonWrongPassword
		}
		return nil, s.toldFrom(l.from, audit.LoginFailed(l.accountID(), reason), wire.Errorf(wire.CodeInvalidCredentials, "unknown name or wrong password"))
	}
	if l.account.Disabled {
		return nil, s.toldFrom(l.from, audit.LoginDenied(l.account.ID, audit.ReasonAccountDisabled), ErrDisabled())
	}
	if err := s.toldFrom(l.from, audit.LoginSucceeded(l.account.ID), nil); err != nil {
		return nil, err
	}
	s.succeeded(ctx, l.account.ID, l.attempt)
	if !l.skeleton {
		s.giveSkeleton(ctx, &l.account)
	}
	l.proven, l.provenAt = true, s.now()
	return &wire.LoginFinishResponse{AccountID: l.account.ID, RootKey: l.account.RootKey, WrappedRootKey: l.account.WrappedRootKey,
		SetPassword: l.outdated(s)}, nil
}

// PrepareName is how names are compared; it refuses what cannot be one.
func (s *Service) PrepareName(name string) (string, error) { return prepareName(name) }
