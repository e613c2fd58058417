package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// testNow is the time in which the tests live.
var testNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// peer is one member to be, with the group it is in.
type peer struct {
	name   string
	signer ed25519.PrivateKey
	bundle *KeyPackageBundle
	*Group
}

func newPeer(t testing.TB, name string) *peer {
	t.Helper()
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{name: name, signer: signer}
	p.renew(t)
	return p
}

func (p *peer) options() KeyPackageOptions {
	return KeyPackageOptions{
		Credential: BasicCredential([]byte(p.name)), Signer: p.signer,
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour),
	}
}

// renew gives the peer a fresh key package.
func (p *peer) renew(t testing.TB) {
	t.Helper()
	b, err := NewKeyPackage(p.options())
	if err != nil {
		t.Fatal(err)
	}
	p.bundle = b
}

func newPeers(t testing.TB, n int) []*peer {
	t.Helper()
	out := make([]*peer, n)
	for i := range out {
		out[i] = newPeer(t, fmt.Sprintf("member-%d", i))
	}
	return out
}

// create makes p the creator of a group.
func (p *peer) create(t testing.TB) {
	t.Helper()
	g, err := CreateGroup(GroupOptions{
		GroupID: []byte("group"), Credential: BasicCredential([]byte(p.name)), Signer: p.signer,
		Now: func() time.Time { return testNow },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Group = g
}

// join lets p join by the Welcome of a pending Commit.
func (p *peer) join(t testing.TB, welcome []byte) {
	t.Helper()
	g, err := JoinGroup(mustParse(t, welcome).Welcome, p.bundle, p.signer, JoinOptions{})
	if err != nil {
		t.Fatalf("%s joins: %v", p.name, err)
	}
	p.Group = g
}

func keyPackagesOf(peers []*peer) []*KeyPackage {
	out := make([]*KeyPackage, len(peers))
	for i, p := range peers {
		out[i] = p.bundle.KeyPackage()
	}
	return out
}

func (p *peer) mustCommit(t testing.TB, o CommitOptions) *PendingCommit {
	t.Helper()
	o.AcceptTime = testNow
	c, err := p.Commit(o)
	if err != nil {
		t.Fatalf("%s commits: %v", p.name, err)
	}
	return c
}

func (p *peer) mustProcess(t testing.TB, b []byte) *Processed {
	t.Helper()
	out, err := p.Process(mustParse(t, b), testNow)
	if err != nil {
		t.Fatalf("%s processes: %v", p.name, err)
	}
	return out
}

func (p *peer) mustEncrypt(t testing.TB, text string) []byte {
	t.Helper()
	b, err := p.Encrypt([]byte(text), nil, 0)
	if err != nil {
		t.Fatalf("%s encrypts: %v", p.name, err)
	}
	return b
}

func (p *peer) mustMerge(t testing.TB, c *PendingCommit) {
	t.Helper()
	if err := p.Merge(c); err != nil {
		t.Fatalf("%s merges: %v", p.name, err)
	}
}

// newGroup makes a group of n members: the first adds all others by one Commit.
func newGroup(t testing.TB, n int) []*peer {
	t.Helper()
	peers := newPeers(t, n)
	peers[0].create(t)
	if n > 1 {
		c := peers[0].mustCommit(t, CommitOptions{Adds: keyPackagesOf(peers[1:])})
		peers[0].mustMerge(t, c)
		for _, p := range peers[1:] {
			p.join(t, c.Welcome)
		}
	}
	wantAgreement(t, peers)
	return peers
}

// spread applies a Commit of from to everyone else and to from itself.
func spread(t testing.TB, peers []*peer, from *peer, c *PendingCommit) {
	t.Helper()
	for _, p := range peers {
		if p != from {
			p.mustProcess(t, c.Commit)
		}
	}
	from.mustMerge(t, c)
}

// wantAgreement checks that all peers are in the same state, and that their trees
// and private keys are sound.
func wantAgreement(t testing.TB, peers []*peer) {
	t.Helper()
	first := peers[0]
	for _, p := range peers {
		if !bytes.Equal(p.EpochAuthenticator(), first.EpochAuthenticator()) || p.Epoch() != first.Epoch() {
			t.Fatalf("%s and %s disagree on the epoch", p.name, first.name)
		}
		if !slices.EqualFunc(p.Members(), first.Members(), sameMember) {
			t.Fatalf("%s and %s disagree on the members", p.name, first.name)
		}
		if string(p.cur.tree.leaf(p.OwnIndex()).Credential.Identity) != p.name {
			t.Fatalf("%s is not at its leaf", p.name)
		}
		wantKeysMatch(t, p.Group)
	}
	if err := first.cur.tree.validate(&first.cur.context, nil); err != nil {
		t.Fatal(err)
	}
}

func sameMember(a, b Member) bool {
	return a.Index == b.Index && a.Credential.Equal(b.Credential) && bytes.Equal(a.SignatureKey, b.SignatureKey)
}

// wantKeysMatch checks a member's private keys against the tree.
func wantKeysMatch(t testing.TB, g *Group) {
	t.Helper()
	if !privateMatches(g.cur.keys.leaf, g.cur.tree.leaf(g.own).EncryptionKey) {
		t.Fatalf("leaf %d: private key does not match", g.own)
	}
	for x, private := range g.cur.keys.parents {
		if !privateMatches(private, g.cur.tree.publicKey(x)) {
			t.Fatalf("leaf %d: private key of node %d does not match", g.own, x)
		}
	}
}

func marshal(t testing.TB, g *Group) []byte {
	t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// historiesFactor says how many times longer than by default random tests run:
// QPQ_MLS_HISTORIES, 1 if it is not set.
func historiesFactor(t testing.TB) int {
	t.Helper()
	s := os.Getenv("QPQ_MLS_HISTORIES")
	if s == "" {
		return 1
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("QPQ_MLS_HISTORIES=%q is not a positive number", s)
	}
	return n
}
