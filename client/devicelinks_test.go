package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/devicelink"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// waiting is a new device, as it waits for its approval.
func waiting(t *testing.T) *Link {
	t.Helper()
	o := Options{Profile: t.TempDir() + "/new", Passphrase: []byte("x"), DeviceName: "tablet", KDF: keystore.KDF{Time: 1, MemoryKiB: 64, Threads: 1}}
	l, err := newLink(&entry{opts: o.withDefaults()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// found is what a device of the account makes of an offer that the cell hands it under a code.
func found(code codes.Link, offer []byte) (*LinkRequest, error) {
	q := &LinkRequest{keys: code.Derive(), offer: offer}
	return q, q.open()
}

// A cell that exchanges what it passes on is found out by both sides, and nothing is saved.
func TestAForgedLinkIsRefused(t *testing.T) {
	t.Parallel()
	a, b, mallory := makeAccount(t, "alice"), makeAccount(t, "bob"), makeAccount(t, "mallory")
	alice := a.makeDevice(t)
	know(t, alice, b)
	l := waiting(t)

	its := waiting(t) // The cell's own, which it would like to be approved.
	for what, offer := range map[string][]byte{"its own offer": its.offer, "with its own key": bytes.Replace(l.offer, l.device.Public().(ed25519.PublicKey), its.device.Public().(ed25519.PublicKey), 1),
		"with its own exchange key": bytes.Replace(l.offer, l.exchange.Public(), its.exchange.Public(), 1), "nothing": nil} {
		if _, err := found(l.code, offer); !errors.Is(err, ErrForgedLink) {
			t.Errorf("%s: %v", what, err)
		}
	}
	q, err := found(l.code, l.offer)
	if err != nil || q.Name != "tablet" || q.DeviceID != l.id {
		t.Fatalf("%+v, %v", q, err)
	}
	r, err := alice.approval(t.Context(), q, a.root)
	if err != nil {
		t.Fatal(err)
	}
	good := wire.DeviceLink{Offer: l.offer, Approval: r.Approval, Certificate: r.Certificate}

	theirs, err := mallory.makeDevice(t).approval(t.Context(), q, mallory.root) // By who has seen the code.
	if err != nil {
		t.Fatal(err)
	}
	certify := func(x *account, account, device ids.ID, key ed25519.PublicKey) []byte {
		return devicecert.Issue(x.root, account, device, key, time.Now()).Marshal()
	}
	key := l.device.Public().(ed25519.PublicKey)
	another, err := found(its.code, its.offer)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := alice.approval(t.Context(), another, a.root)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*wire.DeviceLink){
		"an approval of another link":         func(d *wire.DeviceLink) { d.Approval = elsewhere.Approval },
		"one that was changed":                func(d *wire.DeviceLink) { d.Approval = append(bytes.Clone(d.Approval[:100]), d.Approval[99:]...) },
		"no approval":                         func(d *wire.DeviceLink) { d.Approval = []byte("x") },
		"another account's certificate":       func(d *wire.DeviceLink) { d.Certificate = theirs.Certificate },
		"another root's certificate":          func(d *wire.DeviceLink) { d.Certificate = certify(mallory, a.AccountID, l.id, key) },
		"a certificate of another key":        func(d *wire.DeviceLink) { d.Certificate = elsewhere.Certificate },
		"a certificate of another device":     func(d *wire.DeviceLink) { d.Certificate = certify(a, a.AccountID, ids.New(), key) },
		"a certificate for another account":   func(d *wire.DeviceLink) { d.Certificate = certify(a, b.AccountID, l.id, key) },
		"a certificate that is none":          func(d *wire.DeviceLink) { d.Certificate = d.Certificate[:100] },
		"the approval of another certificate": func(d *wire.DeviceLink) { d.Approval = theirs.Approval },
	} {
		bad := good
		change(&bad)
		if err := l.adopt(t.Context(), l.entry, &bad); !errors.Is(err, ErrForgedLink) || Code(err) != "forgedLink" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if exists, err := keystore.Exists(l.entry.opts.Profile); exists || err != nil {
		t.Errorf("a profile was made: %v, %v", exists, err)
	}
	if err := l.adopt(t.Context(), l.entry, &good); err != nil {
		t.Fatal(err)
	}
	self := l.entry.self
	if self.Name != "alice" || self.AccountID != a.AccountID || self.DeviceID != l.id || !bytes.Equal(self.RootKey, a.RootKey) || !self.Pending {
		t.Errorf("%+v", self)
	}
	known, _, err := get[contactsRecord](t.Context(), l.entry.store, contactsName)
	if err != nil || len(known.Accounts) != 1 || !bytes.Equal(known.Accounts[b.AccountID].RootKey, b.RootKey) || known.Accounts[b.AccountID].Name != "bob" {
		t.Errorf("%+v, %v", known, err)
	}
}

// Of many contacts those are told that the cell was asked for last, and of whom is warned the key that is trusted.
func TestContactsOfAnApproval(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	alice := a.makeDevice(t)
	know(t, alice, b)
	other := b.Account
	other.RootKey = makeAccount(t, "x").RootKey
	if err := alice.remember(t.Context(), &other); !isRootKeyChanged(err) {
		t.Fatal(err)
	}
	err := update(t.Context(), alice.store, contactsName, func(r *contactsRecord) (bool, error) {
		for i := range 1000 {
			r.Accounts[ids.New()] = contact{Name: "somebody", RootKey: b.RootKey, CheckedAt: time.Unix(int64(i), 0)}
		}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l := waiting(t)
	q, err := found(l.code, l.offer)
	if err != nil {
		t.Fatal(err)
	}
	r, err := alice.approval(t.Context(), q, a.root)
	if err != nil || len(r.Approval) > wire.MaxLinkApproval {
		t.Fatalf("%d bytes, %v", len(r.Approval), err)
	}
	got, err := l.exchange.Open(r.Approval, l.offer, &l.keys)
	if err != nil || len(got.Contacts) < 200 || got.Contacts[0].AccountID != b.AccountID || !bytes.Equal(got.Contacts[0].RootKey, b.RootKey) {
		t.Errorf("%d contacts, %v", len(got.Contacts), err)
	}
}

// listing is a caller whose cell has a list of devices.
type listing struct{ list wire.DeviceList }

func (l *listing) Call(_ context.Context, req wire.Request) (wire.Response, error) {
	if _, ok := req.(*wire.ListDevicesRequest); !ok {
		return nil, wire.Errorf(wire.CodeNotFound, "not here")
	}
	return &l.list, nil
}

func TestAGhostInTheListIsShown(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	alice, ghost, bobs := a.makeDevice(t), makeAccount(t, "alice").makeDevice(t), b.makeDevice(t)
	cell := &listing{}
	for _, x := range []struct {
		id   ids.ID
		cert []byte
	}{{alice.self.DeviceID, alice.self.Certificate}, {ghost.self.DeviceID, ghost.self.Certificate}, {bobs.self.DeviceID, bobs.self.Certificate},
		{ids.New(), alice.self.Certificate}, {ids.New(), make([]byte, devicecert.Size)}} {
		cell.list.Devices = append(cell.list.Devices, wire.Device{DeviceID: x.id, Name: "one", Certificate: x.cert})
	}
	list, err := alice.devices(t.Context(), cell)
	if err != nil || len(list) != len(cell.list.Devices) {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, d := range list {
		if d.Certified != (i == 0) || d.This != (i == 0) {
			t.Errorf("%d: %+v", i, d)
		}
	}
}

func notice(t *testing.T, seq uint64, inbox ids.ID, n wire.Notice) *wire.Delivery {
	t.Helper()
	b, err := wire.MarshalNotice(n)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Delivery{ChannelID: inbox, Seq: seq, Kind: wire.KindNotice, AcceptedAt: time.Now(), Payload: b}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	c := a.makeDevice(t)
	know(t, c, b)
	inbox, lost, added := c.self.DeviceID, ids.New(), ids.New()
	cell := &listing{wire.DeviceList{Devices: []wire.Device{{DeviceID: added, Name: "kitchen", Certificate: make([]byte, devicecert.Size)}}}}
	broken := notice(t, 7, inbox, wire.Notice{Kind: wire.NoticeAccountDeleted, AccountID: b.AccountID})
	broken.Payload = broken.Payload[:10]
	for _, d := range []*wire.Delivery{
		notice(t, 1, inbox, wire.Notice{Kind: wire.NoticeDeviceAdded, AccountID: a.AccountID, DeviceID: added}),
		notice(t, 2, inbox, wire.Notice{Kind: wire.NoticeDeviceRevoked, AccountID: b.AccountID, DeviceID: lost}),
		notice(t, 2, inbox, wire.Notice{Kind: wire.NoticeDeviceRevoked, AccountID: b.AccountID, DeviceID: lost}), // Once more.
		notice(t, 3, inbox, wire.Notice{Kind: wire.NoticeDeviceRevoked, AccountID: a.AccountID, DeviceID: added}),
		notice(t, 4, inbox, wire.Notice{Kind: wire.NoticeRootKeyReset, AccountID: b.AccountID}),
		notice(t, 5, inbox, wire.Notice{Kind: wire.NoticeDeviceAdded, AccountID: ids.New(), DeviceID: ids.New()}), // Of nobody whom this profile knows.
		notice(t, 6, inbox, wire.Notice{Kind: wire.NoticeAccountDeleted, AccountID: b.AccountID}),
		broken,
	} {
		out, _, err := c.notice(t.Context(), cell, 1, d)
		if err != nil || out.lastSeq != d.Seq {
			t.Fatalf("%d: %+v, %v", d.Seq, out, err)
		}
	}
	var got []Message
	if err := c.showChannel(t.Context(), inbox, func(m Message) error {
		got = append(got, m)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []Message{{Seq: 1, From: "alice", Notice: &Notice{DeviceAdded, true, added, "kitchen"}}, {Seq: 2, From: "bob", Notice: &Notice{DeviceRevoked, false, lost, ""}},
		{Seq: 3, From: "alice", Notice: &Notice{DeviceRevoked, true, added, "kitchen"}}, {Seq: 4, From: "bob", Notice: &Notice{RootKeyReset, false, ids.ID{}, ""}},
		{Seq: 6, From: "bob", Notice: &Notice{AccountDeleted, false, ids.ID{}, ""}}}
	if len(got) != len(want) {
		t.Fatalf("%d notices are shown", len(got))
	}
	for i, m := range got {
		if m.Seq != want[i].Seq || m.From != want[i].From || *m.Notice != *want[i].Notice || m.Text != "" || m.Failure != nil {
			t.Errorf("%+v, %+v", m, *m.Notice)
		}
	}
	known, _, err := get[contactsRecord](t.Context(), c.store, contactsName)
	if err != nil || !known.Accounts[b.AccountID].CheckedAt.IsZero() {
		t.Errorf("bob's key is not asked for: %+v, %v", known, err)
	}
	for account, device := range map[ids.ID]ids.ID{a.AccountID: added, b.AccountID: lost} {
		if list, err := c.revokedOf(t.Context(), account); err != nil || len(list) != 1 || list[0] != device {
			t.Errorf("%v, %v", list, err)
		}
	}
}

// A group with a device in it of which it is known that it was revoked is not joined.
func TestAGroupWithARevokedDeviceIsNotJoined(t *testing.T) {
	t.Parallel()
	p := makePair(t)
	d := notice(t, 1, p.bob.self.DeviceID, wire.Notice{Kind: wire.NoticeDeviceRevoked, AccountID: p.a.AccountID, DeviceID: p.alice.self.DeviceID})
	know(t, p.bob, p.a)
	if _, _, err := p.bob.notice(t.Context(), p.cell(), 1, d); err != nil {
		t.Fatal(err)
	}
	w := p.welcome()
	w.Seq = 2
	if _, err := p.bob.welcome(t.Context(), p.cell(), 1, w); err != nil {
		t.Fatal(err)
	}
	inbox := p.inbox()
	if n := len(inbox.Unread); n != 2 || inbox.Unread[1].Failure == nil || inbox.Unread[1].Failure.Code != failWelcome || p.record().newest() != 0 {
		t.Errorf("%+v", inbox.Unread)
	}
}

func TestRevokedDevicesAreRememberedWithinABound(t *testing.T) {
	t.Parallel()
	var list []ids.ID
	for range 3 * maxRevoked {
		d := ids.New()
		list = addRevoked(addRevoked(list, d), d)
		if list[len(list)-1] != d || len(list) > maxRevoked {
			t.Fatalf("%d are remembered", len(list))
		}
	}
}

func TestWhatIsForged(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{devicelink.ErrForged: true, devicelink.ErrInvalid: true, context.Canceled: false} {
		if got := forged(err); errors.Is(got, ErrForgedLink) != want || !errors.Is(got, err) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}
