package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// step is what an operation does to a channel's log.
type step int

const (
	stepAppend  step = iota // Accepted as a new message.
	stepRepeat              // Answered as a duplicate.
	stepReused              // Refused: the delivery id has other content.
	stepRefused             // Refused for any other reason.
	stepRead
	stepEnd // The log's length was seen.
)

// logOp is an operation on a channel's log, its outcome included.
type logOp struct {
	step step
	entry
	seq uint64
	op  *record.Op
}

type logState struct {
	last *node
	keys bits // Of the delivery ids that are in the log.
}

// logModel is a channel as a list of messages.
func logModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return logState{} },
		Step: func(state, input, _ any) (bool, any) {
			return input.(*logOp).apply(state.(logState)) //nolint:forcetypeassert // what logHistory makes.
		},
		Equal: func(a, b any) bool {
			x, y := a.(logState), b.(logState) //nolint:forcetypeassert // as above.
			return x.last.len() == y.last.len() && x.last.sum() == y.last.sum()
		},
		Hash:              func(state any) uint64 { return state.(logState).last.sum() },                             //nolint:forcetypeassert // as above.
		DescribeOperation: func(input, _ any) string { return describe(input.(*logOp).op) },                          //nolint:forcetypeassert // as above.
		DescribeState:     func(state any) string { return fmt.Sprintf("%d messages", state.(logState).last.len()) }, //nolint:forcetypeassert // as above.
	}
}

func (o *logOp) apply(s logState) (bool, logState) {
	at := s.last.find(o.seq)
	switch o.step {
	case stepAppend:
		if s.keys.has(o.key) || o.seq != s.last.len()+1 {
			return false, s
		}
		return true, logState{s.last.append(o.entry), s.keys.with(o.key)}
	case stepRepeat, stepRead:
		return at != nil && at.matches(o.entry), s
	case stepReused:
		return s.keys.has(o.key), s
	case stepRefused:
		return !s.keys.has(o.key), s
	default:
		return s.last.len() == o.seq, s
	}
}

// matches compares what is known of both.
func (e entry) matches(o entry) bool {
	return e.key == o.key && e.at == o.at && e.from == o.from && (e.content == o.content || e.content == "" || o.content == "")
}

// logHistory makes the operations on one channel's log from what was recorded of it.
func logHistory(ops []*record.Op) []porcupine.Operation {
	h := &logBuilder{keys: map[string]*message{}}
	for _, o := range ops {
		h.sort(o)
	}
	for _, m := range h.order {
		h.resolve(m)
	}
	return h.out
}

// message is everything that is known of one delivery id of one sender.
type message struct {
	key     int
	unknown []*record.Op // Attempts whose outcome is not known.
	fresh   bool         // An attempt was answered as the first.
	seen    []logOp      // Answers to repetitions, and pushes.
}

type logBuilder struct {
	keys  map[string]*message
	order []*message
	out   []porcupine.Operation
}

func (h *logBuilder) message(device, id string) *message {
	m, ok := h.keys[device+id]
	if !ok {
		m = &message{key: len(h.order)}
		h.keys[device+id] = m
		h.order = append(h.order, m)
	}
	return m
}

func (h *logBuilder) add(call, ret int64, o logOp) {
	h.out = append(h.out, porcupine.Operation{ClientId: o.op.Client, Input: &o, Call: call, Return: ret})
}

func (h *logBuilder) sort(o *record.Op) {
	switch o.Kind { //nolint:exhaustive // the others are not about the log.
	case record.Enqueue, record.Commit:
		h.call(o)
	case record.Push:
		m := h.message(o.From, o.ID)
		l := logOp{stepRead, entry{m.key, o.Content, o.At, o.From}, o.Seq, o}
		m.seen = append(m.seen, l)
		h.add(o.Call, o.Return, l)
	case record.CaughtUp, record.Open: // openDm tells the last sequence.
		h.add(o.Call, o.Return, logOp{step: stepEnd, seq: o.Seq, op: o})
	case record.Complete: // Since nobody writes any more, also at the end.
		h.add(o.Return, o.Return, logOp{step: stepEnd, seq: o.Seq, op: o})
	}
}

func (h *logBuilder) call(o *record.Op) {
	m := h.message(o.Device, o.ID)
	l := logOp{stepAppend, entry{m.key, o.Content, o.At, o.Device}, o.Seq, o}
	switch {
	case o.Outcome == record.Unknown:
		m.unknown = append(m.unknown, o)
		return
	case o.Outcome == record.Refused && o.Kind == record.Commit && o.Code == codeEpochConflict:
		return // The group model has it.
	case o.Outcome == record.Refused && o.Code == codeReused:
		l.step = stepReused
	case o.Outcome == record.Refused:
		l.step = stepRefused
	case o.Duplicate:
		l.step = stepRepeat
		m.seen = append(m.seen, l)
	default:
		m.fresh = true
	}
	h.add(o.Call, o.Return, l)
}

// resolve adds the attempt that stored a message though it was never answered. It was one of those with that content
// whose outcome is unknown: its earliest moment is when the first of them was called, its latest when the message was
// first seen. Of a message that nobody ever saw there is nothing to add.
func (h *logBuilder) resolve(m *message) {
	if m.fresh || len(m.seen) == 0 || len(m.unknown) == 0 {
		return
	}
	first := slices.MinFunc(m.seen, func(a, b logOp) int { return cmp.Compare(a.op.Return, b.op.Return) })
	for _, s := range m.seen {
		if first.content == "" {
			first.content = s.content // An own message comes without.
		}
	}
	could := slices.DeleteFunc(slices.Clone(m.unknown), func(o *record.Op) bool { return first.content != "" && o.Content != first.content })
	if len(could) == 0 {
		could = m.unknown // What was read is not what was sent; the model will say so.
	}
	earliest := slices.MinFunc(could, func(a, b *record.Op) int { return cmp.Compare(a.Call, b.Call) })
	l := logOp{stepAppend, first.entry, first.seq, earliest}
	l.content = earliest.Content
	h.add(earliest.Call, max(earliest.Call, first.op.Return), l)
}
