package server_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// history is a group channel through which random changes go, and what its members hold of it.
type history struct {
	t       *testing.T
	cells   []*celltest.Cell
	rng     *rand.Rand
	channel ids.ID
	inside  []*celltest.Chat // The first is the admin's, who stays.
	outside []*celltest.Person
	log     []string
	lastSeq uint64
}

// TestRandomHistoriesOfGroups: whatever members do, the server agrees with them on epoch and members after each step, and
// they with each other. A failing history is run again by HISTORY_SEED.
func TestRandomHistoriesOfGroups(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	seeds := []uint64{uint64(time.Now().UnixNano())} //nolint:gosec // any seed.
	if s := os.Getenv("HISTORY_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds[0] = n
	} else {
		for i := range 7 {
			seeds = append(seeds, seeds[0]+uint64(i)+1) //nolint:gosec // small.
		}
	}
	for _, seed := range seeds {
		h := &history{t: t, cells: []*celltest.Cell{one, two}, rng: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // repeatable.
		h.run(seed, 30)
	}
}

func (h *history) run(seed uint64, steps int) {
	defer func() {
		if h.t.Failed() {
			h.t.Logf("HISTORY_SEED=%d: %v", seed, h.log)
		}
	}()
	for i := range 6 {
		h.outside = append(h.outside, h.cells[0].Signup(h.t, fmt.Sprintf("p%d-%d", seed, i)))
	}
	admin := h.outside[0]
	h.inside = celltest.Group(h.t, admin, h.outside[1], h.outside[2])
	h.channel = h.inside[0].Channel
	h.outside = h.outside[3:]
	for range steps {
		h.step()
		h.check()
		if h.t.Failed() {
			return
		}
	}
}

func (h *history) any() *celltest.Chat { return h.inside[h.rng.IntN(len(h.inside))] }

func (h *history) step() {
	switch h.rng.IntN(9) {
	case 0, 1:
		h.add()
	case 2:
		h.remove()
	case 3:
		h.further()
	case 4:
		h.resync()
	case 5:
		h.leave()
	case 6:
		h.race()
	case 7:
		h.revoke()
	case 8:
		c := h.any()
		h.did("%s writes", c.Name)
		h.lastSeq = send(h.t, c, "text")
	}
}

func (h *history) did(format string, a ...any) { h.log = append(h.log, fmt.Sprintf(format, a...)) }

// everybody takes a Commit, but who made it and who was removed by it.
func (h *history) everybody(r []byte, but *celltest.Chat) {
	var stay []*celltest.Chat
	for _, c := range h.inside {
		if c != but {
			if err := c.TryTake(r, time.Now()); err != nil {
				h.t.Errorf("%s: %v", c.Name, err)
			}
		}
		if c.Group.Active() {
			stay = append(stay, c)
		} else if !h.knows(c.Person) {
			h.outside = append(h.outside, c.Person)
		}
	}
	h.inside = stay
}

// knows reports whether another device of the account is outside already: it comes in by any of them.
func (h *history) knows(p *celltest.Person) bool {
	for _, o := range h.outside {
		if o.Account() == p.Account() {
			return true
		}
	}
	return false
}

func (h *history) member(p *celltest.Person) bool {
	for _, c := range h.inside {
		if c.Account() == p.Account() {
			return true
		}
	}
	return false
}

// add: the admin takes an account in, by one of its devices.
func (h *history) add() {
	for i, p := range h.outside {
		if h.member(p) {
			continue
		}
		h.did("add %s", p.Name)
		p.Reconnect(h.cells[h.rng.IntN(2)])
		r, answer := h.inside[0].Commit(mls.CommitOptions{}, p)
		h.lastSeq = answer.Seq
		h.everybody(r.Commit, h.inside[0])
		h.outside = append(h.outside[:i:i], h.outside[i+1:]...)
		h.inside = append(h.inside, p.JoinWelcome(h.channel, 1, r.Welcomes[0].Welcome))
		return
	}
}

// remove: the admin takes a device out.
func (h *history) remove() {
	target := h.any()
	if target.Account() == h.inside[0].Account() {
		return
	}
	h.did("remove %s", target.Name)
	r, answer := h.inside[0].Commit(h.inside[0].Removing(target.Person))
	h.lastSeq = answer.Seq
	h.everybody(r.Commit, h.inside[0])
}

// further: a member's new device comes in by itself.
func (h *history) further() {
	if len(h.inside) > 10 {
		return
	}
	owner := h.any()
	h.did("%s brings a device", owner.Name)
	d := owner.Further(h.cells[h.rng.IntN(2)])
	r, chat := d.External(h.channel, false)
	h.lastSeq = celltest.Must[*wire.CommitResponse](d.Conn, r).Seq
	h.everybody(r.Commit, nil)
	h.inside = append(h.inside, chat)
}

// resync: a device that lost its state replaces itself.
func (h *history) resync() {
	c := h.any()
	h.did("%s resyncs", c.Name)
	r, chat := c.External(h.channel, true)
	h.lastSeq = celltest.Must[*wire.CommitResponse](c.Conn, r).Seq
	for i := range h.inside {
		if h.inside[i] == c {
			h.inside[i] = chat
		}
	}
	h.everybody(r.Commit, chat)
}

// leave: a member asks to be removed, and another commits it.
func (h *history) leave() {
	c, by := h.any(), h.any()
	if c == by || c.Account() == h.inside[0].Account() {
		return
	}
	h.did("%s leaves by %s", c.Name, by.Name)
	leaf := c.Group.OwnIndex()
	p := c.Propose(mls.ProposeOptions{Remove: &leaf})
	celltest.Must[*wire.EnqueueResponse](c.Conn, p)
	for _, o := range h.inside {
		if o != c {
			o.Take(p.Proposal)
		}
	}
	r, answer := by.Commit(mls.CommitOptions{})
	h.lastSeq = answer.Seq
	h.everybody(r.Commit, by)
}

// race: two commit at once; the one that loses takes the other's Commit and commits after it.
func (h *history) race() {
	a, b := h.any(), h.any()
	if a == b {
		return
	}
	h.did("%s and %s race", a.Name, b.Name)
	ra, pa := a.Change(mls.CommitOptions{})
	rb, pb := b.Change(mls.CommitOptions{})
	x, y := a.Conn.Send(ra), b.Conn.Send(rb)
	ba, errA := a.Conn.Answer(x)
	bb, errB := b.Conn.Answer(y)
	if errA != nil {
		a, b, ra, pa, ba, bb, errA, errB = b, a, rb, pb, bb, ba, errB, errA
	}
	if errA != nil || !wire.HasCode(errB, wire.CodeEpochConflict) {
		h.t.Fatalf("%v %v, %v %v", ba, errA, bb, errB)
	}
	if err := a.Group.Merge(pa); err != nil {
		h.t.Fatal(err)
	}
	h.everybody(ra.Commit, a)
	r, answer := b.Commit(mls.CommitOptions{})
	h.lastSeq = answer.Seq
	h.everybody(r.Commit, b)
}

// revoke: a device is revoked, and a member removes it.
func (h *history) revoke() {
	c, by := h.any(), h.any()
	if c == by || c == h.inside[0] {
		return
	}
	h.did("%s is revoked, removed by %s", c.Name, by.Name)
	c.Revoke(h.cells[0])
	r, answer := by.Commit(by.Removing(c.Person))
	h.lastSeq = answer.Seq
	h.everybody(r.Commit, by)
	for i, p := range h.outside {
		if p.ID() == c.ID() {
			h.outside = append(h.outside[:i:i], h.outside[i+1:]...)
			break
		}
	}
}

// check compares the server with the members, and these with each other.
func (h *history) check() {
	h.t.Helper()
	asker := h.any()
	got := details(h.t, asker.Person, asker)
	first := h.inside[0].Group
	if got.Channel.Epoch != first.Epoch() || got.Channel.LastSeq < h.lastSeq {
		h.t.Errorf("the server is at epoch %d and sequence %d, the members at %d and %d", got.Channel.Epoch, got.Channel.LastSeq, first.Epoch(), h.lastSeq)
	}
	devices := map[ids.ID]uint16{}
	for _, c := range h.inside {
		devices[c.Account()]++
		if !bytes.Equal(c.Group.EpochAuthenticator(), first.EpochAuthenticator()) {
			h.t.Errorf("%s is in another group than the admin", c.Name)
		}
	}
	if n := len(first.Members()); n != len(h.inside) {
		h.t.Errorf("%d devices are in the group, %d should be", n, len(h.inside))
	}
	for _, m := range got.Members {
		if m.Devices != devices[m.AccountID] {
			h.t.Errorf("account %s has %d devices by the server, %d by the members", m.AccountID, m.Devices, devices[m.AccountID])
		}
		delete(devices, m.AccountID)
	}
	if len(devices) > 0 {
		h.t.Errorf("the server does not have %d accounts that are in the group", len(devices))
	}
}
