package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"time"
)

// ExternalJoinOptions says how a group is to be joined by an external Commit.
type ExternalJoinOptions struct {
	// Credential says who the joiner is, and Signer is the private key of its
	// signature key. The engine keeps a copy of it.
	Credential Credential
	Signer     ed25519.PrivateKey
	// Validator judges the credential of every member. Nil accepts every one.
	Validator CredentialValidator
	// RatchetTree is the tree, if the GroupInfo does not hold it.
	RatchetTree []byte
	// Resync removes the joiner's own earlier leaf in the same Commit. The members
	// accept that only for the same credential, or as their SuccessionValidator says.
	Resync *LeafIndex
	// PSKIDs are pre-shared keys to mix in, PSKs looks them up.
	PSKIDs []*PreSharedKeyID
	PSKs   PSKStore
	// AuthenticatedData is signed together with the Commit and visible to everyone.
	AuthenticatedData []byte
}

// ExternalJoin is an external Commit that was made and not yet accepted. Send
// Commit; when the delivery service accepts it, Group is a member's; when it does
// not, drop everything and begin again with a newer GroupInfo. The bytes are
// MLSMessages.
type ExternalJoin struct {
	// Commit is a PublicMessage.
	Commit []byte
	// GroupInfo describes the new epoch, with ratchet_tree and external_pub.
	GroupInfo []byte
	Group     *Group
}

// JoinExternal joins without a Welcome (RFC 9420 §12.4.3.2). The GroupInfo and the
// tree are verified in full; whether they are the group's newest only the delivery
// service knows. Errors: those of GroupInfo.Verify, ErrInvalidWelcome,
// ErrInvalidArgument, ErrInvalidProposal, ErrInvalidCommit, ErrUnknownPSK.
func JoinExternal(gi *GroupInfo, opts ExternalJoinOptions) (*ExternalJoin, error) {
	t, err := gi.verify(opts.RatchetTree, opts.Validator)
	if err != nil {
		return nil, err
	}
	public, ok := gi.ExternalPub()
	if !ok {
		return nil, fmt.Errorf("%w: the group info has no external_pub", ErrInvalidWelcome)
	}
	kem, initSecret, err := newExternalInit(public)
	if err != nil {
		return nil, err
	}
	defer clear(initSecret)
	leaf, err := opts.leaf()
	if err != nil {
		return nil, err
	}
	g := &Group{
		signer: bytes.Clone(opts.Signer), validator: opts.Validator, psks: opts.PSKs,
		cur: &epoch{
			publicState: newPublicState(gi.GroupContext, t, gi.ConfirmationTag),
			secrets:     epochSecrets{init: initSecret},
		},
	}
	tr, err := newTransition(g.checker(time.Time{}), opts.entries(kem), 0, leaf)
	if err != nil {
		return nil, err
	}
	g.own = tr.committer
	return g.joinBy(&commitMaker{
		g: g, tr: tr, sender: Sender{Type: SenderNewMemberCommit}, authenticatedData: bytes.Clone(opts.AuthenticatedData),
	})
}

func (g *Group) joinBy(c *commitMaker) (*ExternalJoin, error) {
	p, err := c.make(true)
	if err != nil {
		return nil, err
	}
	l := p.next.tree.leaf(g.own)
	if err := l.validate(g.cur.context.GroupID, g.own, g.validator); err != nil {
		return nil, err
	}
	g.cur = p.next
	return &ExternalJoin{Commit: p.Commit, GroupInfo: p.GroupInfo, Group: g}, nil
}

// leaf returns the template of the joiner's leaf; the path fills in the rest.
func (o *ExternalJoinOptions) leaf() (*LeafNode, error) {
	kpo := KeyPackageOptions{Credential: o.Credential, Signer: o.Signer, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(0, 0)}
	if err := kpo.check(); err != nil {
		return nil, err
	}
	if len(o.AuthenticatedData) > maxOpaque {
		return nil, fmt.Errorf("%w: authenticated data", ErrTooLarge)
	}
	return newLeaf(kpo, make([]byte, hpkeKeySize)), nil
}

func (o *ExternalJoinOptions) entries(kem []byte) []proposalEntry {
	sender := Sender{Type: SenderNewMemberCommit}
	out := []proposalEntry{{sender: sender, proposal: &Proposal{Type: ProposalExternalInit, ExternalInit: kem}}}
	if o.Resync != nil {
		out = append(out, proposalEntry{sender: sender, proposal: &Proposal{Type: ProposalRemove, Remove: *o.Resync}})
	}
	for _, id := range o.PSKIDs {
		out = append(out, proposalEntry{sender: sender, proposal: &Proposal{Type: ProposalPSK, PSK: id.withNonce()}})
	}
	return out
}
