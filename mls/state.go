package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
)

// stateVersion is the first octet of every saved state. A change of the format
// takes a new number and keeps reading the old one.
const stateVersion = 1

// MarshalBinary encodes the whole state, ratchets and replay protection included.
// It is secret: encrypt it before it is stored. The signer is not part of it. What
// was consumed is not in it.
func (g *Group) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 4096+len(g.cur.tree.encode()))
	b = append(b, stateVersion)
	b = appendUint32(b, uint32(g.own))
	b = append(b, byte(g.status))
	b = g.cur.appendState(b)
	b = appendList(b, g.past)
	return b, nil
}

// UnmarshalGroup reverses MarshalBinary. The state is trusted: what was verified
// when it came in is not verified again, apart from the tree hash. It returns
// ErrState when b is damaged or signer is not the member's key.
func UnmarshalGroup(b []byte, signer ed25519.PrivateKey, v CredentialValidator) (*Group, error) {
	g := &Group{signer: bytes.Clone(signer), validator: v}
	err := decode(bytes.Clone(b), "group", func(r *reader) {
		if r.uint8() != stateVersion {
			r.fail("version")
		}
		g.own = LeafIndex(r.uint32())
		if g.status = status(r.uint8()); g.status > statusClosed {
			r.fail("status")
		}
		g.cur = decodeEpochState(r)
		g.past = list(r, decodePastEpoch)
	})
	if err == nil {
		err = g.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return g, nil
}

// check looks for what later code relies on.
func (g *Group) check() error {
	if err := g.cur.check(g.own, publicOf(g.signer)); err != nil {
		return err
	}
	if len(g.past) > maxPastEpochs {
		return fmt.Errorf("%w: too many past epochs", ErrMalformed)
	}
	after := g.Epoch()
	for _, p := range g.past {
		if p.number >= after || len(p.senderData) != hashSize || len(p.resumption) != hashSize {
			return fmt.Errorf("%w: past epoch", ErrMalformed)
		}
		after = p.number
	}
	return nil
}

func (e *epoch) check(own LeafIndex, signer ed25519.PublicKey) error {
	if err := e.publicState.check(e.received); err != nil {
		return err
	}
	leaf := e.tree.leaf(own)
	if leaf == nil || signer == nil || !bytes.Equal(leaf.SignatureKey, signer) {
		return fmt.Errorf("%w: signer is not the member's", ErrInvalidArgument)
	}
	if !privateMatches(e.keys.leaf, leaf.EncryptionKey) {
		return fmt.Errorf("%w: leaf key", ErrMalformed)
	}
	if e.messages.leaves != len(e.tree.leaves) {
		return fmt.Errorf("%w: secret tree", ErrMalformed)
	}
	return nil
}

func (s *publicState) check(received []proposalEntry) error {
	if err := s.context.checkProtocol(); err != nil {
		return err
	}
	if h := s.tree.treeHash(); !bytes.Equal(h[:], s.context.TreeHash) {
		return fmt.Errorf("%w: tree hash", ErrInvalidTree)
	}
	for _, p := range received {
		if err := p.check(s.tree); err != nil {
			return err
		}
	}
	return nil
}

func (s *publicState) append(b []byte) []byte {
	b = appendOpaque(b, s.encoded)
	b = appendOpaque(b, s.confirmationTag)
	return append(b, s.tree.encode()...)
}

func (e *epoch) appendState(b []byte) []byte {
	b = e.publicState.append(b)
	b = e.secrets.append(b)
	b = e.keys.append(b)
	b = e.messages.append(b)
	b = appendList(b, e.received)
	return appendMap(b, e.ownUpdates, func(b []byte, public string, private []byte) []byte {
		return appendOpaque(appendOpaque(b, []byte(public)), private)
	})
}

func decodePublicState(r *reader) publicState {
	var c GroupContext
	if err := decode(r.opaque(), "group context", func(r *reader) { c = decodeGroupContext(r) }); err != nil {
		r.fail("group context")
	}
	tag := r.opaque()
	t := &tree{}
	t.decodeNodes(r)
	if r.err == nil {
		r.err = t.complete()
	}
	return newPublicState(c, t, tag)
}

func decodeEpochState(r *reader) *epoch {
	e := &epoch{
		publicState: decodePublicState(r),
		secrets:     decodeEpochSecrets(r),
		keys:        decodePathKeys(r),
		messages:    decodeSecretTree(r),
		received:    list(r, decodeProposalEntry),
	}
	e.ownUpdates = decodeMap(r, func(r *reader) string { return string(r.opaque()) },
		func(r *reader, _ string) []byte { return r.opaque() })
	return e
}

func (s *epochSecrets) all() []*[]byte {
	return []*[]byte{
		&s.init, &s.senderData, &s.exporter, &s.external,
		&s.confirmation, &s.membership, &s.resumption, &s.authenticator,
	}
}

func (s *epochSecrets) append(b []byte) []byte {
	for _, secret := range s.all() {
		b = append(b, *secret...)
	}
	return b
}

func decodeEpochSecrets(r *reader) (s epochSecrets) {
	for _, secret := range s.all() {
		*secret = r.take(hashSize)
	}
	return s
}

func (k pathKeys) append(b []byte) []byte {
	b = appendOpaque(b, k.leaf)
	return appendMap(b, k.parents, func(b []byte, x nodeIndex, key []byte) []byte {
		return appendOpaque(appendUint32(b, uint32(x)), key)
	})
}

func decodePathKeys(r *reader) pathKeys {
	return pathKeys{leaf: r.opaque(), parents: decodeMap(r, decodeNodeIndex, func(r *reader, _ nodeIndex) []byte { return r.opaque() })}
}

// appendMap writes a map as a vector, in the order of its keys, so that equal
// states have equal encodings.
func appendMap[K int | string | nodeIndex | LeafIndex, V any](b []byte, m map[K]V, f func([]byte, K, V) []byte) []byte {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return appendVector(b, func(b []byte) []byte {
		for _, k := range keys {
			b = f(b, k, m[k])
		}
		return b
	})
}

// decodeMap reads what appendMap wrote, and insists on its order.
func decodeMap[K int | string | nodeIndex | LeafIndex, V any](r *reader, key func(*reader) K, value func(*reader, K) V) map[K]V {
	m := map[K]V{}
	var last K
	r.vector(func(r *reader) {
		k := key(r)
		if len(m) > 0 && k <= last {
			r.fail("map is not in order")
		}
		last = k
		m[k] = value(r, k)
	})
	return m
}

func decodeNodeIndex(r *reader) nodeIndex { return nodeIndex(r.uint32()) }
func decodeLeafIndex(r *reader) LeafIndex { return LeafIndex(r.uint32()) }

func (e proposalEntry) append(b []byte) []byte {
	b = append(b, e.ref[:]...)
	return e.proposal.append(e.sender.append(b))
}

func decodeProposalEntry(r *reader) proposalEntry {
	e := proposalEntry{byRef: true}
	copy(e.ref[:], r.take(hashSize))
	e.sender = decodeSender(r)
	e.proposal = decodeProposal(r)
	return e
}

func (e proposalEntry) check(t *tree) error {
	if !mayPropose(e.sender.Type, e.proposal.Type) || e.sender.Type == SenderMember && t.leaf(e.sender.Leaf) == nil {
		return fmt.Errorf("%w: received proposal", ErrMalformed)
	}
	return nil
}

func (p *pastEpoch) append(b []byte) []byte {
	b = appendUint64(b, p.number)
	b = appendOpaque(b, p.encoded)
	b = appendOpaque(b, p.senderData)
	b = appendOpaque(b, p.resumption)
	b = p.messages.append(b)
	return appendMap(b, p.replaced, func(b []byte, i LeafIndex, m *Member) []byte {
		b = appendOptional(appendUint32(b, uint32(i)), m != nil)
		if m != nil {
			b = appendOpaque(m.Credential.append(b), m.SignatureKey)
		}
		return b
	})
}

func decodePastEpoch(r *reader) *pastEpoch {
	return &pastEpoch{
		number:     r.uint64(),
		encoded:    r.opaque(),
		senderData: r.opaque(),
		resumption: r.opaque(),
		messages:   decodeSecretTree(r),
		replaced: decodeMap(r, decodeLeafIndex, func(r *reader, i LeafIndex) *Member {
			if !r.optional() {
				return nil
			}
			return &Member{Index: i, Credential: decodeCredential(r), SignatureKey: r.opaque()}
		}),
	}
}
