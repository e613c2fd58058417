package mls

import (
	"bytes"
	"fmt"
	"slices"
)

// validate checks a tree that comes from outside (RFC 9420 §12.4.3.1): its shape,
// every leaf, the keys' uniqueness, unmerged leaves and parent hashes. The caller
// has compared the tree hash.
func (t *tree) validate(c *GroupContext, v CredentialValidator) error {
	if n := len(t.leaves); n > 1 && !slices.ContainsFunc(t.leaves[n/2:], func(l *LeafNode) bool { return l != nil }) {
		return fmt.Errorf("%w: right half is empty", ErrInvalidTree)
	}
	if err := t.validateParents(); err != nil {
		return err
	}
	if err := t.validateUnique(); err != nil {
		return err
	}
	return t.validateLeaves(c, v)
}

// validateLeaves checks every leaf by itself and against the group. The signatures are
// by far the most of the work, so it is shared among the processors; v is asked by one
// goroutine, about leaves that have been verified.
func (t *tree) validateLeaves(c *GroupContext, v CredentialValidator) error {
	err := forEach(len(t.leaves), func(i int) error {
		l := t.leaves[i]
		if l == nil {
			return nil
		}
		if err := l.verify(c.GroupID, LeafIndex(i)); err != nil { //nolint:gosec // i is below the number of leaves.
			return badLeaf(i, err)
		}
		return badLeaf(i, c.Extensions.supportedBy(&l.Capabilities))
	})
	if err != nil {
		return err
	}
	for i, l := range t.leaves {
		if l == nil {
			continue
		}
		if err := validateCredential(v, l.Credential, l.SignatureKey); err != nil {
			return badLeaf(i, err)
		}
	}
	return nil
}

// badLeaf says which leaf of a tree is wrong; nil stays nil.
func badLeaf(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: leaf %d: %w", ErrInvalidTree, i, err)
}

func (t *tree) validateUnique() error {
	encryption := make(map[string]bool, 2*len(t.leaves))
	signature := make(map[string]bool, len(t.leaves))
	claim := func(set map[string]bool, key []byte) bool {
		fresh := !set[string(key)]
		set[string(key)] = true
		return fresh
	}
	for _, l := range t.leaves {
		if l != nil && !(claim(encryption, l.EncryptionKey) && claim(signature, l.SignatureKey)) {
			return fmt.Errorf("%w: %w", ErrInvalidTree, ErrKeyReuse)
		}
	}
	for _, p := range t.parents {
		if p != nil && !claim(encryption, p.encryptionKey) {
			return fmt.Errorf("%w: %w", ErrInvalidTree, ErrKeyReuse)
		}
	}
	return nil
}

func (t *tree) validateParents() error {
	for i, p := range t.parents {
		if p == nil {
			continue
		}
		x := nodeIndex(2*i + 1)
		if !usableKey(p.encryptionKey) {
			return fmt.Errorf("%w: encryption key of node %d", ErrInvalidTree, x)
		}
		if err := t.validateUnmerged(x, p); err != nil {
			return err
		}
		if !t.parentHashValid(x, p) {
			return fmt.Errorf("%w: parent hash of node %d", ErrInvalidTree, x)
		}
	}
	return nil
}

// validateUnmerged checks that the list is ascending, names members below x, and
// is repeated by every parent in between (RFC 9420 §12.4.3.1).
func (t *tree) validateUnmerged(x nodeIndex, p *parentNode) error {
	for i, l := range p.unmerged {
		ascending := i == 0 || p.unmerged[i-1] < l
		if !ascending || !x.covers(l) || t.leaf(l) == nil {
			return fmt.Errorf("%w: unmerged leaves of node %d", ErrInvalidTree, x)
		}
		for y := l.node().parent(); y != x; y = y.parent() {
			below := t.parentAt(y)
			if below == nil {
				continue
			}
			if _, found := slices.BinarySearch(below.unmerged, l); !found {
				return fmt.Errorf("%w: unmerged leaf %d of node %d is missing below", ErrInvalidTree, l, x)
			}
		}
	}
	return nil
}

// parentHashValid reports whether some node below x vouches for it (RFC 9420 §7.9.2).
func (t *tree) parentHashValid(x nodeIndex, p *parentNode) bool {
	return t.vouchesFor(x, p, x.left(), x.right()) || t.vouchesFor(x, p, x.right(), x.left())
}

// vouchesFor looks for the node in child's resolution that was set together with
// p: it carries p's parent hash, and everything else in the resolution was added
// since, so it is unmerged at p.
func (t *tree) vouchesFor(x nodeIndex, p *parentNode, child, sibling nodeIndex) bool {
	later := within(p.unmerged, child)
	resolution := t.resolution(child, nil)
	if len(resolution) != len(later)+1 {
		return false
	}
	want := t.parentHash(p, sibling)
	for _, d := range resolution {
		if bytes.Equal(t.parentHashOf(d), want[:]) && restIs(resolution, d, later) {
			return true
		}
	}
	return false
}

// restIs reports whether resolution without d is exactly the leaves in later.
func restIs(resolution []nodeIndex, d nodeIndex, later []LeafIndex) bool {
	for _, n := range resolution {
		if n == d {
			continue
		}
		if !n.isLeaf() {
			return false
		}
		if _, found := slices.BinarySearch(later, n.leaf()); !found {
			return false
		}
	}
	return true
}

// parentHashOf returns the parent hash that a node carries, nil if none.
func (t *tree) parentHashOf(x nodeIndex) []byte {
	if x.isLeaf() {
		return t.leaves[x.leaf()].ParentHash
	}
	return t.parentAt(x).parentHash
}

// checkUnique makes sure that the keys of the given leaves and of the parents above
// path occur once in the tree. The rest of the tree is known to be unique.
func (t *tree) checkUnique(fresh []LeafIndex, path []pathStep) error {
	encryption, signature := map[string]int{}, map[string]int{}
	for _, i := range fresh {
		encryption[string(t.leaves[i].EncryptionKey)] = 0
		signature[string(t.leaves[i].SignatureKey)] = 0
	}
	for _, s := range path {
		encryption[string(t.parentAt(s.node).encryptionKey)] = 0
	}
	count := func(set map[string]int, key []byte) bool {
		n, watched := set[string(key)]
		if watched {
			set[string(key)] = n + 1
		}
		return n == 0
	}
	for _, l := range t.leaves {
		if l != nil && !(count(encryption, l.EncryptionKey) && count(signature, l.SignatureKey)) {
			return ErrKeyReuse
		}
	}
	for _, p := range t.parents {
		if p != nil && !count(encryption, p.encryptionKey) {
			return ErrKeyReuse
		}
	}
	return nil
}
