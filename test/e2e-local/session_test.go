package e2elocal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/client/keystore"
)

// TestShortTokens: access tokens that hold for so short a time that every connection, of every process, begins with a
// refresh, and a follower refreshes all the time.
func TestShortTokens(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Sessions.AccessTokenTTL = policy.Duration(time.Minute) })
	alice, bob := c.signup("alice"), c.signup("bob")
	f := bob.follow()
	alice.dm(bob, "first")
	f.expect("first")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				p := alice.again()
				if _, err := p.SendDM(t.Context(), "bob", "x"); err != nil {
					t.Error(err)
				}
				p.Close()
			}
		})
		wg.Go(func() {
			if _, err := bob.again().SendDM(t.Context(), "alice", "y"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 12 {
		f.expect("x")
	}
	f.awaitRenewal(bob)
	alice.dm(bob, "last")
	f.expect("last")
	alice.expect("y", "y", "y", "y")
}

// awaitRenewal waits until the follower, which is alone on its profile now, has new tokens.
func (f *follower) awaitRenewal(p *person) {
	f.t.Helper()
	session := filepath.Join(p.opts.Profile, "records", "session")
	before, err := os.ReadFile(session)
	if err != nil {
		f.t.Fatal(err)
	}
	for range 300 {
		if now, err := os.ReadFile(session); err == nil && !bytes.Equal(before, now) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.t.Error("the follower's tokens were never renewed")
}

// TestLittleCredit: a cell that lets few deliveries be in flight.
func TestLittleCredit(t *testing.T) {
	t.Parallel()
	for _, credit := range []int{1, 3} {
		c := makeCell(t, func(p *policy.Policy) { p.Limits.MaxInFlightPerDevice = credit })
		alice, bob := c.signup("alice"), c.signup("bob")
		var texts []string
		for range 20 {
			texts = append(texts, "x")
			alice.dm(bob, "x")
			bob.dm(alice, "y")
		}
		bob.expect(texts...)
	}
}

// TestSmallPayloads: the client learns the cell's limit and keeps to it.
func TestSmallPayloads(t *testing.T) {
	t.Parallel()
	const limit = 20_000
	c := makeCell(t, func(p *policy.Policy) { p.Limits.MaxPayloadBytes = limit })
	alice, bob := c.signup("alice"), c.signup("bob")
	text := string(make([]byte, limit-1000))
	if sent := alice.dm(bob, text); sent.Bytes > limit {
		t.Errorf("a message of %d bytes", sent.Bytes)
	}
	bob.expect(text)
}

// TestKeyPackagesRunLow: people write to somebody who is away until the last-resort KeyPackage is all that is left,
// which serves any number; and somebody who is online makes new ones.
func TestKeyPackagesRunLow(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.MLS.MaxKeyPackagesPerDevice = 1 })
	bob := c.signup("bob")
	var others []*person
	for _, name := range []string{"alice", "carol", "dave"} {
		p := c.signup(name)
		p.dm(bob, "from "+name)
		others = append(others, p)
	}
	texts := map[string]bool{}
	for _, m := range bob.read() {
		texts[m.Text] = m.Failure == nil
	}
	for _, p := range others {
		if !texts["from "+p.name] {
			t.Errorf("the message of %s is missing", p.name)
		}
		bob.dm(p, "answer")
		p.expect("answer")
	}
	f := bob.follow()
	f.awaitBundles(bob, 2)
	erin := c.signup("erin")
	before := bob.bundles()
	erin.dm(bob, "from erin")
	f.expect("from erin")
	for range 300 {
		if now := bob.bundles(); len(now) == 2 && fmt.Sprint(now) != fmt.Sprint(before) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("the KeyPackage that erin used was never replaced")
}

func (f *follower) awaitBundles(p *person, n int) {
	f.t.Helper()
	for range 300 {
		if len(p.bundles()) == n {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	f.t.Errorf("%s has %d KeyPackages, want %d", p.name, len(p.bundles()), n)
}

// bundles returns the references of the KeyPackages whose private halves are in the profile.
func (p *person) bundles() (refs []string) {
	p.t.Helper()
	store, err := keystore.Open(p.opts.Profile, p.opts.Passphrase)
	if err != nil {
		p.t.Fatal(err)
	}
	err = store.View(p.t.Context(), func(tx *keystore.Tx) error {
		b, err := tx.Get("keypackages")
		if err != nil {
			return err
		}
		var record struct{ Bundles []struct{ Ref []byte } }
		err = json.Unmarshal(b, &record)
		for _, b := range record.Bundles {
			refs = append(refs, hex.EncodeToString(b.Ref))
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return refs
}
