package mls

import (
	"fmt"
	"slices"
)

// maxProposals bounds the proposals kept in one epoch.
const maxProposals = 1024

// proposalsFor gathers what a Commit is to hold: received proposals by reference,
// then the caller's own by value.
func (g *Group) proposalsFor(o *CommitOptions, checker *proposalChecker) ([]proposalEntry, error) {
	own, err := o.proposals()
	if err != nil {
		return nil, err
	}
	sender := Sender{Type: SenderMember, Leaf: g.own}
	var entries []proposalEntry
	for _, p := range own {
		entries = append(entries, proposalEntry{proposal: p, sender: sender})
	}
	if o.IgnoreReceived || o.ReInit != nil {
		return entries, nil
	}
	return append(g.selectReceived(entries, checker), entries...), nil
}

func (o *CommitOptions) proposals() ([]*Proposal, error) {
	var out []*Proposal
	for _, kp := range o.Adds {
		if kp == nil {
			return nil, fmt.Errorf("%w: nil key package", ErrInvalidArgument)
		}
		out = append(out, &Proposal{Type: ProposalAdd, Add: kp})
	}
	for _, i := range o.Removes {
		out = append(out, &Proposal{Type: ProposalRemove, Remove: i})
	}
	for _, id := range o.PSKs {
		if id == nil || id.Type != PSKExternal && id.Type != PSKResumption {
			return nil, fmt.Errorf("%w: pre-shared key id", ErrInvalidArgument)
		}
		out = append(out, &Proposal{Type: ProposalPSK, PSK: id.withNonce()})
	}
	if x := o.GroupContextExtensions; x != nil {
		if err := x.checkGroup(); err != nil {
			return nil, err
		}
		out = append(out, &Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: x.clone()})
	}
	if o.ReInit != nil {
		out = append(out, &Proposal{Type: ProposalReInit, ReInit: o.ReInit})
	}
	return out, nil
}

func (id *PreSharedKeyID) withNonce() *PreSharedKeyID {
	out := *id
	if len(out.Nonce) == 0 {
		out.Nonce = randomBytes(hashSize)
	}
	return &out
}

// selectReceived picks the received proposals that are valid together with each
// other and with the caller's, so that no member can keep others from committing by
// a proposal that fits nowhere. Removes go first, since they beat Updates, then a
// change of the group's extensions, which decides who may be in it; of the rest
// later ones win, since an Update supersedes the same sender's earlier one.
func (g *Group) selectReceived(own []proposalEntry, checker *proposalChecker) []proposalEntry {
	if len(g.cur.received) == 0 {
		return nil
	}
	s := newSelection(g)
	for _, e := range own {
		s.take(e)
	}
	chosen := map[ProposalRef]bool{}
	for _, phase := range []func(ProposalType) bool{
		func(t ProposalType) bool { return t == ProposalRemove },
		func(t ProposalType) bool { return t == ProposalGroupContextExtensions },
		func(t ProposalType) bool { return t != ProposalRemove && t != ProposalGroupContextExtensions },
	} {
		for _, e := range slices.Backward(g.cur.received) {
			if phase(e.proposal.Type) && s.fits(e) && checker.checkOne(e) == nil {
				s.take(e)
				chosen[e.ref] = true
			}
		}
	}
	// Back in the order of arrival.
	return slices.DeleteFunc(slices.Clone(g.cur.received), func(e proposalEntry) bool { return !chosen[e.ref] })
}
