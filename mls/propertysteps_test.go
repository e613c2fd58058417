package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// historySteps are what may happen, each as often as it is listed.
var historySteps = []struct {
	name string
	do   func(*history)
}{
	{"chat", (*history).chat},
	{"chat", (*history).chat},
	{"commit", (*history).commitAny},
	{"commit", (*history).commitAny},
	{"propose", (*history).proposeAny},
	{"propose", (*history).proposeAny},
	{"propose and commit", (*history).proposeAndCommit},
	{"commit without proposals", (*history).commitWithoutProposals},
	{"external", (*history).joinExternal},
	{"resync", (*history).resync},
	{"race", (*history).race},
	{"external race", (*history).raceExternal},
	{"psk", (*history).commitPSK},
	{"extensions", (*history).commitExtensions},
	{"shrink", (*history).shrink},
	{"offline", (*history).goOffline},
	{"offline", (*history).goOffline},
	{"online", (*history).comeBack},
}

func (h *history) step() {
	s := historySteps[h.rng.IntN(len(historySteps))]
	if few := len(h.members) < h.limit*3/4 && h.rng.IntN(4) == 0; few || len(h.members) < 3 {
		s.name, s.do = "grow", (*history).grow
	}
	h.note("epoch %d, %d members: %s", h.follower.Epoch(), len(h.members), s.name)
	h.counts[s.name]++
	s.do(h)
	if h.rng.IntN(3) == 0 {
		h.say(h.any())
		h.deliverMessages()
	}
}

// commit lets from commit, and the Commit wins.
func (h *history) commit(from *player, o CommitOptions) {
	h.t.Helper()
	c := h.pending(from, o)
	h.accept(from, c.Commit, c.Welcome, c.Added, func() { from.mustMerge(h.t, c) })
}

// pending makes a Commit, which may be saved and loaded before it is merged.
func (h *history) pending(from *player, o CommitOptions) *PendingCommit {
	h.t.Helper()
	c := from.mustCommit(h.t, o)
	if h.rng.IntN(2) == 0 {
		return c
	}
	b, err := c.MarshalBinary()
	if err != nil {
		h.t.Fatal(err)
	}
	h.reload(from)
	if c, err = from.UnmarshalPendingCommit(b); err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *history) grow() {
	h.commit(h.any(), CommitOptions{Adds: packagesOf(h.newcomers(1 + h.rng.IntN(max(2, h.limit/3))))})
}

// commitAny commits adds and removes by value, and what was proposed before.
func (h *history) commitAny() {
	from := h.any()
	joiners := h.newcomers(h.rng.IntN(max(3, h.limit/6)))
	var gone []*player
	if len(h.members) > 3 {
		gone = h.others(from, h.rng.IntN(max(2, h.limit/12)))
	}
	h.commit(from, CommitOptions{
		Adds: packagesOf(joiners), Removes: h.leavesOf(gone), ForcePath: h.rng.IntN(2) == 0,
	})
}

// shrink empties the right half of the tree, if somebody in the left one is online.
func (h *history) shrink() {
	half := LeafIndex(len(h.follower.state.tree.leaves) / 2)
	for _, from := range h.online() {
		if from.OwnIndex() >= half {
			continue
		}
		gone := slices.DeleteFunc(slices.Clone(h.members), func(p *player) bool { return h.leafOf(p) < half })
		h.commit(from, CommitOptions{Removes: h.leavesOf(gone), IgnoreReceived: true})
		if n := len(h.follower.state.tree.leaves); n > int(half) {
			h.t.Fatalf("%d leaves, want at most %d", n, half)
		}
		return
	}
}

func (h *history) commitWithoutProposals() {
	h.commit(h.any(), CommitOptions{IgnoreReceived: true})
}

// proposeAny lets some members propose something that fits in the group.
func (h *history) proposeAny() {
	for range 1 + h.rng.IntN(4) {
		p := h.any()
		switch h.rng.IntN(6) {
		case 0, 1:
			h.propose(p, ProposeOptions{Update: true})
		case 2:
			for _, fresh := range h.newcomers(1) {
				h.propose(p, ProposeOptions{Add: fresh.bundle.KeyPackage()})
			}
		case 3:
			if targets := h.others(p, 1); len(h.members) > 4 {
				i := h.leafOf(targets[0])
				h.propose(p, ProposeOptions{Remove: &i})
			}
		case 4:
			h.propose(p, ProposeOptions{PSK: h.newPSK()})
		case 5:
			for _, fresh := range h.newcomers(1) {
				add := &Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()}
				m := signedBy(fresh.peer, p.Group, Sender{Type: SenderNewMemberProposal}, add)
				b, err := m.Marshal()
				if err != nil {
					h.t.Fatal(err)
				}
				h.relay(nil, b)
			}
		}
	}
}

func (h *history) propose(p *player, o ProposeOptions) {
	h.t.Helper()
	o.AcceptTime = testNow
	b, err := p.Propose(o)
	if err != nil {
		h.t.Fatal(err)
	}
	if slices.ContainsFunc(h.log, func(e handshake) bool { return bytes.Equal(e.message, b) }) {
		h.counts["proposed twice"]++ // the same signed again is the same message
		return
	}
	h.relay(p, b)
}

// relay puts a proposal into the log. Members that are online may receive it.
func (h *history) relay(from *player, b []byte) {
	h.t.Helper()
	m := mustParse(h.t, b)
	if _, err := h.follower.Process(m.PublicMessage, testNow); err != nil {
		h.t.Fatalf("follower: %v", err)
	}
	h.log = append(h.log, handshake{message: b, parsed: m, from: from})
	for _, p := range h.members {
		if !p.offline {
			h.catchUp(p)
		}
	}
}

func (h *history) proposeAndCommit() {
	h.proposeAny()
	h.commit(h.any(), CommitOptions{ForcePath: h.rng.IntN(4) == 0})
}

func (h *history) newPSK() *PreSharedKeyID {
	id := fmt.Sprintf("psk-%d", len(h.psks))
	h.psks[id] = []byte("secret of " + id)
	return &PreSharedKeyID{Type: PSKExternal, ID: []byte(id)}
}

// commitPSK mixes in external keys, and a resumption key that all members have.
func (h *history) commitPSK() {
	from := h.any()
	o := CommitOptions{PSKs: []*PreSharedKeyID{h.newPSK()}}
	if h.rng.IntN(2) == 0 {
		o.Adds = packagesOf(h.newcomers(1))
		h.commit(from, o)
		return
	}
	oldest := h.follower.Epoch() - min(h.follower.Epoch(), maxPastEpochs)
	for _, p := range h.members {
		oldest = max(oldest, p.since)
	}
	o.PSKs = append(o.PSKs, &PreSharedKeyID{
		Type: PSKResumption, Usage: ResumptionApplication, GroupID: from.GroupID(),
		Epoch: oldest + h.rng.Uint64N(h.follower.Epoch()-oldest+1),
	})
	o.IgnoreReceived = true // nobody who is added could know the key
	h.counts["resumption"]++
	h.commit(from, o)
}

func (h *history) commitExtensions() {
	x := Extensions{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension()}
	if h.rng.IntN(3) == 0 {
		x = Extensions{}
	}
	h.commit(h.any(), CommitOptions{GroupContextExtensions: &x})
}

// external prepares an external Commit. old is the member to resync, if any.
func (h *history) external(p, old *player) *ExternalJoin {
	h.t.Helper()
	o := ExternalJoinOptions{Credential: BasicCredential([]byte(p.name)), Signer: p.signer, PSKs: h}
	if old != nil {
		i := h.leafOf(old)
		o.Resync = &i
	}
	if h.rng.IntN(3) == 0 {
		o.PSKIDs = []*PreSharedKeyID{h.newPSK()}
	}
	j, err := JoinExternal(mustGroupInfo(h.t, h.any().peer), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return j
}

func (h *history) acceptExternal(p *player, j *ExternalJoin) {
	h.t.Helper()
	h.accept(p, j.Commit, nil, nil, func() {
		p.Group, p.since = j.Group, j.Group.Epoch()
		h.members = append(h.members, p)
	})
	h.reload(p)
}

func (h *history) joinExternal() {
	if len(h.members) < h.limit {
		p := h.newcomer()
		h.acceptExternal(p, h.external(p, nil))
	}
}

// resync lets a member, online or not, replace its leaf. Its old state remains as
// that of a former member.
func (h *history) resync() {
	old := h.members[h.rng.IntN(len(h.members))]
	again := &player{peer: &peer{name: old.name, signer: old.signer}}
	h.acceptExternal(again, h.external(again, old))
}

// race lets up to three members commit at once; one wins.
func (h *history) race() {
	on := h.online()
	on = on[:min(3, len(on))]
	var commits []*PendingCommit
	for _, p := range on {
		commits = append(commits, p.mustCommit(h.t, CommitOptions{Adds: packagesOf(h.newcomers(h.rng.IntN(2))), ForcePath: h.rng.IntN(2) == 0}))
	}
	for n, p := range on {
		if n == 0 {
			h.accept(p, commits[n].Commit, commits[n].Welcome, commits[n].Added, func() { p.mustMerge(h.t, commits[0]) })
			continue
		}
		if err := p.Merge(commits[n]); !errors.Is(err, ErrStalePending) && p.Active() {
			h.t.Fatalf("merge of the loser: %v", err)
		}
		for _, o := range h.online()[:1] {
			h.wantRefused(o, mustParse(h.t, commits[n].Commit), ErrPastEpoch)
		}
	}
}

// raceExternal lets an external Commit lose, and be made again.
func (h *history) raceExternal() {
	if len(h.members) >= h.limit {
		return
	}
	p := h.newcomer()
	late := h.external(p, nil)
	h.commit(h.any(), CommitOptions{ForcePath: true})
	for _, o := range h.online()[:1] {
		h.wantRefused(o, mustParse(h.t, late.Commit), ErrPastEpoch)
	}
	h.acceptExternal(p, h.external(p, nil))
}

// goOffline takes up to a third of the members off, never all.
func (h *history) goOffline() {
	on := h.online()
	for _, p := range on[:h.rng.IntN(1+len(on)/3)] {
		p.offline = true
	}
}

func (h *history) comeBack() {
	for _, p := range slices.Clone(h.members) {
		if p.offline && h.rng.IntN(2) == 0 {
			h.comeOnline(p)
		}
	}
}
