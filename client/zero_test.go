package client

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
)

func zero(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }

func TestSecretsAreZeroed(t *testing.T) {
	t.Parallel()
	given := Options{Passphrase: []byte("a passphrase"), Password: []byte("a password")}
	o := given.withDefaults()
	c, err := newClient(o, nil, &accountRecord{DeviceSeed: make([]byte, ed25519.SeedSize)})
	if err != nil {
		t.Fatal(err)
	}
	if !zero(o.Passphrase) || !zero(o.Password) {
		t.Error("the options' copies are there still")
	}
	first := c.secret
	if lent, err := c.passphrase(); err != nil || string(lent) != "a passphrase" {
		t.Fatalf("%q, %v", lent, err)
	} else if clear(lent); string(c.secret) != "a passphrase" {
		t.Error("what was lent is the Client's own")
	}
	c.setPassphrase([]byte("another"))
	if !zero(first) {
		t.Error("the passphrase of before is there still")
	}
	second := c.secret
	c.Close()
	c.Close()
	if !zero(second) {
		t.Error("the passphrase is there still, after Close")
	}
	if _, err := c.passphrase(); !errors.Is(err, conn.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if string(given.Passphrase) != "a passphrase" || string(given.Password) != "a password" {
		t.Error("the caller's own were touched")
	}
}

// A Close beside somebody who is about to log in leaves them a whole passphrase, or none: never half of one, with which
// they would try to log in.
func TestClosingBesideALogin(t *testing.T) {
	t.Parallel()
	for range 200 {
		c, err := newClient(Options{Passphrase: []byte("a passphrase")}.withDefaults(), nil, &accountRecord{DeviceSeed: make([]byte, ed25519.SeedSize)})
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if lent, err := c.passphrase(); err == nil && string(lent) != "a passphrase" {
				t.Errorf("%q", lent)
			}
		})
		both.Go(c.Close)
		both.Wait()
	}
}

func TestRootKeysAreZeroed(t *testing.T) {
	t.Parallel()
	public, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	account, key := ids.New(), bytes.Repeat([]byte{7}, 64)
	wrapped, err := wrapRoot(root, key, account)
	if err != nil {
		t.Fatal(err)
	}
	again, err := unwrapRoot(wrapped, key, account)
	if err != nil || !again.Public().(ed25519.PublicKey).Equal(public) { //nolint:forcetypeassert // always is.
		t.Fatal(err)
	}
	if zero(root) || zero(key) {
		t.Error("what stays the caller's was cleared")
	}
	set, err := newCodes(3, root, account)
	if err != nil || len(set.texts) != 3 || set.texts[0] == set.texts[1] {
		t.Fatalf("%q, %v", set.texts, err)
	}
}
