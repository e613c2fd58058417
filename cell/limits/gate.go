package limits

import (
	"context"
	"sync/atomic"
	"time"
)

// Gate lets a bounded number into costly work at a time, and a bounded number wait for a bounded time, in the order of
// their coming.
type Gate struct {
	inside   chan struct{}
	waiting  atomic.Int64
	most     int64
	patience time.Duration
}

// NewGate lets inside at a time, and most wait for at most patience.
func NewGate(inside, most int, patience time.Duration) *Gate {
	return &Gate{inside: make(chan struct{}, inside), most: int64(most), patience: patience}
}

// Enter waits for its turn. False: the work is not to be done now, or ctx has ended. After true, Leave must follow.
func (g *Gate) Enter(ctx context.Context) bool {
	select {
	case g.inside <- struct{}{}:
		return true
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > g.most {
		return false
	}
	timer := time.NewTimer(g.patience)
	defer timer.Stop()
	select {
	case g.inside <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Leave lets the next one in.
func (g *Gate) Leave() { <-g.inside }

// Waiting is how many wait.
func (g *Gate) Waiting() int { return int(g.waiting.Load()) }
