package e2elocal

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/schema/wire"
)

// admin is what a cell's admin can do, beside the running cell, on its database with its keys.
func (c *cell) admin() *identity.Service {
	c.t.Helper()
	k, err := cellkeys.Load(c.path("keys.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	sealer, err := store.NewSealer([]store.SealingKey{{ID: k.Sealing[0].ID, Key: k.Sealing[0].Key}}, k.NameIndex)
	if err != nil {
		c.t.Fatal(err)
	}
	st, err := store.Open(c.t.Context(), store.Options{URI: c.database(), Sealer: sealer})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(st.Close)
	s, err := identity.New(st, k, policy.Default, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// rotateKeys gives the cell fresh OPAQUE keys beside those it has, and restarts it.
func (c *cell) rotateKeys(keepPrevious bool) {
	c.t.Helper()
	k, err := cellkeys.Load(c.path("keys.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	if keepPrevious {
		k.RotateOPAQUE()
	} else {
		k.PreviousOPAQUE = nil
	}
	b, err := k.Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("keys.yaml", b)
	c.restart()
}

// with is the options of a fresh profile with another passphrase.
func (c *cell) with(passphrase string) client.Options {
	o := c.options()
	o.Passphrase = []byte(passphrase)
	return o
}

// canLogin adds a device, or says why not.
func (c *cell) canLogin(name, passphrase string) error {
	c.t.Helper()
	d, err := client.Login(c.t.Context(), c.with(passphrase), name)
	if err == nil {
		d.Close()
	}
	return err
}

func wantCode(t *testing.T, what string, err error, code wire.Code) {
	t.Helper()
	if !wire.HasCode(err, code) {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestPasswordChange(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	laptop := c.login("alice")
	alice.dm(bob, "before")
	if err := alice.ChangePassword(t.Context(), []byte("a better one"), false); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "the old passphrase", c.canLogin("alice", password), wire.CodeInvalidCredentials)
	if err := c.canLogin("alice", "a better one"); err != nil {
		t.Error("the new passphrase:", err)
	}
	if _, err := client.Open(t.Context(), alice.opts); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("the profile opens with the old passphrase: %v", err)
	}
	alice.opts.Passphrase = []byte("a better one")
	alice.again().dm(bob, "after")
	bob.expect("before", "after")
	// The other device goes on with its session, and is told what to do once a password is needed.
	if err := laptop.ChangePassword(t.Context(), []byte("x"), false); !errors.Is(err, client.ErrPasswordChanged) {
		t.Errorf("a change from the other device by the old passphrase: %v", err)
	}
	o := laptop.opts
	o.Password = []byte("a better one")
	again, err := client.Login(t.Context(), o, "alice")
	if err != nil {
		t.Fatal("the other device takes the new passphrase up:", err)
	}
	again.Close()
	laptop.opts.Passphrase = []byte("a better one")
	laptop = laptop.again()
	if laptop.Whoami() != again.Whoami() {
		t.Error("it became another device")
	}
}

func TestPasswordChangeEndsOtherSessions(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	laptop := c.login("alice")
	if err := alice.ChangePassword(t.Context(), []byte("a better one"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.NewRecoveryCodes(t.Context(), 1); err != nil {
		t.Error("the device that changed it:", err)
	}
	laptop.expireAccess()
	_, err := laptop.again().SendDM(t.Context(), "alice", "x")
	if !errors.Is(err, client.ErrPasswordChanged) {
		t.Errorf("the other device: %v", err)
	}
}

// expireAccess makes the profile forget its access token, as time would.
func (p *person) expireAccess() {
	p.t.Helper()
	p.editRecord("session", func(r map[string]any) { r["AccessExpiresAt"] = time.Unix(0, 0) })
}

// A change whose answer is lost leaves a profile that either passphrase opens, until the cell has said which is right.
func TestPasswordChangeTakenUp(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	p := c.makeProxy()
	o := c.options()
	o.Endpoint = p.addr
	alice := &person{t: t, name: "alice", opts: o}
	var err error
	if alice.Client, err = client.Signup(t.Context(), o, "alice"); err != nil {
		t.Fatal(err)
	}
	alice.changeAndLose(c, p, "a better one")
	alice.Close()
	p.loseAnswers.Store(false)
	for _, passphrase := range []string{password, "a better one"} {
		alice.opts.Passphrase = []byte(passphrase)
		d, err := client.Open(t.Context(), alice.opts)
		if err != nil {
			t.Fatalf("%q: %v", passphrase, err)
		}
		d.Close()
	}
	alice = alice.again() // By the new one.
	if _, err := alice.NewRecoveryCodes(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := alice.ChangePassword(t.Context(), []byte("the third"), false); err != nil {
		t.Error("another change:", err)
	}
	for passphrase, want := range map[string]error{password: keystore.ErrWrongPassphrase, "a better one": keystore.ErrWrongPassphrase, "the third": nil} {
		alice.opts.Passphrase = []byte(passphrase)
		if _, err := client.Open(t.Context(), alice.opts); !errors.Is(err, want) {
			t.Errorf("%q: %v", passphrase, err)
		}
	}
}

// changeAndLose changes the password until the answer to that is lost. A change that is answered before the answers can
// be kept back is taken back and tried again.
func (p *person) changeAndLose(c *cell, answers *proxy, passphrase string) {
	p.t.Helper()
	for range 10 {
		ctx, cancel := context.WithCancel(p.t.Context())
		done := make(chan struct{})
		go func() { // Once the second passphrase is saved, setPasswordFinish is about to be sent.
			defer close(done)
			defer cancel()
			for ctx.Err() == nil {
				if _, err := os.Stat(filepath.Join(p.opts.Profile, "profile-next")); err == nil {
					break
				}
			}
			answers.loseAnswers.Store(true)
			for ctx.Err() == nil && c.canLogin(p.name, passphrase) != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}()
		err := p.ChangePassword(ctx, []byte(passphrase), false)
		cancel()
		<-done
		answers.loseAnswers.Store(false)
		if err != nil {
			return
		}
		if err := p.ChangePassword(p.t.Context(), p.opts.Passphrase, false); err != nil {
			p.t.Fatal(err)
		}
	}
	p.t.Fatal("no answer was ever lost")
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	o := c.options()
	o.RecoveryCodes = 3
	first, err := client.Signup(t.Context(), o, "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	alice := &person{t: t, name: "alice", opts: o, Client: first}
	codes := alice.RecoveryCodes()
	if len(codes) != 3 {
		t.Fatalf("%d codes", len(codes))
	}
	bob := c.signup("bob")
	bob.dm(alice, "before")
	forgotten := c.with("a new one")
	if _, err := client.Recover(t.Context(), forgotten, "bob", codes[0], false); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("alice's code for bob: %v", err)
	}
	if _, err := client.Recover(t.Context(), forgotten, "nobody", codes[0], false); !wire.HasCode(err, wire.CodeInvalidCredentials) {
		t.Errorf("alice's code for nobody: %v", err)
	}
	expectNoProfile(t, forgotten)
	phone, err := client.Recover(t.Context(), forgotten, "ALICE", strings.ToLower(codes[0]), false)
	if err != nil {
		t.Fatal(err)
	}
	defer phone.Close()
	if phone.Whoami().AccountID != alice.Whoami().AccountID || phone.Whoami().Name != "alice" {
		t.Errorf("recovered %+v", phone.Whoami())
	}
	wantCode(t, "the old passphrase", c.canLogin("alice", password), wire.CodeInvalidCredentials)
	if err := c.canLogin("alice", "a new one"); err != nil {
		t.Error("the new passphrase:", err)
	}
	_, err = client.Recover(t.Context(), c.with("again"), "alice", codes[0], false)
	wantCode(t, "the code a second time", err, wire.CodeInvalidCredentials)
	if changes, err := bob.KeyChanges(t.Context()); err != nil || len(changes) > 0 {
		t.Errorf("bob sees a change: %+v, %v", changes, err)
	}
	bob.dm(alice, "after")
	alice.expect("before", "after") // The device whose passphrase was forgotten still has its session.
	// Fresh codes make the others void.
	fresh, err := phone.NewRecoveryCodes(t.Context(), 2)
	if err != nil || len(fresh) != 2 {
		t.Fatalf("%d fresh codes: %v", len(fresh), err)
	}
	_, err = client.Recover(t.Context(), c.with("again"), "alice", codes[1], false)
	wantCode(t, "a code that was replaced", err, wire.CodeInvalidCredentials)
	last, err := client.Recover(t.Context(), c.with("again"), "alice", fresh[1], true)
	if err != nil {
		t.Fatal("a fresh code:", err)
	}
	last.Close()
}

func TestSignupByInvitation(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Signup = policy.SignupInvitation })
	admin := c.admin()
	invite := func(life time.Duration) string {
		code, _, err := admin.Invite(t.Context(), life, audit.ByAdmin("test"))
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	o := c.options()
	_, err := client.Signup(t.Context(), o, "alice")
	wantCode(t, "no invitation", err, wire.CodeInvalidInvitation)
	expectNoProfile(t, o)
	o.Invitation = invite(time.Hour)
	alice, err := client.Signup(t.Context(), o, "alice")
	if err != nil {
		t.Fatal(err)
	}
	alice.Close()
	again := c.options()
	again.Invitation = o.Invitation
	_, err = client.Signup(t.Context(), again, "bob")
	wantCode(t, "a used invitation", err, wire.CodeInvalidInvitation)
	again.Invitation = invite(time.Hour)
	_, err = client.Signup(t.Context(), again, "alice")
	wantCode(t, "a taken name", err, wire.CodeAlreadyExists)
	bob, err := client.Signup(t.Context(), again, "bob")
	if err != nil {
		t.Fatal("the invitation was spent on a refused signup:", err)
	}
	bob.Close()
}

func TestSignupClosed(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Signup = policy.SignupClosed })
	_, err := client.Signup(t.Context(), c.options(), "alice")
	wantCode(t, "a closed cell", err, wire.CodeSignupClosed)
}

func TestLookalikeNames(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	c.signup("paypal")
	for _, name := range []string{"paypa1", "PAYPAL", "раураl", "рaypal"} {
		if _, err := client.Signup(t.Context(), c.options(), name); !wire.HasCode(err, wire.CodeAlreadyExists, wire.CodeInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The OPAQUE keys rotate: who logs in is registered anew in the same session, and may go on once the old keys are gone.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, late := c.signup("alice"), c.signup("late")
	c.rotateKeys(true)
	for range 2 {
		if err := c.canLogin("alice", password); err != nil {
			t.Fatal(err)
		}
	}
	c.signup("newcomer")
	c.rotateKeys(false)
	for _, name := range []string{"alice", "newcomer"} {
		if err := c.canLogin(name, password); err != nil {
			t.Errorf("%s, with the old keys gone: %v", name, err)
		}
	}
	wantCode(t, "one who did not log in meanwhile", c.canLogin("late", password), wire.CodeInvalidCredentials)
	if _, err := late.again().SendDM(t.Context(), "alice", "my device still works"); err != nil {
		t.Error(err)
	}
	alice.expect("my device still works")
}

// Everything is lost: the account starts over under another root key, and its contacts cannot miss it.
func TestReset(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	bob.dm(alice, "hello")
	alice.dm(bob, "hello bob")
	bob.expect("hello bob")
	code, _, err := c.admin().ResetCode(t.Context(), "Alice", time.Hour, audit.ByOperator())
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Recover(t.Context(), c.with("x"), "alice", code, false)
	if err == nil {
		t.Error("a reset code was taken for a recovery code")
	}
	o := c.with("all new")
	o.RecoveryCodes = 2
	fresh, err := client.Reset(t.Context(), o, "alice", code)
	if err != nil {
		t.Fatal(err)
	}
	again := &person{t: t, name: "alice", opts: o, Client: fresh}
	defer again.Close()
	if fresh.Whoami().AccountID != alice.Whoami().AccountID || len(fresh.RecoveryCodes()) != 2 {
		t.Errorf("%+v, %d codes", fresh.Whoami(), len(fresh.RecoveryCodes()))
	}
	_, err = client.Reset(t.Context(), c.with("x"), "alice", code)
	wantCode(t, "the code a second time", err, wire.CodeInvalidCredentials)
	wantCode(t, "the old passphrase", c.canLogin("alice", password), wire.CodeInvalidCredentials)
	alice.expireAccess()
	if _, err := alice.again().SendDM(t.Context(), "bob", "x"); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("the old device: %v", err)
	}
	// Bob is told when he writes, and when he only reads; nothing goes to the new key.
	var changed *client.RootKeyChangedError
	if _, err := bob.SendDM(t.Context(), "alice", "secret"); !errors.As(err, &changed) {
		t.Errorf("bob writes: %v", err)
	}
	for range 2 {
		list := bob.read()
		if len(list) != 1 || list[0].Failure == nil || list[0].Failure.Code != client.FailKeyChanged || list[0].From != "alice" {
			t.Errorf("bob reads %+v", list)
		}
	}
	k, err := bob.TrustNewKey(t.Context(), "alice")
	if err != nil || k == nil || k.Name != "alice" {
		t.Fatalf("%+v, %v", k, err)
	}
	bob.dm(again, "is it you?")
	again.expect("is it you?")
	again.dm(bob, "it is")
	bob.expect("it is")
	if k, err := bob.TrustNewKey(t.Context(), "alice"); err != nil || k != nil {
		t.Errorf("trusted already: %+v, %v", k, err)
	}
}

// A contact who writes to nobody is told all the same, an hour after it was last asked for at the latest.
func TestAResetIsNoticedByWhoOnlyReads(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	bob.dm(alice, "hello")
	code, _, err := c.admin().ResetCode(t.Context(), "alice", time.Hour, audit.ByOperator())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := client.Reset(t.Context(), c.with("all new"), "alice", code)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	bob.opts.Now = func() time.Time { return time.Now().Add(61 * time.Minute) }
	if list := bob.again().read(); len(list) != 1 || list[0].Failure == nil || list[0].Failure.Code != client.FailKeyChanged {
		t.Errorf("bob reads %+v", list)
	}
	// The new alice writes first: the conversation begins anew as far as she is concerned, and bob is warned again.
	bob.opts.Now = nil
	alice = &person{t: t, name: "alice", opts: c.options(), Client: fresh}
	alice.dm(bob, "I lost everything")
	warned := false
	for _, m := range bob.again().read() {
		if m.Failure == nil {
			t.Errorf("bob reads %q under a key that he did not accept", m.Text)
		}
		warned = warned || m.Failure.Code == client.FailKeyChanged
	}
	if !warned {
		t.Error("no warning")
	}
	bob = bob.again()
	if _, err := bob.TrustNewKey(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	bob.dm(alice, "I believe you")
	alice.expect("I believe you")
}

func TestLogout(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "one")
	if err := alice.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(t.Context(), alice.opts); !errors.Is(err, client.ErrLoggedOut) {
		t.Errorf("a logged-out profile opens: %v", err)
	}
	bob.dm(alice, "two")
	again, err := client.Login(t.Context(), alice.opts, "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Whoami() != alice.Whoami() {
		t.Error("it became another device")
	}
	alice.Client = again
	alice.expect("two")
}

// Strangers who guess do not keep the account's own people out: they are told to wait, a device of the account is not.
func TestGuessingDoesNotLockOut(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	refused := 0
	for range 12 {
		o := c.with("wrong")
		o.RetryFor = time.Nanosecond
		if _, err := client.Login(t.Context(), o, "alice"); wire.HasCode(err, wire.CodeRateLimited) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("guessing is never held up")
	}
	alice.expireAccess()
	alice.editRecord("session", func(r map[string]any) { r["RefreshExpiresAt"] = time.Unix(0, 0) })
	me := alice.again()
	me.opts.RetryFor = time.Nanosecond
	if _, err := me.NewRecoveryCodes(t.Context(), 1); err != nil {
		t.Error("the account's own device:", err)
	}
}
