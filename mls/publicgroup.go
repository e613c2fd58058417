package mls

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// PublicGroup follows a group from outside, as a delivery service does: it knows
// the tree, the epoch and the members, and accepts exactly the PublicMessages that
// members accept, but for what only members can check: membership and confirmation
// tags, the secrets in paths and external inits, knowledge of pre-shared keys, and
// whether a member made the Update that is committed for it. It holds no secret. It
// is not safe for concurrent use; every method that returns an error leaves it as it was.
type PublicGroup struct {
	state     publicState
	received  []proposalEntry
	validator CredentialValidator
	closed    bool
}

// NewPublicGroup starts from a GroupInfo, which is verified like GroupInfo.Verify does.
func NewPublicGroup(gi *GroupInfo, ratchetTree []byte, v CredentialValidator) (*PublicGroup, error) {
	t, err := gi.verify(ratchetTree, v)
	if err != nil {
		return nil, err
	}
	return &PublicGroup{state: newPublicState(gi.GroupContext, t, gi.ConfirmationTag), validator: v}, nil
}

// GroupID returns the group's id.
func (p *PublicGroup) GroupID() []byte { return bytes.Clone(p.state.context.GroupID) }

// Epoch returns the number of the current epoch.
func (p *PublicGroup) Epoch() uint64 { return p.state.context.Epoch }

// Context returns the current GroupContext. Its slices are shared: do not modify them.
func (p *PublicGroup) Context() GroupContext { return p.state.context }

// Members returns the members from left to right, shared like Context.
func (p *PublicGroup) Members() []Member { return p.state.tree.members() }

// Proposal returns a proposal that was received in this epoch, and who sent it. ok is false when there is none such.
// The proposal is shared like Context.
func (p *PublicGroup) Proposal(ref ProposalRef) (proposal *Proposal, sender Sender, ok bool) {
	e, ok := findProposal(p.received, ref)
	return e.proposal, e.sender, ok
}

// ProposalsWaiting returns how many proposals of this epoch wait for a Commit.
func (p *PublicGroup) ProposalsWaiting() int { return len(p.received) }

// RatchetTree returns the tree as the content of a ratchet_tree extension.
func (p *PublicGroup) RatchetTree() []byte { return bytes.Clone(p.state.tree.encode()) }

// Clone returns an independent copy, at the cost of a few slice headers: process a
// Commit on a clone, and keep it when the Commit has been stored.
func (p *PublicGroup) Clone() *PublicGroup {
	out := *p
	out.received = slices.Clone(p.received)
	return &out
}

// Process verifies a handshake message and applies it, like Group.Process. A Commit
// that refers to a proposal sent in a PrivateMessage is ErrUnknownProposal.
func (p *PublicGroup) Process(m *PublicMessage, acceptedAt time.Time) (*Processed, error) {
	if acceptedAt.IsZero() {
		acceptedAt = time.Now()
	}
	a := &m.auth
	if err := p.checkMessage(m); err != nil {
		return nil, err
	}
	author, err := p.state.verifyAuthor(a)
	if err != nil {
		return nil, err
	}
	out := processedBy(author, a)
	checker := proposalChecker{state: &p.state, at: acceptedAt, validator: p.validator}
	if a.content.contentType == ContentProposal {
		if err := p.keep(a, out, &checker); err != nil {
			return nil, err
		}
		return out, nil
	}
	tr, err := p.next(a, checker)
	if err != nil {
		return nil, err
	}
	out.describe(tr, a.content.commit.Path != nil)
	p.state = newPublicState(tr.context, tr.tree, a.confirmationTag)
	p.received, p.closed = nil, tr.reinit != nil
	return out, nil
}

func (p *PublicGroup) checkMessage(m *PublicMessage) error {
	switch {
	case p.closed:
		return ErrRemoved
	case !bytes.Equal(m.GroupID(), p.state.context.GroupID):
		return ErrWrongGroup
	case m.Epoch() < p.Epoch():
		return ErrPastEpoch
	case m.Epoch() > p.Epoch():
		return ErrFutureEpoch
	}
	return m.checkForm()
}

func (p *PublicGroup) keep(a *authenticatedContent, out *Processed, c *proposalChecker) error {
	received, err := c.received(p.received, a)
	if err != nil {
		return err
	}
	p.received = received
	out.describeProposal(received[len(received)-1])
	return nil
}

func (p *PublicGroup) next(a *authenticatedContent, c proposalChecker) (*transition, error) {
	entries, err := resolve(p.received, a.content.commit, a.content.sender)
	if err != nil {
		return nil, err
	}
	tr, err := stepPublic(c, entries, a)
	if err != nil {
		return nil, err
	}
	tr.confirm(a)
	return tr, nil
}

// VerifyGroupInfo checks that a GroupInfo describes exactly the current epoch:
// context, confirmation tag, the tree if it holds one, and a member's signature.
func (p *PublicGroup) VerifyGroupInfo(gi *GroupInfo) error {
	if !bytes.Equal(encode(&gi.GroupContext), p.state.encoded) || !bytes.Equal(gi.ConfirmationTag, p.state.confirmationTag) {
		return fmt.Errorf("%w: group info of another state", ErrInvalidWelcome)
	}
	if t, ok := gi.Extensions.Find(ExtensionRatchetTree); ok && !bytes.Equal(t, p.state.tree.encode()) {
		return fmt.Errorf("%w: tree of another state", ErrInvalidTree)
	}
	signer := p.state.tree.leaf(gi.Signer)
	if signer == nil {
		return fmt.Errorf("%w: signer is not a member", ErrInvalidWelcome)
	}
	if !verifyWithLabel(signer.SignatureKey, "GroupInfoTBS", gi.appendContent(nil), gi.Signature) {
		return fmt.Errorf("group info: %w", ErrSignature)
	}
	return nil
}

// MarshalBinary encodes the state. It holds no secret.
func (p *PublicGroup) MarshalBinary() ([]byte, error) {
	b := appendOptional([]byte{stateVersion}, p.closed)
	return appendList(p.state.append(b), p.received), nil
}

// UnmarshalPublicGroup reverses MarshalBinary. The state is trusted like that of
// UnmarshalGroup.
func UnmarshalPublicGroup(b []byte, v CredentialValidator) (*PublicGroup, error) {
	p := &PublicGroup{validator: v}
	err := decode(bytes.Clone(b), "public group", func(r *reader) {
		if r.uint8() != stateVersion {
			r.fail("version")
		}
		p.closed = r.optional()
		p.state = decodePublicState(r)
		p.received = list(r, decodeProposalEntry)
	})
	if err == nil {
		err = p.state.check(p.received)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return p, nil
}
