package client

import (
	"errors"
	"testing"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestWelcome(t *testing.T) {
	t.Parallel()
	p := makePair(t).join()
	r, _, err := get[keyPackagesRecord](t.Context(), p.bob.store, keyPackagesName)
	if err != nil || len(r.Bundles) != 0 {
		t.Errorf("the KeyPackage's private half is still there: %d, %v", len(r.Bundles), err)
	}
	if rec := p.record(); rec.Peer.AccountID != p.a.AccountID || rec.Peer.Name != "alice" {
		t.Errorf("peer %+v", rec.Peer)
	}
	if inbox := p.inbox(); inbox.LastSeq != 1 || len(inbox.Unread) != 0 {
		t.Errorf("inbox %+v", inbox)
	}
	p.join() // Delivered again: it was not acknowledged.
}

// TestWelcomeAfterACrash: the group was saved, the rest was not.
func TestWelcomeAfterACrash(t *testing.T) {
	t.Parallel()
	p := makePair(t)
	d := p.welcome()
	m, err := mls.ParseMessage(d.Payload)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, err := p.bob.bundleFor(t.Context(), m.Welcome)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.bob.enterGroup(t.Context(), p.cell(), d, m.Welcome, bundle); err != nil {
		t.Fatal(err)
	}
	p.receive(1, p.send("one"))
	p.join()
	p.receive(1, p.send("two"))
	p.expect(p.record(), "one", "two") // Joining anew would have lost the ratchets' place.
	if r, _, _ := get[keyPackagesRecord](t.Context(), p.bob.store, keyPackagesName); len(r.Bundles) != 0 {
		t.Error("the KeyPackage's private half is still there")
	}
}

func TestBadWelcomes(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*pair, *wire.Delivery, *fakeCell){
		"garbage":          func(_ *pair, d *wire.Delivery, _ *fakeCell) { d.Payload = []byte("no message") },
		"other message":    func(p *pair, d *wire.Delivery, _ *fakeCell) { d.Payload = p.made.GroupInfo },
		"other kind":       func(_ *pair, d *wire.Delivery, _ *fakeCell) { d.Kind = wire.KindApplication },
		"other channel":    func(_ *pair, d *wire.Delivery, _ *fakeCell) { d.AboutChannelID = ids.New() },
		"other generation": func(_ *pair, d *wire.Delivery, _ *fakeCell) { d.Generation = 2 },
		"not for bob": func(p *pair, d *wire.Delivery, _ *fakeCell) {
			p.makeGroup(p.channel, 1, keyPackage(p.t, p.b.makeDevice(p.t)))
			d.Payload = p.made.Welcome
		},
		"flipped": func(_ *pair, d *wire.Delivery, _ *fakeCell) {
			d.Payload = append([]byte(nil), d.Payload...)
			d.Payload[len(d.Payload)-1] ^= 1
		},
		"other pair's channel": func(_ *pair, _ *wire.Delivery, f *fakeCell) { f.channel.ChannelID = ids.New() },
		"unknown to the cell":  func(_ *pair, _ *wire.Delivery, f *fakeCell) { f.channel.Peer.AccountID = ids.New() },
		"other root":           func(p *pair, _ *wire.Delivery, f *fakeCell) { f.channel.Peer.RootKey = makeAccount(p.t, "x").RootKey },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := makePair(t)
			d, cell := p.welcome(), p.cell()
			spoil(p, d, cell)
			if _, err := p.bob.welcome(t.Context(), cell, 1, d); err != nil {
				t.Fatal(err)
			}
			if rec := p.record(); rec.newest() != 0 {
				t.Error("bob joined")
			}
			inbox := p.inbox()
			p.expect(inbox, "["+failWelcome+"]")
			if known, _, _ := get[contactsRecord](t.Context(), p.bob.store, contactsName); len(known.Accounts) != 0 {
				t.Error("bob trusts somebody by a Welcome that does not hold")
			}
			if inbox.LastSeq != 1 {
				t.Errorf("the inbox is at %d: it would hang here", inbox.LastSeq)
			}
		})
	}
}

// TestGhosts: whoever is not of the two accounts, or not signed by their roots, is not let in by the creator, and not
// put up with by the one who joins.
func TestGhosts(t *testing.T) {
	t.Parallel()
	for name, ghost := range map[string]func(*pair) *account{
		"third account": func(p *pair) *account { return makeAccount(p.t, "mallory") },
		"forged device of bob": func(p *pair) *account {
			forged := makeAccount(p.t, "bob")
			forged.AccountID = p.b.AccountID
			return forged
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := makePair(t)
			members := []*mls.KeyPackage{keyPackage(t, p.bob), keyPackage(t, ghost(p).makeDevice(t))}
			ch := &wire.Channel{ChannelID: p.channel, Peer: p.b.Account}
			if _, err := p.alice.makeGroup(t.Context(), ch, 1, members); !errors.Is(err, mls.ErrCredential) {
				t.Errorf("alice makes the group: %v", err)
			}
			careless, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(p.channel, 1), Credential: p.alice.credential(), Signer: p.alice.device})
			if err != nil {
				t.Fatal(err)
			}
			commit, err := careless.Commit(mls.CommitOptions{Adds: members})
			if err != nil {
				t.Fatal(err)
			}
			p.made.Welcome = commit.Welcome
			if _, err := p.bob.welcome(t.Context(), p.cell(), 1, p.welcome()); err != nil {
				t.Fatal(err)
			}
			p.expect(p.inbox(), "["+failWelcome+"]")
			if p.record().newest() != 0 {
				t.Error("bob joined")
			}
		})
	}
}

// TestLastResortIsKept: a last-resort KeyPackage may be claimed twice.
func TestLastResortIsKept(t *testing.T) {
	t.Parallel()
	c := makeAccount(t, "bob").makeDevice(t)
	_, bundle, err := c.makeKeyPackage(c.opts.Now(), 1e12, true)
	if err != nil {
		t.Fatal(err)
	}
	err = update(t.Context(), c.store, keyPackagesName, func(r *keyPackagesRecord) (bool, error) {
		r.Bundles = append(r.Bundles, bundle)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.spend(t.Context(), &bundle); err != nil {
		t.Fatal(err)
	}
	if r, _, _ := get[keyPackagesRecord](t.Context(), c.store, keyPackagesName); len(r.Bundles) != 1 {
		t.Error("the last-resort KeyPackage's private half is gone")
	}
}
