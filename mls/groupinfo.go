package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
)

// GroupInfo describes an epoch of a group to those outside it (RFC 9420 §12.4.3).
type GroupInfo struct {
	GroupContext    GroupContext
	Extensions      Extensions
	ConfirmationTag []byte
	Signer          LeafIndex
	Signature       []byte
}

func (gi *GroupInfo) append(b []byte) []byte {
	return appendOpaque(gi.appendContent(b), gi.Signature)
}

// appendContent writes GroupInfoTBS.
func (gi *GroupInfo) appendContent(b []byte) []byte {
	b = gi.GroupContext.append(b)
	b = gi.Extensions.append(b)
	b = appendOpaque(b, gi.ConfirmationTag)
	return appendUint32(b, uint32(gi.Signer))
}

func decodeGroupInfo(r *reader) *GroupInfo {
	return &GroupInfo{
		GroupContext:    decodeGroupContext(r),
		Extensions:      decodeExtensions(r),
		ConfirmationTag: r.opaque(),
		Signer:          LeafIndex(r.uint32()),
		Signature:       r.opaque(),
	}
}

// GroupID returns the group that the GroupInfo describes.
func (gi *GroupInfo) GroupID() []byte { return gi.GroupContext.GroupID }

// Epoch returns the epoch that the GroupInfo describes.
func (gi *GroupInfo) Epoch() uint64 { return gi.GroupContext.Epoch }

// ExternalPub returns the HPKE key for external Commits, if there is one that is usable.
func (gi *GroupInfo) ExternalPub() (key []byte, ok bool) {
	data, ok := gi.Extensions.Find(ExtensionExternalPub)
	if !ok {
		return nil, false
	}
	err := decode(data, "external_pub", func(r *reader) { key = r.opaque() })
	return key, err == nil && usableKey(key)
}

func externalPubExtension(public []byte) Extension {
	return Extension{Type: ExtensionExternalPub, Data: appendOpaque(nil, public)}
}

func (gi *GroupInfo) sign(key ed25519.PrivateKey) {
	gi.Signature = signWithLabel(key, "GroupInfoTBS", gi.appendContent(nil))
}

// Verify checks the GroupInfo as a joiner would: protocol and suite, the ratchet
// tree (from ratchetTree, which is the content of a ratchet_tree extension, or
// from the GroupInfo's own extension when ratchetTree is nil) with its tree hash,
// parent hashes, leaf signatures and v's opinion of every leaf, and the signer's
// signature. It proves that a member of that tree signed, not that the group knows
// of it: the confirmation tag is for members to check. Lifetimes are not judged
// (RFC 9420 §7.3).
func (gi *GroupInfo) Verify(ratchetTree []byte, v CredentialValidator) error {
	_, err := gi.verify(ratchetTree, v)
	return err
}

// verify returns the tree that it verified.
func (gi *GroupInfo) verify(ratchetTree []byte, v CredentialValidator) (*tree, error) {
	if err := gi.GroupContext.checkProtocol(); err != nil {
		return nil, fmt.Errorf("group info: %w", err)
	}
	if ratchetTree == nil {
		var ok bool
		if ratchetTree, ok = gi.Extensions.Find(ExtensionRatchetTree); !ok {
			return nil, fmt.Errorf("%w: no ratchet tree, neither inside nor given", ErrInvalidWelcome)
		}
	}
	t, err := parseTree(ratchetTree)
	if err != nil {
		return nil, err
	}
	signer := t.leaf(gi.Signer)
	if signer == nil {
		return nil, fmt.Errorf("%w: signer is not a member", ErrInvalidWelcome)
	}
	if !verifyWithLabel(signer.SignatureKey, "GroupInfoTBS", gi.appendContent(nil), gi.Signature) {
		return nil, fmt.Errorf("group info: %w", ErrSignature)
	}
	if h := t.treeHash(); !bytes.Equal(h[:], gi.GroupContext.TreeHash) {
		return nil, fmt.Errorf("%w: tree hash differs from the group context", ErrInvalidTree)
	}
	if err := t.validate(&gi.GroupContext, v); err != nil {
		return nil, err
	}
	if err := gi.GroupContext.Extensions.validateExternalSenders(v); err != nil {
		return nil, fmt.Errorf("group info: %w", err)
	}
	return t, nil
}
