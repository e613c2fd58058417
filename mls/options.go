package mls

import (
	"crypto/ed25519"
	"time"
)

// GroupOptions says how a new group begins.
type GroupOptions struct {
	// GroupID names the group; it must be unique among the application's groups.
	GroupID []byte
	// Credential says who the creator is, and Signer is the private key of its
	// signature key, usually the device's. The engine keeps a copy of it.
	Credential Credential
	Signer     ed25519.PrivateKey
	// Validator judges the credentials of all members, the creator's own included.
	// Nil accepts every credential.
	Validator CredentialValidator
	// PSKs looks up external pre-shared keys. Nil knows none.
	PSKs PSKStore
	// Extensions are the group context's extensions, for instance RequiredCapabilities.
	Extensions Extensions
	// Now stands in for time.Now, which sets the lifetime of the creator's leaf.
	Now func() time.Time
}

// CommitOptions says what a Commit is to change. The zero value commits the
// proposals received in this epoch, or rotates the own keys if there is none.
type CommitOptions struct {
	// Adds are KeyPackages of members to add.
	Adds []*KeyPackage
	// Removes are members to remove; the own leaf cannot be one.
	Removes []LeafIndex
	// PSKs are pre-shared keys to mix in. The engine draws a nonce for each
	// whose Nonce is empty.
	PSKs []*PreSharedKeyID
	// GroupContextExtensions replaces the group's extensions when not nil.
	GroupContextExtensions *Extensions
	// ReInit closes the group. It cannot be combined with any other change.
	ReInit *ReInit
	// IgnoreReceived leaves out the proposals that were received in this epoch.
	// By default all that are valid together are committed.
	IgnoreReceived bool
	// ForcePath brings fresh key material even where RFC 9420 does not require it.
	ForcePath bool
	// TreeOutOfBand leaves the ratchet tree out of Welcome and GroupInfo. Those who
	// join need it another way: Group.RatchetTree after Merge, JoinOptions.RatchetTree.
	TreeOutOfBand bool
	// AuthenticatedData is signed together with the Commit and visible to everyone.
	AuthenticatedData []byte
	// AcceptTime is when the lifetimes of added KeyPackages are judged. Zero means now.
	AcceptTime time.Time
}

// PendingCommit is a Commit that was made and not yet applied. Send Commit; when
// the delivery service accepts it, Merge; when it does not, drop the PendingCommit
// and process the Commit that won. The bytes are MLSMessages.
type PendingCommit struct {
	// Commit is a PublicMessage.
	Commit []byte
	// Welcome is for the members added, with the ratchet tree inside unless it goes
	// out of band. It is nil if there are none.
	Welcome []byte
	// GroupInfo describes the new epoch, with external_pub, and with ratchet_tree
	// unless that goes out of band.
	GroupInfo []byte
	// Added are the new members, in the order of their proposals.
	Added []Member

	base   []byte // GroupContext of the epoch it ends
	next   *epoch
	closes bool // it carries a ReInit
}

// JoinOptions says how a Welcome is to be joined.
type JoinOptions struct {
	// Validator judges the credential of every member. Nil accepts every one.
	Validator CredentialValidator
	// RatchetTree is the content of a ratchet_tree extension that came another way
	// (Group.RatchetTree makes one). It is verified like one inside the Welcome.
	RatchetTree []byte
	// PSKs looks up the pre-shared keys that the Welcome names. Nil knows none.
	PSKs PSKStore
}

// Kind says what Process found in a message.
type Kind int

// The kinds of processed message.
const (
	// Application: Data holds the plaintext.
	Application Kind = iota + 1
	// CommitApplied: the group is in the next epoch, or this member was removed.
	CommitApplied
	// ProposalReceived: the proposal is kept for a Commit of this epoch.
	ProposalReceived
)

// Processed is what a message turned out to be, after all checks; Kind says which of
// the fields mean something. Data and
// AuthenticatedData are the caller's; credentials, keys and proposals are shared with
// the group and must not be modified.
type Processed struct {
	Kind Kind
	// Sender is the author's leaf. After an external Commit it is the new leaf; it
	// is meaningless for proposals from outside the group (SenderType tells).
	Sender     LeafIndex
	SenderType SenderType
	// SenderCredential and SenderKey are the author's at the time of sending.
	SenderCredential Credential
	SenderKey        ed25519.PublicKey
	// Data is the plaintext of an application message.
	Data              []byte
	AuthenticatedData []byte
	// Epoch is the one the message was sent in; a Commit ends it.
	Epoch uint64

	// Added, Removed and Updated say what a Commit did to the membership. Updated
	// members have a new leaf; Commits with a path update their sender.
	Added, Removed, Updated []Member
	// SelfRemoved: the Commit removed this member. The group can still decrypt
	// messages up to this epoch and sends nothing more. A removed member cannot see
	// whether the Commit took effect; if the delivery service brings another one of
	// the same epoch that verifies, Process applies that and the group is active again.
	SelfRemoved bool
	// External: the Commit came from outside; its sender has just joined.
	External bool
	// ReInit is set when the Commit closed the group for another.
	ReInit *ReInit
	// Proposal and ProposalRef are set for ProposalReceived.
	Proposal    *Proposal
	ProposalRef ProposalRef
}

// Member is one member of a group.
type Member struct {
	Index        LeafIndex
	Credential   Credential
	SignatureKey ed25519.PublicKey
}
