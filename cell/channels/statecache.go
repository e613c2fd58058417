package channels

import (
	"container/list"
	"sync"

	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/schema/ids"
)

const (
	cachedStates = 1024
	cachedBytes  = 64 << 20 // Of the states, encoded; in memory they take about as much.
)

// stateCache keeps the public states of the groups used last, within bounds. Another replica may have gone on: who takes
// a state from here compares its epoch and its proposals with the database's.
type stateCache struct {
	mu      sync.Mutex
	entries map[ids.ID]*list.Element
	order   *list.List // The one used last in front.
	bytes   int
}

type cachedState struct {
	channel    ids.ID
	generation uint32
	state      *mlspolicy.State
	size       int
}

func newStateCache() *stateCache {
	return &stateCache{entries: map[ids.ID]*list.Element{}, order: list.New()}
}

// get returns the state of a channel's generation if it is the one of an epoch with so many proposals.
func (c *stateCache) get(channel ids.ID, generation uint32, epoch uint64, proposals int) *mlspolicy.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[channel]
	if !ok {
		return nil
	}
	v := e.Value.(*cachedState)
	if v.generation != generation || v.state.Epoch() != epoch || v.state.Proposals() != proposals {
		return nil
	}
	c.order.MoveToFront(e)
	return v.state
}

// put keeps a state, whose encoding has so many bytes, instead of what there was of its channel.
func (c *stateCache) put(channel ids.ID, generation uint32, s *mlspolicy.State, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[channel]; ok {
		c.remove(e)
	}
	c.entries[channel] = c.order.PushFront(&cachedState{channel, generation, s, size})
	c.bytes += size
	for c.order.Len() > 1 && (c.order.Len() > cachedStates || c.bytes > cachedBytes) {
		c.remove(c.order.Back())
	}
}

// remove needs c.mu.
func (c *stateCache) remove(e *list.Element) {
	v := c.order.Remove(e).(*cachedState)
	delete(c.entries, v.channel)
	c.bytes -= v.size
}
