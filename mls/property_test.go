package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// history is a random history of a group. After every step all members must agree,
// and a follower from outside must agree with them; every member is saved and
// loaded between any two steps.
type history struct {
	t        *testing.T
	rng      *rand.Rand
	members  []*peer
	removed  []*peer
	follower *PublicGroup
	next     int
	late     []lateMessage
	counts   map[string]int
}

// lateMessage was sent and not delivered to everyone yet.
type lateMessage struct {
	message []byte
	text    string
	epoch   uint64
	to      []*peer
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, rng: newRand(seed), counts: map[string]int{}}
	h.members = []*peer{h.newcomer()}
	h.members[0].create(t)
	b, err := h.members[0].GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	h.follower, err = NewPublicGroup(mustParse(t, b).GroupInfo, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *history) newcomer() *peer {
	h.next++
	return newPeer(h.t, fmt.Sprintf("peer-%d", h.next))
}

func (h *history) any() *peer { return h.members[h.rng.IntN(len(h.members))] }

// others returns up to n members that are not p.
func (h *history) others(p *peer, n int) []*peer {
	out := slices.DeleteFunc(slices.Clone(h.members), func(o *peer) bool { return o == p })
	h.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}

func (h *history) drop(gone []*peer) {
	h.members = slices.DeleteFunc(h.members, func(p *peer) bool { return slices.Contains(gone, p) })
	h.removed = append(h.removed, gone...)
}

func leavesOf(peers []*peer) []LeafIndex {
	var out []LeafIndex
	for _, p := range peers {
		out = append(out, p.OwnIndex())
	}
	return out
}

// commit delivers a Commit to everyone, the removed and the follower included.
func (h *history) commit(from *peer, c *PendingCommit, joiners, gone []*peer) {
	h.t.Helper()
	h.follow(c.Commit)
	for _, p := range h.members {
		if p == from {
			continue
		}
		if got := p.mustProcess(h.t, c.Commit); got.SelfRemoved != slices.Contains(gone, p) {
			h.t.Fatalf("%s: removed is %v", p.name, got.SelfRemoved)
		}
	}
	from.mustMerge(h.t, c)
	h.drop(gone)
	for _, p := range joiners {
		p.join(h.t, c.Welcome)
	}
	h.members = append(h.members, joiners...)
	gi := mustParse(h.t, c.GroupInfo).GroupInfo
	if err := h.follower.VerifyGroupInfo(gi); err != nil {
		h.t.Fatal(err)
	}
	if err := gi.Verify(nil, nil); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) follow(b []byte) {
	h.t.Helper()
	if _, err := h.follower.Process(mustParse(h.t, b).PublicMessage, testNow); err != nil {
		h.t.Fatalf("follower: %v", err)
	}
}

// commitAny commits a random mix of adds and removes by value.
func (h *history) commitAny() {
	from := h.any()
	var joiners []*peer
	if len(h.members) < 24 {
		for range h.rng.IntN(4) {
			joiners = append(joiners, h.newcomer())
		}
	}
	var gone []*peer
	if len(h.members) > 3 {
		gone = h.others(from, h.rng.IntN(3))
	}
	c := from.mustCommit(h.t, CommitOptions{
		Adds: keyPackagesOf(joiners), Removes: leavesOf(gone), ForcePath: h.rng.IntN(2) == 0,
	})
	if h.rng.IntN(2) == 0 {
		b, err := c.MarshalBinary()
		if err != nil {
			h.t.Fatal(err)
		}
		if c, err = from.UnmarshalPendingCommit(b); err != nil {
			h.t.Fatal(err)
		}
	}
	h.commit(from, c, joiners, gone)
}

// commitProposals lets some members propose, and another one commit.
func (h *history) commitProposals() {
	from := h.any()
	var joiners, gone []*peer
	for _, p := range h.others(from, 4) {
		switch h.rng.IntN(3) {
		case 0:
			h.propose(p, ProposeOptions{Update: true})
		case 1:
			fresh := h.newcomer()
			h.propose(p, ProposeOptions{Add: fresh.bundle.KeyPackage()})
			joiners = append(joiners, fresh)
		case 2:
			if target := h.others(from, 1)[0]; len(h.members) > 6 && !slices.Contains(gone, target) {
				i := target.OwnIndex()
				h.propose(p, ProposeOptions{Remove: &i})
				gone = append(gone, target)
			}
		}
	}
	h.reloadAll()
	h.commit(from, from.mustCommit(h.t, CommitOptions{}), joiners, gone)
}

func (h *history) propose(p *peer, o ProposeOptions) {
	h.t.Helper()
	o.AcceptTime = testNow
	b, err := p.Propose(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.follow(b)
	for _, other := range h.others(p, len(h.members)) {
		other.mustProcess(h.t, b)
	}
}

// joinExternal lets a newcomer in, or a member resync.
func (h *history) joinExternal() {
	b, err := h.any().Group.GroupInfo()
	if err != nil {
		h.t.Fatal(err)
	}
	p := h.newcomer()
	o := ExternalJoinOptions{}
	if h.rng.IntN(2) == 0 {
		p = h.any()
		i := p.OwnIndex()
		o.Resync = &i
		h.members = slices.DeleteFunc(h.members, func(m *peer) bool { return m == p })
	}
	o.Credential, o.Signer = BasicCredential([]byte(p.name)), p.signer
	if len(h.members) == 0 { // the only member resyncs: nobody is left to process it
		h.members = []*peer{p}
		return
	}
	j, err := JoinExternal(mustParse(h.t, b).GroupInfo, o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.follow(j.Commit)
	for _, m := range h.members {
		if got := m.mustProcess(h.t, j.Commit); !got.External || got.Sender != j.Group.OwnIndex() {
			h.t.Fatalf("external commit processed as %+v", got)
		}
	}
	p.Group = j.Group
	h.members = append(h.members, p)
}

// race lets two members commit at once; one wins.
func (h *history) race() {
	pair := h.others(nil, 2)
	if len(pair) < 2 {
		return
	}
	winner := pair[0].mustCommit(h.t, CommitOptions{ForcePath: true})
	loser := pair[1].mustCommit(h.t, CommitOptions{Adds: keyPackagesOf([]*peer{h.newcomer()})})
	h.commit(pair[0], winner, nil, nil)
	if err := pair[1].Merge(loser); !errors.Is(err, ErrStalePending) {
		h.t.Fatalf("merge of the loser: %v", err)
	}
}

// chat sends a few messages, each of which waits for a random time per receiver.
func (h *history) chat() {
	for range 1 + h.rng.IntN(5) {
		from := h.any()
		text := fmt.Sprintf("%s in %d", from.name, from.Epoch())
		b, err := from.Encrypt([]byte(text), []byte("ad"), 64)
		if err != nil {
			h.t.Fatal(err)
		}
		h.late = append(h.late, lateMessage{message: b, text: text, epoch: from.Epoch(), to: h.others(from, len(h.members))})
	}
	h.rng.Shuffle(len(h.late), func(i, j int) { h.late[i], h.late[j] = h.late[j], h.late[i] })
	for i := range h.late {
		h.deliver(&h.late[i])
	}
	h.late = slices.DeleteFunc(h.late, func(l lateMessage) bool { return len(l.to) == 0 || h.rng.IntN(10) == 0 })
}

func (h *history) deliver(l *lateMessage) {
	l.to = slices.DeleteFunc(l.to, func(p *peer) bool {
		if h.rng.IntN(3) == 0 {
			return false
		}
		h.receive(p, l)
		return true
	})
}

func (h *history) receive(p *peer, l *lateMessage) {
	h.t.Helper()
	rejoined := p.pastEpoch(l.epoch) == nil && p.Epoch() != l.epoch
	got, err := p.Process(mustParse(h.t, l.message), testNow)
	switch {
	case rejoined:
		if !errors.Is(err, ErrPastEpoch) {
			h.t.Fatalf("%s in %d, message of %d: %v", p.name, p.Epoch(), l.epoch, err)
		}
		return
	case err != nil:
		h.t.Fatalf("%s in %d, message of %d: %v", p.name, p.Epoch(), l.epoch, err)
	case string(got.Data) != l.text || string(got.AuthenticatedData) != "ad":
		h.t.Fatalf("%s got %q, want %q", p.name, got.Data, l.text)
	}
	p.Group = reload(h.t, p.Group)
	if _, err := p.Process(mustParse(h.t, l.message), testNow); !errors.Is(err, ErrReplay) {
		h.t.Fatalf("replay: %v", err)
	}
}

func (h *history) reloadAll() {
	for _, p := range h.members {
		p.Group = reload(h.t, p.Group)
	}
	b, err := h.follower.MarshalBinary()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.follower, err = UnmarshalPublicGroup(b, nil); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) check() {
	h.t.Helper()
	wantAgreement(h.t, h.members)
	first := h.members[0]
	if h.follower.Epoch() != first.Epoch() || !slices.EqualFunc(h.follower.Members(), first.Members(), sameMember) ||
		!bytes.Equal(h.follower.state.encoded, first.cur.encoded) || !bytes.Equal(h.follower.state.interim, first.cur.interim) {
		h.t.Fatal("the follower disagrees with the members")
	}
	if len(first.Members()) != len(h.members) {
		h.t.Fatalf("%d members, want %d", len(first.Members()), len(h.members))
	}
	b := h.any().mustEncrypt(h.t, "secret")
	for _, p := range h.removed {
		if _, err := p.Process(mustParse(h.t, b), testNow); err == nil {
			h.t.Fatalf("%s was removed and reads on", p.name)
		}
	}
}

func TestRandomHistories(t *testing.T) {
	t.Parallel()
	steps := map[string]func(*history){
		"commit": (*history).commitAny, "proposals": (*history).commitProposals, "external": (*history).joinExternal,
		"race": (*history).race, "chat": (*history).chat,
	}
	names := []string{"chat", "commit", "external", "proposals", "race"}
	runs, length := 8, 40
	if testing.Short() {
		runs = 3
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, seed)
			for range length {
				name := names[h.rng.IntN(len(names))]
				if len(h.members) < 3 {
					name = "commit"
				}
				h.counts[name]++
				steps[name](h)
				h.reloadAll()
				h.check()
			}
			t.Logf("seed %d: %v, %d members at the end, %d removed", seed, h.counts, len(h.members), len(h.removed))
		})
	}
}
