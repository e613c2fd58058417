package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"
)

// LeafIndex is the position of a member's leaf, counted from the left (RFC 9420 §4.1.1).
type LeafIndex uint32

// LeafNodeSource says how a leaf came to be (RFC 9420 §7.2).
type LeafNodeSource uint8

// The sources of a leaf.
const (
	LeafFromKeyPackage LeafNodeSource = 1
	LeafFromUpdate     LeafNodeSource = 2
	LeafFromCommit     LeafNodeSource = 3
)

// Capabilities lists what the owner of a leaf supports (RFC 9420 §7.2). Unknown
// values, GREASE among them, are kept and ignored.
type Capabilities struct {
	Versions     []uint16
	CipherSuites []CipherSuite
	Extensions   []ExtensionType
	Proposals    []ProposalType
	Credentials  []CredentialType
}

// LeafNode is a member's public keys and credential (RFC 9420 §7.2). Values that
// the engine hands out are shared with it and must not be modified.
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  ed25519.PublicKey
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafNodeSource
	// NotBefore and NotAfter are Unix seconds, set when Source is LeafFromKeyPackage.
	NotBefore, NotAfter uint64
	// ParentHash is set when Source is LeafFromCommit.
	ParentHash []byte
	Extensions Extensions
	Signature  []byte
}

// defaultCapabilities is what this engine supports.
func defaultCapabilities() Capabilities {
	return Capabilities{
		Versions:     []uint16{versionMLS10},
		CipherSuites: []CipherSuite{SuiteX25519AES128GCMSHA256Ed25519},
		Extensions:   []ExtensionType{ExtensionLastResort},
		Credentials:  []CredentialType{CredentialBasic},
	}
}

func (c *Capabilities) supportsExtension(t ExtensionType) bool {
	return t.isDefault() || slices.Contains(c.Extensions, t)
}

func (c Capabilities) append(b []byte) []byte {
	b = appendUint16s(b, c.Versions)
	b = appendUint16s(b, c.CipherSuites)
	b = appendUint16s(b, c.Extensions)
	b = appendUint16s(b, c.Proposals)
	return appendUint16s(b, c.Credentials)
}

func decodeCapabilities(r *reader) Capabilities {
	return Capabilities{
		Versions:     decodeUint16s[uint16](r),
		CipherSuites: decodeUint16s[CipherSuite](r),
		Extensions:   decodeUint16s[ExtensionType](r),
		Proposals:    decodeUint16s[ProposalType](r),
		Credentials:  decodeUint16s[CredentialType](r),
	}
}

func (l *LeafNode) append(b []byte) []byte {
	return appendOpaque(l.appendContent(b), l.Signature)
}

// appendContent writes everything but the signature.
func (l *LeafNode) appendContent(b []byte) []byte {
	b = appendOpaque(b, l.EncryptionKey)
	b = appendOpaque(b, l.SignatureKey)
	b = l.Credential.append(b)
	b = l.Capabilities.append(b)
	b = append(b, byte(l.Source))
	switch l.Source {
	case LeafFromKeyPackage:
		b = appendUint64(appendUint64(b, l.NotBefore), l.NotAfter)
	case LeafFromCommit:
		b = appendOpaque(b, l.ParentHash)
	}
	return l.Extensions.append(b)
}

func decodeLeafNode(r *reader) *LeafNode {
	l := &LeafNode{
		EncryptionKey: r.opaque(),
		SignatureKey:  r.opaque(),
		Credential:    decodeCredential(r),
		Capabilities:  decodeCapabilities(r),
		Source:        LeafNodeSource(r.uint8()),
	}
	switch l.Source {
	case LeafFromKeyPackage:
		l.NotBefore, l.NotAfter = r.uint64(), r.uint64()
	case LeafFromUpdate:
	case LeafFromCommit:
		l.ParentHash = r.opaque()
	default:
		r.fail("leaf node source")
	}
	l.Extensions = decodeExtensions(r)
	l.Signature = r.opaque()
	return l
}

// tbs is LeafNodeTBS. Leaves made inside a group are bound to it and to their
// place in it (RFC 9420 §7.2).
func (l *LeafNode) tbs(groupID []byte, index LeafIndex) []byte {
	b := l.appendContent(nil)
	if l.Source != LeafFromKeyPackage {
		b = appendOpaque(b, groupID)
		b = appendUint32(b, uint32(index))
	}
	return b
}

func (l *LeafNode) sign(key ed25519.PrivateKey, groupID []byte, index LeafIndex) {
	l.Signature = signWithLabel(key, "LeafNodeTBS", l.tbs(groupID, index))
}

func (l *LeafNode) verifySignature(groupID []byte, index LeafIndex) error {
	if !verifyWithLabel(l.SignatureKey, "LeafNodeTBS", l.tbs(groupID, index), l.Signature) {
		return fmt.Errorf("leaf node: %w", ErrSignature)
	}
	return nil
}

// validate checks what RFC 9420 §7.3 asks of a leaf by itself, apart from its
// lifetime and from the tree around it.
func (l *LeafNode) validate(groupID []byte, index LeafIndex, v CredentialValidator) error {
	if err := l.verify(groupID, index); err != nil {
		return err
	}
	return validateCredential(v, l.Credential, l.SignatureKey)
}

// verify is validate without the question whether the credential is to be trusted.
func (l *LeafNode) verify(groupID []byte, index LeafIndex) error {
	if err := l.validateContent(); err != nil {
		return err
	}
	return l.verifySignature(groupID, index)
}

func (l *LeafNode) validateContent() error {
	c := &l.Capabilities
	switch {
	case !usableKey(l.EncryptionKey):
		return fmt.Errorf("%w: encryption key", ErrInvalidLeaf)
	case len(l.SignatureKey) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: signature key of %d bytes", ErrInvalidLeaf, len(l.SignatureKey))
	case l.Credential.Type != CredentialBasic:
		return fmt.Errorf("%w: type %d", ErrUnsupportedCredential, l.Credential.Type)
	case !slices.Contains(c.Credentials, l.Credential.Type):
		return fmt.Errorf("%w: own credential type is not listed", ErrUnsupportedCapability)
	case !slices.Contains(c.Versions, versionMLS10):
		return fmt.Errorf("%w: version is not listed", ErrUnsupportedCapability)
	case !slices.Contains(c.CipherSuites, SuiteX25519AES128GCMSHA256Ed25519):
		return fmt.Errorf("%w: cipher suite is not listed", ErrUnsupportedCapability)
	}
	for _, e := range l.Extensions {
		if !c.supportsExtension(e.Type) {
			return fmt.Errorf("%w: own extension 0x%04x is not listed", ErrUnsupportedCapability, uint16(e.Type))
		}
	}
	return nil
}

// validAt judges the lifetime, both ends included (RFC 9420 §7.2).
func (l *LeafNode) validAt(at time.Time) error {
	now := at.Unix()
	switch {
	case now < 0 || uint64(now) < l.NotBefore:
		return ErrNotYetValid
	case uint64(now) > l.NotAfter:
		return ErrExpired
	}
	return nil
}

func (l *LeafNode) sameKeys(o *LeafNode) bool {
	return bytes.Equal(l.EncryptionKey, o.EncryptionKey) && bytes.Equal(l.SignatureKey, o.SignatureKey)
}
