package limits

import (
	"hash/maphash"
	"sync"

	"quicproquo.dev/schema/ids"
)

// channelFactor is how many times an account's requests a channel takes of messages, where the policy says nothing.
const channelFactor = 4

// channelBuckets are those of all channels, in a table of fixed size as holders keep of who has left: of the two places
// of a channel the less spent counts, so that it takes two others, in both of them, to be held up for.
type channelBuckets struct {
	mu   sync.Mutex
	seed maphash.Seed
	all  [rows][slots]bucket
}

// Message charges a message to its channel, whoever sends it, once it is known that it will be stored.
func (l *Limiter) Message(channel ids.ID) Verdict {
	p := &l.policy().Limits
	per := float64(p.MessagesPerChannel)
	if per == 0 {
		per = channelFactor * float64(p.RequestsPerSecond)
	}
	r, now := rate{per, 2 * per}, l.clock()
	c := &l.channels
	sum := maphash.Comparable(c.seed, channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	one, other := &c.all[0][sum%slots], &c.all[1][(sum>>32)%slots]
	if wait := min(one.wait(now, 1, r), other.wait(now, 1, r)); wait > 0 {
		return Verdict{By: ByChannel, Wait: wait}
	}
	one.charge(now, 1, r)
	other.charge(now, 1, r)
	return Verdict{}
}
