package mls

// selection is what a Commit holds so far, while received proposals are picked.
type selection struct {
	group      *Group
	targets    map[LeafIndex]bool // leaves that change, or must not
	keys       map[string]bool    // all keys that will be in the tree
	psks       map[string]bool
	extensions Extensions // of the group, as they will be
	changed    bool       // whether a chosen proposal sets extensions
}

func newSelection(g *Group) *selection {
	s := &selection{
		group:      g,
		targets:    map[LeafIndex]bool{g.own: true},
		keys:       make(map[string]bool, 3*len(g.cur.tree.leaves)),
		psks:       map[string]bool{},
		extensions: g.cur.context.Extensions,
	}
	for _, l := range g.cur.tree.leaves {
		s.claim(l)
	}
	for _, p := range g.cur.tree.parents {
		if p != nil {
			s.keys[string(p.encryptionKey)] = true
		}
	}
	return s
}

func (s *selection) claim(l *LeafNode) {
	if l != nil {
		s.keys[string(l.EncryptionKey)], s.keys[string(l.SignatureKey)] = true, true
	}
}

func (s *selection) release(l *LeafNode) {
	if l != nil {
		delete(s.keys, string(l.EncryptionKey))
		delete(s.keys, string(l.SignatureKey))
	}
}

func (s *selection) take(e proposalEntry) {
	if target, ok := e.target(); ok {
		s.targets[target] = true
		s.release(s.group.cur.tree.leaf(target))
	}
	switch p := e.proposal; p.Type {
	case ProposalAdd:
		s.claim(p.Add.LeafNode)
	case ProposalUpdate:
		s.claim(p.Update)
	case ProposalPSK:
		s.psks[string(p.PSK.append(nil))] = true
	case ProposalGroupContextExtensions:
		s.extensions, s.changed = p.GroupContextExtensions, true
	}
}

// fits reports whether e contradicts nothing that was chosen. A received ReInit is
// left for the application to commit by CommitOptions.ReInit.
func (s *selection) fits(e proposalEntry) bool {
	switch p := e.proposal; p.Type {
	case ProposalRemove:
		return !s.targets[p.Remove]
	case ProposalUpdate:
		old := s.group.cur.tree.leaf(e.sender.Leaf)
		sameSigner := old != nil && string(old.SignatureKey) == string(p.Update.SignatureKey)
		return !s.targets[e.sender.Leaf] && s.leafFits(p.Update, sameSigner)
	case ProposalAdd:
		return s.leafFits(p.Add.LeafNode, false)
	case ProposalPSK:
		_, err := s.group.psk(p.PSK)
		return err == nil && !s.psks[string(p.PSK.append(nil))]
	case ProposalGroupContextExtensions:
		return !s.changed && s.allSupport(p.GroupContextExtensions)
	}
	return false
}

func (s *selection) leafFits(l *LeafNode, sameSigner bool) bool {
	return !s.keys[string(l.EncryptionKey)] && (sameSigner || !s.keys[string(l.SignatureKey)]) &&
		s.extensions.supportedBy(&l.Capabilities) == nil
}

func (s *selection) allSupport(x Extensions) bool {
	for _, l := range s.group.cur.tree.leaves {
		if l != nil && x.supportedBy(&l.Capabilities) != nil {
			return false
		}
	}
	return true
}
