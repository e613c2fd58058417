package mls

import (
	"fmt"
	"slices"
)

// maxLeaves bounds a tree. A million members is far beyond what one group can do
// in practice, and keeps every node index well inside 32 bits.
const (
	maxLeaves = 1 << maxDepth
	maxDepth  = 20
)

// parentNode is ParentNode (RFC 9420 §7.1).
type parentNode struct {
	encryptionKey []byte
	parentHash    []byte
	unmerged      []LeafIndex // ascending
}

func (p *parentNode) append(b []byte) []byte {
	b = appendOpaque(b, p.encryptionKey)
	b = appendOpaque(b, p.parentHash)
	b = appendVarint(b, 4*len(p.unmerged))
	for _, l := range p.unmerged {
		b = appendUint32(b, uint32(l))
	}
	return b
}

func decodeParentNode(r *reader) *parentNode {
	return &parentNode{
		encryptionKey: r.opaque(),
		parentHash:    r.opaque(),
		unmerged:      list(r, func(r *reader) LeafIndex { return LeafIndex(r.uint32()) }),
	}
}

// tree is a ratchet tree's public part (RFC 9420 §4.1). The nodes it points to are
// never changed once they are in a tree, only replaced: a clone copies pointers,
// and the hash of a subtree stays valid until a node in it is replaced.
type tree struct {
	leaves  []*LeafNode   // a power of two; nil is blank
	parents []*parentNode // one less; parents[i] is node 2i+1
	hashes  []*[hashSize]byte
	blank   LeafIndex // no leaf left of it is blank
	encoded []byte    // the ratchet_tree encoding, once asked for
}

// newTree returns a tree whose only leaf is l.
func newTree(l *LeafNode) *tree {
	return &tree{leaves: []*LeafNode{l}, hashes: make([]*[hashSize]byte, 1)}
}

func (t *tree) clone() *tree {
	return &tree{
		leaves:  slices.Clone(t.leaves),
		parents: slices.Clone(t.parents),
		hashes:  slices.Clone(t.hashes),
		blank:   t.blank,
	}
}

func (t *tree) root() nodeIndex { return rootOf(len(t.leaves)) }

// leaf returns the leaf at i, or nil if it is blank or outside the tree.
func (t *tree) leaf(i LeafIndex) *LeafNode {
	if uint64(i) >= uint64(len(t.leaves)) {
		return nil
	}
	return t.leaves[i]
}

func (t *tree) parentAt(x nodeIndex) *parentNode { return t.parents[x/2] }

// publicKey returns the encryption key of a node that is not blank.
func (t *tree) publicKey(x nodeIndex) []byte {
	if x.isLeaf() {
		return t.leaves[x.leaf()].EncryptionKey
	}
	return t.parentAt(x).encryptionKey
}

// ancestors calls f with each node above leaf i, from below.
func (t *tree) ancestors(i LeafIndex, f func(nodeIndex)) {
	for x, root := i.node(), t.root(); x != root; {
		x = x.parent()
		f(x)
	}
}

// setLeaf replaces a leaf and forgets the hashes above it. Parents may be replaced
// only above a leaf that is set in the same step.
func (t *tree) setLeaf(i LeafIndex, l *LeafNode) {
	t.leaves[i] = l
	t.encoded = nil
	t.hashes[i.node()] = nil
	t.ancestors(i, func(x nodeIndex) { t.hashes[x] = nil })
	if l == nil && i < t.blank {
		t.blank = i
	}
}

// blankPath blanks every parent above leaf i.
func (t *tree) blankPath(i LeafIndex) {
	t.ancestors(i, func(x nodeIndex) { t.parents[x/2] = nil })
}

// update replaces leaf i and blanks its direct path (RFC 9420 §12.1.2).
func (t *tree) update(i LeafIndex, l *LeafNode) {
	t.blankPath(i)
	t.setLeaf(i, l)
}

// remove blanks leaf i and its direct path, and drops the right half of the tree
// as long as it is empty (RFC 9420 §7.7, §12.1.3).
func (t *tree) remove(i LeafIndex) {
	t.update(i, nil)
	for n := len(t.leaves); n > 1; n = len(t.leaves) {
		if slices.ContainsFunc(t.leaves[n/2:], func(l *LeafNode) bool { return l != nil }) {
			return
		}
		t.leaves = t.leaves[:n/2]
		t.parents = t.parents[:n/2-1]
		t.hashes = t.hashes[:n-1]
	}
}

// add puts l into the leftmost blank leaf, growing the tree if there is none, and
// records it as unmerged above (RFC 9420 §7.7, §12.1.1).
func (t *tree) add(l *LeafNode) (LeafIndex, error) {
	for int(t.blank) < len(t.leaves) && t.leaves[t.blank] != nil {
		t.blank++
	}
	i := t.blank
	if int(i) == len(t.leaves) {
		if err := t.grow(); err != nil {
			return 0, err
		}
	}
	t.ancestors(i, func(x nodeIndex) {
		if p := t.parentAt(x); p != nil {
			t.parents[x/2] = p.withUnmerged(i)
		}
	})
	t.setLeaf(i, l)
	return i, nil
}

func (p *parentNode) withUnmerged(i LeafIndex) *parentNode {
	at, _ := slices.BinarySearch(p.unmerged, i)
	next := *p
	next.unmerged = make([]LeafIndex, 0, len(p.unmerged)+1)
	next.unmerged = append(next.unmerged, p.unmerged[:at]...)
	next.unmerged = append(next.unmerged, i)
	next.unmerged = append(next.unmerged, p.unmerged[at:]...)
	return &next
}

// grow doubles the tree; what was there becomes the left half.
func (t *tree) grow() error {
	n := len(t.leaves)
	if 2*n > maxLeaves {
		return fmt.Errorf("%w: more than %d leaves", ErrTooLarge, maxLeaves)
	}
	t.leaves = append(t.leaves, make([]*LeafNode, n)...)
	t.parents = append(t.parents, make([]*parentNode, n)...)
	t.hashes = append(t.hashes, make([]*[hashSize]byte, 2*n)...)
	return nil
}

// resolution appends the resolution of x (RFC 9420 §4.1.1).
func (t *tree) resolution(x nodeIndex, out []nodeIndex) []nodeIndex {
	if x.isLeaf() {
		if t.leaves[x.leaf()] != nil {
			out = append(out, x)
		}
		return out
	}
	p := t.parentAt(x)
	if p == nil {
		return t.resolution(x.right(), t.resolution(x.left(), out))
	}
	out = append(out, x)
	for _, l := range p.unmerged {
		out = append(out, l.node())
	}
	return out
}

// isEmpty reports whether the resolution of x is empty.
func (t *tree) isEmpty(x nodeIndex) bool {
	if x.isLeaf() {
		return t.leaves[x.leaf()] == nil
	}
	return t.parentAt(x) == nil && t.isEmpty(x.left()) && t.isEmpty(x.right())
}

// pathStep is a node of a filtered direct path and its child off the path.
type pathStep struct{ node, copath nodeIndex }

// filteredPath returns the filtered direct path of leaf i (RFC 9420 §4.1.2).
func (t *tree) filteredPath(i LeafIndex) []pathStep {
	var steps []pathStep
	below := i.node()
	t.ancestors(i, func(x nodeIndex) {
		if copath := below.sibling(); !t.isEmpty(copath) {
			steps = append(steps, pathStep{node: x, copath: copath})
		}
		below = x
	})
	return steps
}

// members lists the leaves that are not blank.
func (t *tree) members() []Member {
	var out []Member
	for i, l := range t.leaves {
		if l != nil {
			out = append(out, l.member(LeafIndex(i)))
		}
	}
	return out
}

func (l *LeafNode) member(i LeafIndex) Member {
	return Member{Index: i, Credential: l.Credential, SignatureKey: l.SignatureKey}
}
