package mls

import (
	"bytes"
	"errors"
	"testing"
)

func TestUnmarshalGroupRefuses(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	p := peers[1]
	spread(t, peers, peers[0], peers[0].mustCommit(t, CommitOptions{ForcePath: true}))
	p.mustProcess(t, peers[0].mustEncrypt(t, "x"))
	good := marshal(t, p.Group)
	if _, err := UnmarshalGroup(good, peers[0].signer, nil); !errors.Is(err, ErrState) {
		t.Errorf("another's signer: got %v, want ErrState", err)
	}
	if _, err := UnmarshalGroup(good, nil, nil); !errors.Is(err, ErrState) {
		t.Errorf("no signer: got %v, want ErrState", err)
	}
	for n := range good {
		if _, err := UnmarshalGroup(good[:n], p.signer, nil); !errors.Is(err, ErrState) {
			t.Fatalf("cut to %d bytes: got %v, want ErrState", n, err)
		}
	}
	if _, err := UnmarshalGroup(append(bytes.Clone(good), 0), p.signer, nil); !errors.Is(err, ErrState) {
		t.Errorf("a byte more: got %v, want ErrState", err)
	}
	// The state's own parts, broken one at a time.
	for name, broken := range map[string]func(*Group){
		"own leaf":        func(g *Group) { g.own = 2 },
		"own leaf beyond": func(g *Group) { g.own = 1 << 30 },
		"leaf key":        func(g *Group) { g.cur.keys.leaf = randomBytes(32) },
		"tree":            func(g *Group) { g.cur.tree = peers[0].cur.tree.clone(); g.cur.tree.setLeaf(0, nil) },
		"suite":           func(g *Group) { c := g.cur.context; c.CipherSuite = 2; g.cur.encoded = encode(&c) },
		"secret tree":     func(g *Group) { g.cur.messages = newSecretTree(randomBytes(32), 2) },
		"status":          func(g *Group) { g.status = 3 },
		"past epochs out of order": func(g *Group) {
			g.past = append(g.past, g.past[0])
		},
		"proposal of nobody": func(g *Group) {
			g.cur.received = []proposalEntry{{proposal: &Proposal{Type: ProposalRemove}, sender: Sender{Type: SenderMember, Leaf: 9}}}
		},
		"skipped keys": func(g *Group) {
			k := skippedKey{messageKey: messageKey{key: make([]byte, keySize), nonce: make([]byte, nonceSize)}, generation: 7}
			g.cur.messages.senders[0][applicationRatchet].skipped = []skippedKey{k}
		},
	} {
		g, err := UnmarshalGroup(good, p.signer, nil)
		if err != nil {
			t.Fatal(err)
		}
		broken(g)
		b := marshal(t, g)
		if bytes.Equal(b, good) {
			t.Errorf("%s: the test breaks nothing", name)
		}
		if _, err := UnmarshalGroup(b, p.signer, nil); !errors.Is(err, ErrState) {
			t.Errorf("%s: got %v, want ErrState", name, err)
		}
	}
}

// Equal states have equal encodings, whatever the order of maps.
func TestStateIsDeterministic(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 9)
	for i, p := range peers[1:] {
		for range i {
			p.mustEncrypt(t, "lost")
		}
		peers[0].mustProcess(t, p.mustEncrypt(t, "x"))
	}
	spread(t, peers, peers[3], peers[3].mustCommit(t, CommitOptions{ForcePath: true}))
	first := marshal(t, peers[0].Group)
	for range 20 {
		wantBytes2(t, "state", marshal(t, peers[0].Group), first)
	}
	reload(t, peers[0].Group)
}
