package identity

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/revocation"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func (p *person) principal() Principal {
	return Principal{AccountID: p.cert.AccountID, DeviceID: p.cert.DeviceID, DeviceKey: p.cert.DeviceKey}
}

// makeOffer is what a new device of nobody offers, and the device.
func makeOffer(t *testing.T) (*wire.StartDeviceLinkRequest, *person) {
	t.Helper()
	x, err := devicelink.NewExchange()
	must(t, err)
	k := codes.NewLink().Derive()
	p := &person{cert: &devicecert.Certificate{DeviceID: ids.New()}}
	_, p.device, _ = ed25519.GenerateKey(nil)
	o := devicelink.Offer{DeviceID: p.cert.DeviceID, DeviceKey: p.device.Public().(ed25519.PublicKey), ExchangeKey: x.Public(), Name: "tablet"}
	return &wire.StartDeviceLinkRequest{LinkID: k.ID, Offer: o.Seal(&k)}, p
}

// approving is an approval of a new device by an account.
func (p *person) approving(offer *wire.StartDeviceLinkRequest, n *person) *wire.ApproveDeviceLinkRequest {
	cert := devicecert.Issue(p.root, p.cert.AccountID, n.cert.DeviceID, n.device.Public().(ed25519.PublicKey), time.Now())
	return &wire.ApproveDeviceLinkRequest{LinkID: offer.LinkID, Certificate: cert.Marshal(), DeviceName: "tablet", Approval: []byte("approval")}
}

// A link is over ten minutes after it began, wherever it stands, and a proof ten minutes after it was given.
func TestLinksExpire(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	stale := f.login(t, alice)
	f.advance(provenFor + time.Second)
	offer, tablet := makeOffer(t)
	started, err := f.StartDeviceLink(t.Context(), offer)
	must(t, err)
	if !started.ExpiresAt.Equal(f.time().Add(linkLife)) {
		t.Errorf("it ends at %v", started.ExpiresAt)
	}
	_, err = f.ApproveDeviceLink(t.Context(), alice.principal(), stale, alice.approving(offer, tablet))
	wantCode(t, err, wire.CodeUnauthenticated)
	f.advance(linkLife - time.Second)
	l := f.login(t, alice)
	_, err = f.ApproveDeviceLink(t.Context(), alice.principal(), l, alice.approving(offer, tablet))
	must(t, err)
	f.advance(time.Second)
	finish := &wire.FinishDeviceLinkRequest{LinkID: offer.LinkID, Proof: tablet.proof()}
	for what, call := range map[string]func() error{
		"get": func() error {
			_, err := f.GetDeviceLink(t.Context(), &wire.GetDeviceLinkRequest{LinkID: offer.LinkID})
			return err
		},
		"approve": func() error {
			_, err := f.ApproveDeviceLink(t.Context(), alice.principal(), l, alice.approving(offer, tablet))
			return err
		},
		"finish": func() error { _, _, err := f.FinishDeviceLink(t.Context(), finish, exporter); return err },
	} {
		if err := call(); !wire.HasCode(err, wire.CodeLinkExpired) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An approval is of no use once the password, or the root key, is another; the same goes for its proof.
func TestApprovalsNeedAProofThatHolds(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	before := f.login(t, alice)
	other := f.login(t, alice)
	offer, tablet := makeOffer(t)
	_, err = f.StartDeviceLink(t.Context(), offer)
	must(t, err)
	must(t, f.setPassword(t.Context(), other, "another"))
	_, err = f.ApproveDeviceLink(t.Context(), alice.principal(), before, alice.approving(offer, tablet))
	wantCode(t, err, wire.CodeUnauthenticated)
	now, _, err := f.loginWith(t.Context(), "alice", "another")
	must(t, err)
	_, err = f.RevokeDevice(t.Context(), alice.principal(), now, &wire.RevokeDeviceRequest{DeviceID: ids.New()})
	wantCode(t, err, wire.CodeNotFound)
	_, err = f.RevokeDevice(t.Context(), alice.principal(), before, &wire.RevokeDeviceRequest{DeviceID: ids.New()})
	wantCode(t, err, wire.CodeUnauthenticated)
}

// poked counts what the Service has told.
type poked struct{ n atomic.Int64 }

func (*poked) Revoked(revocation.Subject) store.RevocationKind { return 0 }
func (p *poked) Poke()                                         { p.n.Add(1) }

func TestTheAuditLogOfDevices(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	watcher := &poked{}
	var announced []*store.Message
	f.Connect(watcher, func(m []*store.Message) { announced = append(announced, m...) })
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	offer, tablet := makeOffer(t)
	_, err = f.StartDeviceLink(t.Context(), offer)
	must(t, err)
	l := f.login(t, alice)
	foreign := newPerson("mallory").approving(offer, tablet)
	_, err = f.ApproveDeviceLink(t.Context(), alice.principal(), l, foreign)
	wantCode(t, err, wire.CodePermissionDenied)
	_, err = f.ApproveDeviceLink(t.Context(), alice.principal(), l, alice.approving(offer, tablet))
	must(t, err)
	finish := &wire.FinishDeviceLinkRequest{LinkID: offer.LinkID, Proof: alice.proof()}
	_, _, err = f.FinishDeviceLink(t.Context(), finish, exporter)
	wantCode(t, err, wire.CodeInvalidProof)
	finish.Proof = tablet.proof()
	_, who, err := f.FinishDeviceLink(t.Context(), finish, exporter)
	must(t, err)
	_, err = f.RenameDevice(t.Context(), who, &wire.RenameDeviceRequest{DeviceID: who.DeviceID, Name: "kitchen"})
	must(t, err)
	for range 2 { // The second time nothing is stored.
		_, err = f.RevokeDevice(t.Context(), alice.principal(), l, &wire.RevokeDeviceRequest{DeviceID: who.DeviceID})
		must(t, err)
	}
	if err = f.RevokeDeviceByAdmin(t.Context(), alice.cert.AccountID, ids.New(), audit.ByAdmin("x")); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("a device that is none: %v", err)
	}
	must(t, f.RevokeDeviceByAdmin(t.Context(), alice.cert.AccountID, alice.cert.DeviceID, audit.ByAdmin("x")))
	if watcher.n.Load() < 3 || len(announced) != 2 {
		t.Errorf("poked %d times, announced %d", watcher.n.Load(), len(announced))
	}
	ref, err := f.store.AuditRef(t.Context(), alice.cert.AccountID)
	must(t, err)
	hers := f.events(t, r, ref)
	for want, times := range map[string]int{"device.added denied foreign_certificate account": 1, "device.added denied invalid_proof account": 1, "device.added success by_device account": 1,
		"device.renamed success account": 1, "device.revoked success by_password account": 1, "device.revoked success by_admin admin": 1,
		"auth.session_revoked success device_revoked account": 1, "auth.session_revoked success device_revoked admin": 1} {
		n := 0
		for _, e := range hers {
			if e == want {
				n++
			}
		}
		if n != times {
			t.Errorf("%d of %q in\n%s", n, want, strings.Join(hers, "\n"))
		}
	}
}

// A day's first refresh says so, and no other.
func TestLastSeenIsADay(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	session, err := f.signup(t.Context(), alice)
	must(t, err)
	seen := func() time.Time {
		t.Helper()
		list, err := f.ListDevices(t.Context(), alice.principal())
		must(t, err)
		return list.Devices[0].LastSeenAt
	}
	if today := f.time().UTC().Truncate(24 * time.Hour); !seen().Equal(today) {
		t.Errorf("%v, want %v", seen(), today)
	}
	f.advance(24 * time.Hour)
	_, _, err = f.Refresh(t.Context(), &wire.RefreshSessionRequest{DeviceID: alice.cert.DeviceID, RefreshToken: session.RefreshToken, Proof: alice.proof()}, exporter)
	must(t, err)
	if today := f.time().UTC().Truncate(24 * time.Hour); !seen().Equal(today) {
		t.Errorf("%v, want %v", seen(), today)
	}
}

// gone is a Watcher that knows one revocation.
type gone struct {
	subject func(revocation.Subject) bool
	kind    store.RevocationKind
}

func (g *gone) Revoked(s revocation.Subject) store.RevocationKind {
	if g.subject(s) {
		return g.kind
	}
	return 0
}
func (*gone) Poke() {}

// Without a database: a token of what was revoked is refused, and says what the client should do.
func TestTokensOfWhatWasRevoked(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	session, err := f.signup(t.Context(), alice)
	must(t, err)
	f.store.Close()
	request := &wire.AuthenticateRequest{AccessToken: session.AccessToken, Proof: alice.proof()}
	for _, x := range []struct {
		of   func(revocation.Subject) bool
		kind store.RevocationKind
		code wire.Code
	}{
		{func(s revocation.Subject) bool { return s.Device == alice.cert.DeviceID }, store.RevokedDevice, wire.CodeDeviceRevoked},
		{func(s revocation.Subject) bool { return s.Account == alice.cert.AccountID }, store.RevokedAccount, wire.CodeInvalidToken},
		{func(s revocation.Subject) bool { return !s.Session.IsZero() }, store.RevokedSession, wire.CodeInvalidToken},
	} {
		f.Connect(&gone{x.of, x.kind}, nil)
		_, err := f.Authenticate(t.Context(), request, exporter)
		wantCode(t, err, x.code)
	}
	f.Connect(&gone{func(s revocation.Subject) bool {
		return slices.Contains([]ids.ID{s.Account, s.Device, s.Session}, ids.ID{})
	}, store.RevokedDevice}, nil)
	_, err = f.Authenticate(t.Context(), request, exporter)
	must(t, err)
}
