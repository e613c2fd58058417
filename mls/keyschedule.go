package mls

import "crypto/hpke"

// epochSecrets are the secrets of one epoch (RFC 9420 §8). The encryption secret is
// not among them: the secret tree consumes it.
type epochSecrets struct {
	init          []byte // for the next epoch
	senderData    []byte
	exporter      []byte
	external      []byte
	confirmation  []byte
	membership    []byte
	resumption    []byte
	authenticator []byte
}

// joinerSecret enters a new epoch. context is the encoded GroupContext of it.
func joinerSecret(initSecret, commitSecret, context []byte) []byte {
	mixed := extract(initSecret, commitSecret)
	defer clear(mixed)
	return expandWithLabel(mixed, "joiner", context, hashSize)
}

// welcomeAndMember mixes in the pre-shared keys. The first result opens a Welcome's
// GroupInfo; the second leads to the epoch secret once that GroupInfo has told the
// GroupContext.
func welcomeAndMember(joiner, psk []byte) (welcome, member []byte) {
	member = extract(joiner, psk)
	return deriveSecret(member, "welcome"), member
}

// epochSecret ends the common part of the key schedule.
func epochSecret(member, context []byte) []byte {
	return expandWithLabel(member, "epoch", context, hashSize)
}

// deriveEpochSecrets derives everything from the epoch secret, which the caller
// clears. encryption is for the secret tree.
func deriveEpochSecrets(epoch []byte) (s epochSecrets, encryption []byte) {
	return epochSecrets{
		init:          deriveSecret(epoch, "init"),
		senderData:    deriveSecret(epoch, "sender data"),
		exporter:      deriveSecret(epoch, "exporter"),
		external:      deriveSecret(epoch, "external"),
		confirmation:  deriveSecret(epoch, "confirm"),
		membership:    deriveSecret(epoch, "membership"),
		resumption:    deriveSecret(epoch, "resumption"),
		authenticator: deriveSecret(epoch, "authentication"),
	}, deriveSecret(epoch, "encryption")
}

// clear erases what the past epoch has no use for any more.
func (s *epochSecrets) clear() {
	for _, b := range [][]byte{s.init, s.exporter, s.external, s.confirmation, s.membership, s.authenticator} {
		clear(b)
	}
}

// export is MLS-Exporter (RFC 9420 §8.5).
func (s *epochSecrets) export(label string, context []byte, length int) []byte {
	secret := deriveSecret(s.exporter, label)
	defer clear(secret)
	return expandWithLabel(secret, "exported", hashOf(context), length)
}

// externalPublic is the key that external Commits encapsulate to (RFC 9420 §8.3).
func (s *epochSecrets) externalPublic() []byte {
	return deriveKeyPair(s.external).public
}

const externalInitLabel = "MLS 1.0 external init secret"

// externalInit recovers the init secret of an external Commit (RFC 9420 §8.3).
func (s *epochSecrets) externalInit(kemOutput []byte) ([]byte, error) {
	sk, err := suiteKEM.DeriveKeyPair(s.external)
	if err != nil {
		return nil, ErrDecrypt
	}
	r, err := hpke.NewRecipient(kemOutput, sk, suiteKDF, suiteAEAD, nil)
	if err != nil {
		return nil, ErrDecrypt
	}
	secret, err := r.Export(externalInitLabel, hashSize)
	if err != nil {
		return nil, ErrDecrypt
	}
	return secret, nil
}

// newExternalInit makes an init secret for an external Commit to a group with the
// given external_pub.
func newExternalInit(public []byte) (kemOutput, initSecret []byte, err error) {
	pk, err := suiteKEM.NewPublicKey(public)
	if err != nil {
		return nil, nil, ErrInvalidWelcome
	}
	kemOutput, s, err := hpke.NewSender(pk, suiteKDF, suiteAEAD, nil)
	if err != nil {
		return nil, nil, ErrInvalidWelcome
	}
	initSecret, err = s.Export(externalInitLabel, hashSize)
	if err != nil {
		return nil, nil, ErrInvalidWelcome
	}
	return kemOutput, initSecret, nil
}
