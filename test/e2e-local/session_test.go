package e2elocal

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
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
