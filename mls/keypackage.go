package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"
)

// KeyPackageRef is the hash that names a KeyPackage (RFC 9420 §5.2).
type KeyPackageRef [hashSize]byte

// KeyPackage lets others add its owner to a group (RFC 9420 §10). Values are
// immutable once made or parsed.
type KeyPackage struct {
	Version     uint16
	CipherSuite CipherSuite
	InitKey     []byte
	LeafNode    *LeafNode
	Extensions  Extensions
	Signature   []byte
}

func (kp *KeyPackage) append(b []byte) []byte {
	return appendOpaque(kp.appendContent(b), kp.Signature)
}

// appendContent writes KeyPackageTBS.
func (kp *KeyPackage) appendContent(b []byte) []byte {
	b = appendUint16(b, kp.Version)
	b = appendUint16(b, uint16(kp.CipherSuite))
	b = appendOpaque(b, kp.InitKey)
	b = kp.LeafNode.append(b)
	return kp.Extensions.append(b)
}

func decodeKeyPackage(r *reader) *KeyPackage {
	return &KeyPackage{
		Version:     r.uint16(),
		CipherSuite: CipherSuite(r.uint16()),
		InitKey:     r.opaque(),
		LeafNode:    decodeLeafNode(r),
		Extensions:  decodeExtensions(r),
		Signature:   r.opaque(),
	}
}

// Verify checks everything that RFC 9420 §10.1 asks: version, suite, keys of the
// right kind and not used twice, the leaf's own consistency, both signatures, the
// lifetime at the instant at, and v's opinion of the credential (v may be nil,
// which accepts every one). Errors: ErrUnsupportedVersion, ErrUnsupportedSuite,
// ErrInvalidLeaf, ErrUnsupportedCapability, ErrUnsupportedCredential, ErrKeyReuse,
// ErrSignature, ErrExpired, ErrNotYetValid, ErrCredential.
func (kp *KeyPackage) Verify(at time.Time, v CredentialValidator) error {
	if err := kp.verify(v); err != nil {
		return fmt.Errorf("key package: %w", err)
	}
	if err := kp.LeafNode.validAt(at); err != nil {
		return fmt.Errorf("key package: %w", err)
	}
	if err := validateLifetime(v, kp); err != nil {
		return fmt.Errorf("key package: %w", err)
	}
	return nil
}

// verify is Verify without the lifetime.
func (kp *KeyPackage) verify(v CredentialValidator) error {
	l := kp.LeafNode
	switch {
	case kp.Version != versionMLS10:
		return fmt.Errorf("%w: %d", ErrUnsupportedVersion, kp.Version)
	case kp.CipherSuite != SuiteX25519AES128GCMSHA256Ed25519:
		return fmt.Errorf("%w: 0x%04x", ErrUnsupportedSuite, uint16(kp.CipherSuite))
	case l.Source != LeafFromKeyPackage:
		return fmt.Errorf("%w: source is not key_package", ErrInvalidLeaf)
	case !usableKey(kp.InitKey):
		return fmt.Errorf("%w: init key", ErrInvalidLeaf)
	case bytes.Equal(kp.InitKey, l.EncryptionKey):
		return fmt.Errorf("%w: init key equals encryption key", ErrKeyReuse)
	}
	if err := l.validateContent(); err != nil {
		return err
	}
	if !verifyWithLabel(l.SignatureKey, "KeyPackageTBS", kp.appendContent(nil), kp.Signature) {
		return ErrSignature
	}
	return l.validate(nil, 0, v)
}

// Ref returns the KeyPackageRef, by which Welcomes address this KeyPackage.
func (kp *KeyPackage) Ref() KeyPackageRef {
	return KeyPackageRef(refHash("MLS 1.0 KeyPackage Reference", encode(kp)))
}

// Lifetime returns the first and the last second in which the KeyPackage may be
// used, in UTC. Values beyond the year 9999 are cut to it.
func (kp *KeyPackage) Lifetime() (notBefore, notAfter time.Time) {
	return unixTime(kp.LeafNode.NotBefore), unixTime(kp.LeafNode.NotAfter)
}

func unixTime(s uint64) time.Time {
	const last = 253402300799 // 9999-12-31T23:59:59Z
	return time.Unix(int64(min(s, last)), 0).UTC()
}

// LastResort reports whether the KeyPackage carries the last_resort extension: it
// may be handed out again when no other is left.
func (kp *KeyPackage) LastResort() bool {
	_, ok := kp.Extensions.Find(ExtensionLastResort)
	return ok
}

// Credential returns the credential of the leaf.
func (kp *KeyPackage) Credential() Credential { return kp.LeafNode.Credential }

// SignatureKey returns the signature key of the leaf.
func (kp *KeyPackage) SignatureKey() ed25519.PublicKey { return kp.LeafNode.SignatureKey }

// MarshalMessage returns the KeyPackage as an MLSMessage.
func (kp *KeyPackage) MarshalMessage() ([]byte, error) {
	return appendMessage(WireFormatKeyPackage, kp), nil
}

// KeyPackageOptions says what a new KeyPackage is to hold.
type KeyPackageOptions struct {
	// Credential says who the owner is, and Signer is the private key of its signature
	// key: the same is given to JoinGroup. It is not kept.
	Credential Credential
	Signer     ed25519.PrivateKey
	// NotBefore and NotAfter bound the lifetime, whole seconds, both included.
	NotBefore, NotAfter time.Time
	// LastResort marks the KeyPackage as one that may be used more than once.
	LastResort bool
}

// KeyPackageBundle is a KeyPackage together with its two private keys. It is
// secret; keep it until the Welcome for it has been joined, then destroy it,
// unless it is of last resort.
type KeyPackageBundle struct {
	keyPackage  *KeyPackage
	initPrivate []byte
	leafPrivate []byte
}

// NewKeyPackage draws fresh init and encryption keys and signs a KeyPackage for
// them. It returns ErrInvalidArgument for options that cannot be used.
func NewKeyPackage(opts KeyPackageOptions) (*KeyPackageBundle, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	initKeys, leafKeys := newHPKEKeyPair(), newHPKEKeyPair()
	kp := &KeyPackage{
		Version:     versionMLS10,
		CipherSuite: SuiteX25519AES128GCMSHA256Ed25519,
		InitKey:     initKeys.public,
		LeafNode:    newLeaf(opts, leafKeys.public),
	}
	if opts.LastResort {
		kp.Extensions = Extensions{{Type: ExtensionLastResort}}
	}
	kp.Signature = signWithLabel(opts.Signer, "KeyPackageTBS", kp.appendContent(nil))
	return &KeyPackageBundle{keyPackage: kp, initPrivate: initKeys.private, leafPrivate: leafKeys.private}, nil
}

func (o *KeyPackageOptions) check() error {
	switch {
	case len(o.Signer) != ed25519.PrivateKeySize:
		return fmt.Errorf("%w: set Signer to an Ed25519 private key", ErrInvalidArgument)
	case o.Credential.Type != CredentialBasic:
		return fmt.Errorf("%w: Credential must be basic", ErrInvalidArgument)
	case len(o.Credential.Identity) > maxOpaque:
		return fmt.Errorf("%w: credential identity", ErrTooLarge)
	case o.NotBefore.Unix() < 0 || o.NotAfter.Before(o.NotBefore):
		return fmt.Errorf("%w: NotAfter must not be before NotBefore", ErrInvalidArgument)
	}
	return nil
}

// newLeaf makes and signs a leaf of source key_package.
func newLeaf(o KeyPackageOptions, encryptionKey []byte) *LeafNode {
	l := &LeafNode{
		EncryptionKey: encryptionKey,
		SignatureKey:  bytes.Clone(o.Signer.Public().(ed25519.PublicKey)),
		Credential:    Credential{Type: o.Credential.Type, Identity: bytes.Clone(o.Credential.Identity)},
		Capabilities:  defaultCapabilities(),
		Source:        LeafFromKeyPackage,
		NotBefore:     uint64(o.NotBefore.Unix()), //nolint:gosec // checked not to be negative.
		NotAfter:      uint64(o.NotAfter.Unix()),  //nolint:gosec // not before NotBefore.
	}
	l.sign(o.Signer, nil, 0)
	return l
}

// KeyPackage returns the public part, shared with the bundle.
func (b *KeyPackageBundle) KeyPackage() *KeyPackage { return b.keyPackage }

const bundleVersion = 1

// MarshalBinary encodes the bundle, private keys included: encrypt the result
// before it is stored.
func (b *KeyPackageBundle) MarshalBinary() ([]byte, error) {
	out := []byte{bundleVersion}
	out = b.keyPackage.append(out)
	out = appendOpaque(out, b.initPrivate)
	return appendOpaque(out, b.leafPrivate), nil
}

// UnmarshalKeyPackageBundle reverses MarshalBinary. It returns ErrState when the
// private keys do not belong to the KeyPackage.
func UnmarshalKeyPackageBundle(data []byte) (*KeyPackageBundle, error) {
	b := &KeyPackageBundle{}
	err := decode(bytes.Clone(data), "key package bundle", func(r *reader) {
		if r.uint8() != bundleVersion {
			r.fail("version")
		}
		b.keyPackage = decodeKeyPackage(r)
		b.initPrivate, b.leafPrivate = r.opaque(), r.opaque()
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *KeyPackageBundle) check() error {
	if !privateMatches(b.initPrivate, b.keyPackage.InitKey) ||
		!privateMatches(b.leafPrivate, b.keyPackage.LeafNode.EncryptionKey) {
		return fmt.Errorf("%w: key package bundle whose keys do not match", ErrState)
	}
	return nil
}

// privateMatches reports whether public belongs to the raw X25519 private key.
func privateMatches(private, public []byte) bool {
	sk, err := suiteKEM.NewPrivateKey(private)
	return err == nil && bytes.Equal(sk.PublicKey().Bytes(), public)
}
