package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
)

// pathKeys are a member's private keys: its leaf's, and those of the parents above
// it that it knows (RFC 9420 §7.5).
type pathKeys struct {
	leaf    []byte
	parents map[nodeIndex][]byte
}

// clone copies the map; the keys are shared and are not cleared through a clone.
func (k pathKeys) clone() pathKeys {
	return pathKeys{leaf: k.leaf, parents: maps.Clone(k.parents)}
}

// prune forgets keys of nodes that are blank or gone.
func (k pathKeys) prune(t *tree) {
	maps.DeleteFunc(k.parents, func(x nodeIndex, _ []byte) bool {
		return int(x/2) >= len(t.parents) || t.parentAt(x) == nil
	})
}

func (k pathKeys) find(x, ownLeaf nodeIndex) []byte {
	if x == ownLeaf {
		return k.leaf
	}
	return k.parents[x]
}

// pathSecretKeys derives the key pair of a node from its path secret.
func pathSecretKeys(secret []byte) hpkeKeyPair {
	node := deriveSecret(secret, "node")
	defer clear(node)
	return deriveKeyPair(node)
}

// derivePath walks up from the path secret of steps[0], and returns the key pairs
// of all steps and the commit secret (RFC 9420 §7.4). each, if not nil, is given
// every node's path secret; if nil, they are cleared.
func derivePath(steps []pathStep, secret []byte, each func(nodeIndex, []byte)) ([]hpkeKeyPair, []byte) {
	pairs := make([]hpkeKeyPair, len(steps))
	for i, s := range steps {
		if each != nil {
			each(s.node, secret)
		}
		pairs[i] = pathSecretKeys(secret)
		next := deriveSecret(secret, "path")
		if each == nil {
			clear(secret)
		}
		secret = next
	}
	return pairs, secret
}

// setPath puts new keys on the filtered direct path of leaf i, blanks the rest of
// the direct path, and returns the parent hash that the leaf is to carry (RFC 9420
// §7.5, §7.9).
func (t *tree) setPath(i LeafIndex, steps []pathStep, keys [][]byte) []byte {
	t.blankPath(i)
	var above []byte
	for n := len(steps) - 1; n >= 0; n-- {
		p := &parentNode{encryptionKey: keys[n], parentHash: above}
		t.parents[steps[n].node/2] = p
		h := t.parentHash(p, steps[n].copath)
		above = h[:]
	}
	return above
}

// applyPath puts a received UpdatePath into the tree and returns its steps (RFC
// 9420 §7.5, §12.4.2). The leaf's signature and credential are the caller's to check.
func (t *tree) applyPath(i LeafIndex, path *UpdatePath) ([]pathStep, error) {
	steps := t.filteredPath(i)
	if len(steps) != len(path.nodes) {
		return nil, fmt.Errorf("%w: path of %d nodes, want %d", ErrInvalidCommit, len(path.nodes), len(steps))
	}
	keys := make([][]byte, len(steps))
	for n := range steps {
		keys[n] = path.nodes[n].encryptionKey
		if !usableKey(keys[n]) {
			return nil, fmt.Errorf("%w: encryption key in path", ErrInvalidCommit)
		}
	}
	if parentHash := t.setPath(i, steps, keys); !bytes.Equal(parentHash, path.LeafNode.ParentHash) {
		return nil, fmt.Errorf("%w: parent hash of the path", ErrInvalidCommit)
	}
	t.setLeaf(i, path.LeafNode)
	return steps, nil
}

// recipients returns the nodes that a path secret is encrypted to: the resolution
// of the copath child without the leaves that this Commit adds (ascending).
func (t *tree) recipients(copath nodeIndex, added []LeafIndex) []nodeIndex {
	return slices.DeleteFunc(t.resolution(copath, nil), func(x nodeIndex) bool {
		_, isNew := slices.BinarySearch(added, x.leaf())
		return x.isLeaf() && isNew
	})
}

// newPath is a fresh path of the committer's.
type newPath struct {
	path         *UpdatePath
	steps        []pathStep
	secrets      map[nodeIndex][]byte // path secrets, for Welcomes
	commitSecret []byte
	keys         pathKeys
	public       [][]byte
}

// generatePath draws a fresh path for leaf i and puts it into the tree. leaf is the
// template of the new leaf. The path secrets are not encrypted yet, for which the
// new tree hash is needed.
func (t *tree) generatePath(i LeafIndex, leaf LeafNode, signer ed25519.PrivateKey, groupID []byte) *newPath {
	p := &newPath{steps: t.filteredPath(i), secrets: map[nodeIndex][]byte{}}
	pairs, commitSecret := derivePath(p.steps, randomBytes(hashSize), func(x nodeIndex, secret []byte) {
		p.secrets[x] = secret
	})
	p.commitSecret = commitSecret
	own := newHPKEKeyPair()
	p.keys = pathKeys{leaf: own.private, parents: make(map[nodeIndex][]byte, len(pairs))}
	for n, pair := range pairs {
		p.keys.parents[p.steps[n].node] = pair.private
		p.public = append(p.public, pair.public)
	}
	leaf.EncryptionKey = own.public
	leaf.Source = LeafFromCommit
	leaf.NotBefore, leaf.NotAfter = 0, 0
	leaf.ParentHash = t.setPath(i, p.steps, p.public)
	leaf.sign(signer, groupID, i)
	p.path = &UpdatePath{LeafNode: &leaf}
	t.setLeaf(i, &leaf)
	return p
}

// encrypt seals each path secret to those who shall learn it. context is the
// encoded provisional GroupContext.
func (p *newPath) encrypt(t *tree, added []LeafIndex, context []byte) error {
	var jobs []sealing
	p.path.nodes = make([]updatePathNode, len(p.steps))
	for n, s := range p.steps {
		to := t.recipients(s.copath, added)
		p.path.nodes[n] = updatePathNode{encryptionKey: p.public[n], secrets: make([]hpkeCiphertext, len(to))}
		for i, x := range to {
			jobs = append(jobs, sealing{recipient: x, secret: p.secrets[s.node], out: &p.path.nodes[n].secrets[i]})
		}
	}
	return forEach(len(jobs), func(i int) (err error) {
		j := jobs[i]
		if *j.out, err = encryptWithLabel(t.publicKey(j.recipient), "UpdatePathNode", context, j.secret); err != nil {
			return fmt.Errorf("path to node %d: %w", j.recipient, err)
		}
		return nil
	})
}

// sealing is a path secret that is to be sealed for a node.
type sealing struct {
	recipient nodeIndex
	secret    []byte
	out       *hpkeCiphertext
}

// clear erases the path secrets, once the Welcomes are made.
func (p *newPath) clear() {
	for _, s := range p.secrets {
		clear(s)
	}
	clear(p.commitSecret)
}

// openPath decrypts the path secret that is for leaf own, and returns own's keys
// after the Commit and the commit secret (RFC 9420 §7.5). t already holds the path.
// keys is not changed.
func (t *tree) openPath(own LeafIndex, keys pathKeys, path *UpdatePath, steps []pathStep, added []LeafIndex, context []byte) (pathKeys, []byte, error) {
	at := slices.IndexFunc(steps, func(s pathStep) bool { return s.node.covers(own) })
	if at < 0 {
		return pathKeys{}, nil, fmt.Errorf("%w: path does not reach this member", ErrInvalidCommit)
	}
	secret, err := t.decryptPathSecret(own, keys, steps[at], path.nodes[at], added, context)
	if err != nil {
		return pathKeys{}, nil, err
	}
	next := keys.clone()
	next.prune(t)
	commitSecret, err := next.learn(t, steps[at:], secret)
	return next, commitSecret, err
}

func (t *tree) decryptPathSecret(own LeafIndex, keys pathKeys, s pathStep, node updatePathNode, added []LeafIndex, context []byte) ([]byte, error) {
	recipients := t.recipients(s.copath, added)
	at := slices.IndexFunc(recipients, func(x nodeIndex) bool { return keys.find(x, own.node()) != nil })
	if at < 0 || len(recipients) != len(node.secrets) {
		return nil, fmt.Errorf("%w: ciphertexts of the path", ErrInvalidCommit)
	}
	private := keys.find(recipients[at], own.node())
	secret, err := decryptWithLabel(private, "UpdatePathNode", context, node.secrets[at])
	if err != nil {
		return nil, fmt.Errorf("path secret: %w", err)
	}
	if len(secret) != hashSize {
		return nil, fmt.Errorf("%w: path secret", ErrInvalidCommit)
	}
	return secret, nil
}

// learn derives the private keys from a path secret upwards, and checks them
// against the public keys in the tree. It returns the commit secret.
func (k pathKeys) learn(t *tree, steps []pathStep, secret []byte) ([]byte, error) {
	pairs, commitSecret := derivePath(steps, secret, nil)
	for n, s := range steps {
		p := t.parentAt(s.node)
		if p == nil || !bytes.Equal(p.encryptionKey, pairs[n].public) {
			return nil, fmt.Errorf("%w: path secret does not match node %d", ErrInvalidCommit, s.node)
		}
		k.parents[s.node] = pairs[n].private
	}
	return commitSecret, nil
}
