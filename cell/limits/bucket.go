package limits

import (
	"math"
	"time"
)

// bucket is a token bucket, kept as what was spent: the zero value is a full one, and a change of rate or depth
// forgets nothing.
type bucket struct {
	spent float64
	at    int64 // When spent was true, in nanoseconds.
}

// settle brings spent up to date.
func (b *bucket) settle(now int64, r rate) {
	if now > b.at {
		b.spent = max(b.spent-float64(now-b.at)*r.refill/float64(time.Second), 0)
		b.at = now
	}
}

// wait is how long until cost can be spent; 0: now. A cost above the depth counts as the depth, or it could never be.
func (b *bucket) wait(now int64, cost float64, r rate) time.Duration {
	b.settle(now, r)
	over := b.spent + min(cost, r.depth) - r.depth
	if over <= 0 {
		return 0
	}
	return time.Duration(min(math.Ceil(over/r.refill*float64(time.Second)), float64(maxWait)))
}

// maxWait keeps odd policies from overflowing; no bucket is deeper than it refills in this time.
const maxWait = 72 * time.Hour

// spend takes cost, which wait has allowed.
func (b *bucket) spend(cost float64, r rate) { b.spent += min(cost, r.depth) }

// charge takes cost without asking, and no more than would have to be waited for twice the depth.
func (b *bucket) charge(now int64, cost float64, r rate) {
	b.settle(now, r)
	b.spent = max(b.spent, min(b.spent+cost, 2*r.depth))
}

// atLeast makes b as spent as other, both as of now.
func (b *bucket) atLeast(other bucket) {
	if other.spent > b.spent {
		b.spent = other.spent
	}
}
