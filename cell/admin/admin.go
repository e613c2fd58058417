// Package admin answers the calls of those who run the cell. They have no account: an admin is somebody with a token that
// the operator minted, or with a client certificate that the policy names, on a connection that is no device's. Who may do
// what, cell/authz has decided before a call comes here.
//
// Every admin's login, refused or not, and everything an admin does is in the audit log before it is answered.
package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Identity does what is asked to accounts, and records who asked: *identity.Service.
type Identity interface {
	Invite(ctx context.Context, life time.Duration, by audit.By) (code string, expires time.Time, err error)
	ResetCode(ctx context.Context, name string, life time.Duration, by audit.By) (code string, expires time.Time, err error)
	AccountForAdmin(ctx context.Context, name string, id ids.ID) (*wire.AdminAccount, error)
	SetDisabled(ctx context.Context, account ids.ID, disabled bool, by audit.By) error
	RevokeDeviceByAdmin(ctx context.Context, account, device ids.ID, by audit.By) error
	EndSessions(ctx context.Context, account ids.ID, by audit.By) error
	DeleteAccountByAdmin(ctx context.Context, account ids.ID, by audit.By) error
}

// Log is the audit log: *store.Store.
type Log interface {
	VisitAudit(ctx context.Context, after uint64, v store.AuditVisitor) error
}

// Options are what a Service stands on. All are needed.
type Options struct {
	Identity Identity
	Log      Log
	Sink     audit.Sink
	Tokens   *admintoken.Keys
	// Verify judges a client's certificate chain by the CAs in use now.
	Verify func(chain []*x509.Certificate, now time.Time) error
	Policy func() *policy.Policy
	Cell   ids.ID
	Now    func() time.Time
	// Logger gets the reason why somebody is no admin, which the answer does not say.
	Logger *slog.Logger
}

// Service answers admin calls. It is safe for concurrent use.
type Service struct{ o Options }

// New returns a Service.
func New(o Options) *Service { return &Service{o} }

// Admin is who a connection speaks for. It belongs to one connection.
type Admin struct {
	Name string // As the audit log hashes it.
	Role authz.Role
	// Expires is when the credential ends; the connection's rights end with it.
	Expires time.Time

	chain []*x509.Certificate // Nil for a token.

	mu   sync.Mutex
	next []byte // Where the export of this connection goes on without being recorded once more.
}

// Subject is the admin as authz has it.
func (a *Admin) Subject() authz.Subject { return authz.Subject{Role: a.Role, Admin: a.Name} }

// By is the admin as the audit log has it.
func (a *Admin) By() audit.By { return audit.ByAdmin(a.Name) }

// Authenticate makes a connection an admin's, by a token or, without one, by the client certificate of the connection: chain
// is what it showed in its handshake, leaf first.
func (s *Service) Authenticate(ctx context.Context, r *wire.AdminAuthenticateRequest, chain []*x509.Certificate) (*wire.AdminSession, *Admin, error) {
	a, why, err := s.judge(ctx, r.Token, chain)
	if err != nil {
		if recorded := s.o.Sink.Record(ctx, audit.AdminRefused(why).At(s.o.Now())); recorded != nil {
			return nil, nil, recorded
		}
		return nil, nil, err
	}
	if err := s.o.Sink.Record(ctx, audit.AdminAuthenticated(a.By()).At(s.o.Now())); err != nil {
		return nil, nil, err
	}
	return &wire.AdminSession{Name: cut(a.Name), Role: wireRoles[a.Role], ExpiresAt: a.Expires}, a, nil
}

var wireRoles = map[authz.Role]wire.AdminRole{authz.CellAdmin: wire.AdminRoleCellAdmin, authz.Auditor: wire.AdminRoleAuditor}

// cut makes a name one that the wire takes.
func cut(name string) string {
	if len(name) > wire.MaxName {
		name = strings.ToValidUTF8(name[:wire.MaxName], "")
	}
	return name
}

func (s *Service) judge(ctx context.Context, token []byte, chain []*x509.Certificate) (*Admin, audit.Reason, error) {
	switch {
	case len(token) > 0:
		return s.byToken(token)
	case len(chain) == 0:
		return nil, audit.ReasonInvalidProof, wire.Errorf(wire.CodeUnauthenticated,
			"there is neither an admin token nor a client certificate; connect with one of the two")
	}
	return s.byCertificate(ctx, chain)
}

var tokenRoles = map[admintoken.Role]authz.Role{admintoken.CellAdmin: authz.CellAdmin, admintoken.Auditor: authz.Auditor}

func (s *Service) byToken(token []byte) (*Admin, audit.Reason, error) {
	c, err := s.o.Tokens.Verify(token, s.o.Now())
	switch {
	case errors.Is(err, admintoken.ErrExpired):
		return nil, audit.ReasonExpiredToken, wire.Errorf(wire.CodeExpiredToken, "the admin token has expired; take the present one")
	case err != nil: // ErrNotYet tells of clocks.
		return nil, audit.ReasonInvalidToken, wire.Errorf(wire.CodeInvalidToken, "%v", err)
	}
	return &Admin{Name: c.Name, Role: tokenRoles[c.Role], Expires: c.Expires}, 0, nil
}

func (s *Service) byCertificate(ctx context.Context, chain []*x509.Certificate) (*Admin, audit.Reason, error) {
	if err := s.o.Verify(chain, s.o.Now()); err != nil {
		s.o.Logger.InfoContext(ctx, "an admin's certificate is not taken", "error", err)
		return nil, audit.ReasonInvalidProof, errCertificate()
	}
	name, role := s.listed(chain[0])
	if role == authz.Stranger {
		return nil, audit.ReasonNotAuthorized, wire.Errorf(wire.CodePermissionDenied,
			"the client certificate is not an admin's: the cell's access.admins does not name it")
	}
	return &Admin{Name: name, Role: role, Expires: chain[0].NotAfter, chain: chain}, 0, nil
}

func errCertificate() *wire.Error {
	return wire.Errorf(wire.CodeUnauthenticated, "the cell does not take the client certificate any more; use a present one")
}

var policyRoles = map[policy.AdminRole]authz.Role{policy.RoleCellAdmin: authz.CellAdmin, policy.RoleAuditor: authz.Auditor}

// listed finds a certificate among the policy's admins: by its URIs, or by its common name if it has none. A certificate
// with several URIs of which several are listed has the first that is a cell admin's.
func (s *Service) listed(cert *x509.Certificate) (name string, role authz.Role) {
	names := []string{cert.Subject.CommonName}
	if len(cert.URIs) > 0 {
		names = names[:0]
		for _, uri := range cert.URIs {
			names = append(names, uri.String())
		}
	}
	for _, admin := range s.o.Policy().Access.Admins {
		for _, n := range names {
			if n == "" || n != admin.Name {
				continue
			}
			if r := policyRoles[admin.Role]; role == authz.Stranger || r == authz.CellAdmin && role != authz.CellAdmin {
				name, role = n, r
			}
		}
	}
	return name, role
}

// Check says whether a connection still speaks for its admin: the credential may have ended, or the policy may say otherwise
// by now.
func (s *Service) Check(a *Admin) error {
	now := s.o.Now()
	if !now.Before(a.Expires) {
		return wire.Errorf(wire.CodeExpiredToken, "the admin's credential has expired; authenticate with a present one")
	}
	if a.chain == nil {
		return nil
	}
	if s.o.Verify(a.chain, now) != nil {
		return errCertificate()
	}
	if name, role := s.listed(a.chain[0]); name != a.Name || role != a.Role {
		return wire.Errorf(wire.CodeUnauthenticated, "the cell's access.admins has changed; authenticate again")
	}
	return nil
}

// Denied records what somebody tried who may not. A first try of a connection is stored at once; further ones are counted.
func (s *Service) Denied(ctx context.Context, by authz.Subject, about ids.ID, first bool) error {
	e := audit.AdminDenied(byOf(by), about, audit.ReasonNotAuthorized).At(s.o.Now())
	if first {
		return s.o.Sink.Record(ctx, e)
	}
	s.o.Sink.Tally(ctx, e)
	return nil
}

func byOf(s authz.Subject) audit.By {
	switch {
	case s.Role.IsAdmin():
		return audit.ByAdmin(s.Admin)
	case s.Role == authz.Stranger:
		return audit.ByStranger()
	}
	return audit.ByAccount(s.Account)
}
