package mls

import "errors"

// The engine's errors. Every error it returns wraps exactly one of these (test
// with errors.Is), names the rule that was broken, and carries no key, secret or
// plaintext.
var (
	// ErrMalformed: the bytes are not a strict encoding of the structure.
	ErrMalformed = errors.New("mls: malformed encoding")
	// ErrTooLarge: a length or a count is above the engine's limit.
	ErrTooLarge = errors.New("mls: too large")
	// ErrInvalidArgument: the caller's options are incomplete or contradictory.
	ErrInvalidArgument = errors.New("mls: invalid argument")

	// ErrUnsupportedVersion: the protocol version is not MLS 1.0.
	ErrUnsupportedVersion = errors.New("mls: unsupported protocol version")
	// ErrUnsupportedSuite: the cipher suite is not 0x0001.
	ErrUnsupportedSuite = errors.New("mls: unsupported cipher suite")
	// ErrUnsupportedCredential: the credential is not a basic one.
	ErrUnsupportedCredential = errors.New("mls: unsupported credential type")
	// ErrUnsupportedCapability: a leaf lacks a capability, or carries an extension
	// or credential that it or the group does not list as supported.
	ErrUnsupportedCapability = errors.New("mls: unsupported capability")

	// ErrSignature: a signature does not verify.
	ErrSignature = errors.New("mls: invalid signature")
	// ErrExpired: the lifetime ended before the time of judgement.
	ErrExpired = errors.New("mls: key package has expired")
	// ErrNotYetValid: the lifetime begins after the time of judgement.
	ErrNotYetValid = errors.New("mls: key package is not valid yet")
	// ErrKeyReuse: a key that must be unique appears twice.
	ErrKeyReuse = errors.New("mls: key used twice")
	// ErrCredential: the caller's CredentialValidator refused a leaf. The error
	// wraps the validator's own as well.
	ErrCredential = errors.New("mls: credential refused")

	// ErrInvalidLeaf: a leaf node breaks RFC 9420 §7.3.
	ErrInvalidLeaf = errors.New("mls: invalid leaf node")
	// ErrInvalidTree: a ratchet tree breaks RFC 9420 §7 or §12.4.3.3.
	ErrInvalidTree = errors.New("mls: invalid ratchet tree")
	// ErrInvalidProposal: a proposal breaks RFC 9420 §12.1, or a list of them §12.2.
	ErrInvalidProposal = errors.New("mls: invalid proposal")
	// ErrInvalidCommit: a Commit breaks RFC 9420 §12.4.
	ErrInvalidCommit = errors.New("mls: invalid commit")
	// ErrInvalidMessage: a message breaks RFC 9420 §6.
	ErrInvalidMessage = errors.New("mls: invalid message")
	// ErrInvalidWelcome: a Welcome or its GroupInfo breaks RFC 9420 §12.4.3.
	ErrInvalidWelcome = errors.New("mls: invalid welcome")
	// ErrConfirmationTag: the confirmation tag does not verify.
	ErrConfirmationTag = errors.New("mls: confirmation tag does not match")
	// ErrMembershipTag: the membership tag of a PublicMessage does not verify.
	ErrMembershipTag = errors.New("mls: membership tag does not match")
	// ErrDecrypt: an AEAD or HPKE ciphertext does not open.
	ErrDecrypt = errors.New("mls: decryption failed")

	// ErrReplay: the key for this message was used, dropped or never kept: the
	// message is a replay, or it is older than the bounded window.
	ErrReplay = errors.New("mls: message key is gone (replay, or outside the window)")
	// ErrGenerationTooFar: the message would skip more keys than the bound allows.
	ErrGenerationTooFar = errors.New("mls: message generation is too far ahead")
	// ErrRatchetExhausted: a sender has used all its generations in this epoch; a
	// Commit is needed before anything more can be sent.
	ErrRatchetExhausted = errors.New("mls: ratchet exhausted, commit to go on")

	// ErrWrongGroup: the message belongs to another group.
	ErrWrongGroup = errors.New("mls: message of another group")
	// ErrPastEpoch: the message belongs to an epoch whose keys are gone.
	ErrPastEpoch = errors.New("mls: message of a past epoch")
	// ErrFutureEpoch: the message belongs to a later epoch; process the missing
	// Commit first.
	ErrFutureEpoch = errors.New("mls: message of a future epoch")
	// ErrOwnMessage: the message was sent by this very leaf. Own Commits take
	// effect by Merge; own application messages cannot be decrypted.
	ErrOwnMessage = errors.New("mls: own message")
	// ErrNotAddressed: the Welcome holds no secrets for this key package.
	ErrNotAddressed = errors.New("mls: welcome is not for this key package")
	// ErrUnknownPSK: a pre-shared key that is needed is not known.
	ErrUnknownPSK = errors.New("mls: unknown pre-shared key")
	// ErrUnknownProposal: a Commit refers to a proposal that was not received.
	ErrUnknownProposal = errors.New("mls: unknown proposal reference")
	// ErrNoSuchMember: the leaf index names no member.
	ErrNoSuchMember = errors.New("mls: no such member")
	// ErrStalePending: the PendingCommit was made in another epoch or group.
	ErrStalePending = errors.New("mls: pending commit is stale")
	// ErrRemoved: this member was removed, or the group was closed by a ReInit.
	ErrRemoved = errors.New("mls: no longer an active member of the group")
	// ErrState: a saved state does not decode, or does not belong to the signer.
	ErrState = errors.New("mls: invalid saved state")
)
