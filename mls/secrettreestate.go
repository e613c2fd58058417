package mls

import "math"

func (t *secretTree) append(b []byte) []byte {
	b = appendUint32(b, uint32(t.leaves)) //nolint:gosec // at most maxLeaves.
	b = appendMap(b, t.nodes, func(b []byte, x nodeIndex, secret []byte) []byte {
		return append(appendUint32(b, uint32(x)), secret...)
	})
	return appendMap(b, t.senders, func(b []byte, i LeafIndex, s *senderRatchets) []byte {
		b = appendUint32(b, uint32(i))
		return s[handshakeRatchet].append(s[applicationRatchet].append(b))
	})
}

func (r *ratchet) append(b []byte) []byte {
	b = appendUint64(b, r.next)
	b = appendOpaque(b, r.secret)
	return appendVector(b, func(b []byte) []byte {
		for _, s := range r.skipped {
			b = appendUint32(b, s.generation)
			b = append(append(b, s.key...), s.nonce...)
		}
		return b
	})
}

func decodeSecretTree(r *reader) *secretTree {
	t := &secretTree{leaves: int(r.uint32())}
	if t.leaves < 1 || t.leaves > maxLeaves || t.leaves&(t.leaves-1) != 0 {
		r.fail("secret tree size")
	}
	t.nodes = decodeMap(r, decodeNodeIndex, func(r *reader, _ nodeIndex) []byte { return r.take(hashSize) })
	t.senders = decodeMap(r, decodeLeafIndex, func(r *reader, _ LeafIndex) *senderRatchets {
		s := &senderRatchets{decodeRatchet(r), decodeRatchet(r)}
		t.stored += len(s[applicationRatchet].skipped) + len(s[handshakeRatchet].skipped)
		return s
	})
	return t
}

func decodeRatchet(r *reader) ratchet {
	out := ratchet{next: r.uint64(), secret: r.opaque()}
	usedUp := out.next > math.MaxUint32
	if len(out.secret) != hashSize && !usedUp {
		r.fail("ratchet secret")
	}
	out.skipped = list(r, func(r *reader) skippedKey {
		return skippedKey{generation: r.uint32(), messageKey: messageKey{key: r.take(keySize), nonce: r.take(nonceSize)}}
	})
	for i, s := range out.skipped {
		if uint64(s.generation) >= out.next || i > 0 && out.skipped[i-1].generation >= s.generation {
			r.fail("skipped keys")
		}
	}
	return out
}
