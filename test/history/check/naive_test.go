package check

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// naive is a channel's log without any of logHistory's reasoning about unknown outcomes: each such call stores its message, or
// answers a duplicate, or does nothing, at any time after it began.
func naive() porcupine.Model {
	type state = []string
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state(nil)} },
		Step: func(s, input, _ any) []any {
			log, o := s.(state), input.(*record.Op)
			id := o.Device + o.ID
			stored := slices.Contains(log, id)
			at := func(seq uint64) string {
				if seq == 0 || seq > uint64(len(log)) {
					return ""
				}
				return log[seq-1]
			}
			grown := append(slices.Clip(log), id)
			keep := func(ok bool) []any {
				if ok {
					return []any{log}
				}
				return nil
			}
			switch {
			case o.Kind == record.Push:
				return keep(at(o.Seq) == o.From+o.ID)
			case o.Kind == record.CaughtUp, o.Kind == record.Complete:
				return keep(o.Seq == uint64(len(log)))
			case o.Outcome == record.Unknown && stored:
				return []any{log}
			case o.Outcome == record.Unknown:
				return []any{log, grown}
			case o.Duplicate:
				return keep(at(o.Seq) == id)
			case !stored && o.Seq == uint64(len(grown)):
				return []any{grown}
			}
			return nil
		},
		Equal: func(a, b any) bool { return slices.Equal(a.(state), b.(state)) },
	}
	return m.ToModel()
}

// What is concluded from pushes and repetitions about calls without an answer changes no verdict: on small histories, right
// ones and ones that were changed at random, the model with it and the model without it agree.
func TestReasoningAboutUnknownOutcomesIsSound(t *testing.T) {
	t.Parallel()
	refused, undecided := 0, 0
	for seed := range uint64(4000) {
		h := messages(seed, 3+int(seed%9))  //nolint:gosec // small.
		r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // tests.
		if seed%4 > 0 {
			disturb(h, r)
		}
		var ops []*record.Op
		var plain []porcupine.Operation
		for i := range h.Ops {
			o := &h.Ops[i]
			if logPart(o) == "" {
				continue
			}
			ops = append(ops, o)
			p := porcupine.Operation{Input: o, Call: o.Call, Return: o.Return}
			if o.Outcome == record.Unknown {
				p.Return = 1 << 61
			}
			if o.Kind == record.Complete {
				p.Call = o.Return
			}
			plain = append(plain, p)
		}
		slices.SortStableFunc(ops, func(a, b *record.Op) int { return int(a.Call - b.Call) })
		got := porcupine.CheckOperationsTimeout(logModel(), logHistory(ops), 2*time.Second)
		want := porcupine.CheckOperationsTimeout(naive(), plain, 2*time.Second)
		if want == porcupine.Unknown || got == porcupine.Unknown {
			undecided++
			continue
		}
		if got != want {
			t.Fatalf("seed %d: %s, without the reasoning %s\n%s", seed, got, want, dump(h))
		}
		if got == porcupine.Illegal {
			refused++
		}
	}
	t.Logf("report: 4000 small histories: %d refused by both models, %d too much for the one without reasoning", refused, undecided)
	if refused < 400 || undecided > 400 {
		t.Errorf("%d refused and %d undecided tell too little", refused, undecided)
	}
}

// disturb changes one operation somehow, but not what is sent or by whom.
func disturb(h *record.History, r *rand.Rand) {
	for range 10 {
		i := r.IntN(len(h.Ops))
		o := &h.Ops[i]
		switch {
		case o.Kind == record.Push && r.IntN(2) == 0:
			j := r.IntN(len(h.Ops))
			if p := &h.Ops[j]; p.Kind == record.Push {
				o.Seq, p.Seq = p.Seq, o.Seq
				return
			}
		case o.Kind == record.Push, o.Kind == record.Enqueue && o.Outcome == record.OK:
			o.Seq = max(1, o.Seq+uint64(r.IntN(3))-1)
			return
		case o.Kind == record.Enqueue && r.IntN(2) == 0:
			h.Ops = slices.Delete(h.Ops, i, i+1)
			return
		case o.Kind == record.Enqueue:
			o.Call += r.Int64N(20_000) - 10_000
			o.Return = max(o.Call, o.Return)
			return
		}
	}
}
