package admin

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// bench is a Service of which a test sets what is around it.
type bench struct {
	*Service
	admins   []policy.Admin
	verify   error
	now      time.Time
	recorded []string
	tallied  int
	away     error // Nothing can be recorded.
}

func makeBench(t *testing.T) *bench {
	t.Helper()
	tokens, err := admintoken.New([]cellkeys.Key{{ID: 1, Key: make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{now: epoch}
	b.Service = New(Options{Sink: b, Tokens: tokens, Verify: func([]*x509.Certificate, time.Time) error { return b.verify },
		Policy: func() *policy.Policy { return &policy.Policy{Access: policy.Access{Admins: b.admins}} },
		Now:    func() time.Time { return b.now }, Logger: slog.New(slog.DiscardHandler)})
	return b
}

// Record implements audit.Sink.
func (b *bench) Record(_ context.Context, events ...audit.Event) error {
	for _, e := range events {
		b.recorded = append(b.recorded, e.Kind().String())
	}
	return b.away
}

// Note implements audit.Sink.
func (*bench) Note(context.Context, audit.Event) {}

// Tally implements audit.Sink.
func (b *bench) Tally(context.Context, audit.Event) { b.tallied++ }

func certificate(name string, uris ...string) []*x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: epoch.Add(time.Hour)}
	for _, text := range uris {
		uri, _ := url.Parse(text)
		c.URIs = append(c.URIs, uri)
	}
	return []*x509.Certificate{c}
}

func TestWhoACertificateIs(t *testing.T) {
	t.Parallel()
	b := makeBench(t)
	b.admins = []policy.Admin{{Name: "a", Role: policy.RoleAuditor}, {Name: "spiffe://x/audit", Role: policy.RoleAuditor}, {Name: "spiffe://x/ops", Role: policy.RoleCellAdmin}, {Name: "z", Role: "of a later release"}}
	for what, x := range map[string]struct {
		chain []*x509.Certificate
		name  string
		role  authz.Role
	}{
		"by name":               {certificate("a"), "a", authz.Auditor},
		"by URI":                {certificate("", "spiffe://x/ops"), "spiffe://x/ops", authz.CellAdmin},
		"more of two":           {certificate("", "spiffe://x/audit", "spiffe://x/ops"), "spiffe://x/ops", authz.CellAdmin},
		"more of two, reversed": {certificate("", "spiffe://x/ops", "spiffe://x/audit"), "spiffe://x/ops", authz.CellAdmin},
		"nobody":                {certificate("b"), "", authz.Stranger},
		"no name":               {certificate(""), "", authz.Stranger},
		"URI before name":       {certificate("a", "spiffe://x/web"), "", authz.Stranger},
		"an unknown role":       {certificate("z"), "", authz.Stranger},
	} {
		a, _, err := b.byCertificate(t.Context(), x.chain)
		if x.role == authz.Stranger {
			if !wire.HasCode(err, wire.CodePermissionDenied) || a != nil {
				t.Errorf("%s: %+v, %v", what, a, err)
			}
			continue
		}
		if err != nil || a.Name != x.name || a.Role != x.role || !a.Expires.Equal(epoch.Add(time.Hour)) {
			t.Errorf("%s: %+v, %v", what, a, err)
		}
	}
}

func TestACredentialIsLookedAtForEachCall(t *testing.T) {
	t.Parallel()
	b := makeBench(t)
	b.admins = []policy.Admin{{Name: "a", Role: policy.RoleCellAdmin}}
	_, a, err := b.Authenticate(t.Context(), &wire.AdminAuthenticateRequest{}, certificate("a"))
	if err != nil || b.Check(a) != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(b *bench){
		"expired": func(b *bench) { b.now = epoch.Add(time.Hour) }, "its CA is gone": func(b *bench) { b.verify = errors.New("unknown") },
		"not listed": func(b *bench) { b.admins = nil }, "another role": func(b *bench) { b.admins = []policy.Admin{{Name: "a", Role: policy.RoleAuditor}} },
	} {
		other := *b
		other.Service = New(b.o)
		o := &other
		o.o.Now, o.o.Verify = func() time.Time { return o.now }, func([]*x509.Certificate, time.Time) error { return o.verify }
		o.o.Policy = func() *policy.Policy { return &policy.Policy{Access: policy.Access{Admins: o.admins}} }
		change(o)
		if o.Check(a) == nil {
			t.Errorf("%s: still an admin", what)
		}
	}
	token, err := b.o.Tokens.Mint(admintoken.Auditor, "x", epoch, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, a, err = b.Authenticate(t.Context(), &wire.AdminAuthenticateRequest{Token: token}, nil)
	if err != nil || a.Role != authz.Auditor {
		t.Fatalf("%+v, %v", a, err)
	}
	b.admins, b.verify = nil, errors.New("unknown") // Certificates do not matter to a token.
	if err := b.Check(a); err != nil {
		t.Error(err)
	}
	b.now = epoch.Add(time.Hour)
	if err := b.Check(a); !wire.HasCode(err, wire.CodeExpiredToken) {
		t.Error(err)
	}
}

// A token is looked at before a certificate: who shows a bad one is told so.
func TestATokenComesFirst(t *testing.T) {
	t.Parallel()
	b := makeBench(t)
	b.admins = []policy.Admin{{Name: "a", Role: policy.RoleCellAdmin}}
	if _, _, err := b.Authenticate(t.Context(), &wire.AdminAuthenticateRequest{Token: []byte("bad")}, certificate("a")); !wire.HasCode(err, wire.CodeInvalidToken) {
		t.Error(err)
	}
}

func TestWhatCannotBeRecordedIsNotAnswered(t *testing.T) {
	t.Parallel()
	b := makeBench(t)
	b.admins, b.away = []policy.Admin{{Name: "a", Role: policy.RoleCellAdmin}}, audit.ErrBusy
	for _, chain := range [][]*x509.Certificate{certificate("a"), certificate("b"), nil} {
		if _, a, err := b.Authenticate(t.Context(), &wire.AdminAuthenticateRequest{}, chain); !errors.Is(err, audit.ErrBusy) || a != nil {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if err := b.Denied(t.Context(), authz.Subject{Role: authz.Member, Account: ids.New()}, ids.ID{}, true); !errors.Is(err, audit.ErrBusy) {
		t.Error(err)
	}
}

func TestTriesAreCountedNotListed(t *testing.T) {
	t.Parallel()
	b := makeBench(t)
	for i := range 100 {
		if err := b.Denied(t.Context(), authz.Subject{Role: authz.Member, Account: ids.New()}, ids.ID{}, i == 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.recorded) != 1 || b.tallied != 99 {
		t.Errorf("%d recorded, %d tallied", len(b.recorded), b.tallied)
	}
}

func TestByWhom(t *testing.T) {
	t.Parallel()
	id := ids.New()
	for s, want := range map[authz.Subject]audit.By{
		{Role: authz.CellAdmin, Admin: "a"}: audit.ByAdmin("a"), {Role: authz.Auditor, Admin: "a"}: audit.ByAdmin("a"),
		{Role: authz.Member, Account: id}: audit.ByAccount(id), {Role: authz.Stranger}: audit.ByStranger(),
	} {
		if byOf(s) != want {
			t.Errorf("%+v", s)
		}
	}
}

func TestALongNameIsCut(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("é", 253)
	if got := cut(name); len(got) > wire.MaxName || !strings.HasPrefix(name, got) || len(got) < wire.MaxName-1 {
		t.Errorf("%d bytes", len(got))
	}
	if cut("short") != "short" {
		t.Error("a short one as well")
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte{})
	f.Add(AfterCheckpoint(7))
	f.Add(cursor{true, 7, 9}.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCursor(b)
		switch {
		case err != nil && !wire.HasCode(err, wire.CodeInvalidCursor):
			t.Errorf("%x: %v", b, err)
		case err == nil && len(b) > 0 && !bytes.Equal(c.bytes(), b):
			t.Errorf("%x is %+v", b, c)
		}
	})
}
