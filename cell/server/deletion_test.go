package server_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// awaitPush reads pushes until one is what is waited for; others are passed over.
func awaitPush[P wire.Push](t *testing.T, c *celltest.Conn, is func(P) bool) (p P) {
	t.Helper()
	for end := time.Now().Add(celltest.Patience); ; {
		if p, ok := c.PushWithin(100 * time.Millisecond).(P); ok && is(p) {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("a %T never came", p)
		}
	}
}

func revoked(g *wire.GoAway) bool { return g.Reason == wire.GoAwayRevoked }

// An account is deleted over the wire: its devices are sent away on every replica, its contacts are told, and get no
// further with it.
func TestAnAccountIsDeleted(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, to := pair(t, c)
	replica := c.Replica(t)
	celltest.Must[*wire.SubscribeResponse](alice.Conn, &wire.SubscribeRequest{})
	elsewhere := replica.Dial(t)
	celltest.Must[*wire.AuthenticateResponse](elsewhere, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(elsewhere)})
	bob.Conn = replica.Dial(t) // And he is told there, in a subscription that knows notices.
	celltest.Must[*wire.AuthenticateResponse](bob.Conn, &wire.AuthenticateRequest{AccessToken: bob.Session.AccessToken, Proof: bob.Proof(bob.Conn)})
	celltest.Must[*wire.SubscribeResponse](bob.Conn, &wire.SubscribeRequest{Notices: true})
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "hello"))

	// Without the password, with another's name, or with neither, nothing happens.
	alice.Conn.Refused(&wire.DeleteAccountRequest{Name: "alice"}, wire.CodeUnauthenticated)
	c.Dial(t).Refused(&wire.DeleteAccountRequest{Name: "alice"}, wire.CodeUnauthenticated)
	conn := c.Dial(t)
	if _, err := alice.LoginOn(conn, "alice", alice.Password); err != nil {
		t.Fatal(err)
	}
	conn.Refused(&wire.DeleteAccountRequest{Name: "bob"}, wire.CodeInvalidArgument)
	celltest.Must[*wire.Done](conn, &wire.DeleteAccountRequest{Name: "alice"})
	conn.Refused(&wire.DeleteAccountRequest{Name: "alice"}, wire.CodeUnauthenticated)

	awaitPush(t, alice.Conn, revoked)
	alice.Conn.Ended(t)
	awaitPush(t, elsewhere, revoked)
	elsewhere.Ended(t)
	notice := awaitPush(t, bob.Conn, func(d *wire.Delivery) bool { return d.Kind == wire.KindNotice })
	if n, err := wire.UnmarshalNotice(notice.Payload); err != nil || n.Kind != wire.NoticeAccountDeleted || n.AccountID != alice.Certificate.AccountID {
		t.Errorf("%+v, %v", n, err)
	}
	again := c.Dial(t)
	again.Refused(&wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(again)}, wire.CodeInvalidToken)
	if _, err := alice.LoginOn(c.Dial(t), "alice", alice.Password); err == nil {
		t.Error("she logs in")
	}
	for _, r := range []wire.Request{&wire.GetAccountRequest{Name: "alice"}, &wire.GetAccountRequest{AccountID: alice.Certificate.AccountID},
		&wire.OpenDMRequest{AccountID: alice.Certificate.AccountID}, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}} {
		bob.Conn.Refused(r, wire.CodeNotFound)
	}
	var refusal *wire.Error
	for end := time.Now().Add(celltest.Patience); refusal == nil; { // The channel closes with the notice, and no later.
		if _, err := bob.Conn.Call(to.Message(t, "too late")); wire.HasCode(err, wire.CodeNotFound) {
			refusal = err.(*wire.Error) //nolint:errorlint,forcetypeassert // HasCode saw it.
		} else if time.Now().After(end) {
			t.Fatalf("he goes on writing: %v", err)
		}
	}
	if len(refusal.Details) != 1 || refusal.Details[0].Value != "accountDeleted" {
		t.Errorf("%+v", refusal)
	}
	c.Signup(t, "alice") // Another one.
	log := c.AwaitAudit(t, map[string]uint64{"account.deleted success": 1})
	if e := log.Find(audit.KindAccountDeleted)[0]; e.Actor != "account" || e.Subject != e.By {
		t.Errorf("%+v", e)
	}
}

// The whole of an export over the wire, in its pages, by an account of some history.
func TestAnAccountIsExported(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(func(p *policy.Policy) { p.Limits.RequestBurst = 200_000 }))
	alice, _, from, _ := pair(t, c)
	const messages = 700 // More than a page.
	var sent []uint64
	for range messages {
		sent = append(sent, alice.Conn.Send(from.Message(t, "one of many")))
	}
	for _, id := range sent {
		if _, err := alice.Conn.Answer(id); err != nil {
			t.Fatal(err)
		}
	}
	c.Dial(t).Refused(&wire.ExportAccountRequest{}, wire.CodeUnauthenticated)
	alice.Conn.Refused(&wire.ExportAccountRequest{After: []byte{200}}, wire.CodeInvalidArgument)
	alice.Conn.Refused(&wire.ExportAccountRequest{After: make([]byte, 65)}, wire.CodeInvalidArgument)
	types, seqs, pages := map[string]int{}, map[uint64]bool{}, 0
	for after := []byte(nil); ; pages++ {
		page := celltest.Must[*wire.ExportPage](alice.Conn, &wire.ExportAccountRequest{After: after})
		for line := range bytes.Lines(page.Lines) {
			var o struct {
				Type string
				Seq  uint64
			}
			if err := json.Unmarshal(line, &o); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			types[o.Type]++
			if o.Type == "messageSent" {
				seqs[o.Seq] = true
			}
		}
		if after = page.Next; len(after) == 0 {
			break
		}
	}
	if types["messageSent"] != messages || len(seqs) != messages || types["account"] != 1 || types["channel"] != 1 || types["auditEvent"] == 0 || pages < 5 {
		t.Errorf("%v in %d pages, %d sequences", types, pages, len(seqs))
	}
}

// A disabled account's connections end on every replica, and nothing of it is handed out; enabled again it goes on, also
// within the time in which its old tokens would have been good.
func TestADisabledAccountIsShutOut(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	alice.Upload(2)
	replica := c.Replica(t)
	elsewhere := replica.Dial(t)
	celltest.Must[*wire.AuthenticateResponse](elsewhere, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(elsewhere)})
	admin := c.Admin(t, admintoken.CellAdmin)
	id := alice.Certificate.AccountID
	celltest.Must[*wire.Done](admin, &wire.AdminSetDisabledRequest{AccountID: id, Disabled: true})
	for _, conn := range []*celltest.Conn{alice.Conn, elsewhere} {
		awaitPush(t, conn, revoked)
		conn.Ended(t)
	}
	for _, at := range []*celltest.Cell{c, replica} {
		conn := at.Dial(t)
		conn.Refused(&wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(conn)}, wire.CodeInvalidToken)
		conn.Refused(&wire.RefreshSessionRequest{RefreshToken: alice.Session.RefreshToken, DeviceID: alice.Certificate.DeviceID, Proof: alice.Proof(conn)}, wire.CodeAccountDisabled)
		if _, err := alice.LoginOn(conn, "alice", alice.Password); !wire.HasCode(err, wire.CodeAccountDisabled) {
			t.Errorf("login: %v", err)
		}
		if _, err := alice.LoginOn(conn, "alice", "wrong"); wire.HasCode(err, wire.CodeAccountDisabled) {
			t.Error("who does not know the password is told")
		}
	}
	bob.Conn.Refused(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: id}, wire.CodeNoKeyPackage)
	celltest.Must[*wire.Account](bob.Conn, &wire.GetAccountRequest{AccountID: id}) // It is there.

	celltest.Must[*wire.Done](admin, &wire.AdminSetDisabledRequest{AccountID: id})
	for end := time.Now().Add(celltest.Patience); ; { // The replica hears of it within a second.
		alice.Conn = replica.Dial(t)
		if _, err := alice.LoginOn(alice.Conn, "alice", alice.Password); err != nil {
			t.Fatal(err)
		}
		_, err := alice.Conn.Call(&wire.StartSessionRequest{Certificate: alice.Certificate.Marshal(), DeviceName: "again", Proof: alice.Proof(alice.Conn)})
		if err == nil {
			break
		}
		if !wire.HasCode(err, wire.CodeInvalidToken) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "back again"))
	if d := deliveryOf(t, bob); d.Kind != wire.KindApplication {
		t.Errorf("bob gets %+v", d)
	}
	if got := celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: id}); len(got.Packages) != 1 {
		t.Errorf("%d KeyPackages are handed out", len(got.Packages))
	}
}
