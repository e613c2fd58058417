package limits

import (
	"hash/maphash"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// refund gives back what was spent for nothing.
func (b *bucket) refund(cost float64) { b.spent = max(b.spent-cost, 0) }

// WithdrawQuota takes back a Quota of a message that was no new one after all. Of a connection that has ended meanwhile
// it stays charged.
func (c *Conn) WithdrawQuota(r *wire.EnqueueRequest) {
	p := &c.l.policy().Limits
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.account == nil || c.isClosed {
		return
	}
	c.account.mu.Lock()
	defer c.account.mu.Unlock()
	c.account.buckets[requests].refund(min(costOf(r).requests, rateOf(requests, p).depth))
}

// WithdrawMessage takes back a Message of a message that was no new one after all.
func (l *Limiter) WithdrawMessage(channel ids.ID) {
	c := &l.channels
	sum := maphash.Comparable(c.seed, channel)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[0][sum%slots].refund(1)
	c.all[1][(sum>>32)%slots].refund(1)
}
