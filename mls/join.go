package mls

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"fmt"
	"slices"
)

// JoinGroup joins by a Welcome (RFC 9420 §12.4.3.1). bundle is the KeyPackage that
// the Welcome is for, signer the private key of its signature key. The tree, from
// inside or from opts, is always verified in full, and so are the GroupInfo's
// signature and the confirmation tag. Lifetimes are not judged (RFC 9420 §7.3). The
// caller makes sure that it is in no other group of the same id.
//
// ErrNotAddressed: the Welcome is for others. ErrUnknownPSK: JoinOptions.PSKs lacks
// a key. Errors else: those of GroupInfo.Verify, ErrDecrypt, ErrInvalidWelcome,
// ErrInvalidCommit, ErrConfirmationTag, ErrInvalidArgument.
func JoinGroup(welcome *Welcome, bundle *KeyPackageBundle, signer ed25519.PrivateKey, opts JoinOptions) (*Group, error) {
	kp := bundle.keyPackage
	if !bytes.Equal(publicOf(signer), kp.SignatureKey()) {
		return nil, fmt.Errorf("%w: signer is not the key package's", ErrInvalidArgument)
	}
	secrets, err := welcome.openSecrets(kp.Ref(), bundle.initPrivate)
	if err != nil {
		return nil, err
	}
	defer secrets.clear()
	psk, err := secrets.pskSecret(opts.PSKs)
	if err != nil {
		return nil, err
	}
	defer clear(psk)
	gi, err := welcome.groupInfo(secrets.joinerSecret, psk)
	if err != nil {
		return nil, err
	}
	if secrets.successor() > 0 && gi.Epoch() != 1 {
		return nil, fmt.Errorf("%w: another group's successor in epoch %d", ErrInvalidWelcome, gi.Epoch())
	}
	t, err := gi.verify(opts.RatchetTree, opts.Validator)
	if err != nil {
		return nil, err
	}
	own, keys, err := bundle.enterTree(t, gi.Signer, secrets.pathSecret)
	if err != nil {
		return nil, err
	}
	e, _ := newEpoch(gi.GroupContext, t, entrance{joiner: secrets.joinerSecret, psk: psk, keys: keys})
	if !hmac.Equal(e.confirmationTag, gi.ConfirmationTag) {
		return nil, ErrConfirmationTag
	}
	return &Group{
		signer: bytes.Clone(signer), validator: opts.Validator, psks: opts.PSKs, own: own, cur: e,
	}, nil
}

func (s *groupSecrets) pskSecret(store PSKStore) ([]byte, error) {
	if err := checkPSKIDs(s.psks); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidWelcome, err)
	}
	if s.successor() > 1 {
		return nil, fmt.Errorf("%w: more than one resumption PSK for reinit or branch", ErrInvalidWelcome)
	}
	inputs := make([]pskInput, len(s.psks))
	for i, id := range s.psks {
		secret, err := lookUpPSK(store, id)
		if err != nil {
			return nil, err
		}
		inputs[i] = pskInput{id: id, secret: secret}
	}
	return pskSecret(inputs), nil
}

// successor counts the PSKs that make the group the successor of another one, by a
// reinitialization or as a branch of it.
func (s *groupSecrets) successor() int {
	n := 0
	for _, id := range s.psks {
		if id.Type == PSKResumption && id.Usage != ResumptionApplication {
			n++
		}
	}
	return n
}

func (w *Welcome) groupInfo(joiner, psk []byte) (*GroupInfo, error) {
	welcomeSecret, member := welcomeAndMember(joiner, psk)
	defer clear(welcomeSecret)
	defer clear(member)
	return w.openGroupInfo(welcomeSecret)
}

// enterTree finds the own leaf and the private keys that follow from the path
// secret, if the Commit had a path.
func (b *KeyPackageBundle) enterTree(t *tree, signer LeafIndex, pathSecret []byte) (LeafIndex, pathKeys, error) {
	keys := pathKeys{leaf: bytes.Clone(b.leafPrivate), parents: map[nodeIndex][]byte{}}
	leaf := b.keyPackage.LeafNode
	at := slices.IndexFunc(t.leaves, func(l *LeafNode) bool { return l != nil && l.sameKeys(leaf) })
	if at < 0 || !bytes.Equal(encode(t.leaves[at]), encode(leaf)) {
		return 0, keys, fmt.Errorf("%w: own leaf is not in the tree", ErrInvalidWelcome)
	}
	own := LeafIndex(at) //nolint:gosec // below maxLeaves.
	if own == signer {
		return 0, keys, fmt.Errorf("%w: signed by the joiner", ErrInvalidWelcome)
	}
	if pathSecret == nil {
		return own, keys, nil
	}
	steps := t.filteredPath(signer)
	first := slices.IndexFunc(steps, func(s pathStep) bool { return s.node.covers(own) })
	if first < 0 {
		return 0, keys, fmt.Errorf("%w: path secret without a path", ErrInvalidWelcome)
	}
	commitSecret, err := keys.learn(t, steps[first:], bytes.Clone(pathSecret))
	clear(commitSecret)
	return own, keys, err
}
