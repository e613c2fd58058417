package e2elocal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/wire"
)

// link adds a device to an account by another one of it.
func (c *cell) link(by *person) *person {
	c.t.Helper()
	p := &person{t: c.t, name: by.name, opts: c.options()}
	l, err := client.StartLink(c.t.Context(), p.opts)
	if err != nil {
		c.t.Fatal(err)
	}
	q, err := by.FindLink(c.t.Context(), l.Code())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := by.ApproveLink(c.t.Context(), q); err != nil {
		c.t.Fatal(err)
	}
	if p.Client, err = l.Wait(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(p.Close)
	return p
}

// notice waits for the next one.
func (f *follower) notice() client.Message {
	f.t.Helper()
	select {
	case m := <-f.notices:
		return m
	case err := <-f.ended:
		f.t.Fatalf("following ended: %v", err)
	case <-time.After(30 * time.Second):
		f.t.Fatal("no notice came")
	}
	return client.Message{}
}

func TestALinkedDeviceReadsAndWrites(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob, carol := c.signup("alice"), c.signup("bob"), c.signup("carol")
	alice.dm(carol, "an old conversation")
	carol.expect("an old conversation")
	f := alice.follow()
	tablet := c.link(alice)
	if m := f.notice(); m.Notice.Kind != client.DeviceAdded || !m.Notice.Own || m.Notice.Device != tablet.Whoami().DeviceID || m.Notice.DeviceName != "test" {
		t.Errorf("told %+v, %+v", m, *m.Notice)
	}
	f.stop()
	if me := tablet.Whoami(); me.AccountID != alice.Whoami().AccountID || me.Name != "alice" || me.DeviceID == alice.Whoami().DeviceID {
		t.Errorf("it became %+v", me)
	}
	bob.dm(alice, "to both devices")
	alice.expect("to both devices")
	tablet.expect("to both devices")
	tablet.dm(bob, "from the new one")
	bob.expect("from the new one")
	alice.expect("from the new one")
	tablet = tablet.again()
	list, err := tablet.Devices(t.Context())
	if err != nil || len(list) != 2 || !list[1].This || list[0].This || !list[0].Certified || !list[1].Certified || list[1].SeenOn.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := tablet.NewRecoveryCodes(t.Context(), 1); err != nil { // It has all that a device has.
		t.Error(err)
	}
}

// The new device trusts whom the other one trusts, under the keys that that one has seen.
func TestALinkedDeviceKnowsTheContactsKeys(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "so that alice knows bob")
	tablet := c.link(alice)
	startOver(t, c, bob)
	_, err := tablet.SendDM(t.Context(), "bob", "hello")
	var changed *client.RootKeyChangedError
	if !errors.As(err, &changed) {
		t.Errorf("writing to an account with another key: %v", err)
	}
	fresh := c.login("alice") // By password: it sees bob for the first time.
	if _, err := fresh.SendDM(t.Context(), "bob", "hello"); !errors.Is(err, client.ErrNotInGroup) {
		t.Error("the control:", err)
	}
}

// startOver resets an account.
func startOver(t *testing.T, c *cell, p *person) {
	t.Helper()
	o := c.options()
	code, _, err := c.admin().ResetCode(t.Context(), p.name, time.Hour, audit.ByOperator())
	if err != nil {
		t.Fatal(err)
	}
	n, err := client.Reset(t.Context(), o, p.name, code)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

func TestLinkRefusals(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	if _, err := client.StartLink(t.Context(), alice.opts); !errors.Is(err, client.ErrAccountExists) {
		t.Errorf("in a profile that has an account: %v", err)
	}
	o := c.options()
	l, err := client.StartLink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.FindLink(t.Context(), l.Code()[1:]); !errors.Is(err, codes.ErrNone) {
		t.Errorf("a code with a typing error: %v", err)
	}
	_, err = alice.FindLink(t.Context(), codes.NewLink().Format())
	wantCode(t, "another code", err, wire.CodeLinkExpired)
	q, err := alice.FindLink(t.Context(), strings.ToLower(l.QR()))
	if err != nil || q.Name != "test" {
		t.Fatalf("%+v, %v", q, err)
	}
	theirs, err := bob.FindLink(t.Context(), l.Code())
	if err != nil {
		t.Fatal(err)
	}
	wrong := *alice
	wrong.opts.Passphrase = []byte("x")
	if _, err := client.Open(t.Context(), wrong.opts); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Error(err)
	}
	if err := alice.ApproveLink(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if err := alice.ApproveLink(t.Context(), q); err != nil {
		t.Error("the same once more:", err)
	}
	wantCode(t, "a second approver", bob.ApproveLink(t.Context(), theirs), wire.CodeAlreadyExists)
	second, err := alice.FindLink(t.Context(), l.Code())
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "a second approval", alice.ApproveLink(t.Context(), second), wire.CodeAlreadyExists)
	tablet, err := l.Wait(t.Context())
	if err != nil || tablet.Whoami().Name != "alice" {
		t.Fatal(err)
	}
	tablet.Close()
	_, err = alice.FindLink(t.Context(), l.Code())
	wantCode(t, "a spent code", err, wire.CodeLinkExpired)
	if _, err := l.Wait(t.Context()); !wire.HasCode(err, wire.CodeLinkExpired) {
		t.Errorf("waiting again: %v", err)
	}
}

// Nothing is left of a link that comes to nothing, and whoever interrupts it is let go at once.
func TestALinkIsGivenUp(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	o := c.options()
	l, err := client.StartLink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if exists, err := keystore.Exists(o.Profile); exists || err != nil {
		t.Errorf("a profile was made: %v, %v", exists, err)
	}
}

func TestARevokedDeviceStops(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	tablet := c.link(alice)
	bob.dm(alice, "to both")
	tablet.expect("to both")
	alice.expect("to both")
	watching, friend, mine := tablet.follow(), bob.follow(), alice.follow()
	bob.dm(alice, "all are listening")
	watching.expect("all are listening")
	mine.expect("all are listening")

	begun := time.Now()
	if err := alice.RevokeDevice(t.Context(), tablet.Whoami().DeviceID); err != nil {
		t.Fatal(err)
	}
	answered := time.Since(begun)
	select {
	case err := <-watching.ended:
		took := time.Since(begun)
		t.Logf("the revoked device's reader ended after %v, %v after the answer", took, took-answered)
		if !errors.Is(err, client.ErrRevoked) || took-answered > 2*time.Second {
			t.Errorf("it ended with %v after %v", err, took)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	watching.ended = closed
	for who, f := range map[string]*follower{"alice": mine, "bob": friend} {
		for {
			m := f.notice()
			if m.Notice.Kind == client.DeviceRevoked {
				if m.Notice.Device != tablet.Whoami().DeviceID || m.From != "alice" || m.Notice.Own != (who == "alice") {
					t.Errorf("%s is told %+v", who, m)
				}
				break
			}
		}
	}
	if _, err := tablet.SendDM(t.Context(), "bob", "still here"); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("it writes: %v", err)
	}
	if _, err := tablet.again().Devices(t.Context()); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("it asks: %v", err)
	}
	bob.dm(alice, "after") // In the same conversation.
	mine.expect("after")
	mine.stop()
	friend.stop()
	// Whoever has no conversation yet makes one without it.
	carol := c.signup("carol")
	carol.dm(alice, "new")
	alice.expect("new")
	list, err := alice.Devices(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := alice.RevokeDevice(t.Context(), alice.Whoami().DeviceID); err != nil {
		t.Error("the last one:", err)
	}
	again := c.login("alice") // The password adds another.
	carol.dm(again, "to nobody new: the conversation is older")
	if list, err = again.Devices(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A session that ended is not a device that was revoked: who knows the passphrase goes on.
func TestAnEndedSessionIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	bob.dm(alice, "one")
	f := alice.follow()
	f.expect("one")
	again, err := client.Login(t.Context(), alice.opts, "alice") // Another process of the same profile begins a newer session.
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	bob.dm(alice, "two")
	f.expect("two")
	f.stop()
	// A reader whose profile another process logs out ends, and does not log in again.
	f = alice.follow()
	bob.dm(alice, "three")
	f.expect("three")
	if err := alice.again().Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-f.ended:
		if !errors.Is(err, client.ErrLoggedOut) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
	f.ended = closed
}

// Whoever follows is told of a key that was reset as it happens.
func TestAResetIsToldToWhoFollows(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "hello")
	f := bob.follow()
	f.expect("hello")
	startOver(t, c, alice)
	if m := f.notice(); m.Notice.Kind != client.RootKeyReset || m.From != "alice" {
		t.Errorf("told %+v", m)
	}
	select {
	case m := <-f.messages:
		if m.Failure == nil || m.Failure.Code != client.FailKeyChanged {
			t.Errorf("then %+v", m)
		}
	case <-time.After(30 * time.Second):
		t.Error("no warning came")
	}
}

func TestProgramDevices(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	tablet := c.user()
	add := tablet.command(tablet.at("devices", "add", "--json", "--device-name", "tablet")...)
	out, err := add.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	add.Stderr = os.Stderr
	if err := add.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() (o map[string]any) {
		t.Helper()
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &o) != nil {
			t.Fatalf("printed %q", lines.Text())
		}
		return o
	}
	offered := next()
	code, _ := offered["code"].(string)
	if _, err := codes.ParseLink(code); err != nil || offered["qr"] == nil || offered["expiresAt"] == nil {
		t.Errorf("printed %v", offered)
	}
	bob.fails("invalidCode", "devices", "approve", "ABCD-EFGH", "--yes")
	bob.fails("linkExpired", "devices", "approve", codes.NewLink().Format(), "--yes")
	if exit, _, errs := alice.run("devices", "approve", code); exit != 2 || !strings.Contains(errs, "--yes") {
		t.Errorf("without a terminal: exit %d, %q", exit, errs)
	}
	if a := alice.ok("devices", "approve", code, "--yes", "--json")[0]; a["name"] != "tablet" || a["approved"] != true {
		t.Errorf("approve prints %v", a)
	}
	if me := next(); me["name"] != "alice" {
		t.Errorf("add prints %v", me)
	}
	if err := add.Wait(); err != nil {
		t.Fatal(err)
	}

	bob.ok("dm", "alice", "to both", "--json")
	for who, u := range map[string]*user{"alice": alice, "tablet": tablet} {
		var text []any
		for _, o := range u.ok("read", "--json") {
			if o["notice"] == nil {
				text = append(text, o["text"])
			}
		}
		if len(text) != 1 || text[0] != "to both" {
			t.Errorf("%s reads %v", who, text)
		}
	}
	list := alice.ok("devices", "--json")
	if len(list) != 2 || list[0]["this"] != true || list[1]["name"] != "tablet" || list[1]["certified"] != true || list[1]["seen"] != time.Now().UTC().Format(time.DateOnly) {
		t.Fatalf("devices prints %v", list)
	}
	id, _ := list[1]["id"].(string)
	alice.ok("devices", "rename", id[:8], "kitchen", "--json")
	if exit, plain, _ := alice.run("devices"); exit != 0 || !strings.Contains(plain, id[:8]+"  kitchen  added ") || !strings.Contains(plain, "(this device)") {
		t.Errorf("devices for people: %d, %q", exit, plain)
	}
	if exit, _, errs := alice.run("devices", "revoke", "zz", "--yes"); exit != 2 || !strings.Contains(errs, "no device whose id begins") {
		t.Errorf("a device that is none: exit %d, %q", exit, errs)
	}

	reader := tablet.command("read", "--follow")
	var errs strings.Builder
	reader.Stderr = &errs
	stdout, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	defer reader.Process.Signal(syscall.SIGKILL) //nolint:errcheck // it has ended.
	bob.ok("dm", "alice", "it listens", "--json")
	if s := bufio.NewScanner(stdout); !s.Scan() || !strings.HasSuffix(s.Text(), "bob: it listens") {
		t.Fatalf("followed %q", s.Text())
	}
	alice.ok("devices", "revoke", id, "--yes", "--json")
	begun := time.Now() // The answer has come.
	err = reader.Wait()
	took := time.Since(begun)
	t.Logf("qpq read --follow of a revoked device ended %v after qpq devices revoke: %s", took, strings.TrimSpace(errs.String()))
	if err == nil || took > 2*time.Second || !strings.Contains(errs.String(), "this device was revoked") {
		t.Errorf("%v, %q after %v", err, errs.String(), took)
	}
	tablet.fails("deviceRevoked", "dm", "bob", "x")
	_, plain, _ := bob.run("read")
	if !strings.Contains(plain, "  * alice revoked a device ("+id[:8]+")\n") {
		t.Errorf("bob reads %q", plain)
	}
}
