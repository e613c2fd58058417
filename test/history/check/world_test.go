package check

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"quicproquo.dev/test/history/record"
)

// sim is a cell that does one thing at a time, and its clients, who are made to overlap: an operation takes effect at a
// moment, and is recorded as if it had begun some time before and ended some time after.
type sim struct {
	*rand.Rand
	now int64
	ops []record.Op

	log     []record.Op // As the messages were accepted.
	stored  map[string]record.Op
	cursors map[string]uint64
	serial  int
}

func newSim(seed uint64) *sim {
	return &sim{Rand: rand.New(rand.NewPCG(seed, 1)), stored: map[string]record.Op{}, cursors: map[string]uint64{}} //nolint:gosec // tests.
}

// tick is a moment with room around it for calls and returns.
func (s *sim) tick() int64 {
	s.now += 1000
	return s.now
}

// around records an op that takes effect at t.
func (s *sim) around(o record.Op, t int64) record.Op {
	o.Call, o.Return = max(1, t-1-s.Int64N(3000)), t+1+s.Int64N(3000)
	if o.Outcome == "" {
		o.Outcome = record.OK
	}
	s.ops = append(s.ops, o)
	return o
}

func (s *sim) point(o record.Op) {
	o.Call = s.tick()
	o.Return, o.Outcome = o.Call, record.OK
	s.ops = append(s.ops, o)
}

// send stores a message, or answers a duplicate; the answer may get lost, the call too.
func (s *sim) send(device, id string) {
	t := s.tick()
	o := record.Op{Kind: record.Enqueue, Channel: "c", Device: device, ID: id, Content: "content of " + id}
	lost := s.IntN(10)
	if lost == 0 { // The call never arrived.
		o.Outcome = record.Unknown
		s.around(o, t)
		return
	}
	first, seen := s.stored[device+id]
	if seen {
		o.Seq, o.At, o.Duplicate = first.Seq, first.At, true
	} else {
		o.Seq, o.At = uint64(len(s.log)+1), t
		s.stored[device+id] = o
		s.log = append(s.log, o)
	}
	if lost == 1 { // The answer got lost.
		o.Outcome, o.Seq, o.At, o.Duplicate = record.Unknown, 0, 0, false
	}
	s.around(o, t)
}

// read has a device read on for up to n messages in a new subscription, and acknowledge some of them.
func (s *sim) read(device string, n int) {
	at := s.cursors[device]
	begin := s.tick()
	s.ops = append(s.ops, record.Op{Kind: record.Subscribe, Device: device, Call: begin, Return: begin + 1, Outcome: record.OK})
	prev := uint64(0)
	for i := at; i < uint64(len(s.log)) && n > 0; i++ {
		m := s.log[i]
		p := record.Op{Kind: record.Push, Channel: "c", Device: device, From: m.Device, ID: m.ID, Content: m.Content, Seq: m.Seq, Prev: prev, At: m.At}
		if m.Device == device {
			p.Content = ""
		}
		s.point(p)
		prev = m.Seq
		n--
		if s.IntN(3) == 0 {
			s.point(record.Op{Kind: record.Ack, Channel: "c", Device: device, Seq: m.Seq})
			if s.IntN(4) > 0 { // Else the cell forgets it.
				s.cursors[device] = m.Seq
			}
		}
	}
	if n > 0 {
		end := record.Op{Kind: record.CaughtUp, Channel: "c", Device: device, Seq: uint64(len(s.log)), Outcome: record.OK, Call: begin}
		end.Return = s.tick()
		s.ops = append(s.ops, end)
	}
}

// messages is a run of one channel: three devices write and read, and in the end read everything.
func messages(seed uint64, n int) *record.History {
	s := newSim(seed)
	devices := []string{"d1", "d2", "d3"}
	var open []string
	for range n {
		d := devices[s.IntN(3)]
		switch s.IntN(5) {
		case 0:
			s.read(d, 1+s.IntN(8))
		case 1:
			if len(open) > 0 { // Again, perhaps.
				again := open[s.IntN(len(open))]
				s.send(again[:2], again[2:])
				continue
			}
		default:
			s.serial++
			id := fmt.Sprint("m", s.serial)
			open = append(open, d+id)
			s.send(d, id)
		}
	}
	s.now += 10_000
	for _, d := range devices {
		s.read(d, 1<<30)
		s.ops[len(s.ops)-1].Kind = record.Complete
	}
	return &record.History{Ops: s.ops}
}

// creations are races for the generations of a channel by two devices, told to a third.
func creations(seed uint64, n int) *record.History {
	s := newSim(seed)
	inbox := 0
	for g := uint32(1); g <= uint32(n); g++ {
		winner := ""
		for range 2 + s.IntN(6) {
			d := []string{"d1", "d2"}[s.IntN(2)]
			o := record.Op{Kind: record.Create, Channel: "c", Device: d, Generation: g, ID: fmt.Sprint("group of ", d, g), Packages: []string{"d3"}}
			t := s.tick()
			if s.IntN(5) > 0 {
				if winner == "" {
					winner = o.ID
				}
				o.Seq = uint64(g) * 10
				if winner != o.ID {
					o.Seq, o.Outcome, o.Code = 0, record.Refused, codeGenerationConflict
				}
			} else {
				o.Outcome = record.Unknown
			}
			if s.IntN(5) == 0 {
				o.Seq, o.Outcome, o.Code = 0, record.Unknown, ""
			}
			s.around(o, t)
		}
		s.now += 10_000
		if winner == "" {
			break
		}
		inbox++
		prev := uint64(inbox - 1)
		s.point(record.Op{Kind: record.Welcome, Channel: "c", Device: "d3", Generation: g, Content: winner, Seq: uint64(inbox), Prev: prev})
		t := s.tick()
		s.around(record.Op{Kind: record.Open, Pair: "p", Channel: "c", Generation: g}, t)
		s.now += 10_000
	}
	s.point(record.Op{Kind: record.Complete, Channel: "c", Device: "d3"})
	return &record.History{Ops: s.ops}
}

// commits are races for the epochs of a channel's first generation.
func commits(seed uint64, n int) *record.History {
	s := newSim(seed)
	s.around(record.Op{Kind: record.Create, Channel: "c", Device: "d1", Generation: 1, ID: "first"}, s.tick())
	s.now += 10_000
	seq := uint64(0)
	for e := uint64(1); e <= uint64(n); e++ {
		winner := record.Op{}
		for range 2 + s.IntN(6) {
			d := []string{"d1", "d2"}[s.IntN(2)]
			o := record.Op{Kind: record.Commit, Channel: "c", Device: d, Generation: 1, Epoch: e, ID: fmt.Sprint(d, " at ", e), Content: fmt.Sprint("commit ", d, e)}
			t := s.tick()
			switch {
			case s.IntN(5) == 0:
				o.Outcome = record.Unknown
			case winner.ID == "":
				seq++
				o.Seq, o.At = seq, t
				winner = o
			case winner.ID == o.ID:
				o.Seq, o.At, o.Duplicate = winner.Seq, winner.At, true
			default:
				o.Outcome, o.Code = record.Refused, codeEpochConflict
			}
			s.around(o, t)
		}
		s.now += 10_000
		if winner.ID == "" {
			break
		}
		s.point(record.Op{Kind: record.Push, Channel: "c", Device: "d3", From: winner.Device, ID: winner.ID, Content: winner.Content, Seq: winner.Seq, Prev: winner.Seq - 1, At: winner.At, Generation: 1, Epoch: e})
	}
	s.point(record.Op{Kind: record.Complete, Channel: "c", Device: "d3", Seq: seq})
	return &record.History{Ops: s.ops}
}

// claims are uploads of a device and claims by others, which are repeated until they are answered.
func claims(seed uint64, n int) *record.History {
	s := newSim(seed)
	var left []string
	serial := 0
	s.around(record.Op{Kind: record.Upload, Device: "d", Content: "last"}, s.tick())
	s.now += 10_000
	for i := range n {
		if s.IntN(4) == 0 {
			var list []string
			for range 1 + s.IntN(4) {
				serial++
				list = append(list, fmt.Sprint("k", serial))
			}
			left = append(left, list...)
			o := record.Op{Kind: record.Upload, Device: "d", Packages: list}
			t := s.tick()
			if s.IntN(4) == 0 {
				o.Outcome = record.Unknown
				s.around(o, t)
				o.Outcome, o.Code = record.Refused, codeReusedPackage
				t = s.tick()
			}
			s.around(o, t)
			s.now += 10_000
		}
		s.claim(fmt.Sprint("r", i), &left)
	}
	return &record.History{Ops: s.ops}
}

func (s *sim) claim(id string, left *[]string) {
	o := record.Op{Kind: record.Claim, Device: "d", From: fmt.Sprint("d", s.IntN(4)), ID: id}
	given := o
	for taken := false; ; {
		t := s.tick()
		if s.IntN(6) == 0 { // The call got lost.
			o.Outcome = record.Unknown
			s.around(o, t)
			s.now += 10_000
			continue
		}
		if !taken {
			taken = true
			if given.Content, given.LastResort = "last", true; len(*left) > 0 {
				given.Content, given.LastResort = (*left)[0], false
				*left = (*left)[1:]
			}
		}
		if s.IntN(6) == 0 { // The answer got lost.
			o.Outcome = record.Unknown
			s.around(o, t)
			s.now += 10_000
			continue
		}
		s.around(given, t)
		if s.IntN(3) > 0 {
			break
		}
	}
	s.now += 10_000
}

func judge(t *testing.T, h *record.History) *Report {
	t.Helper()
	return within(h, 10*time.Second)
}
