package check

// entry is one message of a channel.
type entry struct {
	key     int    // Of the sender's delivery id.
	content string // Empty: not known.
	at      int64
	from    string
}

// node is an entry and, as a persistent list, all before it: to append shares what is there. Each node has, besides the
// one before it, one further back, so that any entry is found in logarithmic time.
type node struct {
	entry
	seq        uint64
	prev, jump *node
	hash       uint64 // Of this entry and all before it.
}

func (n *node) len() uint64 {
	if n == nil {
		return 0
	}
	return n.seq
}

func (n *node) sum() uint64 {
	if n == nil {
		return 14695981039346656037
	}
	return n.hash
}

func (n *node) append(e entry) *node {
	next := &node{entry: e, seq: n.len() + 1, prev: n, jump: n, hash: (n.sum() ^ uint64(e.key)) * 1099511628211} //nolint:gosec // a hash.
	if n != nil && n.jump != nil && n.jump.jump != nil && n.seq-n.jump.seq == n.jump.seq-n.jump.jump.seq {
		next.jump = n.jump.jump
	}
	return next
}

// at returns the entry of a sequence, nil when there is none.
func (n *node) find(seq uint64) *node {
	if seq == 0 || n.len() < seq {
		return nil
	}
	for n.seq != seq {
		if n.jump != nil && n.jump.seq >= seq {
			n = n.jump
		} else {
			n = n.prev
		}
	}
	return n
}

// bits is a set of small numbers. It is never changed.
type bits []uint64

func (b bits) has(i int) bool { return i/64 < len(b) && b[i/64]&(1<<(i%64)) != 0 }

// with returns a copy with (or, for without, lacking) a number.
func (b bits) with(i int) bits {
	c := make(bits, max(len(b), i/64+1))
	copy(c, b)
	c[i/64] |= 1 << (i % 64)
	return c
}

func (b bits) without(i int) bits {
	c := append(bits(nil), b...)
	c[i/64] &^= 1 << (i % 64)
	return c
}

func (b bits) hash() uint64 {
	h, zeros := uint64(14695981039346656037), uint64(0)
	for _, w := range b {
		if w == 0 { // Trailing zeros do not count.
			zeros++
			continue
		}
		h = (h ^ zeros) * 1099511628211
		h = (h ^ w) * 1099511628211
		zeros = 0
	}
	return h
}

func (b bits) equal(c bits) bool {
	if len(b) > len(c) {
		b, c = c, b
	}
	for i := range c {
		if i < len(b) && b[i] != c[i] || i >= len(b) && c[i] != 0 {
			return false
		}
	}
	return true
}

func (b bits) count() (n int) {
	for _, w := range b {
		for ; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}
