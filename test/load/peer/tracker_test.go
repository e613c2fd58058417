package peer

import (
	"encoding/binary"
	"testing"
	"time"
)

// send makes n contents of pair 0.
func send(k *Tracker, n int) [][]byte {
	var list [][]byte
	for range n {
		b := make([]byte, ContentSize)
		k.Fill(b, 0, time.Now())
		list = append(list, b)
	}
	return list
}

func TestTheTrackerSeesWhatGoesWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		arrive  []int
		refused []uint64
		want    Verdict
	}{
		"all well":             {arrive: []int{0, 1, 2, 3}},
		"nothing came":         {want: Verdict{Lost: 4}},
		"the last is lost":     {arrive: []int{0, 1, 2}, want: Verdict{Lost: 1}},
		"one between is lost":  {arrive: []int{0, 2, 3}, want: Verdict{Lost: 1}},
		"one came twice":       {arrive: []int{0, 1, 1, 2, 3}, want: Verdict{Doubled: 1}},
		"an old one again":     {arrive: []int{0, 1, 2, 3, 0}, want: Verdict{Doubled: 1}},
		"two changed places":   {arrive: []int{0, 2, 1, 3}, want: Verdict{Reordered: 1}},
		"late, and then again": {arrive: []int{0, 2, 1, 1, 3}, want: Verdict{Reordered: 1, Doubled: 1}},
		"refused, not lost":    {arrive: []int{0, 2}, refused: []uint64{1, 3}},
		"refused, and it came": {arrive: []int{0, 1, 2, 3}, refused: []uint64{3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := NewTracker(7, Topology{Pairs: 1, Devices: 1})
			sent := send(k, 4)
			for _, i := range c.arrive {
				k.Deliver(0, 0, sent[i])
			}
			for _, n := range c.refused {
				k.Refuse(0, n)
			}
			v := k.Judge()
			if v.Lost != c.want.Lost || v.Doubled != c.want.Doubled || v.Reordered != c.want.Reordered || v.Received != len(c.arrive) {
				t.Errorf("%+v, want %+v", v, c.want)
			}
			if broken := c.want.Lost+c.want.Doubled+c.want.Reordered > 0; broken != (v.Err() != nil) || k.Complete() != (c.want.Lost == 0) {
				t.Errorf("Err %v, Complete %v", v.Err(), k.Complete())
			}
		})
	}
}

func TestTheTrackerKeepsRunsAndPairsApart(t *testing.T) {
	t.Parallel()
	topology := Topology{Pairs: 2, Devices: 1}
	earlier, now := NewTracker(1, topology), NewTracker(2, topology)
	old := send(earlier, 1)[0]
	mine := send(now, 1)[0]
	now.Deliver(0, 0, old)
	now.Deliver(1, 0, mine) // The other recipient got it.
	if v := now.Judge(); v.Received != 0 || v.Lost != 1 || v.Foreign != 1 {
		t.Errorf("%+v", v)
	}
}

func TestContentsDiffer(t *testing.T) {
	t.Parallel()
	k := NewTracker(1, Topology{Pairs: 1, Devices: 1})
	seen := map[string]bool{}
	for i, b := range send(k, 1000) {
		if n := binary.LittleEndian.Uint64(b[8:]); n != uint64(i) {
			t.Fatalf("number %d is %d", i, n)
		}
		if seen[string(b[header:])] {
			t.Fatalf("content %d is as an earlier one", i)
		}
		seen[string(b[header:])] = true
	}
}
