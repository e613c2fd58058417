package limits

import (
	"hash/maphash"
	"sync"

	"quicproquo.dev/cell/policy"
)

// holder is an address or an account of which somebody is connected. The counts and refs belong to Limiter.mu, the
// buckets to mu, which comes after it.
type holder struct {
	refs     int
	verified int // Connections of an address that is known to be theirs.
	pending  int // Handshakes of an address that may be anybody's.

	mu      sync.Mutex
	buckets [kinds]bucket
}

// holders are the holders there are, and what those have spent who were. Its methods need Limiter.mu.
type holders[K comparable] struct {
	live map[K]*holder
	seed maphash.Seed
	gone *[rows][slots][kinds]bucket
}

// Two rows, as of a count-min sketch: who comes anew is taken for the less spent of two that may have been he. That a
// stranger's spending is put on him takes one who left with the same place in both rows.
const (
	rows  = 2
	slots = 4096 // A power of two. Rows and slots take 512 KiB.
)

func newHolders[K comparable]() holders[K] {
	return holders[K]{live: map[K]*holder{}, seed: maphash.MakeSeed(), gone: new([rows][slots][kinds]bucket)}
}

// places are the key's slots. The seed is random: nobody can choose an address to share another's.
func (h *holders[K]) places(key K) [rows]int {
	sum := maphash.Comparable(h.seed, key)
	return [rows]int{int(sum % slots), int((sum >> 32) % slots)}
}

// acquire returns the key's holder, who comes with what he had spent when he left.
func (h *holders[K]) acquire(key K, now int64, p *policy.Limits) *holder {
	n, ok := h.live[key]
	if !ok {
		n = &holder{buckets: h.recall(key, now, p)}
		h.live[key] = n
	}
	n.refs++
	return n
}

// recall is what the key's holder had spent when he left, or more.
func (h *holders[K]) recall(key K, now int64, p *policy.Limits) [kinds]bucket {
	at := h.places(key)
	var out [kinds]bucket
	for k := range out {
		r := rateOf(k, p)
		one, other := &h.gone[0][at[0]][k], &h.gone[1][at[1]][k]
		one.settle(now, r)
		other.settle(now, r)
		out[k] = bucket{min(one.spent, other.spent), now}
	}
	return out
}

// release gives a reference back; with the last one only what was spent is remembered.
func (h *holders[K]) release(key K, n *holder, now int64, p *policy.Limits) {
	if n.refs--; n.refs > 0 {
		return
	}
	delete(h.live, key)
	n.mu.Lock()
	defer n.mu.Unlock()
	at := h.places(key)
	for k := range n.buckets {
		r := rateOf(k, p)
		n.buckets[k].settle(now, r)
		for row := range rows {
			b := &h.gone[row][at[row]][k]
			b.settle(now, r)
			b.atLeast(n.buckets[k])
		}
	}
}
