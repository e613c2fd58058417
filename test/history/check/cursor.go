package check

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// cursorState is how far a device is in a channel.
type cursorState struct {
	acked uint64 // The highest that it ever acknowledged, answered or not.
	floor uint64 // Where an earlier subscription went on from: the stored cursor was there.
	last  uint64 // Pushed last in this subscription; 0: nothing yet.
	shaky bool   // The database is crashing, which may forget the cursors of the last second.
	sure  bool   // It was not when this subscription began.
}

// cursorModel is one device's reading of one channel. The device does one thing at a time.
func cursorModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return cursorState{} },
		Step: func(state, input, _ any) (bool, any) {
			return state.(cursorState).apply(input.(*record.Op)) //nolint:forcetypeassert // what cursorHistory makes.
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(*record.Op)) }, //nolint:forcetypeassert // as above.
		DescribeState: func(state any) string {
			s := state.(cursorState) //nolint:forcetypeassert // as above.
			return fmt.Sprintf("acked %d, pushed %d, went on from %d", s.acked, s.last, s.floor)
		},
	}
}

func (s cursorState) apply(o *record.Op) (bool, cursorState) {
	switch o.Kind { //nolint:exhaustive // cursorHistory takes no others.
	case record.Subscribe:
		s.last, s.sure = 0, !s.shaky
	case record.Fault:
		s.shaky, s.floor, s.sure = o.Count > 0, 0, false
	case record.Ack:
		s.acked = max(s.acked, o.Seq)
		return o.Outcome != record.Refused, s
	case record.Quiet:
		return o.Count == 0, s
	case record.Push, record.Welcome, record.Notice: // The device's inbox is a channel too.
		if s.last == 0 {
			begin := o.Seq - 1
			ok := o.Seq > 0 && o.Prev == 0 && begin <= s.acked && begin >= s.floor
			s.last = o.Seq
			if s.sure {
				s.floor = begin
			}
			return ok, s
		}
		ok := o.Prev == s.last && o.Seq == s.last+1
		s.last = o.Seq
		return ok, s
	}
	return true, s
}

// cursorHistory makes each operation one moment: an acknowledgement may count from when it was sent. A fault of the database
// has two, its beginning and its end.
func cursorHistory(ops []*record.Op) []porcupine.Operation {
	out := make([]porcupine.Operation, 0, len(ops))
	for _, o := range ops {
		if o.Kind == record.Fault {
			begin, end := *o, *o
			begin.Count, end.Count = 1, 0
			out = append(out, porcupine.Operation{Input: &begin, Call: o.Call, Return: o.Call}, porcupine.Operation{Input: &end, Call: o.Return, Return: o.Return})
			continue
		}
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Return: o.Call})
	}
	return out
}
