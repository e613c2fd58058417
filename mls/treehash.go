package mls

import (
	"crypto/sha256"
	"slices"
)

// treeHash returns the tree hash of the root (RFC 9420 §7.8).
func (t *tree) treeHash() [hashSize]byte { return *t.hash(t.root()) }

// hash returns the tree hash of a subtree. It is computed once per change.
func (t *tree) hash(x nodeIndex) *[hashSize]byte {
	if h := t.hashes[x]; h != nil {
		return h
	}
	var h [hashSize]byte
	if x.isLeaf() {
		h = leafHash(x.leaf(), t.leaves[x.leaf()])
	} else {
		h = parentNodeHash(t.parentAt(x), t.hash(x.left()), t.hash(x.right()))
	}
	t.hashes[x] = &h
	return &h
}

// leafHash hashes TreeHashInput of a leaf; a blank one is nil.
func leafHash(i LeafIndex, l *LeafNode) [hashSize]byte {
	var buf [512]byte
	b := appendUint32(append(buf[:0], nodeTypeLeaf), uint32(i))
	b = appendOptional(b, l != nil)
	if l != nil {
		b = l.append(b)
	}
	return sha256.Sum256(b)
}

// parentNodeHash hashes TreeHashInput of a parent; a blank one is nil.
func parentNodeHash(p *parentNode, left, right *[hashSize]byte) [hashSize]byte {
	var buf [256]byte
	b := append(buf[:0], nodeTypeParent)
	b = appendOptional(b, p != nil)
	if p != nil {
		b = p.append(b)
	}
	b = appendOpaque(b, left[:])
	b = appendOpaque(b, right[:])
	return sha256.Sum256(b)
}

// hashWithout returns the hash that x had before the leaves in gone (ascending)
// were added: with them blank and out of every list of unmerged leaves. Subtrees
// that hold none of them keep their cached hash, so the cost is a few paths.
func (t *tree) hashWithout(x nodeIndex, gone []LeafIndex) *[hashSize]byte {
	gone = within(gone, x)
	if len(gone) == 0 {
		return t.hash(x)
	}
	var h [hashSize]byte
	if x.isLeaf() {
		h = leafHash(x.leaf(), nil)
	} else {
		p := t.parentAt(x)
		if p != nil {
			p = p.without(gone)
		}
		h = parentNodeHash(p, t.hashWithout(x.left(), gone), t.hashWithout(x.right(), gone))
	}
	return &h
}

// within cuts an ascending list to the leaves under x.
func within(leaves []LeafIndex, x nodeIndex) []LeafIndex {
	first, end := x.span()
	lo, _ := slices.BinarySearch(leaves, first)
	hi, _ := slices.BinarySearch(leaves, end)
	return leaves[lo:hi]
}

func (p *parentNode) without(gone []LeafIndex) *parentNode {
	next := *p
	next.unmerged = slices.DeleteFunc(slices.Clone(p.unmerged), func(l LeafIndex) bool {
		_, found := slices.BinarySearch(gone, l)
		return found
	})
	return &next
}

// parentHash is the parent hash that a child of p carries, given the other child
// (RFC 9420 §7.9): it covers the sibling as it was when p was set.
func (t *tree) parentHash(p *parentNode, sibling nodeIndex) [hashSize]byte {
	var buf [256]byte
	b := appendOpaque(buf[:0], p.encryptionKey)
	b = appendOpaque(b, p.parentHash)
	b = appendOpaque(b, t.hashWithout(sibling, p.unmerged)[:])
	return sha256.Sum256(b)
}
