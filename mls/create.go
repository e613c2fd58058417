package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"
)

// creatorLeafLifetime is the lifetime that the creator's leaf states. Nobody judges
// it: lifetimes count when a KeyPackage is used, and this leaf never was in one.
const creatorLeafLifetime = 90 * 24 * time.Hour

// CreateGroup starts a group with one member, in epoch 0 (RFC 9420 §11). Errors:
// ErrInvalidArgument, ErrTooLarge, ErrUnsupportedCapability, ErrCredential.
func CreateGroup(opts GroupOptions) (*Group, error) {
	leaf, keys, err := opts.creatorLeaf()
	if err != nil {
		return nil, err
	}
	t := newTree(leaf)
	h := t.treeHash()
	c := GroupContext{
		Version:     versionMLS10,
		CipherSuite: SuiteX25519AES128GCMSHA256Ed25519,
		GroupID:     bytes.Clone(opts.GroupID),
		TreeHash:    h[:],
		Extensions:  opts.Extensions.clone(),
	}
	if err := leaf.validate(c.GroupID, 0, opts.Validator); err != nil {
		return nil, err
	}
	if err := c.Extensions.supportedBy(&leaf.Capabilities); err != nil {
		return nil, err
	}
	if err := c.Extensions.validateExternalSenders(opts.Validator); err != nil {
		return nil, err
	}
	secret := randomBytes(hashSize)
	defer clear(secret)
	return &Group{
		signer:    bytes.Clone(opts.Signer),
		validator: opts.Validator,
		psks:      opts.PSKs,
		cur:       newEpochFromSecret(c, t, secret, pathKeys{leaf: keys.private, parents: map[nodeIndex][]byte{}}),
	}, nil
}

func (o *GroupOptions) creatorLeaf() (*LeafNode, hpkeKeyPair, error) {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	kpo := KeyPackageOptions{
		Credential: o.Credential,
		Signer:     o.Signer,
		NotBefore:  now().Add(-time.Hour),
		NotAfter:   now().Add(creatorLeafLifetime),
	}
	if err := kpo.check(); err != nil {
		return nil, hpkeKeyPair{}, err
	}
	if len(o.GroupID) == 0 || len(o.GroupID) > maxOpaque {
		return nil, hpkeKeyPair{}, fmt.Errorf("%w: GroupID must not be empty", ErrInvalidArgument)
	}
	if err := o.Extensions.checkGroup(); err != nil {
		return nil, hpkeKeyPair{}, err
	}
	keys := newHPKEKeyPair()
	return newLeaf(kpo, keys.public), keys, nil
}

// checkGroup judges a list of group extensions that a caller hands in.
func (x Extensions) checkGroup() error {
	if x.hasDuplicate() {
		return fmt.Errorf("%w: extension type given twice", ErrInvalidArgument)
	}
	for _, e := range x {
		if len(e.Data) > maxOpaque {
			return fmt.Errorf("%w: extension data", ErrTooLarge)
		}
	}
	if _, err := x.requiredCapabilities(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidArgument, err)
	}
	if _, err := x.externalSenders(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidArgument, err)
	}
	return nil
}

func (x Extensions) clone() Extensions {
	out := make(Extensions, len(x))
	for i, e := range x {
		out[i] = Extension{Type: e.Type, Data: bytes.Clone(e.Data)}
	}
	return out
}

// publicOf returns the public half of an Ed25519 key, nil if it is not one.
func publicOf(signer ed25519.PrivateKey) ed25519.PublicKey {
	if len(signer) != ed25519.PrivateKeySize {
		return nil
	}
	return signer.Public().(ed25519.PublicKey)
}
