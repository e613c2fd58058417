// Package inorder puts a subscription's deliveries back into their channels' order: a large one travels on a stream
// of its own and may arrive after its successors.
package inorder

import (
	"errors"
	"fmt"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// ErrGap says that too many deliveries wait for one that does not come, or that one cannot be in any order.
var ErrGap = errors.New("the cell's deliveries do not add up")

// Buffer holds back each delivery until the one before it has passed. The zero value is not usable; it is for one
// subscription and one goroutine.
type Buffer struct {
	limit    int
	held     int
	passed   uint64
	channels map[ids.ID]*channel
}

type channel struct {
	last uint64                    // The sequence that passed last.
	next map[uint64]*wire.Delivery // By PrevSeq.
}

// New returns a buffer that holds back at most limit deliveries: the subscription's credit.
func New(limit int) *Buffer {
	return &Buffer{limit: limit, channels: make(map[ids.ID]*channel)}
}

// Add takes a delivery and returns those that may now be handled, in their channel's order. After ErrGap the
// subscription is of no use any more.
func (b *Buffer) Add(d *wire.Delivery) ([]*wire.Delivery, error) {
	c := b.channels[d.ChannelID]
	if c == nil {
		c = &channel{next: make(map[uint64]*wire.Delivery)}
		b.channels[d.ChannelID] = c
	}
	if err := b.hold(c, d); err != nil {
		return nil, err
	}
	var ready []*wire.Delivery
	for next := c.next[c.last]; next != nil; next = c.next[c.last] {
		delete(c.next, c.last)
		c.last = next.Seq
		ready = append(ready, next)
	}
	b.held -= len(ready)
	b.passed += uint64(len(ready))
	return ready, nil
}

func (b *Buffer) hold(c *channel, d *wire.Delivery) error {
	switch {
	case d.Seq <= d.PrevSeq, d.PrevSeq < c.last:
		return fmt.Errorf("%w: sequence %d after %d, where %d was the last", ErrGap, d.Seq, d.PrevSeq, c.last)
	case c.next[d.PrevSeq] != nil:
		return fmt.Errorf("%w: two deliveries after sequence %d", ErrGap, d.PrevSeq)
	case b.held >= b.limit && d.PrevSeq != c.last:
		return fmt.Errorf("%w: %d wait for one that is missing", ErrGap, b.held)
	}
	c.next[d.PrevSeq] = d
	b.held++
	return nil
}

// Passed returns how many deliveries Add has returned, to compare with wire.CaughtUp.
func (b *Buffer) Passed() uint64 { return b.passed }
