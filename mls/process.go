package mls

import (
	"bytes"
	"fmt"
	"time"
)

// Process verifies a message and applies it: application messages are decrypted,
// Commits lead into the next epoch, proposals are kept. acceptedAt is when the
// delivery service accepted the message; the lifetimes of KeyPackages added by a
// Commit are judged at it (RFC 9420 §7.3), zero means now. Only PublicMessage and
// PrivateMessage can be processed.
//
// On an error the Group is as it was, byte for byte. Errors that say what to do
// next: ErrFutureEpoch (process the missing Commit first), ErrPastEpoch and
// ErrReplay (drop the message), ErrOwnMessage (Merge the PendingCommit if this is
// its Commit). All others: the message is invalid and never becomes valid.
func (g *Group) Process(m *Message, acceptedAt time.Time) (*Processed, error) {
	if acceptedAt.IsZero() {
		acceptedAt = time.Now()
	}
	switch {
	case m.PublicMessage != nil:
		return g.processPublic(m.PublicMessage, acceptedAt)
	case m.PrivateMessage != nil:
		return g.processPrivate(m.PrivateMessage, acceptedAt)
	}
	return nil, fmt.Errorf("%w: wire format %d cannot be processed", ErrInvalidMessage, m.WireFormat)
}

// checkHeader refuses messages of other groups and of later epochs.
func (g *Group) checkHeader(groupID []byte, epoch uint64) error {
	if !bytes.Equal(groupID, g.cur.context.GroupID) {
		return ErrWrongGroup
	}
	if epoch > g.Epoch() {
		return fmt.Errorf("%w: %d, the group is in %d", ErrFutureEpoch, epoch, g.Epoch())
	}
	return nil
}

func (g *Group) processPublic(m *PublicMessage, at time.Time) (*Processed, error) {
	a := &m.auth
	if err := g.checkHeader(a.content.groupID, a.content.epoch); err != nil {
		return nil, err
	}
	if a.content.epoch != g.Epoch() {
		return nil, fmt.Errorf("%w: %d, the group is in %d", ErrPastEpoch, a.content.epoch, g.Epoch())
	}
	if err := m.checkForm(); err != nil {
		return nil, err
	}
	if err := m.verifyMembership(g.cur.encoded, g.cur.secrets.membership); err != nil {
		return nil, err
	}
	author, err := g.cur.verifyAuthor(a)
	if err != nil {
		return nil, err
	}
	if a.content.sender.Type == SenderMember && author.Index == g.own {
		return nil, ErrOwnMessage
	}
	return g.processHandshake(a, author, at, nil)
}

// verifyAuthor finds who claims to have sent a PublicMessage and verifies the
// signature (RFC 9420 §6.1).
func (s *publicState) verifyAuthor(a *authenticatedContent) (Member, error) {
	author, err := s.author(&a.content)
	if err != nil {
		return Member{}, err
	}
	return author, a.verify(author.SignatureKey, s.encoded)
}

func (s *publicState) author(c *framedContent) (Member, error) {
	switch c.sender.Type {
	case SenderMember:
		l := s.tree.leaf(c.sender.Leaf)
		if l == nil {
			return Member{}, fmt.Errorf("sender: %w", ErrNoSuchMember)
		}
		return l.member(c.sender.Leaf), nil
	case SenderExternal:
		senders, err := s.context.Extensions.externalSenders()
		if err != nil || uint64(c.sender.ExternalIndex) >= uint64(len(senders)) {
			return Member{}, fmt.Errorf("%w: unknown external sender", ErrInvalidMessage)
		}
		e := senders[c.sender.ExternalIndex]
		return Member{Credential: e.credential, SignatureKey: e.signatureKey}, nil
	case SenderNewMemberProposal:
		if c.proposal != nil && c.proposal.Type == ProposalAdd {
			return c.proposal.Add.LeafNode.member(0), nil
		}
	case SenderNewMemberCommit:
		if c.commit != nil && c.commit.Path != nil {
			return c.commit.Path.LeafNode.member(0), nil
		}
	}
	return Member{}, fmt.Errorf("%w: content that this kind of sender may not send", ErrInvalidMessage)
}

func (g *Group) processPrivate(m *PrivateMessage, at time.Time) (*Processed, error) {
	if err := g.checkHeader(m.GroupID, m.Epoch); err != nil {
		return nil, err
	}
	o, err := g.openPrivate(m)
	if err != nil {
		return nil, err
	}
	if m.ContentType == ContentApplication {
		o.key.consume()
		return o.application(), nil
	}
	return g.processHandshake(o.auth, o.author, at, o.key)
}

// processHandshake applies a verified proposal or Commit. key, if it came in a
// PrivateMessage, is consumed in the same step.
func (g *Group) processHandshake(a *authenticatedContent, author Member, at time.Time, key *pendingKey) (*Processed, error) {
	if g.status == statusClosed {
		return nil, ErrRemoved
	}
	p := processedBy(author, a)
	step := g.processCommit
	if a.content.contentType == ContentProposal {
		step = g.keepProposal
	}
	if err := step(a, p, at, key); err != nil {
		return nil, err
	}
	return p, nil
}

// processedBy fills in what is known of every message.
func processedBy(author Member, a *authenticatedContent) *Processed {
	return &Processed{
		Sender:            author.Index,
		SenderType:        a.content.sender.Type,
		SenderCredential:  author.Credential,
		SenderKey:         bytes.Clone(author.SignatureKey),
		AuthenticatedData: bytes.Clone(a.content.authenticatedData),
		Epoch:             a.content.epoch,
	}
}

// keepProposal stores a proposal for a Commit of this epoch.
func (g *Group) keepProposal(a *authenticatedContent, p *Processed, at time.Time, key *pendingKey) error {
	checker := g.checker(at)
	received, err := checker.received(g.cur.received, a)
	if err != nil {
		return err
	}
	key.consume()
	g.cur.received = received
	p.describeProposal(received[len(received)-1])
	return nil
}

func (p *Processed) describeProposal(e proposalEntry) {
	p.Kind, p.Proposal, p.ProposalRef = ProposalReceived, e.proposal, e.ref
}
