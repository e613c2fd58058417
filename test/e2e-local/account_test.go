package e2elocal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/schema/wire"
)

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	o := c.options()
	o.Passphrase = []byte("wrong")
	for _, name := range []string{"alice", "nobody"} {
		if _, err := client.Login(t.Context(), o, name); !wire.HasCode(err, wire.CodeInvalidCredentials) {
			t.Errorf("%s logs in with a wrong password: %v", name, err)
		}
	}
	expectNoProfile(t, o)
	o.Profile = alice.opts.Profile
	if _, err := client.Open(t.Context(), o); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("alice opens her profile with a wrong passphrase: %v", err)
	}
}

func expectNoProfile(t *testing.T, o client.Options) {
	t.Helper()
	if _, err := os.Stat(o.Profile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused signup or login left a profile behind: %v", err)
	}
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	c.signup("alice")
	o := c.options()
	for _, name := range []string{"alice", "ALICE"} {
		if _, err := client.Signup(t.Context(), o, name); !wire.HasCode(err, wire.CodeAlreadyExists) {
			t.Errorf("a second %s: %v", name, err)
		}
		expectNoProfile(t, o)
	}
	if _, err := client.Signup(t.Context(), o, "not a name"); !wire.HasCode(err, wire.CodeInvalidArgument) {
		t.Errorf("a name with spaces: %v", err)
	}
	bob, err := client.Signup(t.Context(), o, "Bob")
	if err != nil {
		t.Fatalf("another name with the same options: %v", err)
	}
	defer bob.Close()
	if got := bob.Whoami().Name; got != "bob" {
		t.Errorf("the name is kept as %q, not as the cell writes it", got)
	}
	if _, err := client.Signup(t.Context(), o, "carol"); !errors.Is(err, client.ErrAccountExists) {
		t.Errorf("a second account in a profile: %v", err)
	}
	if _, err := client.Login(t.Context(), o, "alice"); !errors.Is(err, client.ErrOtherAccount) {
		t.Errorf("a login as somebody else in a profile: %v", err)
	}
}

func TestWrongCell(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	other, err := pki.NewCA("other", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o := alice.opts
	for name, tc := range map[string]struct {
		change func(*client.Options)
		want   error
	}{
		"CA":  {func(o *client.Options) { o.CA = other.CertPEM() }, conn.ErrWrongCA},
		"pin": {func(o *client.Options) { o.CA, o.Pin = nil, other.Pin() }, conn.ErrWrongPin},
	} {
		o := o
		tc.change(&o)
		wrong, err := client.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wrong.SendDM(t.Context(), "alice", "x"); !errors.Is(err, tc.want) {
			t.Errorf("wrong %s: %v", name, err)
		}
		wrong.Close()
	}
	elsewhere := makeCell(t)
	o.Endpoint, o.Pin = elsewhere.addr, elsewhere.ca.Pin()
	moved, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	if _, err := moved.SendDM(t.Context(), "bob", "x"); !errors.Is(err, client.ErrOtherCell) {
		t.Errorf("another cell: %v", err)
	}
}

func TestUnreachableCell(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	o := c.options()
	c.stop()
	o.RetryFor = time.Nanosecond
	_, err := client.Signup(t.Context(), o, "alice")
	var unreachable *conn.UnreachableError
	if !errors.As(err, &unreachable) || !client.Retryable(err) {
		t.Errorf("signup without a cell: %v", err)
	}
	expectNoProfile(t, o)
}

// TestLoginAgain renews the session of a profile whose tokens are of no use any more.
func TestLoginAgain(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	again, err := client.Login(t.Context(), alice.opts, "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Whoami() != alice.Whoami() {
		t.Errorf("logging in again made %+v of %+v", again.Whoami(), alice.Whoami())
	}
	if _, err := again.SendDM(t.Context(), "bob", "still me"); err != nil {
		t.Error(err)
	}
	bob.expect("still me")
}

// TestSignupTakenUp loses the answer to signupFinish, and signs up once more with the same profile.
func TestSignupTakenUp(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	p := c.makeProxy()
	o := c.options()
	o.Endpoint = p.addr
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // Once the profile is there, signupFinish is about to be sent.
		defer cancel()
		for {
			if exists, _ := keystore.Exists(o.Profile); exists {
				break
			}
			time.Sleep(time.Millisecond)
		}
		p.loseAnswers.Store(true)
		c.awaitAccount("alice")
	}()
	if _, err := client.Signup(ctx, o, "alice"); err == nil {
		t.Fatal("the signup whose answer was lost succeeded")
	}
	p.loseAnswers.Store(false)
	if _, err := client.Open(t.Context(), o); !errors.Is(err, client.ErrNoAccount) {
		t.Errorf("a profile whose signup is unsettled opens: %v", err)
	}
	alice, err := client.Signup(t.Context(), o, "alice")
	if err != nil {
		t.Fatal("the signup taken up again:", err)
	}
	defer alice.Close()
	bob := c.signup("bob")
	if _, err := bob.SendDM(t.Context(), "alice", "hello"); err != nil {
		t.Error(err)
	}
}
