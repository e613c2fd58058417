// Package peer is what the benchmark asks of a system under test, and what it checks of each.
package peer

import (
	"context"
	"fmt"

	"quicproquo.dev/schema/ids"
)

// Topology says who writes to whom. Every pair is one sender with one device and one recipient, whose devices all
// receive everything.
type Topology struct {
	Pairs   int
	Devices int // Of each recipient.
}

// String names the topology as tables do.
func (t Topology) String() string {
	if t.Devices == 1 {
		return fmt.Sprintf("%d×1→1", t.Pairs)
	}
	return fmt.Sprintf("%d×1→%d", t.Pairs, t.Devices)
}

// System is a system under test with its server processes.
type System interface {
	Name() string
	// Open connects everyone. deliver is called for each message that reaches a device, in the order of its coming;
	// calls for one device do not overlap. content is the callee's until it returns.
	Open(ctx context.Context, t Topology, deliver Deliver) (Session, error)
	// Counters reads what the servers have used up so far.
	Counters(ctx context.Context) (Counters, error)
	Processes() []int // The servers' process ids; those of children are found.
	Close() error
}

// Deliver takes a message on behalf of a recipient's device.
type Deliver func(pair, device int, content []byte)

// Session is a topology whose members are connected.
type Session interface {
	// Publish sends content from a pair's sender, and done is told once whether it was acknowledged. All calls come from
	// one goroutine: what is published first comes first. content may be used again when Publish returns.
	Publish(pair int, id ids.ID, content []byte, done func(error)) error
	Close() error
}

// Counters are sums since the servers started. What a system cannot tell is negative.
type Counters struct {
	Syncs    float64 // Calls that put data on disk.
	WALBytes float64 // Written to a log of which nothing stays.
	Stored   float64 // Bytes on disk that stay: data and index.
}
