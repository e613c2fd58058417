package mls

import (
	"fmt"
	"slices"
)

// publicState is what everyone who follows a group's handshake knows of an epoch.
// It is immutable.
type publicState struct {
	context         GroupContext
	encoded         []byte // context
	tree            *tree
	confirmationTag []byte
	interim         []byte // interim transcript hash
}

func newPublicState(c GroupContext, t *tree, confirmationTag []byte) publicState {
	return publicState{
		context:         c,
		encoded:         encode(&c),
		tree:            t,
		confirmationTag: confirmationTag,
		interim:         interimTranscriptHash(c.ConfirmedTranscriptHash, confirmationTag),
	}
}

// transition leads from one epoch to the next by a Commit, as far as its public
// part goes (RFC 9420 §12.4.2). It works on copies: dropping it leaves no trace.
type transition struct {
	from      *publicState
	checker   proposalChecker
	tree      *tree
	context   GroupContext // of the new epoch
	committer LeafIndex
	external  bool
	entries   []proposalEntry

	steps    []pathStep // of the committer's path
	added    []LeafIndex
	joiners  []*KeyPackage // in the order of added
	updated  []LeafIndex
	removed  []Member
	psks     []*PreSharedKeyID
	kem      []byte // KEM output of an external Commit
	reinit   *ReInit
	contexts bool // the group's extensions change
}

// newTransition applies the proposals of a Commit. joiner is the leaf of an
// external Commit, nil if the committer is a member.
func newTransition(c proposalChecker, entries []proposalEntry, committer LeafIndex, joiner *LeafNode) (*transition, error) {
	tr := &transition{
		from: c.state, checker: c, tree: c.state.tree.clone(), context: c.state.context,
		committer: committer, external: joiner != nil, entries: entries,
	}
	tr.context.Epoch++
	if tr.context.Epoch == 0 {
		return nil, fmt.Errorf("%w: epochs are used up", ErrInvalidCommit)
	}
	if err := tr.checkProposals(joiner); err != nil {
		return nil, err
	}
	if err := tr.applyProposals(); err != nil {
		return nil, err
	}
	if tr.external {
		return tr, tr.placeJoiner(joiner)
	}
	return tr, nil
}

func (tr *transition) checkProposals(joiner *LeafNode) error {
	for _, e := range tr.entries {
		if e.proposal.Type == ProposalPSK {
			tr.psks = append(tr.psks, e.proposal.PSK)
		}
	}
	if err := checkPSKIDs(tr.psks); err != nil {
		return err
	}
	if tr.external {
		return tr.checker.checkExternal(tr.entries, joiner)
	}
	return tr.checker.checkList(tr.entries, tr.committer)
}

// applyProposals applies them in the order of RFC 9420 §12.3: extensions, updates,
// removes, adds.
func (tr *transition) applyProposals() error {
	for _, phase := range []ProposalType{
		ProposalGroupContextExtensions, ProposalUpdate, ProposalRemove, ProposalAdd, ProposalExternalInit, ProposalReInit,
	} {
		for _, e := range tr.entries {
			if e.proposal.Type != phase {
				continue
			}
			if err := tr.apply(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (tr *transition) apply(e proposalEntry) error {
	p := e.proposal
	switch p.Type {
	case ProposalGroupContextExtensions:
		tr.context.Extensions = p.GroupContextExtensions
		tr.contexts = true
	case ProposalUpdate:
		tr.tree.update(e.sender.Leaf, p.Update)
		tr.updated = append(tr.updated, e.sender.Leaf)
	case ProposalRemove:
		tr.removed = append(tr.removed, tr.from.tree.leaf(p.Remove).member(p.Remove))
		tr.tree.remove(p.Remove)
	case ProposalAdd:
		i, err := tr.tree.add(p.Add.LeafNode)
		if err != nil {
			return err
		}
		tr.added = append(tr.added, i)
		tr.joiners = append(tr.joiners, p.Add)
	case ProposalExternalInit:
		tr.kem = p.ExternalInit
	case ProposalReInit:
		tr.reinit = p.ReInit
	}
	return nil
}

// placeJoiner gives the author of an external Commit its leaf (RFC 9420 §12.4.2).
func (tr *transition) placeJoiner(l *LeafNode) error {
	i, err := tr.tree.add(l)
	if err != nil {
		return err
	}
	tr.committer = i
	return nil
}

// applyPath checks and applies a received path.
func (tr *transition) applyPath(path *UpdatePath) error {
	l := path.LeafNode
	if l.Source != LeafFromCommit {
		return fmt.Errorf("%w: leaf source in path", ErrInvalidCommit)
	}
	var err error
	if tr.external {
		err = l.validate(tr.context.GroupID, tr.committer, tr.checker.validator)
	} else {
		err = tr.checker.checkReplacement(tr.committer, l)
	}
	if err != nil {
		return fmt.Errorf("%w: leaf in path: %w", ErrInvalidCommit, err)
	}
	if tr.steps, err = tr.tree.applyPath(tr.committer, path); err != nil {
		return err
	}
	return tr.checkCiphertexts(path)
}

// checkCiphertexts makes sure that the path is encrypted to as many as it must be,
// at every node and not only where a member looks for its own.
func (tr *transition) checkCiphertexts(path *UpdatePath) error {
	for n, s := range tr.steps {
		if len(path.nodes[n].secrets) != len(tr.tree.recipients(s.copath, tr.added)) {
			return fmt.Errorf("%w: ciphertexts of the path", ErrInvalidCommit)
		}
	}
	return nil
}

// changed lists the leaves that are new in this epoch.
func (tr *transition) changed(hasPath bool) []LeafIndex {
	out := slices.Concat(tr.added, tr.updated)
	if hasPath {
		out = append(out, tr.committer)
	}
	return out
}

// seal checks the new tree as a whole (RFC 9420 §12.2, last points) and fixes its
// hash in the context.
func (tr *transition) seal(hasPath bool) error {
	fresh := tr.changed(hasPath)
	if err := tr.tree.checkUnique(fresh, tr.steps); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidCommit, err)
	}
	if tr.contexts {
		fresh = nil
		for i, l := range tr.tree.leaves {
			if l != nil {
				fresh = append(fresh, LeafIndex(i))
			}
		}
	}
	for _, i := range fresh {
		if err := tr.context.Extensions.supportedBy(&tr.tree.leaf(i).Capabilities); err != nil {
			return fmt.Errorf("%w: leaf %d: %w", ErrInvalidCommit, i, err)
		}
	}
	h := tr.tree.treeHash()
	tr.context.TreeHash = h[:]
	return nil
}

// confirm adds the Commit to the transcript. Before it, context is the provisional
// one that paths are encrypted under.
func (tr *transition) confirm(a *authenticatedContent) {
	tr.context.ConfirmedTranscriptHash = confirmedTranscriptHash(tr.from.interim, a)
}

// members returns the new leaves at the given places.
func (tr *transition) members(leaves []LeafIndex) []Member {
	out := make([]Member, len(leaves))
	for n, i := range leaves {
		out[n] = tr.tree.leaf(i).member(i)
	}
	return out
}
