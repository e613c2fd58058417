package mls

import (
	"crypto/hmac"
	"fmt"
	"slices"
	"time"
)

// processCommit applies a Commit by someone else (RFC 9420 §12.4.2). Everything is
// computed beside the current epoch, which is left only once the confirmation tag
// has been verified.
func (g *Group) processCommit(a *authenticatedContent, p *Processed, at time.Time, key *pendingKey) error {
	commit := a.content.commit
	entries, err := resolve(g.cur.received, commit, a.content.sender)
	if err != nil {
		return err
	}
	tr, err := stepPublic(g.checker(at), entries, a)
	if err != nil {
		return err
	}
	p.describe(tr, commit.Path != nil)
	if slices.ContainsFunc(tr.removed, func(m Member) bool { return m.Index == g.own }) {
		// The new epoch is closed to this member, and so is its confirmation tag: the
		// Commit may still be void, so the group stays where it is and only falls silent.
		p.SelfRemoved = true
		key.consume()
		g.status = statusRemoved
		return nil
	}
	next, err := g.enterNext(tr, commit.Path, a)
	if err != nil {
		return err
	}
	key.consume()
	g.advance(next, tr.reinit != nil)
	return nil
}

// resolve turns the Commit's list into proposals with their authors.
func resolve(received []proposalEntry, c *Commit, sender Sender) ([]proposalEntry, error) {
	entries := make([]proposalEntry, len(c.Proposals))
	for i, por := range c.Proposals {
		if por.Proposal != nil {
			entries[i] = proposalEntry{proposal: por.Proposal, sender: sender}
			continue
		}
		entry, ok := findProposal(received, *por.Ref)
		if !ok {
			return nil, ErrUnknownProposal
		}
		entries[i] = entry
	}
	return entries, nil
}

// stepPublic computes the public part of the next epoch from a received Commit, up
// to its confirmation tag, of which everyone can see the length. The message's
// signature has been verified.
func stepPublic(c proposalChecker, entries []proposalEntry, a *authenticatedContent) (*transition, error) {
	if len(a.confirmationTag) != hashSize {
		return nil, ErrConfirmationTag
	}
	path := a.content.commit.Path
	if path == nil && needsPath(entries) {
		return nil, fmt.Errorf("%w: no path", ErrInvalidCommit)
	}
	var joiner *LeafNode
	if a.content.sender.Type == SenderNewMemberCommit {
		joiner = path.LeafNode // verifyAuthor saw that there is a path
	}
	tr, err := newTransition(c, entries, a.content.sender.Leaf, joiner)
	if err != nil {
		return nil, err
	}
	if path != nil {
		if err := tr.applyPath(path); err != nil {
			return nil, err
		}
	}
	return tr, tr.seal(path != nil)
}

// enterNext computes the secret part of the next epoch and verifies the
// confirmation tag.
func (g *Group) enterNext(tr *transition, path *UpdatePath, a *authenticatedContent) (*epoch, error) {
	keys, commitSecret, err := g.nextKeys(tr, path)
	if err != nil {
		return nil, err
	}
	defer clear(commitSecret)
	psk, err := g.pskSecret(tr.psks)
	if err != nil {
		return nil, err
	}
	defer clear(psk)
	initSecret := g.cur.secrets.init
	if tr.external {
		if initSecret, err = g.cur.secrets.externalInit(tr.kem); err != nil {
			return nil, err
		}
		defer clear(initSecret)
	}
	tr.confirm(a)
	joiner := joinerSecret(initSecret, commitSecret, encode(&tr.context))
	defer clear(joiner)
	next, welcome := newEpoch(tr.context, tr.tree, entrance{joiner: joiner, psk: psk, keys: keys})
	clear(welcome)
	if !hmac.Equal(next.confirmationTag, a.confirmationTag) {
		return nil, ErrConfirmationTag
	}
	return next, nil
}

// nextKeys returns the private keys after the Commit and the commit secret.
func (g *Group) nextKeys(tr *transition, path *UpdatePath) (pathKeys, []byte, error) {
	keys := g.cur.keys.clone()
	if slices.Contains(tr.updated, g.own) {
		keys.leaf = g.cur.ownUpdates[string(tr.tree.leaf(g.own).EncryptionKey)]
		if keys.leaf == nil {
			return keys, nil, fmt.Errorf("%w: own update without its private key", ErrInvalidCommit)
		}
	}
	if path == nil {
		keys.prune(tr.tree)
		return keys, make([]byte, hashSize), nil
	}
	return tr.tree.openPath(g.own, keys, path, tr.steps, tr.added, encode(&tr.context))
}

// describe reports what the Commit does.
func (p *Processed) describe(tr *transition, hasPath bool) {
	p.Kind = CommitApplied
	p.External = tr.external
	p.Added = tr.members(tr.added)
	p.Removed = tr.removed
	p.Updated = tr.members(tr.updated)
	p.ReInit = tr.reinit
	committer := tr.members([]LeafIndex{tr.committer})
	switch {
	case tr.external:
		p.Sender = tr.committer
		p.Added = append(p.Added, committer...)
	case hasPath:
		p.Updated = append(p.Updated, committer...)
	}
}
