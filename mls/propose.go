package mls

import (
	"bytes"
	"fmt"
	"time"
)

// ProposeOptions says what to propose: exactly one of the first six fields is set.
type ProposeOptions struct {
	Add                    *KeyPackage
	Update                 bool
	Remove                 *LeafIndex
	PSK                    *PreSharedKeyID
	ReInit                 *ReInit
	GroupContextExtensions *Extensions
	// AuthenticatedData is signed together with the proposal and visible to everyone.
	AuthenticatedData []byte
	// AcceptTime is when the lifetime of an added KeyPackage is judged. Zero means now.
	AcceptTime time.Time
}

// Propose makes a proposal for someone to commit in this epoch (RFC 9420 §12.1), as
// an MLSMessage with a PublicMessage, and keeps it for own Commits as well; an own
// Update can be committed by others only. Save the Group before the message is
// sent: the private key of an Update is in its state. Errors: ErrInvalidArgument,
// ErrInvalidProposal, ErrTooLarge, ErrRemoved.
func (g *Group) Propose(opts ProposeOptions) ([]byte, error) {
	if !g.Active() {
		return nil, ErrRemoved
	}
	if len(opts.AuthenticatedData) > maxOpaque || len(g.cur.received) >= maxProposals {
		return nil, fmt.Errorf("%w: proposal", ErrTooLarge)
	}
	if opts.AcceptTime.IsZero() {
		opts.AcceptTime = time.Now()
	}
	p, private, err := g.proposal(&opts)
	if err != nil {
		return nil, err
	}
	e := proposalEntry{proposal: p, sender: Sender{Type: SenderMember, Leaf: g.own}, byRef: true}
	checker := g.checker(opts.AcceptTime)
	if err := checker.checkOne(e); err != nil {
		return nil, err
	}
	a := g.newContent(ContentProposal, bytes.Clone(opts.AuthenticatedData))
	a.wireFormat = WireFormatPublicMessage
	a.content.proposal = p
	g.signContent(a)
	e.ref = a.proposalRef()
	if _, known := findProposal(g.cur.received, e.ref); !known { // else it is made for the second time
		g.cur.received = append(g.cur.received, e)
	}
	if p.Type == ProposalUpdate {
		g.cur.keepOwnUpdate(p.Update.EncryptionKey, private)
	}
	return appendMessage(WireFormatPublicMessage, newPublicMessage(a, g.cur.encoded, g.cur.secrets.membership)), nil
}

// ProposalsWaiting returns how many proposals of this epoch, received or own, wait for
// a Commit. Each Commit ends the epoch and with it what waits.
func (g *Group) ProposalsWaiting() int { return len(g.cur.received) }

func (e *epoch) keepOwnUpdate(public, private []byte) {
	if e.ownUpdates == nil {
		e.ownUpdates = map[string][]byte{}
	}
	e.ownUpdates[string(public)] = private
}

// proposal makes the proposal, and for an Update its private key.
func (g *Group) proposal(o *ProposeOptions) (*Proposal, []byte, error) {
	var found []*Proposal
	var private []byte
	if o.Add != nil {
		found = append(found, &Proposal{Type: ProposalAdd, Add: o.Add})
	}
	if o.Update {
		leaf, key := g.updatedLeaf()
		private = key
		found = append(found, &Proposal{Type: ProposalUpdate, Update: leaf})
	}
	if o.Remove != nil {
		found = append(found, &Proposal{Type: ProposalRemove, Remove: *o.Remove})
	}
	if o.PSK != nil {
		found = append(found, &Proposal{Type: ProposalPSK, PSK: o.PSK.withNonce()})
	}
	if o.ReInit != nil {
		found = append(found, &Proposal{Type: ProposalReInit, ReInit: o.ReInit})
	}
	if x := o.GroupContextExtensions; x != nil {
		if err := x.checkGroup(); err != nil {
			return nil, nil, err
		}
		found = append(found, &Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: x.clone()})
	}
	if len(found) != 1 {
		return nil, nil, fmt.Errorf("%w: set exactly one proposal", ErrInvalidArgument)
	}
	return found[0], private, nil
}

// updatedLeaf returns the own leaf with a fresh encryption key.
func (g *Group) updatedLeaf() (*LeafNode, []byte) {
	keys := newHPKEKeyPair()
	leaf := *g.cur.tree.leaf(g.own)
	leaf.EncryptionKey = keys.public
	leaf.Source = LeafFromUpdate
	leaf.NotBefore, leaf.NotAfter, leaf.ParentHash = 0, 0, nil
	leaf.sign(g.signer, g.cur.context.GroupID, g.own)
	return &leaf, keys.private
}
