package mls

import "fmt"

// ContentType says what a message carries (RFC 9420 §6).
type ContentType uint8

// The contents of a message.
const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// SenderType says who sent a message (RFC 9420 §6).
type SenderType uint8

// The senders of a message.
const (
	SenderMember            SenderType = 1
	SenderExternal          SenderType = 2
	SenderNewMemberProposal SenderType = 3
	SenderNewMemberCommit   SenderType = 4
)

// Sender is the author of a message. Leaf is set for SenderMember, ExternalIndex for SenderExternal.
type Sender struct {
	Type          SenderType
	Leaf          LeafIndex
	ExternalIndex uint32
}

func (s Sender) append(b []byte) []byte {
	b = append(b, byte(s.Type))
	switch s.Type {
	case SenderMember:
		return appendUint32(b, uint32(s.Leaf))
	case SenderExternal:
		return appendUint32(b, s.ExternalIndex)
	}
	return b
}

func decodeSender(r *reader) Sender {
	s := Sender{Type: SenderType(r.uint8())}
	switch s.Type {
	case SenderMember:
		s.Leaf = LeafIndex(r.uint32())
	case SenderExternal:
		s.ExternalIndex = r.uint32()
	case SenderNewMemberProposal, SenderNewMemberCommit:
	default:
		r.fail("sender type")
	}
	return s
}

// framedContent is FramedContent (RFC 9420 §6). contentType says which of the last
// three fields is set.
type framedContent struct {
	groupID           []byte
	epoch             uint64
	sender            Sender
	authenticatedData []byte
	contentType       ContentType
	application       []byte
	proposal          *Proposal
	commit            *Commit
}

func (c *framedContent) append(b []byte) []byte {
	b = appendOpaque(b, c.groupID)
	b = appendUint64(b, c.epoch)
	b = c.sender.append(b)
	b = appendOpaque(b, c.authenticatedData)
	b = append(b, byte(c.contentType))
	return c.appendContent(b)
}

func (c *framedContent) appendContent(b []byte) []byte {
	switch c.contentType {
	case ContentApplication:
		return appendOpaque(b, c.application)
	case ContentProposal:
		return c.proposal.append(b)
	case ContentCommit:
		return c.commit.append(b)
	}
	return b
}

func decodeFramedContent(r *reader) framedContent {
	c := framedContent{
		groupID:           r.opaque(),
		epoch:             r.uint64(),
		sender:            decodeSender(r),
		authenticatedData: r.opaque(),
		contentType:       decodeContentType(r),
	}
	c.decodeContent(r)
	return c
}

func decodeContentType(r *reader) ContentType {
	t := ContentType(r.uint8())
	if t < ContentApplication || t > ContentCommit {
		r.fail("content type")
	}
	return t
}

func (c *framedContent) decodeContent(r *reader) {
	switch c.contentType {
	case ContentApplication:
		c.application = r.opaque()
	case ContentProposal:
		c.proposal = decodeProposal(r)
	case ContentCommit:
		c.commit = decodeCommit(r)
	}
}

// authenticatedContent is AuthenticatedContent (RFC 9420 §6). confirmationTag is
// set for Commits only.
type authenticatedContent struct {
	wireFormat      WireFormat
	content         framedContent
	signature       []byte
	confirmationTag []byte
}

func (a *authenticatedContent) append(b []byte) []byte {
	b = appendUint16(b, uint16(a.wireFormat))
	return a.appendAuth(a.content.append(b))
}

func decodeAuthenticatedContent(r *reader) *authenticatedContent {
	a := &authenticatedContent{wireFormat: WireFormat(r.uint16()), content: decodeFramedContent(r)}
	a.decodeAuth(r)
	return a
}

// appendAuth writes FramedContentAuthData.
func (a *authenticatedContent) appendAuth(b []byte) []byte {
	b = appendOpaque(b, a.signature)
	if a.content.contentType == ContentCommit {
		b = appendOpaque(b, a.confirmationTag)
	}
	return b
}

func (a *authenticatedContent) decodeAuth(r *reader) {
	a.signature = r.opaque()
	if a.content.contentType == ContentCommit {
		a.confirmationTag = r.opaque()
	}
}

// tbs is FramedContentTBS. context is the encoded GroupContext of the message's epoch.
func (a *authenticatedContent) tbs(context []byte) []byte {
	b := make([]byte, 0, 256+len(a.content.application)+len(a.content.authenticatedData)+len(context))
	b = appendUint16(b, versionMLS10)
	b = appendUint16(b, uint16(a.wireFormat))
	b = a.content.append(b)
	switch a.content.sender.Type {
	case SenderMember, SenderNewMemberCommit:
		b = append(b, context...)
	}
	return b
}

// tbm is AuthenticatedContentTBM, what the membership tag covers.
func (a *authenticatedContent) tbm(context []byte) []byte {
	return a.appendAuth(a.tbs(context))
}

func (a *authenticatedContent) verify(key []byte, context []byte) error {
	if !verifyWithLabel(key, "FramedContentTBS", a.tbs(context), a.signature) {
		return fmt.Errorf("message: %w", ErrSignature)
	}
	return nil
}

// proposalRef names a proposal message (RFC 9420 §5.2).
func (a *authenticatedContent) proposalRef() ProposalRef {
	return ProposalRef(refHash("MLS 1.0 Proposal Reference", encode(a)))
}
