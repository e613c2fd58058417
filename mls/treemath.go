package mls

import "math/bits"

// nodeIndex is the position of a node in the array form of a tree (RFC 9420
// Appendix C): leaves are even, a parent lies between its subtrees. Trees are full,
// so everything but the root is independent of their size.
type nodeIndex uint32

func (i LeafIndex) node() nodeIndex { return nodeIndex(i) * 2 }

func (x nodeIndex) isLeaf() bool    { return x&1 == 0 }
func (x nodeIndex) leaf() LeafIndex { return LeafIndex(x / 2) }

// level is the height above the leaves.
func (x nodeIndex) level() int { return bits.TrailingZeros32(^uint32(x)) }

// left and right must not be called on leaves.
func (x nodeIndex) left() nodeIndex  { return x ^ 1<<(x.level()-1) }
func (x nodeIndex) right() nodeIndex { return x ^ 3<<(x.level()-1) }

// parent must not be called on the root.
func (x nodeIndex) parent() nodeIndex {
	k := x.level()
	return (x | 1<<k) &^ (1 << (k + 1))
}

func (x nodeIndex) sibling() nodeIndex {
	p := x.parent()
	if x < p {
		return p.right()
	}
	return p.left()
}

// span returns the leaves under x: first, and one past the last.
func (x nodeIndex) span() (first, end LeafIndex) {
	size := nodeIndex(1) << x.level()
	return (x - (size - 1)).leaf(), LeafIndex(((x - (size - 1)) / 2) + size)
}

// covers reports whether leaf i is x or below it.
func (x nodeIndex) covers(i LeafIndex) bool {
	first, end := x.span()
	return first <= i && i < end
}

// rootOf returns the root of a full tree with so many leaves, a power of two.
func rootOf(leaves int) nodeIndex { return nodeIndex(leaves - 1) } //nolint:gosec // at most maxLeaves.
