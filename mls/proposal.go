package mls

import "fmt"

// ProposalType names a proposal (RFC 9420 §17.4).
type ProposalType uint16

// The proposals of RFC 9420.
const (
	ProposalAdd                    ProposalType = 1
	ProposalUpdate                 ProposalType = 2
	ProposalRemove                 ProposalType = 3
	ProposalPSK                    ProposalType = 4
	ProposalReInit                 ProposalType = 5
	ProposalExternalInit           ProposalType = 6
	ProposalGroupContextExtensions ProposalType = 7
)

func (t ProposalType) isDefault() bool {
	return t >= ProposalAdd && t <= ProposalGroupContextExtensions
}

// Proposal is one proposed change of a group (RFC 9420 §12.1). Type says which of
// the fields is set.
type Proposal struct {
	Type ProposalType
	// Add is the KeyPackage of a member to add.
	Add *KeyPackage
	// Update is the leaf that replaces the sender's own.
	Update *LeafNode
	// Remove is the leaf to remove.
	Remove LeafIndex
	// PSK names a pre-shared key to mix in.
	PSK *PreSharedKeyID
	// ReInit asks to close the group and open another.
	ReInit *ReInit
	// ExternalInit is the KEM output of an external Commit.
	ExternalInit []byte
	// GroupContextExtensions replaces the group's extensions.
	GroupContextExtensions Extensions
}

// ReInit holds the parameters of the group that replaces this one (RFC 9420 §12.1.5).
type ReInit struct {
	GroupID     []byte
	Version     uint16
	CipherSuite CipherSuite
	Extensions  Extensions
}

func (p *Proposal) append(b []byte) []byte {
	b = appendUint16(b, uint16(p.Type))
	switch p.Type {
	case ProposalAdd:
		return p.Add.append(b)
	case ProposalUpdate:
		return p.Update.append(b)
	case ProposalRemove:
		return appendUint32(b, uint32(p.Remove))
	case ProposalPSK:
		return p.PSK.append(b)
	case ProposalReInit:
		return p.ReInit.append(b)
	case ProposalExternalInit:
		return appendOpaque(b, p.ExternalInit)
	case ProposalGroupContextExtensions:
		return p.GroupContextExtensions.append(b)
	}
	return b
}

func (p *ReInit) append(b []byte) []byte {
	b = appendOpaque(b, p.GroupID)
	b = appendUint16(b, p.Version)
	b = appendUint16(b, uint16(p.CipherSuite))
	return p.Extensions.append(b)
}

func decodeProposal(r *reader) *Proposal {
	p := &Proposal{Type: ProposalType(r.uint16())}
	switch p.Type {
	case ProposalAdd:
		p.Add = decodeKeyPackage(r)
	case ProposalUpdate:
		p.Update = decodeLeafNode(r)
	case ProposalRemove:
		p.Remove = LeafIndex(r.uint32())
	case ProposalPSK:
		p.PSK = decodePreSharedKeyID(r)
	case ProposalReInit:
		p.ReInit = decodeReInit(r)
	case ProposalExternalInit:
		p.ExternalInit = r.opaque()
	case ProposalGroupContextExtensions:
		p.GroupContextExtensions = decodeExtensions(r)
	default:
		r.fail(fmt.Sprintf("unknown proposal type %d", p.Type))
	}
	return p
}

func decodeReInit(r *reader) *ReInit {
	return &ReInit{
		GroupID:     r.opaque(),
		Version:     r.uint16(),
		CipherSuite: CipherSuite(r.uint16()),
		Extensions:  decodeExtensions(r),
	}
}

// ProposalRef is the hash by which a Commit names a proposal that was sent before (RFC 9420 §5.2).
type ProposalRef [hashSize]byte

// ProposalOrRef is one entry of a Commit: exactly one field is set.
type ProposalOrRef struct {
	Proposal *Proposal
	Ref      *ProposalRef
}

const (
	proposalByValue = 1
	proposalByRef   = 2
)

func (p ProposalOrRef) append(b []byte) []byte {
	if p.Proposal != nil {
		return p.Proposal.append(append(b, proposalByValue))
	}
	return appendOpaque(append(b, proposalByRef), p.Ref[:])
}

func decodeProposalOrRef(r *reader) ProposalOrRef {
	switch r.uint8() {
	case proposalByValue:
		return ProposalOrRef{Proposal: decodeProposal(r)}
	case proposalByRef:
		ref := r.opaque()
		if len(ref) != hashSize {
			r.fail("proposal reference")
			return ProposalOrRef{}
		}
		return ProposalOrRef{Ref: (*ProposalRef)(ref)}
	}
	r.fail("proposal or reference")
	return ProposalOrRef{}
}

// Commit is the content of a Commit message (RFC 9420 §12.4).
type Commit struct {
	Proposals []ProposalOrRef
	// Path is nil when the Commit brings no new key material.
	Path *UpdatePath
}

func (c *Commit) append(b []byte) []byte {
	b = appendList(b, c.Proposals)
	b = appendOptional(b, c.Path != nil)
	if c.Path != nil {
		b = c.Path.append(b)
	}
	return b
}

func decodeCommit(r *reader) *Commit {
	c := &Commit{Proposals: list(r, decodeProposalOrRef)}
	if r.optional() {
		c.Path = decodeUpdatePath(r)
	}
	return c
}

// UpdatePath carries fresh keys for the committer's leaf and its filtered direct
// path (RFC 9420 §7.6).
type UpdatePath struct {
	LeafNode *LeafNode
	nodes    []updatePathNode
}

type updatePathNode struct {
	encryptionKey []byte
	secrets       []hpkeCiphertext
}

func (n updatePathNode) append(b []byte) []byte {
	return appendList(appendOpaque(b, n.encryptionKey), n.secrets)
}

func (p *UpdatePath) append(b []byte) []byte {
	return appendList(p.LeafNode.append(b), p.nodes)
}

func decodeUpdatePath(r *reader) *UpdatePath {
	p := &UpdatePath{LeafNode: decodeLeafNode(r)}
	r.vector(func(r *reader) {
		if len(p.nodes) == maxDepth {
			r.fail("path longer than a tree is high")
			return
		}
		p.nodes = append(p.nodes, updatePathNode{encryptionKey: r.opaque(), secrets: list(r, decodeHPKECiphertext)})
	})
	return p
}
