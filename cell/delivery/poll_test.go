package delivery

import (
	"context"
	"testing"

	"quicproquo.dev/schema/ids"
)

// polledStore notes what is polled.
type polledStore struct {
	*fakeStore
	asked []ids.ID
}

func (s *polledStore) LastSeqs(_ context.Context, channels []ids.ID) (map[ids.ID]uint64, error) {
	s.asked = append(s.asked, channels...)
	return nil, nil
}

// A poll costs the less, the more is followed: where others tell of new messages, each channel has its turn.
func TestVeryManyChannelsArePolledInTurn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		channels      int
		working, none bool
		most          int // Channels in one poll.
		turns         int // Until each was polled.
	}{
		"few":                           {pollAtOnce - 1, true, false, pollAtOnce, 1},
		"many":                          {3 * pollAtOnce, true, false, 3 * pollAtOnce / 3, 4},
		"very many":                     {100_000, true, false, 9000, pollParts},
		"very many, the listener fails": {100_000, false, false, 100_000, 1},
		"very many, behind a pooler":    {100_000, false, true, 100_000, 1},
		"none":                          {0, true, false, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &polledStore{fakeStore: newFakeStore()}
			h := NewHub(s, newWorldMetrics(), quiet(), nil)
			if !c.none {
				h.UseWakeups(newFakeBus()).working.Store(c.working)
			}
			left := map[ids.ID]bool{}
			for range c.channels {
				id := ids.New()
				h.followers[id], left[id] = map[*Subscription]struct{}{}, true
			}
			for turn := range c.turns {
				s.asked = nil
				h.pollPart(t.Context())
				if len(s.asked) > c.most {
					t.Errorf("turn %d: %d channels, want at most %d", turn, len(s.asked), c.most)
				}
				for _, id := range s.asked {
					delete(left, id)
				}
			}
			if len(left) > 0 {
				t.Errorf("%d of %d channels were not polled in %d turns", len(left), c.channels, c.turns)
			}
			s.asked = nil
			h.poll(t.Context())
			if len(s.asked) != c.channels {
				t.Errorf("asked to poll everything, it polled %d of %d", len(s.asked), c.channels)
			}
		})
	}
}
