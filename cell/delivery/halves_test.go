package delivery

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

// commits notes what is being stored, and lets each batch end when told.
type commits struct {
	gate chan struct{}

	mu    sync.Mutex
	under [][]ids.ID // Channels of the batches that are being stored.
	sizes []int
}

func (c *commits) append(_ context.Context, batch []*store.Append) error {
	var channels []ids.ID
	for _, a := range batch {
		if !slices.Contains(channels, a.Message.ChannelID) {
			channels = append(channels, a.Message.ChannelID)
		}
	}
	c.mu.Lock()
	c.under, c.sizes = append(c.under, channels), append(c.sizes, len(batch))
	c.mu.Unlock()
	<-c.gate
	return nil
}

// now returns the batches that began since it was last called.
func (c *commits) now() (channels [][]ids.ID, sizes []int) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	channels, sizes = c.under, c.sizes
	c.under, c.sizes = nil, nil
	return channels, sizes
}

func TestHalvesCommitTogetherOrAtTheSameTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		waiting int // Of each half.
		batches []int
	}{
		"few wait: one after the other":        {crowd - 1, []int{2 * (crowd - 1)}},
		"a crowd waits: both at the same time": {crowd, []int{crowd, crowd}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				gate := &commits{gate: make(chan struct{})}
				w.store.append = gate.append
				even, odd := ids.New(), ids.New()
				even[ids.Size-1], odd[ids.Size-1] = 0, 1
				first := submit(t, w, some(1, even)...)
				if _, sizes := gate.now(); !slices.Equal(sizes, []int{1}) {
					t.Fatalf("batches of %v began", sizes)
				}
				a, b := submit(t, w, some(c.waiting, even)...), submit(t, w, some(c.waiting, odd)...)
				if _, sizes := gate.now(); len(sizes) > 1 || len(sizes) == 1 && c.waiting < crowd {
					t.Fatalf("batches of %v began beside the first", sizes)
				}
				gate.gate <- struct{}{}
				channels, sizes := gate.now()
				if !slices.Equal(sizes, c.batches) {
					t.Fatalf("batches of %v began, want %v", sizes, c.batches)
				}
				if len(sizes) == 2 && (len(channels[0]) != 1 || len(channels[1]) != 1 || channels[0][0] == channels[1][0]) {
					t.Errorf("they share channels: %v", channels)
				}
				close(gate.gate)
				synctest.Wait()
				for _, r := range []*results{first, a, b} {
					if !slices.IsSorted(r.order) || len(r.order) == 0 {
						t.Errorf("answered in the order %v", r.order)
					}
				}
			})
		})
	}
}
