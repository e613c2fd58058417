package mls

import "fmt"

// PublicMessage is a signed message whose content can be read by anyone
// (RFC 9420 §6.2). Handshake messages travel so; application data never does.
type PublicMessage struct {
	auth          authenticatedContent
	membershipTag []byte
}

// GroupID returns the group that the message is for.
func (m *PublicMessage) GroupID() []byte { return m.auth.content.groupID }

// Epoch returns the epoch in which the message was made.
func (m *PublicMessage) Epoch() uint64 { return m.auth.content.epoch }

// Sender returns who claims to have sent the message.
func (m *PublicMessage) Sender() Sender { return m.auth.content.sender }

// ContentType returns what the message carries.
func (m *PublicMessage) ContentType() ContentType { return m.auth.content.contentType }

// AuthenticatedData returns the application's authenticated data.
func (m *PublicMessage) AuthenticatedData() []byte { return m.auth.content.authenticatedData }

// Proposal returns the proposal, or nil if the message carries something else.
func (m *PublicMessage) Proposal() *Proposal { return m.auth.content.proposal }

// Commit returns the Commit, or nil if the message carries something else.
func (m *PublicMessage) Commit() *Commit { return m.auth.content.commit }

func (m *PublicMessage) append(b []byte) []byte {
	b = m.auth.appendAuth(m.auth.content.append(b))
	if m.auth.content.sender.Type == SenderMember {
		b = appendOpaque(b, m.membershipTag)
	}
	return b
}

func decodePublicMessage(r *reader) *PublicMessage {
	m := &PublicMessage{}
	m.auth.wireFormat = WireFormatPublicMessage
	m.auth.content = decodeFramedContent(r)
	m.auth.decodeAuth(r)
	if m.auth.content.sender.Type == SenderMember {
		m.membershipTag = r.opaque()
	}
	return m
}

// newPublicMessage frames signed content. membershipKey is used for members only.
func newPublicMessage(a *authenticatedContent, context, membershipKey []byte) *PublicMessage {
	m := &PublicMessage{auth: *a}
	if a.content.sender.Type == SenderMember {
		m.membershipTag = computeMAC(membershipKey, a.tbm(context))
	}
	return m
}

// verifyMembership checks that the sender holds the epoch's membership key.
func (m *PublicMessage) verifyMembership(context, membershipKey []byte) error {
	if m.auth.content.sender.Type != SenderMember {
		return nil
	}
	if !verifyMAC(membershipKey, m.auth.tbm(context), m.membershipTag) {
		return ErrMembershipTag
	}
	return nil
}

// checkForm refuses combinations that RFC 9420 §6 and §12 forbid whatever the group.
func (m *PublicMessage) checkForm() error {
	c := &m.auth.content
	switch {
	case c.contentType == ContentApplication:
		return fmt.Errorf("%w: application data in a PublicMessage", ErrInvalidMessage)
	case c.contentType == ContentCommit && c.sender.Type != SenderMember && c.sender.Type != SenderNewMemberCommit,
		c.contentType == ContentProposal && c.sender.Type == SenderNewMemberCommit:
		return fmt.Errorf("%w: content that this kind of sender may not send", ErrInvalidMessage)
	}
	return nil
}
