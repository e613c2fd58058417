package mls

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// grownGroup returns a member of a group whose tree has parents, blanks and
// unmerged leaves, together with its peers.
func grownGroup(t *testing.T) []*peer {
	t.Helper()
	peers := newGroup(t, 7)
	for _, p := range peers {
		spread(t, peers, p, p.mustCommit(t, CommitOptions{ForcePath: true}))
	}
	gone := peers[4]
	c := peers[0].mustCommit(t, CommitOptions{Removes: []LeafIndex{gone.OwnIndex()}})
	peers = slices.Delete(peers, 4, 5)
	spread(t, peers, peers[0], c)
	for i := range 2 {
		fresh := newPeer(t, string(rune('a'+i)))
		c := peers[1].mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
		spread(t, peers, peers[1], c)
		fresh.join(t, c.Welcome)
		peers = append(peers, fresh)
	}
	wantAgreement(t, peers)
	return peers
}

func TestTreeValidationRefuses(t *testing.T) {
	t.Parallel()
	g := grownGroup(t)[0].Group
	withUnmerged := slices.IndexFunc(g.cur.tree.parents, func(p *parentNode) bool { return p != nil && len(p.unmerged) > 0 })
	if withUnmerged < 0 {
		t.Fatal("no unmerged leaves: the test needs another history")
	}
	root := len(g.cur.tree.parents) / 2
	change := func(at int, f func(*parentNode)) func(*tree) {
		return func(tr *tree) {
			p := *tr.parents[at]
			p.unmerged = slices.Clone(p.unmerged)
			f(&p)
			tr.parents[at] = &p
		}
	}
	tests := []struct {
		name   string
		change func(*tree)
		want   error
	}{
		{"as it is", func(*tree) {}, nil},
		{"parent hash of the root's child", change(root, func(p *parentNode) { p.parentHash = []byte("x") }), ErrInvalidTree},
		{"key of a parent", change(root, func(p *parentNode) { p.encryptionKey = randomBytes(32) }), ErrInvalidTree},
		{"short key of a parent", change(root, func(p *parentNode) { p.encryptionKey = p.encryptionKey[1:] }), ErrInvalidTree},
		{"key of a parent of low order", change(root, func(p *parentNode) { p.encryptionKey = make([]byte, 32) }), ErrInvalidTree},
		{"unmerged leaf dropped", change(withUnmerged, func(p *parentNode) { p.unmerged = p.unmerged[1:] }), ErrInvalidTree},
		{"unmerged leaf twice", change(withUnmerged, func(p *parentNode) { p.unmerged = append(p.unmerged, p.unmerged...) }), ErrInvalidTree},
		{"unmerged leaf out of range", change(root, func(p *parentNode) { p.unmerged = []LeafIndex{1 << 30} }), ErrInvalidTree},
		{"merged leaf listed as unmerged", change(root, func(p *parentNode) { p.unmerged = []LeafIndex{0} }), ErrInvalidTree},
		{"parent key is a leaf key", change(root, func(p *parentNode) { p.encryptionKey = g.cur.tree.leaves[0].EncryptionKey }), ErrInvalidTree},
		{"leaf twice", func(tr *tree) { tr.leaves[1] = tr.leaves[0] }, ErrInvalidTree},
		{"leaf of another group", func(tr *tree) { tr.leaves[0] = newGroupLeaf(t) }, ErrInvalidTree},
		{"leaf at another place", func(tr *tree) { tr.leaves[2], tr.leaves[3] = tr.leaves[3], tr.leaves[2] }, ErrInvalidTree},
		{"leaf removed", func(tr *tree) { tr.leaves[3] = nil }, ErrInvalidTree},
		{"right half empty", func(tr *tree) { _ = tr.grow() }, ErrInvalidTree},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := g.cur.tree.clone()
			tt.change(tr)
			tr.hashes = make([]*[hashSize]byte, 2*len(tr.leaves)-1)
			if err := tr.validate(&g.cur.context, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// newGroupLeaf returns a leaf that was made by a Commit in another group.
func newGroupLeaf(t *testing.T) *LeafNode {
	p := newPeer(t, "other")
	p.create(t)
	spread(t, nil, p, p.mustCommit(t, CommitOptions{}))
	return p.cur.tree.leaves[0]
}

func TestTreeCodecRefuses(t *testing.T) {
	t.Parallel()
	good := grownGroup(t)[0].RatchetTree()
	var nodes []byte
	if err := decode(good, "tree", func(r *reader) { nodes = r.opaque() }); err != nil {
		t.Fatal(err)
	}
	vector := func(b ...byte) []byte { return appendOpaque(nil, b) }
	for name, in := range map[string][]byte{
		"empty":                         vector(),
		"one blank":                     vector(0),
		"blank at the end":              appendOpaque(nil, append(bytes.Clone(nodes), 0)),
		"starts with a parent":          vector(1, nodeTypeParent, 0, 0, 0),
		"leaf where a parent should be": appendOpaque(nil, slices.Concat([]byte{0}, nodes)),
		"unknown node type":             vector(1, 3),
		"presence octet":                vector(2, 1),
		"cut":                           good[:len(good)-1],
		"trailing":                      append(bytes.Clone(good), 0),
	} {
		if _, err := parseTree(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if _, err := parseTree(appendOpaque(nil, append(make([]byte, 2*maxLeaves+2), nodes...))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many nodes: got %v, want ErrTooLarge", err)
	}
}

// A subtree's cached hash must never survive a change below it.
func TestTreeHashCacheIsSound(t *testing.T) {
	t.Parallel()
	for _, p := range grownGroup(t) {
		tr := p.cur.tree
		cached := tr.treeHash()
		tr.hashes = make([]*[hashSize]byte, len(tr.hashes))
		if tr.treeHash() != cached {
			t.Errorf("%s: cached tree hash is stale", p.name)
		}
	}
}

func TestTreeShrinksAndGrows(t *testing.T) {
	t.Parallel()
	leaf := func() *LeafNode { return newPeer(t, "x").bundle.keyPackage.LeafNode }
	tr := newTree(leaf())
	for i := range LeafIndex(9) {
		if at, err := tr.add(leaf()); err != nil || at != i+1 {
			t.Fatalf("added at %d, %v; want %d", at, err, i+1)
		}
	}
	if len(tr.leaves) != 16 || len(tr.parents) != 15 || len(tr.hashes) != 31 {
		t.Fatalf("%d leaves, %d parents, %d hashes", len(tr.leaves), len(tr.parents), len(tr.hashes))
	}
	tr.treeHash()
	for _, i := range []LeafIndex{8, 9, 5, 7} {
		tr.remove(i)
	}
	if len(tr.leaves) != 8 || len(tr.parents) != 7 || len(tr.hashes) != 15 {
		t.Fatalf("%d leaves, %d parents, %d hashes", len(tr.leaves), len(tr.parents), len(tr.hashes))
	}
	for _, want := range []LeafIndex{5, 7, 8} {
		if at, err := tr.add(leaf()); err != nil || at != want {
			t.Errorf("added at %d, %v; want %d", at, err, want)
		}
	}
	again := mustParseTree(t, tr.encode())
	if again.treeHash() != tr.treeHash() {
		t.Error("tree hash differs after a round trip")
	}
}
