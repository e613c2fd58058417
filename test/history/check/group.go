package check

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// turn is a won compare-and-set: the creation of a generation (epoch 0), or the Commit that ended an epoch.
type turn struct {
	generation uint32
	epoch      uint64
	id         string
	seq        uint64
	known      bool // seq is.
	device     string
	welcomed   []string // Devices that get a Welcome.
}

// arrival is a Welcome in a device's inbox.
type arrival struct {
	device     string
	generation uint32
	epoch      uint64
	seq        uint64
}

// groupState is a channel's place, and how it came there. Its slices are never changed.
type groupState struct {
	generation uint32
	epoch      uint64
	turns      []turn
	arrivals   []arrival
}

const firstEpoch = 1

// groupModel is the compare-and-set of generations and epochs.
func groupModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return groupState{} },
		Step: func(state, input, _ any) (bool, any) {
			return state.(groupState).apply(input.(*record.Op)) //nolint:forcetypeassert // what groupHistory makes.
		},
		Equal: func(a, b any) bool { return a.(groupState).equal(b.(groupState)) }, //nolint:forcetypeassert // as above.
		Hash: func(state any) uint64 {
			s := state.(groupState) //nolint:forcetypeassert // as above.
			return uint64(s.generation)<<32 ^ s.epoch<<8 ^ uint64(len(s.arrivals))
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(*record.Op)) }, //nolint:forcetypeassert // as above.
		DescribeState: func(state any) string {
			s := state.(groupState) //nolint:forcetypeassert // as above.
			return fmt.Sprintf("generation %d, epoch %d, %d Welcomes read", s.generation, s.epoch, len(s.arrivals))
		},
	}
}

func (s groupState) equal(t groupState) bool {
	return s.generation == t.generation && s.epoch == t.epoch && slices.Equal(s.arrivals, t.arrivals) &&
		slices.EqualFunc(s.turns, t.turns, func(a, b turn) bool { return a.id == b.id && a.seq == b.seq && a.known == b.known })
}

func (s groupState) apply(o *record.Op) (bool, groupState) {
	switch o.Kind { //nolint:exhaustive // groupHistory takes no others.
	case record.Create, record.Commit:
		return s.attempt(o)
	case record.Open:
		return s.generation == o.Generation, s
	case record.Welcome:
		return s.welcome(o)
	case record.Push: // Of a Commit.
		w := s.find(o.Generation, o.Epoch)
		return w != nil && w.id == o.ID && w.device == o.From && (!w.known || w.seq == o.Seq), s
	case record.Complete:
		w := s.find(s.generation, 0)
		return w == nil || w.device == o.Device || !slices.Contains(w.welcomed, o.Device) || s.arrived(o.Device, s.generation) != nil, s
	}
	return true, s
}

// attempt is a compare-and-set: it takes its turn, has taken it, or is too late.
func (s groupState) attempt(o *record.Op) (bool, groupState) {
	w := s.find(o.Generation, o.Epoch)
	mine := w != nil && w.id == o.ID && w.device == o.Device
	next := o.Kind == record.Create && o.Generation == s.generation+1 || o.Kind == record.Commit && o.Generation == s.generation && o.Epoch == s.epoch
	switch {
	case o.Outcome == record.Refused:
		return !next && !mine, s
	case o.Outcome == record.Unknown:
		if next {
			return true, s.take(o, false)
		}
		return true, s
	case mine:
		return (w.seq == o.Seq || !w.known) && (o.Kind == record.Create || o.Duplicate), s.learn(w, o.Seq)
	case next:
		return !o.Duplicate, s.take(o, true)
	}
	return false, s
}

func (s groupState) find(generation uint32, epoch uint64) *turn {
	for i := range s.turns {
		if t := &s.turns[i]; t.generation == generation && t.epoch == epoch {
			return t
		}
	}
	return nil
}

func (s groupState) take(o *record.Op, known bool) groupState {
	t := turn{o.Generation, o.Epoch, o.ID, o.Seq, known, o.Device, o.Packages}
	s.turns = append(slices.Clip(s.turns), t)
	if o.Kind == record.Create {
		s.generation, s.epoch = o.Generation, firstEpoch
	} else {
		s.epoch++
	}
	return s
}

// learn notes the answer of a turn that was taken without one.
func (s groupState) learn(w *turn, seq uint64) groupState {
	if w.known {
		return s
	}
	s.turns = slices.Clone(s.turns)
	t := s.find(w.generation, w.epoch)
	t.seq, t.known = seq, true
	return s
}

func (s groupState) arrived(device string, generation uint32) *arrival {
	for i := range s.arrivals {
		if a := &s.arrivals[i]; a.device == device && a.generation == generation {
			return a
		}
	}
	return nil
}

// welcome is the winner's, and comes once: the same place in the inbox may be read again.
func (s groupState) welcome(o *record.Op) (bool, groupState) {
	w := s.find(o.Generation, 0)
	if w == nil || w.id != o.Content || !slices.Contains(w.welcomed, o.Device) {
		return false, s
	}
	if a := s.arrived(o.Device, o.Generation); a != nil {
		return a.seq == o.Seq, s
	}
	s.arrivals = append(slices.Clip(s.arrivals), arrival{o.Device, o.Generation, 0, o.Seq})
	return true, s
}

// groupHistory makes the operations on one channel's group from what was recorded of it.
func groupHistory(ops []*record.Op) []porcupine.Operation {
	b := &groupBuilder{turns: map[place]*contest{}}
	for _, o := range ops {
		b.end = max(b.end, o.Call, o.Return)
		b.sort(o)
	}
	for _, o := range b.out {
		b.end = max(b.end, o.Return)
	}
	for _, c := range b.order {
		b.resolve(c)
	}
	return b.out
}

// place is a turn that one attempt wins.
type place struct {
	generation uint32
	epoch      uint64
}

// contest is everything that is known of a place.
type contest struct {
	unknown  []*record.Op     // The first attempt of each content whose outcome is not known.
	evidence map[string]int64 // Contents that won: when that was first known.
}

type groupBuilder struct {
	turns map[place]*contest
	order []*contest
	end   int64
	out   []porcupine.Operation
}

func (b *groupBuilder) contest(o *record.Op) *contest {
	at := place{o.Generation, o.Epoch}
	c, ok := b.turns[at]
	if !ok {
		c = &contest{evidence: map[string]int64{}}
		b.turns[at] = c
		b.order = append(b.order, c)
	}
	return c
}

func (c *contest) won(id string, at int64) {
	if t, ok := c.evidence[id]; !ok || at < t {
		c.evidence[id] = at
	}
}

func (b *groupBuilder) add(o *record.Op, ret int64) {
	b.out = append(b.out, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Return: max(o.Call, ret)})
}

func (b *groupBuilder) sort(o *record.Op) {
	switch {
	case o.Kind == record.Welcome:
		b.contest(o).won(o.Content, o.Return)
	case o.Kind == record.Push:
		b.contest(o).won(o.ID, o.Return)
	case o.Kind != record.Create && o.Kind != record.Commit:
	case o.Outcome == record.Unknown:
		c := b.contest(o)
		if !slices.ContainsFunc(c.unknown, func(p *record.Op) bool { return p.ID == o.ID }) {
			c.unknown = append(c.unknown, o)
		}
		return
	case o.Outcome == record.OK:
		b.contest(o).won(o.ID, o.Return)
	case o.Code != codeEpochConflict && o.Code != codeGenerationConflict:
		return // It says nothing about whose turn it is; of a Commit the log has it.
	}
	b.add(o, o.Return)
}

// resolve adds attempts without an answer: where it is known who won, only the winner's, which took the turn, if it did,
// before that was known; otherwise all of them, at any time after their calls.
func (b *groupBuilder) resolve(c *contest) {
	for _, o := range c.unknown {
		switch at, won := c.evidence[o.ID]; {
		case won:
			b.add(o, at)
		case len(c.evidence) == 0:
			b.add(o, b.end+1)
		}
	}
}
