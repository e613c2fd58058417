package mls

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Bounds of a receiving ratchet. A message may be at most maxSkip generations ahead
// of the newest one seen from its sender, which bounds the work one message can
// cause; the keys of skipped messages are kept, the newest maxSkip per ratchet and
// maxSkippedTotal per epoch, which bounds memory.
const (
	maxSkip         = 1024
	maxSkippedTotal = 16 * maxSkip
)

// messageKey opens or seals one message.
type messageKey struct{ key, nonce []byte }

func (k messageKey) clear() {
	clear(k.key)
	clear(k.nonce)
}

// ratchetKind tells the two ratchets of a sender apart (RFC 9420 §9).
type ratchetKind int

const (
	applicationRatchet ratchetKind = iota
	handshakeRatchet
)

func ratchetFor(t ContentType) ratchetKind {
	if t == ContentApplication {
		return applicationRatchet
	}
	return handshakeRatchet
}

// skippedKey is the key of a message that was passed over.
type skippedKey struct {
	generation uint32
	messageKey
}

// ratchet is a symmetric ratchet (RFC 9420 §9.1). A key that was handed out is
// neither in it nor derivable from it.
type ratchet struct {
	next    uint64 // generation that secret yields; above math.MaxUint32 when used up
	secret  []byte
	skipped []skippedKey // ascending
}

// step derives the keys of the next generation, and replaces and clears the secret.
func (r *ratchet) step() messageKey {
	g := uint32(r.next) //nolint:gosec // callers check that it is not used up.
	k := messageKey{
		key:   deriveTreeSecret(r.secret, "key", g, keySize),
		nonce: deriveTreeSecret(r.secret, "nonce", g, nonceSize),
	}
	next := deriveTreeSecret(r.secret, "secret", g, hashSize)
	clear(r.secret)
	r.secret = next
	r.next++
	return k
}

// senderRatchets are the two ratchets of one leaf.
type senderRatchets [2]ratchet

// secretTree derives each sender's ratchets from the epoch's encryption secret
// (RFC 9420 §9). Only what is still needed is kept: secrets of subtrees that were
// not opened yet, and the ratchets of those that were.
type secretTree struct {
	leaves  int // power of two
	nodes   map[nodeIndex][]byte
	senders map[LeafIndex]*senderRatchets
	stored  int // skipped keys in all ratchets
}

// newSecretTree takes ownership of encryptionSecret.
func newSecretTree(encryptionSecret []byte, leaves int) *secretTree {
	return &secretTree{
		leaves:  leaves,
		nodes:   map[nodeIndex][]byte{rootOf(leaves): encryptionSecret},
		senders: map[LeafIndex]*senderRatchets{},
	}
}

// opening is what it takes to reach one leaf: the subtree it comes from, and the
// secrets that replace that one.
type opening struct {
	leaf     LeafIndex
	from     nodeIndex
	replaced map[nodeIndex][]byte
	ratchets *senderRatchets
}

// open derives the ratchets of a leaf from the closest secret above, without
// changing the tree.
func (t *secretTree) open(i LeafIndex) (*opening, error) {
	x, root := i.node(), rootOf(t.leaves)
	for t.nodes[x] == nil {
		if x == root {
			return nil, ErrReplay
		}
		x = x.parent()
	}
	o := &opening{leaf: i, from: x, replaced: map[nodeIndex][]byte{}}
	secret := slices.Clone(t.nodes[x])
	for !x.isLeaf() {
		left := expandWithLabel(secret, "tree", []byte("left"), hashSize)
		right := expandWithLabel(secret, "tree", []byte("right"), hashSize)
		clear(secret)
		if x.left().covers(i) {
			o.replaced[x.right()] = right
			x, secret = x.left(), left
		} else {
			o.replaced[x.left()] = left
			x, secret = x.right(), right
		}
	}
	o.ratchets = &senderRatchets{
		applicationRatchet: {secret: expandWithLabel(secret, "application", nil, hashSize)},
		handshakeRatchet:   {secret: expandWithLabel(secret, "handshake", nil, hashSize)},
	}
	clear(secret)
	return o, nil
}

func (t *secretTree) apply(o *opening) {
	clear(t.nodes[o.from])
	delete(t.nodes, o.from)
	for x, secret := range o.replaced {
		t.nodes[x] = secret
	}
	t.senders[o.leaf] = o.ratchets
}

// pendingKey is a key that was looked up and not yet consumed.
type pendingKey struct {
	messageKey
	tree    *secretTree
	leaf    LeafIndex
	kind    ratchetKind
	opening *opening // set if the leaf was not open yet
	ahead   *advance // set if the ratchet moves on
	stored  int      // index among the skipped keys, if ahead is nil
}

// advance is how a ratchet moves past one message.
type advance struct {
	ratchet ratchet      // as it is afterwards, without skipped keys
	passed  []skippedKey // keys that were passed over on the way
}

// find looks up the key of one message. The tree changes only by consume, so a
// forged message costs time and nothing else.
func (t *secretTree) find(i LeafIndex, kind ratchetKind, generation uint32) (*pendingKey, error) {
	if int64(i) >= int64(t.leaves) {
		return nil, ErrNoSuchMember
	}
	p := &pendingKey{tree: t, leaf: i, kind: kind}
	ratchets := t.senders[i]
	if ratchets == nil {
		var err error
		if p.opening, err = t.open(i); err != nil {
			return nil, err
		}
		ratchets = p.opening.ratchets
	}
	if err := p.findIn(&ratchets[kind], generation); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pendingKey) findIn(r *ratchet, generation uint32) error {
	if uint64(generation) < r.next {
		at, found := slices.BinarySearchFunc(r.skipped, generation, func(s skippedKey, g uint32) int {
			return cmp.Compare(s.generation, g)
		})
		if !found {
			return ErrReplay
		}
		p.stored = at
		p.messageKey = r.skipped[at].copy()
		return nil
	}
	if ahead := uint64(generation) - r.next; ahead > maxSkip {
		return fmt.Errorf("%w: %d, limit %d", ErrGenerationTooFar, ahead, maxSkip)
	}
	p.ahead = &advance{ratchet: ratchet{next: r.next, secret: slices.Clone(r.secret)}}
	for p.ahead.ratchet.next < uint64(generation) {
		g := uint32(p.ahead.ratchet.next) //nolint:gosec // below generation.
		p.ahead.passed = append(p.ahead.passed, skippedKey{generation: g, messageKey: p.ahead.ratchet.step()})
	}
	p.messageKey = p.ahead.ratchet.step()
	return nil
}

// copy keeps the stored key intact when the caller clears its own.
func (k messageKey) copy() messageKey {
	return messageKey{key: slices.Clone(k.key), nonce: slices.Clone(k.nonce)}
}

// consume makes the lookup final: the key and everything it came from are gone. A
// nil key, that of a message without one, needs nothing.
func (p *pendingKey) consume() {
	if p == nil {
		return
	}
	if p.opening != nil {
		p.tree.apply(p.opening)
	}
	r := &p.tree.senders[p.leaf][p.kind]
	if p.ahead == nil {
		r.skipped[p.stored].clear()
		r.skipped = slices.Delete(r.skipped, p.stored, p.stored+1)
		p.tree.stored--
		return
	}
	clear(r.secret)
	r.next, r.secret = p.ahead.ratchet.next, p.ahead.ratchet.secret
	r.skipped = append(r.skipped, p.ahead.passed...)
	p.tree.stored += len(p.ahead.passed)
	p.tree.trim(r)
}

// trim holds both bounds on stored keys. For the epoch's total it cuts the ratchet
// that stores the most: who floods loses its own old messages, not those of others.
func (t *secretTree) trim(r *ratchet) {
	t.stored -= r.drop(len(r.skipped) - maxSkip)
	if t.stored <= maxSkippedTotal {
		return
	}
	for _, s := range t.senders {
		for k := range s {
			if len(s[k].skipped) > len(r.skipped) {
				r = &s[k]
			}
		}
	}
	t.stored -= r.drop(t.stored - maxSkippedTotal)
}

// drop forgets the n oldest skipped keys, none if n is negative.
func (r *ratchet) drop(n int) int {
	n = min(max(n, 0), len(r.skipped))
	for _, s := range r.skipped[:n] {
		s.clear()
	}
	r.skipped = slices.Delete(r.skipped, 0, n)
	return n
}

// take consumes the next key of a leaf, for sending.
func (t *secretTree) take(i LeafIndex, kind ratchetKind) (uint32, messageKey, error) {
	if t.senders[i] == nil {
		o, err := t.open(i)
		if err != nil {
			return 0, messageKey{}, err
		}
		t.apply(o)
	}
	r := &t.senders[i][kind]
	if r.next > math.MaxUint32 {
		return 0, messageKey{}, ErrRatchetExhausted
	}
	generation := uint32(r.next)
	return generation, r.step(), nil
}

// retire forgets what a past epoch has no use for: the own ratchets, since own
// messages are never decrypted, and all handshake ratchets.
func (t *secretTree) retire(own LeafIndex) {
	for i, s := range t.senders {
		t.exhaust(&s[handshakeRatchet])
		if i == own {
			t.exhaust(&s[applicationRatchet])
		}
	}
}

// exhaust erases a ratchet; it yields no key any more.
func (t *secretTree) exhaust(r *ratchet) {
	t.stored -= r.drop(len(r.skipped))
	clear(r.secret)
	r.secret, r.next = nil, math.MaxUint32+1
}

// clear erases the whole tree.
func (t *secretTree) clear() {
	for _, s := range t.senders {
		t.exhaust(&s[applicationRatchet])
		t.exhaust(&s[handshakeRatchet])
	}
	for _, secret := range t.nodes {
		clear(secret)
	}
	t.nodes = nil
}
