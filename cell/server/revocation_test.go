package server_test

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// within is what a revocation may take to close a connection anywhere.
const within = 2 * time.Second

// authenticated is a further connection of a device, anywhere.
func authenticated(t *testing.T, c *celltest.Cell, p *celltest.Person) *celltest.Conn {
	t.Helper()
	conn := c.Dial(t)
	celltest.Must[*wire.AuthenticateResponse](conn, &wire.AuthenticateRequest{AccessToken: p.Session.AccessToken, Proof: p.Proof(conn)})
	return conn
}

// away waits until a connection has ended, and says when it was told why, and when it had ended.
func away(t *testing.T, conn *celltest.Conn, since time.Time) (told, ended time.Duration) {
	t.Helper()
	if g, ok := conn.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwayRevoked {
		t.Errorf("pushed %+v", g)
	}
	told = time.Since(since)
	conn.Ended(t)
	return told, time.Since(since)
}

func prove(t *testing.T, p *celltest.Person) {
	t.Helper()
	if _, err := p.LoginOn(p.Conn, p.Name, p.Password); err != nil {
		t.Fatal(err)
	}
}

// Two servers over one database: the connections of a revoked device end at both in time, and its tokens open none.
func TestARevokedDevicesConnectionsEndOnEveryReplica(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	alice := one.Signup(t, "alice")
	prove(t, alice)
	var here, there []time.Duration
	for range 10 {
		phone := alice.Another(one)
		atOne, atTwo := authenticated(t, one, phone), authenticated(t, two, phone)
		begun := time.Now()
		celltest.Must[*wire.Done](alice.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.Certificate.DeviceID})
		var all sync.WaitGroup
		var ended [3]time.Duration
		for i, conn := range []*celltest.Conn{phone.Conn, atOne, atTwo} {
			all.Go(func() { _, ended[i] = away(t, conn, begun) })
		}
		all.Wait()
		here, there = append(here, ended[0], ended[1]), append(there, ended[2])
		for _, c := range []*celltest.Cell{one, two} {
			conn := c.Dial(t)
			conn.Refused(&wire.AuthenticateRequest{AccessToken: phone.Session.AccessToken, Proof: phone.Proof(conn)}, wire.CodeDeviceRevoked)
			conn.Refused(&wire.RefreshSessionRequest{RefreshToken: phone.Session.RefreshToken, DeviceID: phone.Certificate.DeviceID, Proof: phone.Proof(conn)}, wire.CodeDeviceRevoked)
		}
	}
	slices.Sort(here)
	slices.Sort(there)
	t.Logf("connections of a revoked device have ended, at the server that revokes it: %v to %v; at the other: %v to %v", here[0], here[len(here)-1], there[0], there[len(there)-1])
	if last := max(here[len(here)-1], there[len(there)-1]); last > within {
		t.Errorf("one ended after %v", last)
	}
	celltest.Must[*wire.DeviceList](alice.Conn, &wire.ListDevicesRequest{}) // The others go on.
}

func TestWhateverEndsASessionEndsItsConnectionsEverywhere(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	for i, x := range []struct {
		name string
		end  func(t *testing.T, alice, phone *celltest.Person)
		code wire.Code
	}{
		{"logout", func(_ *testing.T, _, phone *celltest.Person) {
			celltest.Must[*wire.Done](phone.Conn, &wire.EndSessionRequest{})
		}, wire.CodeInvalidToken},
		{"a newer session of the device", func(t *testing.T, _, phone *celltest.Person) {
			p := *phone
			p.Conn = one.Dial(t)
			p.Begin()
		}, wire.CodeInvalidToken},
		{"a spent refresh token", func(t *testing.T, _, phone *celltest.Person) {
			conn := one.Dial(t)
			request := &wire.RefreshSessionRequest{RefreshToken: phone.Session.RefreshToken, DeviceID: phone.Certificate.DeviceID, Proof: phone.Proof(conn)}
			for range 2 { // The one before the present one is taken once more.
				request.RefreshToken = celltest.Must[*wire.Session](conn, request).RefreshToken
			}
			request.RefreshToken = phone.Session.RefreshToken
			conn.Refused(request, wire.CodeReusedToken)
		}, wire.CodeInvalidToken},
		{"its device, by itself", func(_ *testing.T, _, phone *celltest.Person) {
			celltest.Must[*wire.Done](phone.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.Certificate.DeviceID})
		}, wire.CodeDeviceRevoked},
	} {
		t.Run(x.name, func(t *testing.T) {
			alice := one.Signup(t, fmt.Sprint("alice", i))
			phone := alice.Another(one)
			elsewhere := authenticated(t, two, phone)
			begun := time.Now()
			x.end(t, alice, phone)
			if told, ended := away(t, elsewhere, begun); ended > within {
				t.Errorf("told after %v, ended after %v", told, ended)
			}
			for _, c := range []*celltest.Cell{one, two} {
				conn := c.Dial(t)
				conn.Refused(&wire.AuthenticateRequest{AccessToken: phone.Session.AccessToken, Proof: phone.Proof(conn)}, x.code)
			}
			celltest.Must[*wire.DeviceList](alice.Conn, &wire.ListDevicesRequest{})
		})
	}
}

// A session that begins on a connection replaces the connection's own, which goes on.
func TestANewerSessionOnTheSameConnectionGoesOn(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice := c.Signup(t, "alice")
	other := authenticated(t, c, alice)
	alice.Begin()
	away(t, other, time.Now())
	if p := alice.Conn.PushWithin(time.Second); p != nil {
		t.Errorf("pushed %+v", p)
	}
	celltest.Must[*wire.DeviceList](alice.Conn, &wire.ListDevicesRequest{})
}

// What a server does not know at its start, since it did not run then, it reads before it takes connections.
func TestARestartedServerKnowsWhatWasRevoked(t *testing.T) {
	t.Parallel()
	one := celltest.New(t)
	two := one.Replica(t)
	alice := one.Signup(t, "alice")
	phone := alice.Another(one)
	two.Stop(t)
	celltest.Must[*wire.Done](phone.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.Certificate.DeviceID})
	two.Start(t)
	conn := two.Dial(t)
	conn.Refused(&wire.AuthenticateRequest{AccessToken: phone.Session.AccessToken, Proof: phone.Proof(conn)}, wire.CodeDeviceRevoked)
}

func TestDeviceCalls(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	phone := alice.Another(c)
	list := celltest.Must[*wire.DeviceList](alice.Conn, &wire.ListDevicesRequest{})
	if len(list.Devices) != 2 || list.Devices[0].DeviceID != alice.Certificate.DeviceID || list.Devices[1].Name != "another" ||
		string(list.Devices[1].Certificate) != string(phone.Certificate.Marshal()) || time.Since(list.Devices[1].LastSeenAt) > 25*time.Hour {
		t.Fatalf("%+v", list)
	}
	id := phone.Certificate.DeviceID
	celltest.Must[*wire.Done](alice.Conn, &wire.RenameDeviceRequest{DeviceID: id, Name: "kitchen ☎"})
	if list = celltest.Must[*wire.DeviceList](phone.Conn, &wire.ListDevicesRequest{}); list.Devices[1].Name != "kitchen ☎" {
		t.Errorf("%+v", list)
	}
	stranger := c.Dial(t)
	for _, r := range []wire.Request{&wire.ListDevicesRequest{}, &wire.RenameDeviceRequest{DeviceID: id, Name: "x"}, &wire.RevokeDeviceRequest{DeviceID: id},
		&wire.ApproveDeviceLinkRequest{LinkID: ids.New(), Certificate: phone.Certificate.Marshal(), Approval: []byte("a")}} {
		stranger.Refused(r, wire.CodeUnauthenticated)
	}
	bob.Conn.Refused(&wire.RenameDeviceRequest{DeviceID: id, Name: "x"}, wire.CodeNotFound)
	alice.Conn.Refused(&wire.RenameDeviceRequest{DeviceID: id, Name: ""}, wire.CodeInvalidArgument)
	alice.Conn.Refused(&wire.RevokeDeviceRequest{DeviceID: id}, wire.CodeUnauthenticated) // No password was proven here.
	prove(t, bob)
	bob.Conn.Refused(&wire.RevokeDeviceRequest{DeviceID: id}, wire.CodeNotFound)
	mallory := *bob // On bob's connection, with bob's device, but alice's password.
	mallory.Name, mallory.Password = alice.Name, alice.Password
	prove(t, &mallory)
	bob.Conn.Refused(&wire.RevokeDeviceRequest{DeviceID: id}, wire.CodeUnauthenticated)
	prove(t, alice)
	for range 2 { // The answer may have been lost.
		celltest.Must[*wire.Done](alice.Conn, &wire.RevokeDeviceRequest{DeviceID: id})
	}
	if list = celltest.Must[*wire.DeviceList](alice.Conn, &wire.ListDevicesRequest{}); len(list.Devices) != 1 {
		t.Errorf("%+v", list)
	}
	// The last one may go too; the password adds another.
	celltest.Must[*wire.Done](alice.Conn, &wire.RevokeDeviceRequest{DeviceID: alice.Certificate.DeviceID})
	away(t, alice.Conn, time.Now())
	alice.Another(c)
}

// A revoked device is given nothing, and nobody gives it a place, while its connection is there still: at the other
// server, which does not know yet.
func TestARevokedDeviceIsRefusedBeforeItsConnectionEnds(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), one.Signup(t, "bob")
	phone := alice.Another(one)
	phone.Upload(1)
	alice.Upload(1)
	bob.Upload(2)
	dm := phone.Create(bob)
	phone.Reconnect(two)
	prove(t, alice)
	celltest.Must[*wire.Done](alice.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.Certificate.DeviceID})
	refused := 0
	for range 3 {
		if _, err := phone.Conn.Call(dm.Message(t, "too late")); wire.HasCode(err, wire.CodeNotFound, wire.CodeDeviceRevoked) {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d of 3 messages are refused", refused)
	}
	_, err := phone.Conn.Call(&wire.UploadKeyPackagesRequest{OneTime: [][]byte{phone.KeyPackage()}})
	if !wire.HasCode(err, wire.CodeDeviceRevoked) {
		t.Errorf("it uploads: %v", err)
	}
	claimed := celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID})
	if len(claimed.Packages) != 1 || claimed.Packages[0].DeviceID != alice.Certificate.DeviceID {
		t.Errorf("KeyPackages of %d devices", len(claimed.Packages))
	}
}

func noticeOf(t *testing.T, p *celltest.Person) wire.Notice {
	t.Helper()
	d := deliveryOf(t, p)
	n, err := wire.UnmarshalNotice(d.Payload)
	if err != nil || d.Kind != wire.KindNotice || d.ChannelID != p.Certificate.DeviceID {
		t.Fatalf("%+v, %v", d, err)
	}
	return n
}

func TestNotices(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	alice, bob, stranger, old := one.Signup(t, "alice"), one.Signup(t, "bob"), one.Signup(t, "stranger"), one.Signup(t, "old")
	for _, p := range []*celltest.Person{bob, old} {
		p.Upload(1)
		alice.Create(p)
	}
	on(two, bob)
	for _, p := range []*celltest.Person{alice, bob, stranger} {
		celltest.Must[*wire.SubscribeResponse](p.Conn, &wire.SubscribeRequest{Notices: true})
	}
	subscribe(t, old) // A client that knows no notices.
	caughtUp(t, alice)
	deliveryOf(t, bob) // The Welcome.
	caughtUp(t, bob)
	caughtUp(t, stranger)
	deliveryOf(t, old)
	caughtUp(t, old)

	phone := alice.Another(one)
	added := wire.Notice{Kind: wire.NoticeDeviceAdded, AccountID: alice.Certificate.AccountID, DeviceID: phone.Certificate.DeviceID}
	for _, p := range []*celltest.Person{alice, bob} {
		if n := noticeOf(t, p); n != added {
			t.Errorf("%s is told %+v", p.Name, n)
		}
	}
	prove(t, alice)
	celltest.Must[*wire.Done](alice.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.Certificate.DeviceID})
	revoked := added
	revoked.Kind = wire.NoticeDeviceRevoked
	for _, p := range []*celltest.Person{alice, bob} {
		if n := noticeOf(t, p); n != revoked {
			t.Errorf("%s is told %+v", p.Name, n)
		}
	}
	for _, p := range []*celltest.Person{stranger, old} {
		if push := p.Conn.PushWithin(1500 * time.Millisecond); push != nil {
			t.Errorf("%s is told %+v", p.Name, push)
		}
	}
	// The old client's inbox goes on behind them, and who knows notices gets what was passed over.
	bob.Upload(1)
	again := on(one, old)
	celltest.Must[*wire.SubscribeResponse](again.Conn, &wire.SubscribeRequest{Notices: true})
	if n := noticeOf(t, again); n != added {
		t.Errorf("told %+v", n)
	}
}

// newcomer is a device that wants to be linked.
type newcomer struct {
	*celltest.Person
	keys     codes.LinkKeys
	exchange *devicelink.Exchange
	offer    []byte
	id       ids.ID
}

func makeNewcomer(t *testing.T, c *celltest.Cell, code codes.Link) *newcomer {
	t.Helper()
	_, device, _ := ed25519.GenerateKey(nil)
	x, err := devicelink.NewExchange()
	if err != nil {
		t.Fatal(err)
	}
	n := &newcomer{Person: &celltest.Person{Name: "alice", Device: device, Conn: c.Dial(t)}, keys: code.Derive(), exchange: x, id: ids.New()}
	n.offer = (&devicelink.Offer{DeviceID: n.id, DeviceKey: device.Public().(ed25519.PublicKey), ExchangeKey: x.Public(), Name: "tablet"}).Seal(&n.keys)
	return n
}

// approval is how a device approves what was offered.
func approval(t *testing.T, by *celltest.Person, n *newcomer) *wire.ApproveDeviceLinkRequest {
	t.Helper()
	o, err := devicelink.OpenOffer(n.offer, &n.keys)
	if err != nil {
		t.Fatal(err)
	}
	a := &devicelink.Approval{AccountID: by.Certificate.AccountID, RootKey: by.Certificate.RootKey, Name: by.Name}
	sealed, err := a.Seal(n.offer, &n.keys)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.ApproveDeviceLinkRequest{LinkID: n.keys.ID, DeviceName: o.Name, Approval: sealed,
		Certificate: devicecert.Issue(by.Root, by.Certificate.AccountID, o.DeviceID, o.DeviceKey, time.Now()).Marshal()}
}

func TestADeviceIsLinkedOverTwoReplicas(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), one.Signup(t, "bob")
	celltest.Must[*wire.SubscribeResponse](alice.Conn, &wire.SubscribeRequest{Notices: true})
	caughtUp(t, alice)
	n := makeNewcomer(t, two, codes.NewLink())
	get, finish := &wire.GetDeviceLinkRequest{LinkID: n.keys.ID}, func() *wire.FinishDeviceLinkRequest {
		return &wire.FinishDeviceLinkRequest{LinkID: n.keys.ID, Proof: n.Proof(n.Conn)}
	}
	n.Conn.Refused(get, wire.CodeLinkExpired)
	n.Conn.Refused(&wire.StartDeviceLinkRequest{LinkID: n.keys.ID, Offer: []byte("no offer")}, wire.CodeInvalidArgument)
	for range 2 {
		if l := celltest.Must[*wire.DeviceLink](n.Conn, &wire.StartDeviceLinkRequest{LinkID: n.keys.ID, Offer: n.offer}); len(l.Approval) > 0 || time.Until(l.ExpiresAt) > 10*time.Minute {
			t.Fatalf("%+v", l)
		}
	}
	other := makeNewcomer(t, one, codes.NewLink())
	other.Conn.Refused(&wire.StartDeviceLinkRequest{LinkID: n.keys.ID, Offer: other.offer}, wire.CodeAlreadyExists)
	n.Conn.Refused(finish(), wire.CodeUnauthenticated)

	good := approval(t, alice, n)
	alice.Conn.Refused(good, wire.CodeUnauthenticated) // No password was proven here.
	prove(t, alice)
	prove(t, bob)
	foreign := *good
	bob.Conn.Refused(&foreign, wire.CodePermissionDenied) // Another account's certificate.
	foreign.Certificate = approval(t, alice, other).Certificate
	alice.Conn.Refused(&foreign, wire.CodePermissionDenied) // Another device's.
	foreign = *good
	foreign.LinkID = ids.New()
	alice.Conn.Refused(&foreign, wire.CodeLinkExpired)
	for range 2 { // The answer may have been lost.
		celltest.Must[*wire.Done](alice.Conn, good)
	}
	bob.Conn.Refused(approval(t, bob, n), wire.CodeAlreadyExists) // A second approver.

	l := celltest.Must[*wire.DeviceLink](n.Conn, get)
	a, err := n.exchange.Open(l.Approval, n.offer, &n.keys)
	if err != nil || a.Name != "alice" || string(l.Certificate) != string(good.Certificate) {
		t.Fatalf("%+v, %v", a, err)
	}
	stolen := finish()
	stolen.Proof = bob.Proof(n.Conn)
	n.Conn.Refused(stolen, wire.CodeInvalidProof)
	replay := finish()
	session := celltest.Must[*wire.Session](n.Conn, replay)
	if notice := noticeOf(t, alice); notice.Kind != wire.NoticeDeviceAdded || notice.DeviceID != n.id {
		t.Errorf("alice is told %+v", notice)
	}
	if list := celltest.Must[*wire.DeviceList](n.Conn, &wire.ListDevicesRequest{}); len(list.Devices) != 2 || list.Devices[1].Name != "tablet" || list.Devices[1].DeviceID != n.id {
		t.Errorf("%+v", list)
	}
	elsewhere := one.Dial(t)
	elsewhere.Refused(replay, wire.CodeInvalidProof) // On another connection.
	elsewhere.Refused(get, wire.CodeLinkExpired)     // Spent.
	alice.Conn.Refused(good, wire.CodeLinkExpired)
	n.Conn.Refused(finish(), wire.CodePermissionDenied) // This connection speaks for it already.
	n.Conn = elsewhere
	again := celltest.Must[*wire.Session](elsewhere, finish()) // Its answer was lost: the same device once more.
	if string(again.RefreshToken) == string(session.RefreshToken) {
		t.Error("a session serves twice")
	}
}

func TestLinksOfAnAddressAreFew(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	var last error
	for range 9 {
		n := makeNewcomer(t, c, codes.NewLink())
		_, last = n.Conn.Call(&wire.StartDeviceLinkRequest{LinkID: n.keys.ID, Offer: n.offer})
	}
	if !wire.HasCode(last, wire.CodeRateLimited) {
		t.Errorf("the ninth: %v", last)
	}
}
