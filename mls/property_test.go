package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// history is a random history of a group. It plays the delivery service: it orders
// the handshake messages, loses, delays and repeats what it likes, and knows what
// every member must make of it. A follower from outside sees every handshake message.
type history struct {
	t        *testing.T
	rng      *rand.Rand
	limit    int       // of members
	members  []*player // by the newest Commit; some have not processed it yet
	former   []*player // removed, or resynced: the state they had is kept
	waiting  map[string]*player
	follower *PublicGroup
	next     int
	log      []handshake
	records  map[uint64]epochRecord
	messages []*lateMessage
	psks     map[string][]byte
	counts   map[string]int
	trace    []string
}

// player is somebody who is, was or will be a member.
type player struct {
	*peer
	cursor  int // next entry of the log
	since   uint64
	offline bool
	welcome []byte // to join by, when it comes online
	missing []int  // proposals that it did not receive
	// gone is the epoch that its removal ended; later ones are closed to it.
	gone   uint64
	end    int    // the log up to its removal, once it was removed
	replay []byte // the last handshake message it processed
}

// handshake is an entry of the log.
type handshake struct {
	message  []byte
	parsed   *Message
	from     *player // has applied it already; nil for senders from outside
	removed  []string
	isCommit bool
}

// epochRecord is what all must agree on.
type epochRecord struct{ authenticator, context []byte }

func newHistory(t *testing.T, seed uint64, limit int) *history {
	h := &history{
		t: t, rng: newRand(seed), limit: limit, waiting: map[string]*player{},
		records: map[uint64]epochRecord{}, psks: map[string][]byte{}, counts: map[string]int{},
	}
	first := h.newcomer()
	first.create(t)
	first.SetPSKStore(h)
	h.members = []*player{first}
	h.record(first)
	var err error
	if h.follower, err = NewPublicGroup(mustGroupInfo(t, first.peer), nil, nil); err != nil {
		t.Fatal(err)
	}
	return h
}

// PSK makes the history the store of everybody's pre-shared keys.
func (h *history) PSK(id *PreSharedKeyID) ([]byte, error) {
	if psk, ok := h.psks[string(id.ID)]; ok && id.Type == PSKExternal {
		return psk, nil
	}
	return nil, ErrUnknownPSK
}

func (h *history) newcomer() *player {
	h.next++
	return &player{peer: newPeer(h.t, fmt.Sprintf("peer-%d", h.next))}
}

// newcomers returns n peers whose key packages are about to be used.
func (h *history) newcomers(n int) []*player {
	out := make([]*player, min(n, max(0, h.limit-len(h.members))))
	for i := range out {
		out[i] = h.newcomer()
		h.waiting[out[i].name] = out[i]
	}
	return out
}

func packagesOf(players []*player) []*KeyPackage {
	out := make([]*KeyPackage, len(players))
	for i, p := range players {
		out[i] = p.bundle.KeyPackage()
	}
	return out
}

// online returns the members that are up to date, in random order.
func (h *history) online() []*player {
	out := slices.DeleteFunc(slices.Clone(h.members), func(p *player) bool { return p.offline })
	h.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// any returns a member that is up to date; somebody comes online if it must.
func (h *history) any() *player {
	if on := h.online(); len(on) > 0 {
		return on[0]
	}
	p := h.members[h.rng.IntN(len(h.members))]
	h.comeOnline(p)
	return p
}

// others returns up to n other members.
func (h *history) others(p *player, n int) []*player {
	out := slices.DeleteFunc(slices.Clone(h.members), func(o *player) bool { return o == p })
	h.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}

// leafOf returns the leaf of a member, which may not know it yet itself.
func (h *history) leafOf(p *player) LeafIndex {
	for _, m := range h.follower.Members() {
		if string(m.Credential.Identity) == p.name {
			return m.Index
		}
	}
	h.t.Fatalf("%s is not in the group", p.name)
	return 0
}

func (h *history) leavesOf(players []*player) (out []LeafIndex) {
	for _, p := range players {
		out = append(out, h.leafOf(p))
	}
	return out
}

func (h *history) note(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf(format, args...))
}

func (h *history) record(p *player) {
	h.records[p.Epoch()] = epochRecord{authenticator: p.EpochAuthenticator(), context: p.cur.encoded}
}

// wantRecord checks that p sees the epoch it is in as the others do.
func (h *history) wantRecord(p *player) {
	h.t.Helper()
	r := h.records[p.Epoch()]
	if !bytes.Equal(p.EpochAuthenticator(), r.authenticator) || !bytes.Equal(p.cur.encoded, r.context) {
		h.t.Fatalf("%s disagrees with the others on epoch %d", p.name, p.Epoch())
	}
}

// reload saves and loads a member.
func (h *history) reload(p *player) {
	p.Group = reload(h.t, p.Group)
	p.SetPSKStore(h)
}

// accept lets a Commit win its epoch. apply enters the next one with its author.
func (h *history) accept(from *player, message, welcome []byte, added []Member, apply func()) {
	h.t.Helper()
	parsed := mustParse(h.t, message)
	context, path := h.provisional(parsed.PublicMessage)
	got, err := h.follower.Process(parsed.PublicMessage, testNow)
	if err != nil {
		h.t.Fatalf("follower: %v", err)
	}
	e := handshake{message: message, parsed: parsed, from: from, isCommit: true}
	epoch := got.Epoch
	for _, m := range got.Removed {
		e.removed = append(e.removed, string(m.Credential.Identity))
	}
	removed := h.retire(e.removed, epoch)
	if path != nil {
		h.attackPath(from, path, context)
	}
	apply()
	h.record(from)
	h.log = append(h.log, e)
	from.cursor, from.missing = len(h.log), nil
	for _, m := range added {
		p := h.waiting[string(m.Credential.Identity)]
		delete(h.waiting, p.name)
		p.welcome, p.cursor, p.offline = welcome, len(h.log), h.rng.IntN(4) == 0
		p.since = epoch + 1
		h.members = append(h.members, p)
	}
	for _, p := range slices.Concat(h.members, removed) {
		if !p.offline {
			h.catchUp(p)
		}
	}
}

// retire moves removed members aside. Those that are offline may hear of it later, or never.
func (h *history) retire(names []string, epoch uint64) (removed []*player) {
	h.members = slices.DeleteFunc(h.members, func(p *player) bool {
		if !slices.Contains(names, p.name) {
			return false
		}
		p.gone, p.end = epoch, len(h.log)+1
		removed = append(removed, p)
		return true
	})
	h.former = append(h.former, removed...)
	return removed
}

// comeOnline lets a member process what it missed, in order.
func (h *history) comeOnline(p *player) {
	p.offline = false
	h.catchUp(p)
}

func (h *history) catchUp(p *player) {
	h.t.Helper()
	if p.welcome != nil {
		g, err := JoinGroup(mustParse(h.t, p.welcome).Welcome, p.bundle, p.signer, JoinOptions{PSKs: h})
		if err != nil {
			h.t.Fatalf("%s joins: %v", p.name, err)
		}
		p.Group, p.welcome = g, nil
		h.wantRecord(p)
	}
	end := len(h.log)
	if p.end > 0 {
		end = p.end
	}
	if behind := end - p.cursor; behind > 1 {
		h.counts["caught up"]++
		h.counts["most entries caught up"] = max(h.counts["most entries caught up"], behind)
	}
	for p.cursor < end {
		h.take(p)
	}
}

// take delivers the next entry of the log, or loses it if it is a proposal.
func (h *history) take(p *player) {
	h.t.Helper()
	e := h.log[p.cursor]
	if h.rng.IntN(8) == 0 {
		h.reload(p)
	}
	h.deliverOutOfOrder(p)
	p.cursor++
	switch {
	case e.from == p && !e.isCommit: // Propose has kept it
	case e.from == p:
		h.t.Fatalf("%s is behind its own commit", p.name)
	case !e.isCommit && h.rng.IntN(6) == 0:
		h.counts["proposal lost"]++
		p.missing = append(p.missing, p.cursor-1)
	case !e.isCommit:
		h.mustProcess(p, e)
	default:
		h.takeCommit(p, e)
	}
}

func (h *history) mustProcess(p *player, e handshake) *Processed {
	h.t.Helper()
	got, err := p.Process(e.parsed, testNow)
	if err != nil {
		h.t.Fatalf("%s in %d processes: %v", p.name, p.Epoch(), err)
	}
	p.replay = e.message
	return got
}

// takeCommit processes a Commit, after the proposals that it turns out to need.
func (h *history) takeCommit(p *player, e handshake) {
	h.t.Helper()
	var needed, useless []handshake
	for _, i := range p.missing {
		if refers(e.parsed.PublicMessage.Commit(), h.log[i].parsed.PublicMessage.auth.proposalRef()) {
			needed = append(needed, h.log[i])
		} else {
			useless = append(useless, h.log[i])
		}
	}
	p.missing = nil
	for n, missing := range needed {
		h.counts["proposal fetched"]++
		h.wantRefused(p, e.parsed, ErrUnknownProposal)
		if n == 0 && h.rng.IntN(2) == 0 {
			h.reload(p)
		}
		h.mustProcess(p, missing)
	}
	got := h.mustProcess(p, e)
	if got.SelfRemoved != slices.Contains(e.removed, p.name) {
		h.t.Fatalf("%s: removed is %v", p.name, got.SelfRemoved)
	}
	if got.SelfRemoved {
		h.counts["saw its removal"]++
		if _, err := p.Encrypt(nil, nil, 0); p.Active() || !errors.Is(err, ErrRemoved) {
			h.t.Fatalf("%s was removed and goes on: %v", p.name, err)
		}
		return
	}
	h.wantRecord(p)
	for _, late := range useless {
		h.wantRefused(p, late.parsed, ErrPastEpoch)
	}
}

func refers(c *Commit, ref ProposalRef) bool {
	return slices.ContainsFunc(c.Proposals, func(p ProposalOrRef) bool { return p.Ref != nil && *p.Ref == ref })
}

// wantRefused checks that a message is refused, and changes nothing.
func (h *history) wantRefused(p *player, m *Message, want error) {
	h.t.Helper()
	before := marshal(h.t, p.Group)
	if _, err := p.Process(m, testNow); !errors.Is(err, want) {
		h.t.Fatalf("%s in %d: got %v, want %v", p.name, p.Epoch(), err, want)
	}
	wantBytes2(h.t, p.name, marshal(h.t, p.Group), before)
}

// deliverOutOfOrder repeats the last entry, or delivers a Commit that is not due yet.
func (h *history) deliverOutOfOrder(p *player) {
	h.t.Helper()
	if h.rng.IntN(6) != 0 {
		return
	}
	if p.replay != nil {
		m := mustParse(h.t, p.replay)
		want := ErrReplay
		if m.PublicMessage.Epoch() < p.Epoch() {
			want = ErrPastEpoch
		}
		h.wantRefused(p, m, want)
		h.counts["delivered twice"]++
	}
	for _, e := range h.log[p.cursor:] {
		if e.isCommit && e.parsed.PublicMessage.Epoch() > p.Epoch() {
			h.wantRefused(p, e.parsed, ErrFutureEpoch)
			h.counts["delivered early"]++
			return
		}
	}
}

// check looks at a few members closely.
func (h *history) check() {
	h.t.Helper()
	b, err := h.follower.MarshalBinary()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.follower, err = UnmarshalPublicGroup(b, nil); err != nil {
		h.t.Fatal(err)
	}
	if n := len(h.follower.Members()); n != len(h.members) {
		h.t.Fatalf("%d members, want %d", n, len(h.members))
	}
	on := h.online()
	for _, p := range on[:min(3, len(on))] {
		if p.Epoch() != h.follower.Epoch() || !bytes.Equal(h.follower.state.encoded, p.cur.encoded) ||
			!bytes.Equal(h.follower.state.interim, p.cur.interim) {
			h.t.Fatalf("%s and the follower disagree", p.name)
		}
		h.wantRecord(p)
		wantKeysMatch(h.t, p.Group)
		h.reload(p)
	}
	h.counts["most members"] = max(h.counts["most members"], len(h.members))
}

// finish brings everyone online, and checks everything.
func (h *history) finish() {
	h.t.Helper()
	for _, p := range h.members {
		h.comeOnline(p)
	}
	for _, p := range h.former {
		if p.offline && h.rng.IntN(2) == 0 {
			h.comeOnline(p)
		}
	}
	for range 3 { // whoever is left out at random is not three times
		h.deliverMessages()
	}
	peers := make([]*peer, len(h.members))
	for i, p := range h.members {
		peers[i] = p.peer
		if !slices.EqualFunc(p.Members(), h.follower.Members(), sameMember) {
			h.t.Fatalf("%s and the follower disagree on the members", p.name)
		}
	}
	wantAgreement(h.t, peers)
	h.say(h.members[0])
	h.attackMessages()
}

// TestRandomHistories runs 8 histories, or QPQ_MLS_HISTORIES times as many. Every
// eighth grows up to 64 members. A failed one is run again by its number, which is
// the seed: -run 'TestRandomHistories/^5$'.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	limits := []int{4, 8, 12, 16, 24, 32, 8, 64}
	factor := historiesFactor(t)
	for seed := range uint64(len(limits) * factor) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, seed, limits[seed%uint64(len(limits))])
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("replay: QPQ_MLS_HISTORIES=%d go test -run '^TestRandomHistories$/^%d$'\nsteps:\n%s", factor, seed, strings.Join(h.trace, "\n"))
				}
			})
			for range 36 {
				h.step()
				h.check()
			}
			h.finish()
			t.Logf("seed %d: epoch %d, %d members, %d former, %v", seed, h.follower.Epoch(), len(h.members), len(h.former), h.counts)
		})
	}
}
