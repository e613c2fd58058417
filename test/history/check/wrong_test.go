package check

import (
	"slices"
	"testing"

	"quicproquo.dev/test/history/record"
)

// wrongs are what a cell must not do: each changes a right history into one that has it, and names the models of which one
// at least must refuse it.
var wrongs = []struct {
	name, world string
	models      []string
	change      func(h *record.History) bool // False: this history has no place for it.
}{
	{"an accepted message is lost, its sequence goes to another", "messages", []string{"log"}, func(h *record.History) bool {
		return lose(h, true)
	}},
	{"the last accepted message is lost", "messages", []string{"log"}, func(h *record.History) bool { return lose(h, false) }},
	{"a message is stored twice", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Enqueue, func(o *record.Op) bool {
			if !o.Duplicate {
				return false
			}
			o.Duplicate, o.Seq = false, top(h)+1
			for i := range h.Ops {
				if k := h.Ops[i].Kind; k == record.Complete {
					h.Ops[i].Seq++
				}
			}
			return true
		})
	}},
	{"a repetition is answered with another sequence", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Enqueue, func(o *record.Op) bool {
			o.Seq += b2u(o.Duplicate)
			return o.Duplicate
		})
	}},
	{"a repetition is answered with another time", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Enqueue, func(o *record.Op) bool {
			o.At += int64(b2u(o.Duplicate))
			return o.Duplicate
		})
	}},
	{"a device reads two messages the other way round", "messages", []string{"log"}, func(h *record.History) bool {
		return pushes(h, func(a, b *record.Op) bool {
			a.ID, b.ID, a.From, b.From, a.Content, b.Content, a.At, b.At = b.ID, a.ID, b.From, a.From, b.Content, a.Content, b.At, a.At
			return true
		})
	}},
	{"a device is pushed two messages the other way round", "messages", []string{"cursor"}, func(h *record.History) bool {
		return pushes(h, func(a, b *record.Op) bool {
			*a, *b = *b, *a
			a.Call, a.Return, b.Call, b.Return = b.Call, b.Return, a.Call, a.Return
			return true
		})
	}},
	{"all devices read two messages the other way round, against the order in which they were accepted", "messages", []string{"log"}, swapEverywhere},
	{"a device misses a message", "messages", []string{"cursor"}, func(h *record.History) bool {
		return pushes(h, func(a, b *record.Op) bool {
			b.Prev = a.Prev
			a.Kind = record.Fault
			return b.Prev > 0 // Else it may be one that it had acknowledged.
		})
	}},
	{"a device misses a message and is told so", "messages", []string{"cursor"}, func(h *record.History) bool {
		return pushes(h, func(_, b *record.Op) bool { b.Prev--; return true })
	}},
	{"a device is pushed a message twice", "messages", []string{"cursor"}, func(h *record.History) bool {
		return pushes(h, func(a, b *record.Op) bool {
			again := *b
			again.Call++
			again.Return++
			h.Ops = append(h.Ops, again)
			return a != b
		})
	}},
	{"a device goes on beyond what it acknowledged", "messages", []string{"cursor"}, func(h *record.History) bool {
		return subscriptions(h, func(first *record.Op, acked, _ uint64) bool { first.Seq = acked + 2; return true })
	}},
	{"a stored cursor goes back", "messages", []string{"cursor"}, func(h *record.History) bool {
		return subscriptions(h, func(first *record.Op, _, floor uint64) bool {
			if floor == 0 {
				return false
			}
			first.Seq = floor
			return true
		})
	}},
	{"a stored cursor goes back long after a crash of the database", "messages", []string{"cursor"}, func(h *record.History) bool {
		h.Ops = append(h.Ops, record.Op{Kind: record.Fault, Code: CrashOfDatabase, Call: 2, Return: 3})
		return subscriptions(h, func(first *record.Op, _, floor uint64) bool {
			ok := floor > 0
			first.Seq = floor
			return ok
		})
	}},
	{"a device reads a message nobody sent", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Push, func(o *record.Op) bool { o.ID = "nobody's"; return true })
	}},
	{"a message is read before it was sent", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Push, func(o *record.Op) bool {
			first := int64(1 << 62)
			for _, e := range h.Ops {
				if e.Kind == record.Enqueue && e.ID == o.ID && e.Device == o.From {
					first = min(first, e.Call)
				}
			}
			o.Call, o.Return = first-1, first-1
			return first > 1
		})
	}},
	{"a message changes its content", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Push, func(o *record.Op) bool {
			ok := o.Content != ""
			o.Content += "!"
			return ok
		})
	}},
	{"a message changes its sender", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Push, func(o *record.Op) bool { o.From += "!"; return true })
	}},
	{"a device is told that it has caught up, and has not", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Complete, func(o *record.Op) bool { o.Seq--; return o.Seq > 0 })
	}},
	{"a repetition of a stored message is refused", "messages", []string{"log"}, func(h *record.History) bool {
		return each(h, record.Enqueue, func(o *record.Op) bool {
			if !o.Duplicate || !after(h, o) {
				return false
			}
			o.Outcome, o.Code, o.Seq = record.Refused, "notFound", 0
			return true
		})
	}},
	{"an acknowledgement of the pushed is refused", "messages", []string{"cursor"}, func(h *record.History) bool {
		return each(h, record.Ack, func(o *record.Op) bool { o.Outcome, o.Code = record.Refused, "invalidCursor"; return true })
	}},
	{"what was acknowledged comes again after a quiet end", "messages", []string{"cursor"}, func(h *record.History) bool {
		h.Ops = append(h.Ops, record.Op{Kind: record.Quiet, Channel: "c", Device: "d1", Count: 1, Call: 1 << 60, Return: 1 << 60, Outcome: record.OK})
		return true
	}},
	{"two win a generation", "creations", []string{"group"}, func(h *record.History) bool {
		return each(h, record.Create, func(o *record.Op) bool {
			if o.Outcome != record.Refused || !answered(h, record.Create, o) {
				return false
			}
			o.Outcome, o.Code, o.Seq = record.OK, "", uint64(o.Generation)*10
			return true
		})
	}},
	{"the winner is told it lost when it asks again", "creations", []string{"group"}, func(h *record.History) bool {
		return againTheSame(h, record.Create, func(o *record.Op) { o.Outcome, o.Code, o.Seq = record.Refused, codeGenerationConflict, 0 })
	}},
	{"the winner is told another start when it asks again", "creations", []string{"group"}, func(h *record.History) bool {
		return againTheSame(h, record.Create, func(o *record.Op) { o.Seq++ })
	}},
	{"a Welcome of the loser", "creations", []string{"group"}, func(h *record.History) bool {
		return each(h, record.Welcome, func(o *record.Op) bool {
			id := map[bool]string{true: "2", false: "1"}[o.Content[10] == '1']
			o.Content = o.Content[:10] + id + o.Content[11:]
			return true
		})
	}},
	{"a Welcome twice", "creations", []string{"group"}, func(h *record.History) bool {
		return each(h, record.Welcome, func(o *record.Op) bool {
			again := *o
			again.Seq, again.Prev = o.Seq+1, o.Seq
			again.Call++
			again.Return++
			h.Ops = append(h.Ops, again)
			return true
		})
	}},
	{"no Welcome", "creations", []string{"group"}, func(h *record.History) bool {
		last := -1
		for i := range h.Ops {
			if h.Ops[i].Kind == record.Welcome {
				last = i
			}
		}
		if last < 0 || !won(h, h.Ops[last].Generation) {
			return false
		}
		h.Ops = slices.Delete(h.Ops, last, last+1)
		return true
	}},
	{"a generation goes back", "creations", []string{"group"}, func(h *record.History) bool {
		return each(h, record.Open, func(o *record.Op) bool { o.Generation--; return true })
	}},
	{"a pair has two channels", "creations", []string{"pair"}, func(h *record.History) bool {
		h.Ops = append(h.Ops, record.Op{Kind: record.Open, Pair: "p", Channel: "another", Call: 1, Return: 2, Outcome: record.OK})
		return slices.ContainsFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Open && o.Channel == "c" })
	}},
	{"two Commits end an epoch", "commits", []string{"group"}, func(h *record.History) bool {
		return each(h, record.Commit, func(o *record.Op) bool {
			if o.Outcome != record.Refused || !answered(h, record.Commit, o) {
				return false
			}
			o.Outcome, o.Code, o.Seq = record.OK, "", 1
			return true
		})
	}},
	{"the winning Commit is refused when it is handed in again", "commits", []string{"group"}, func(h *record.History) bool {
		return againTheSame(h, record.Commit, func(o *record.Op) {
			o.Outcome, o.Code, o.Seq, o.Duplicate = record.Refused, codeEpochConflict, 0, false
		})
	}},
	{"an epoch is skipped", "commits", []string{"group", "log"}, func(h *record.History) bool {
		h.Ops = slices.DeleteFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Commit && o.Epoch == 1 })
		return slices.ContainsFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Commit && o.Outcome == record.OK })
	}},
	{"a KeyPackage for two requests", "claims", []string{"packages"}, func(h *record.History) bool {
		var first *record.Op
		return each(h, record.Claim, func(o *record.Op) bool {
			if o.Outcome != record.OK || o.LastResort {
				return false
			}
			if first == nil || o.ID == first.ID {
				first = o
				return false
			}
			o.Content = first.Content
			return true
		})
	}},
	{"another KeyPackage for the same request", "claims", []string{"packages"}, func(h *record.History) bool {
		return againTheSame(h, record.Claim, func(o *record.Op) { o.Content = "another" })
	}},
	{"a KeyPackage that was never uploaded", "claims", []string{"packages"}, func(h *record.History) bool {
		return each(h, record.Claim, func(o *record.Op) bool {
			o.Content = "nobody's"
			return o.Outcome == record.OK && !o.LastResort
		})
	}},
	{"last resort though there are others", "claims", []string{"packages"}, func(h *record.History) bool {
		h.Ops = append(h.Ops, record.Op{Kind: record.Upload, Device: "d", Packages: make100(), Call: 1, Return: 2, Outcome: record.OK})
		return each(h, record.Claim, func(o *record.Op) bool { return o.LastResort })
	}},
	{"none though there are some", "claims", []string{"packages"}, func(h *record.History) bool {
		h.Ops = append(h.Ops, record.Op{Kind: record.Claim, Device: "d", From: "d9", ID: "r9", Call: 1 << 60, Return: 1 << 60, Outcome: record.OK})
		return true
	}},
}

// Each wrong thing is refused wherever it is put into histories of many shapes, and by the model that it is about.
func TestWrongHistoriesAreRefused(t *testing.T) {
	t.Parallel()
	for _, w := range wrongs {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for seed := uint64(0); seed < 40 && tried < 12; seed++ {
				h := worlds[w.world](seed, 60)
				if !w.change(h) {
					continue
				}
				tried++
				r := judge(t, h)
				if !slices.ContainsFunc(r.Findings, func(f *Finding) bool { return slices.Contains(w.models, f.Model) && !f.Undecided }) {
					t.Fatalf("seed %d: not noticed: %v", seed, r.Findings)
				}
			}
			if tried < 5 {
				t.Errorf("only %d histories have a place for it", tried)
			}
		})
	}
}
