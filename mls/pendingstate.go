package mls

import (
	"bytes"
	"fmt"
)

// MarshalBinary encodes the pending Commit so that it survives a restart between
// sending and Merge. It is secret like the Group's state.
func (p *PendingCommit) MarshalBinary() ([]byte, error) {
	if p.next == nil {
		return nil, ErrStalePending
	}
	b := []byte{stateVersion}
	for _, part := range [][]byte{p.Commit, p.Welcome, p.GroupInfo, p.base} {
		b = appendOpaque(b, part)
	}
	b = appendVector(b, func(b []byte) []byte {
		for _, m := range p.Added {
			b = appendUint32(b, uint32(m.Index))
		}
		return b
	})
	b = appendOptional(b, p.closes)
	return p.next.appendState(b), nil
}

// UnmarshalPendingCommit reverses MarshalBinary for the Group that made it. It
// returns ErrState when b is damaged or does not belong to this member.
func (g *Group) UnmarshalPendingCommit(b []byte) (*PendingCommit, error) {
	p := &PendingCommit{}
	var added []LeafIndex
	err := decode(bytes.Clone(b), "pending commit", func(r *reader) {
		if r.uint8() != stateVersion {
			r.fail("version")
		}
		p.Commit, p.Welcome, p.GroupInfo, p.base = r.opaque(), r.opaque(), r.opaque(), r.opaque()
		added = list(r, decodeLeafIndex)
		p.closes = r.optional()
		p.next = decodeEpochState(r)
	})
	if err == nil {
		err = p.next.check(g.own, publicOf(g.signer))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	for _, i := range added {
		l := p.next.tree.leaf(i)
		if l == nil {
			return nil, fmt.Errorf("%w: pending commit: added member", ErrState)
		}
		p.Added = append(p.Added, l.member(i))
	}
	return p, nil
}
