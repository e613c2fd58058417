package server_test

import (
	"fmt"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/wire"
)

// A device goes from replica to replica without leaving: each time the older session is told to go, and ends, and the newest gets
// all that was not acknowledged, in order.
func TestTheNewestSessionOfADeviceWinsOverAllReplicas(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		options func(*testing.T) []celltest.Option
		within  time.Duration
	}{
		"told":            {func(*testing.T) []celltest.Option { return []celltest.Option{celltest.Unlimited()} }, 3 * time.Second},
		"behind a pooler": {pooled, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := celltest.New(t, x.options(t)...)
			cells := []*celltest.Cell{one.Replica(t), one, one.Replica(t)}
			alice, bob, from, to := pair(t, one)
			for round := range 6 {
				older := bob.Conn
				begun := time.Now()
				on(cells[round%len(cells)], bob)
				subscribe(t, bob)
				goAway := older.PushWithin(20 * time.Second)
				if g, ok := goAway.(*wire.GoAway); !ok || g.Reason != wire.GoAwaySessionReplaced {
					t.Fatalf("round %d: the older session gets %+v", round, goAway)
				}
				took := time.Since(begun)
				t.Logf("round %d: the older session was told %v after the newer began to dial", round, took)
				if took > x.within {
					t.Errorf("round %d: it took %v", round, took)
				}
				for came := false; !came; { // What was acknowledged a moment ago may come again before.
					came = isCaughtUp(bob.Conn.Push())
				}
				text := fmt.Sprint("round ", round)
				sent := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, text))
				d := deliveryOf(t, bob)
				if d.Seq != sent.Seq || to.Read(t, d) != text {
					t.Fatalf("round %d: %+v, want %d", round, d, sent.Seq)
				}
			}
			if p := bob.Conn.PushWithin(2 * time.Second); p != nil {
				t.Errorf("the newest is pushed %+v", p)
			}
		})
	}
}
