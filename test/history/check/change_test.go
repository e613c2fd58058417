package check

import (
	"slices"

	"quicproquo.dev/test/history/record"
)

func make100() (list []string) {
	for i := range 100 {
		list = append(list, string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	return list
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// each offers the operations of a kind until change takes one.
func each(h *record.History, k record.Kind, change func(*record.Op) bool) bool {
	for i := len(h.Ops) / 3; i < len(h.Ops); i++ {
		if o := h.Ops[i]; o.Kind == k && change(&o) {
			h.Ops[i] = o
			return true
		}
	}
	return false
}

// answered says that another device than o's had a success for the same place.
func answered(h *record.History, k record.Kind, o *record.Op) bool {
	return slices.ContainsFunc(h.Ops, func(p record.Op) bool {
		return p.Kind == k && p.Outcome == record.OK && p.Generation == o.Generation && p.Epoch == o.Epoch && p.Device != o.Device
	})
}

// after says that o began when its message was known to be stored.
func after(h *record.History, o *record.Op) bool {
	return slices.ContainsFunc(h.Ops, func(p record.Op) bool {
		return p.Kind == record.Enqueue && p.Outcome == record.OK && p.ID == o.ID && p.Device == o.Device && p.Return < o.Call
	})
}

func won(h *record.History, generation uint32) bool {
	return slices.ContainsFunc(h.Ops, func(o record.Op) bool {
		return o.Kind == record.Create && o.Outcome == record.OK && o.Generation == generation
	})
}

// againTheSame changes the second success of one attempt.
func againTheSame(h *record.History, k record.Kind, change func(*record.Op)) bool {
	seen := map[string]bool{}
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Kind != k || o.Outcome != record.OK {
			continue
		}
		if seen[o.ID] {
			change(o)
			return true
		}
		seen[o.ID] = true
	}
	return false
}

func top(h *record.History) (n uint64) {
	for i := range h.Ops {
		n = max(n, h.Ops[i].Seq)
	}
	return n
}

// lose forgets an accepted message: the last one, or one in the middle, behind which all move up.
func lose(h *record.History, middle bool) bool {
	gone := top(h)
	if middle {
		gone /= 2
	}
	sure := slices.ContainsFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Enqueue && o.Outcome == record.OK && o.Seq == gone })
	if gone < 2 || !sure {
		return false
	}
	h.Ops = slices.DeleteFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Push && o.Seq == gone })
	for i := range h.Ops {
		if o := &h.Ops[i]; (o.Kind == record.Push || o.Kind == record.Complete || o.Kind == record.CaughtUp || o.Kind == record.Ack) && o.Seq >= gone {
			o.Seq--
			o.Prev -= b2u(o.Prev >= gone)
		}
	}
	return true
}

// pushes offers two pushes that follow each other in a subscription.
func pushes(h *record.History, change func(a, b *record.Op) bool) bool {
	last := map[string]int{}
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Kind != record.Push {
			continue
		}
		if j, ok := last[o.Device]; ok && o.Prev == h.Ops[j].Seq && i > len(h.Ops)/3 && change(&h.Ops[j], o) {
			return true
		}
		last[o.Device] = i
	}
	return false
}

// subscriptions offers the first push of a later subscription, with what was acknowledged and where others began.
func subscriptions(h *record.History, change func(first *record.Op, acked, floor uint64) bool) bool {
	type place struct {
		acked, floor uint64
		fresh        bool
	}
	at := map[string]*place{}
	for i := range h.Ops {
		o := &h.Ops[i]
		p, ok := at[o.Device]
		if !ok {
			p = &place{}
			at[o.Device] = p
		}
		switch o.Kind { //nolint:exhaustive // none of the others.
		case record.Subscribe:
			p.fresh = true
		case record.Ack:
			p.acked = max(p.acked, o.Seq)
		case record.Push:
			if p.fresh && change(o, p.acked, p.floor) {
				return true
			}
			if p.fresh {
				p.floor = o.Seq - 1
			}
			p.fresh = false
		}
	}
	return false
}

// swapEverywhere exchanges two messages for all readers though their senders were answered one after the other.
func swapEverywhere(h *record.History) bool {
	var first, second *record.Op
	for i := range h.Ops {
		if o := &h.Ops[i]; o.Kind == record.Enqueue && o.Outcome == record.OK && !o.Duplicate {
			if first != nil && first.Return < o.Call && o.Seq > 3 {
				second = o
				break
			}
			first = o
		}
	}
	if second == nil {
		return false
	}
	a, b := *first, *second
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Kind != record.Push && o.Kind != record.Enqueue {
			continue
		}
		switch sender := map[bool]string{true: o.From, false: o.Device}[o.Kind == record.Push]; {
		case o.ID == a.ID && sender == a.Device && (o.Kind == record.Push || o.Outcome == record.OK):
			o.Seq = b.Seq
		case o.ID == b.ID && sender == b.Device && (o.Kind == record.Push || o.Outcome == record.OK):
			o.Seq = a.Seq
		}
	}
	return true
}
