package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// What a crash must never lead to.
var (
	errCrashKeyReused = errors.New("a message key was used twice")
	errCrashReadable  = errors.New("a consumed message can be read again")
	errCrashLost      = errors.New("the group is lost")
)

// crashEntry is one message in the order in which the delivery service gives it to everyone.
type crashEntry struct {
	message []byte
	text    string
	key     []byte // of an application message of the others
}

// endedEpoch holds secrets that nobody has any more once the epoch is over.
type endedEpoch struct {
	number  uint64
	secrets [][]byte
}

// crashWorld is the delivery service, and the other members of the group that the
// member is in which is killed.
type crashWorld struct {
	t       *testing.T
	rng     *rand.Rand
	config  crashConfig
	ops     []string // what the member is asked for, besides keeping up
	members []*peer  // the first is never removed
	names   int
	waiting []*peer // whose key packages the member was given

	log   []crashEntry
	held  []crashEntry      // to be delivered late
	inLog map[string]bool   // by message
	auth  map[uint64][]byte // epoch authenticators
	ended []endedEpoch

	seen  map[string]bool // messages that left the member
	used  map[string]bool // their epochs, leaves and generations
	spent [][]byte        // their keys
	read  map[int]bool    // entries that the member said to have read
	inits [][]byte        // private keys of key packages seen in the file

	status    crashStatus
	packages  []*KeyPackage
	welcome   []byte // that the member is to join by
	welcomeAt int
	saved     bool // something left the member, so there must be a file
	kills     map[string]int
	counts    map[string]int
}

func newCrashWorld(t *testing.T, seed uint64, fault string, ops ...string) *crashWorld {
	t.Helper()
	p := newPeer(t, "subject")
	w := &crashWorld{
		t: t, rng: newRand(seed), ops: ops,
		config: crashConfig{Dir: t.TempDir(), Name: p.name, Signer: p.signer, Fault: fault},
		inLog:  map[string]bool{}, auth: map[uint64][]byte{},
		seen: map[string]bool{}, used: map[string]bool{}, read: map[int]bool{},
		kills: map[string]int{}, counts: map[string]int{},
	}
	if seed%2 == 1 { // otherwise the member creates the group
		a, b := w.newcomer(), w.newcomer()
		a.create(t)
		w.members = []*peer{a}
		w.enter()
		w.otherCommits(CommitOptions{Adds: keyPackagesOf([]*peer{b})}, b)
	}
	return w
}

func (w *crashWorld) newcomer() *peer {
	w.names++
	return newPeer(w.t, fmt.Sprintf("other-%d", w.names))
}

// leaf returns the member's place in the group as the others see it, if it has one.
func (w *crashWorld) leaf() []LeafIndex {
	if len(w.members) == 0 {
		return nil
	}
	for _, m := range w.members[0].Members() {
		if string(m.Credential.Identity) == w.config.Name {
			return []LeafIndex{m.Index}
		}
	}
	return nil
}

func (w *crashWorld) epoch() uint64 { return w.members[0].Epoch() }

func (w *crashWorld) append(e crashEntry) {
	w.log = append(w.log, e)
	w.inLog[string(e.message)] = true
}

// enter notes a new epoch.
func (w *crashWorld) enter() { w.auth[w.epoch()] = w.members[0].EpochAuthenticator() }

// leave notes what is to vanish with the epoch.
func (w *crashWorld) leave() {
	s := w.members[0].cur.secrets
	e := endedEpoch{number: w.epoch()}
	for _, b := range [][]byte{s.init, s.exporter, s.external, s.confirmation, s.membership} {
		e.secrets = append(e.secrets, bytes.Clone(b))
	}
	w.ended = append(w.ended, e)
}

// otherCommits lets the first of the others commit.
func (w *crashWorld) otherCommits(o CommitOptions, joiners ...*peer) *PendingCommit {
	w.t.Helper()
	from := w.members[0]
	c := from.mustCommit(w.t, o)
	w.leave()
	for _, p := range w.members[1:] {
		p.mustProcess(w.t, c.Commit)
	}
	from.mustMerge(w.t, c)
	w.admit(c.Commit, c.Welcome, joiners)
	return c
}

// admit ends a Commit that everyone has applied.
func (w *crashWorld) admit(commit, welcome []byte, joiners []*peer) {
	w.t.Helper()
	w.members = slices.DeleteFunc(w.members, func(p *peer) bool { return !p.Active() })
	for _, p := range joiners {
		p.join(w.t, welcome)
		w.members = append(w.members, p)
	}
	w.append(crashEntry{message: commit})
	w.enter()
}

// otherSends lets the others send, and delivers in any order, late, or never.
func (w *crashWorld) otherSends() {
	w.t.Helper()
	for range 1 + w.rng.IntN(4) {
		from := w.members[w.rng.IntN(len(w.members))]
		key := nextKey(w.t, from)
		text := fmt.Sprintf("message %d", len(w.log)+len(w.held))
		w.held = append(w.held, crashEntry{message: from.mustEncrypt(w.t, text), text: text, key: key})
	}
	w.rng.Shuffle(len(w.held), func(i, j int) { w.held[i], w.held[j] = w.held[j], w.held[i] })
	for len(w.held) > 0 && w.rng.IntN(5) != 0 {
		if w.rng.IntN(8) != 0 {
			w.append(w.held[0])
		}
		w.held = w.held[1:]
	}
}

// nextKey returns the key of the next application message that p sends.
func nextKey(t *testing.T, p *peer) []byte {
	t.Helper()
	st := p.cur.messages
	var next uint32
	if s := st.senders[p.own]; s != nil {
		next = uint32(s[applicationRatchet].next)
	}
	key, err := st.find(p.own, applicationRatchet, next)
	if err != nil {
		t.Fatal(err)
	}
	return key.key
}

func (w *crashWorld) otherProposes() {
	w.t.Helper()
	from := w.members[len(w.members)-1]
	b, err := from.Propose(ProposeOptions{Update: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.relay(from, b)
}

// relay gives a proposal to everyone but its author.
func (w *crashWorld) relay(from *peer, b []byte) {
	w.t.Helper()
	for _, p := range w.members {
		if p != from {
			p.mustProcess(w.t, b)
		}
	}
	w.append(crashEntry{message: b})
}

// handle judges what the member let out.
func (w *crashWorld) handle(e crashEvent) error {
	switch e.Kind {
	case "sent":
		w.saved = true
		return w.inspectSent(e.Message)
	case "commit":
		w.saved = true
		return w.decide(e)
	case "proposal":
		w.saved = true
		if mustParse(w.t, e.Message).PublicMessage.Epoch() == w.epoch() {
			w.relay(nil, e.Message)
		}
	case "keypackage":
		w.saved = true
		w.packages = append(w.packages, mustParse(w.t, e.Message).KeyPackage)
	case "read":
		w.saved = true
		if w.log[e.Index].text != e.Text {
			return fmt.Errorf("entry %d: read %q, want %q", e.Index, e.Text, w.log[e.Index].text)
		}
		w.read[e.Index] = true
	case "point":
		w.kills[e.Text]++
	case "failed":
		return fmt.Errorf("%w: %s", errCrashLost, e.Text)
	case "ready", "done":
		w.status = e.Status
	}
	return nil
}

// inspectSent decrypts a message of the member, after a look at the key it was made with.
func (w *crashWorld) inspectSent(b []byte) error {
	if w.seen[string(b)] { // sent again, not encrypted again
		w.counts["sent again"]++
		if !w.inLog[string(b)] {
			w.append(crashEntry{message: b})
		}
		return nil
	}
	w.seen[string(b)] = true
	m := mustParse(w.t, b)
	g := w.members[0].Group
	secret, messages := g.cur.secrets.senderData, g.cur.messages
	if p := g.pastEpoch(m.PrivateMessage.Epoch); p != nil {
		secret, messages = p.senderData, p.messages
	}
	d, err := m.PrivateMessage.openSenderData(secret)
	if err != nil {
		return err
	}
	use := fmt.Sprint(m.PrivateMessage.Epoch, d.leaf, d.generation)
	if w.used[use] {
		return fmt.Errorf("%w: epoch, leaf and generation %s", errCrashKeyReused, use)
	}
	w.used[use] = true
	key, err := messages.find(d.leaf, applicationRatchet, d.generation)
	if err != nil {
		return fmt.Errorf("key of %s: %w", use, err)
	}
	w.spent = append(w.spent, key.key)
	for _, p := range w.members {
		if p.pastEpoch(m.PrivateMessage.Epoch) == nil && p.Epoch() != m.PrivateMessage.Epoch {
			continue // joined since
		}
		if _, err := p.Process(m, testNow); err != nil {
			return fmt.Errorf("%s receives %s: %w", p.name, use, err)
		}
	}
	w.counts["sent"]++
	if w.rng.IntN(8) != 0 {
		w.append(crashEntry{message: b})
	}
	return nil
}

// decide accepts a Commit of the member, or lets another one win.
func (w *crashWorld) decide(e crashEvent) error {
	m := mustParse(w.t, e.Message)
	first := len(w.members) == 0
	switch {
	case w.inLog[string(e.Message)]:
		w.counts["commit sent again"]++
		return nil
	case !first && m.PublicMessage.Epoch() != w.epoch():
		w.counts["commit too late"]++
		return nil
	case !first && w.rng.IntN(6) == 0:
		w.counts["commit beaten"]++
		w.otherCommits(CommitOptions{ForcePath: true})
		return nil
	}
	var joiners []*peer
	for _, p := range w.waiting {
		if e.Welcome != nil && mustParse(w.t, e.Welcome).Welcome.Includes(p.bundle.KeyPackage().Ref()) {
			joiners = append(joiners, p)
		}
	}
	if !first {
		w.leave()
	}
	for _, p := range w.members {
		if _, err := p.Process(m, testNow); err != nil {
			return fmt.Errorf("%s processes the member's commit: %w", p.name, err)
		}
	}
	w.counts["commit accepted"]++
	w.admit(e.Message, e.Welcome, joiners)
	return nil
}
