package inorder

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func delivery(channel byte, prev, seq uint64) *wire.Delivery {
	return &wire.Delivery{ChannelID: ids.ID{channel}, PrevSeq: prev, Seq: seq}
}

// TestAnyArrivalOrder: whatever the order of arrival, each channel comes out complete and in order.
func TestAnyArrivalOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var sent []*wire.Delivery
		for c := range byte(3) {
			var prev uint64
			for range rapid.IntRange(0, 8).Draw(t, "messages") {
				seq := prev + rapid.Uint64Range(1, 3).Draw(t, "gap")
				sent = append(sent, delivery(c, prev, seq))
				prev = seq
			}
		}
		b, last := New(len(sent)), map[ids.ID]uint64{}
		for _, d := range rapid.Permutation(sent).Draw(t, "arrival") {
			ready, err := b.Add(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range ready {
				if r.PrevSeq != last[r.ChannelID] {
					t.Fatalf("%d came after %d", r.Seq, last[r.ChannelID])
				}
				last[r.ChannelID] = r.Seq
			}
		}
		if b.Passed() != uint64(len(sent)) || b.held != 0 {
			t.Fatalf("%d of %d passed, %d held", b.Passed(), len(sent), b.held)
		}
	})
}

func TestImpossibleDeliveries(t *testing.T) {
	t.Parallel()
	for name, ds := range map[string][]*wire.Delivery{
		"backwards":       {delivery(1, 5, 5)},
		"twice":           {delivery(1, 0, 1), delivery(1, 0, 1)},
		"two successors":  {delivery(1, 3, 4), delivery(1, 3, 5)},
		"behind the last": {delivery(1, 0, 7), delivery(1, 5, 8)},
		"too many held":   {delivery(1, 1, 2), delivery(1, 2, 3), delivery(1, 3, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := New(2)
			var err error
			for _, d := range ds {
				_, err = b.Add(d)
			}
			if !errors.Is(err, ErrGap) {
				t.Errorf("the last one: %v", err)
			}
		})
	}
}
