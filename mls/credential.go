package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"
)

// CredentialType is the kind of a Credential (RFC 9420 §17.5).
type CredentialType uint16

const (
	// CredentialBasic holds an opaque identity. It is the only kind the engine accepts in a leaf.
	CredentialBasic CredentialType = 1
	// CredentialX509 is decoded, so that it can be refused by name.
	CredentialX509 CredentialType = 2
)

// Credential names the owner of a leaf (RFC 9420 §5.3). The engine checks its
// form only; what the identity means is the CredentialValidator's to judge.
type Credential struct {
	Type CredentialType
	// Identity is the application's bytes of a basic credential.
	Identity []byte
}

// BasicCredential returns a basic credential with the given identity.
func BasicCredential(identity []byte) Credential {
	return Credential{Type: CredentialBasic, Identity: identity}
}

// Equal reports whether two credentials are the same, byte for byte.
func (c Credential) Equal(o Credential) bool {
	return c.Type == o.Type && bytes.Equal(c.Identity, o.Identity)
}

// CredentialValidator binds a leaf to what the application knows: that this
// signature key truly belongs to this identity. The engine calls it for every
// leaf that enters a tree, every leaf found in a tree it joins, and every
// KeyPackage it verifies; an error refuses the operation as ErrCredential. It
// must not call back into the Group. It may implement SuccessionValidator,
// ExternalSenderValidator and LifetimeValidator as well.
type CredentialValidator interface {
	ValidateCredential(cred Credential, signatureKey ed25519.PublicKey) error
}

// SuccessionValidator may be implemented by a CredentialValidator to judge
// whether a member may replace its credential or signature key: by an Update, by
// the leaf of its Commit, or by an external Commit that removes its own earlier
// leaf (RFC 9420 §5.3.1, §12.4.3.2). Without it the credential must stay equal.
type SuccessionValidator interface {
	ValidateSuccession(old, next Credential, oldKey, nextKey ed25519.PublicKey) error
}

// ExternalSenderValidator may be implemented by a CredentialValidator to judge whom
// the external_senders extension may let propose from outside (RFC 9420 §5.3.1,
// §12.1.8.1): when the extension enters the group, and when one joins a group that has
// it. A validator that does not implement it trusts no external sender.
type ExternalSenderValidator interface {
	ValidateExternalSender(cred Credential, signatureKey ed25519.PublicKey) error
}

// LifetimeValidator may be implemented by a CredentialValidator to bound the lifetime
// that a KeyPackage may state in all, for which every application must set a maximum
// (RFC 9420 §7.2). All members should agree on it: one that refuses a Commit for it
// is left behind. Whether the lifetime has begun and not ended, the engine judges.
type LifetimeValidator interface {
	ValidateLifetime(notBefore, notAfter time.Time) error
}

// validateLifetime asks the hook whether a KeyPackage may live that long.
func validateLifetime(v CredentialValidator, kp *KeyPackage) error {
	judge, ok := v.(LifetimeValidator)
	if !ok {
		return nil
	}
	if err := judge.ValidateLifetime(kp.Lifetime()); err != nil {
		return fmt.Errorf("%w: lifetime: %w", ErrCredential, err)
	}
	return nil
}

// validateCredential asks the hook about one leaf. A nil hook accepts everything.
func validateCredential(v CredentialValidator, c Credential, key ed25519.PublicKey) error {
	if c.Type != CredentialBasic {
		return fmt.Errorf("%w: type %d", ErrUnsupportedCredential, c.Type)
	}
	if v == nil {
		return nil
	}
	if err := v.ValidateCredential(c, key); err != nil {
		return fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return nil
}

// validateSuccession judges whether next may stand where old stood.
func validateSuccession(v CredentialValidator, old, next *LeafNode) error {
	s, ok := v.(SuccessionValidator)
	if !ok {
		if !old.Credential.Equal(next.Credential) {
			return fmt.Errorf("%w: the identity of a member may not change", ErrCredential)
		}
		return nil
	}
	err := s.ValidateSuccession(old.Credential, next.Credential, old.SignatureKey, next.SignatureKey)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return nil
}

func (c Credential) append(b []byte) []byte {
	return appendOpaque(appendUint16(b, uint16(c.Type)), c.Identity)
}

func decodeCredential(r *reader) Credential {
	c := Credential{Type: CredentialType(r.uint16())}
	switch c.Type {
	case CredentialBasic:
		c.Identity = r.opaque()
	case CredentialX509:
		c.Identity = r.opaque()
		certs := &reader{b: c.Identity}
		for !certs.done() {
			certs.opaque()
		}
		if certs.err != nil {
			r.fail("certificate list")
		}
	default:
		r.failWith(ErrUnsupportedCredential, fmt.Sprintf("type %d", c.Type))
	}
	return c
}
