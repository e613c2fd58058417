package client

import (
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Acknowledgements that the cell does not take just now are neither lost nor sent again at once.
func TestRefusedAcknowledgementsWait(t *testing.T) {
	t.Parallel()
	var a acks
	a.start(nil, 256)
	defer a.due.Stop()
	one, other := ids.New(), ids.New()
	a.busy, a.sent = true, []wire.Ack{{ChannelID: one, Seq: 7}, {ChannelID: other, Seq: 3}}
	a.pending[one] = 9 // Came while the request was under way.
	if err := a.done(t.Context(), wire.RetryAfterf(wire.CodeRateLimited, time.Minute, "later")); err != nil {
		t.Fatalf("the subscription ends: %v", err)
	}
	if a.pending[one] != 9 || a.pending[other] != 3 {
		t.Fatalf("%v", a.pending)
	}
	a.send(t.Context()) // With a nil session it would panic if it sent.
	a.add(t.Context(), one, 10, 100, 1000)
	if a.busy || !a.waiting || a.pending[one] != 10 {
		t.Fatalf("%+v", a)
	}
	if err := a.done(t.Context(), wire.Errorf(wire.CodeInvalidCursor, "no")); !wire.HasCode(err, wire.CodeInvalidCursor) {
		t.Fatalf("what waiting does not mend: %v", err)
	}
}

// A cell has so many deliveries, and 16 MiB of payload, in flight: well before either, it is told what was taken.
func TestAcknowledgementsComeBeforeTheCellStops(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		credit, deliveries, size int
		enough                   bool
	}{{256, 63, 1 << 20, false}, {256, 64, 64, true}, {256, 4, 4 << 20, true}, {16, 7, 7, false}, {16, 8, 8, true}, {1, 1, 1, true}} {
		var a acks
		a.start(nil, c.credit)
		a.busy = true // So that nothing is sent.
		a.add(t.Context(), ids.New(), 1, c.deliveries, c.size)
		if a.enough() != c.enough {
			t.Errorf("%+v", c)
		}
		a.due.Stop()
	}
}
