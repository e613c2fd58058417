package mls

import "fmt"

const (
	nodeTypeLeaf   = 1
	nodeTypeParent = 2
)

// encode returns the content of a ratchet_tree extension (RFC 9420 §12.4.3.3):
// the nodes from left to right without blanks at the end. The result is cached and
// must not be modified.
func (t *tree) encode() []byte {
	if t.encoded != nil {
		return t.encoded
	}
	last := t.root() * 2
	for t.at(last) == nil {
		last--
	}
	t.encoded = appendVector(make([]byte, 0, t.sizeHint()), func(b []byte) []byte {
		for x := nodeIndex(0); x <= last; x++ {
			b = appendNode(b, t.at(x), x)
		}
		return b
	})
	return t.encoded
}

// sizeHint is about how long the encoding is; blank nodes take a byte each.
func (t *tree) sizeHint() int {
	n := 2 * len(t.leaves)
	for _, l := range t.leaves {
		if l != nil {
			n += 160 + len(l.Credential.Identity)
		}
	}
	for _, p := range t.parents {
		if p != nil {
			n += 80 + 4*len(p.unmerged)
		}
	}
	return n
}

// at returns the node at x, or nil if it is blank.
func (t *tree) at(x nodeIndex) encodable {
	if x.isLeaf() {
		if l := t.leaves[x.leaf()]; l != nil {
			return l
		}
		return nil
	}
	if p := t.parentAt(x); p != nil {
		return p
	}
	return nil
}

func appendNode(b []byte, n encodable, x nodeIndex) []byte {
	b = appendOptional(b, n != nil)
	if n == nil {
		return b
	}
	if x.isLeaf() {
		return n.append(append(b, nodeTypeLeaf))
	}
	return n.append(append(b, nodeTypeParent))
}

// parseTree decodes the content of a ratchet_tree extension. The tree has the
// right shape; validate says whether it makes sense.
func parseTree(b []byte) (*tree, error) {
	t := &tree{}
	if err := decode(b, "ratchet tree", t.decodeNodes); err != nil {
		return nil, err
	}
	if err := t.complete(); err != nil {
		return nil, err
	}
	return t, nil
}

// complete extends the decoded nodes to a full tree.
func (t *tree) complete() error {
	n := 1
	for n < len(t.leaves) {
		n *= 2
	}
	if n > maxLeaves {
		return fmt.Errorf("%w: more than %d leaves", ErrTooLarge, maxLeaves)
	}
	t.leaves = append(t.leaves, make([]*LeafNode, n-len(t.leaves))...)
	t.parents = append(t.parents, make([]*parentNode, n-1-len(t.parents))...)
	t.hashes = make([]*[hashSize]byte, 2*n-1)
	return nil
}

func (t *tree) decodeNodes(r *reader) {
	present := false
	count := 0
	r.vector(func(r *reader) {
		if count == 2*maxLeaves-1 {
			r.failWith(ErrTooLarge, fmt.Sprintf("more than %d leaves", maxLeaves))
			return
		}
		present = r.optional()
		t.decodeNode(r, nodeIndex(count), present) //nolint:gosec // at most MaxMessageSize.
		count++
	})
	if r.err == nil && !present {
		r.fail("last node is blank, or there is none")
	}
	// A tree that ends in a parent lacks the leaf to the right of it.
	if count%2 == 0 {
		t.leaves = append(t.leaves, nil)
	}
}

func (t *tree) decodeNode(r *reader, x nodeIndex, present bool) {
	want := uint8(nodeTypeParent)
	if x.isLeaf() {
		want = nodeTypeLeaf
	}
	if present && r.uint8() != want {
		r.fail("leaf and parent nodes do not alternate")
		return
	}
	var leaf *LeafNode
	var parent *parentNode
	switch {
	case x.isLeaf():
		if present {
			leaf = decodeLeafNode(r)
		}
		t.leaves = appendDoubling(t.leaves, leaf)
	default:
		if present {
			parent = decodeParentNode(r)
		}
		t.parents = appendDoubling(t.parents, parent)
	}
}
