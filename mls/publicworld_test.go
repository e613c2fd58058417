package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// publicWorld is a group at a random point of its life, with a follower.
type publicWorld struct {
	t         *testing.T
	rng       *rand.Rand
	peers     []*peer // the members
	service   *peer   // may propose from outside
	strangers int
	signers   map[string]ed25519.PrivateKey // everybody's, by public key
	validator CredentialValidator
	follower  *PublicGroup
	states    map[*peer][]byte
	public    []byte // state of the follower
	counts    map[string]int
}

// noBanned refuses identities that begin with "banned".
type noBanned struct{}

func (noBanned) ValidateCredential(c Credential, _ ed25519.PublicKey) error {
	if bytes.HasPrefix(c.Identity, []byte("banned")) {
		return errors.New("banned")
	}
	return nil
}

func (v noBanned) ValidateExternalSender(c Credential, key ed25519.PublicKey) error {
	return v.ValidateCredential(c, key)
}

// worldPSK knows every key whose id begins with "known".
var worldPSK = PSKFunc(func(id *PreSharedKeyID) ([]byte, error) {
	if id.Type == PSKExternal && bytes.HasPrefix(id.ID, []byte("known")) {
		return []byte("psk"), nil
	}
	return nil, ErrUnknownPSK
})

func newPublicWorld(t *testing.T, seed uint64, size int) *publicWorld {
	t.Helper()
	w := &publicWorld{t: t, rng: newRand(seed), signers: map[string]ed25519.PrivateKey{}, states: map[*peer][]byte{}, counts: map[string]int{}}
	if w.rng.IntN(2) == 0 {
		w.validator = noBanned{}
	}
	w.service = w.stranger("service")
	first := w.stranger("creator")
	g, err := CreateGroup(GroupOptions{
		GroupID: []byte("group"), Credential: BasicCredential([]byte(first.name)), Signer: first.signer,
		Validator: w.validator, PSKs: worldPSK, Extensions: w.extensions(),
	})
	if err != nil {
		t.Fatal(err)
	}
	first.Group = g
	w.peers = []*peer{first}
	w.shape(size)
	w.receiveSome()
	w.keep()
	return w
}

func (w *publicWorld) stranger(name string) *peer {
	w.strangers++
	p := newPeer(w.t, fmt.Sprintf("%s-%d", name, w.strangers))
	w.signers[string(publicOf(p.signer))] = p.signer
	return p
}

// extensions let the service propose, and may ask for a capability.
func (w *publicWorld) extensions() Extensions {
	senders := appendVector(nil, func(b []byte) []byte {
		return BasicCredential([]byte("service")).append(appendOpaque(b, publicOf(w.service.signer)))
	})
	x := Extensions{{Type: ExtensionExternalSenders, Data: senders}}
	if w.rng.IntN(2) == 0 {
		x = append(x, RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension())
	}
	return x
}

// shape grows the group to size members, with paths, blanks and unmerged leaves.
func (w *publicWorld) shape(size int) {
	w.t.Helper()
	for len(w.peers) < size || w.rng.IntN(3) != 0 {
		from := w.peers[w.rng.IntN(len(w.peers))]
		o := CommitOptions{ForcePath: w.rng.IntN(2) == 0}
		var joiners []*peer
		for range w.rng.IntN(max(3, size/2)) {
			joiners = append(joiners, w.stranger("member"))
		}
		o.Adds = keyPackagesOf(joiners)
		if victim := w.peers[w.rng.IntN(len(w.peers))]; victim != from && len(w.peers) > 3 && w.rng.IntN(2) == 0 {
			o.Removes = []LeafIndex{victim.OwnIndex()}
		}
		w.advance(from, o, joiners)
		if len(w.peers) > size+size/2 {
			return
		}
	}
}

func (w *publicWorld) advance(from *peer, o CommitOptions, joiners []*peer) {
	w.t.Helper()
	c := from.mustCommit(w.t, o)
	var stay []*peer
	for _, p := range w.peers {
		if p != from && p.mustProcess(w.t, c.Commit).SelfRemoved {
			continue
		}
		stay = append(stay, p)
	}
	from.mustMerge(w.t, c)
	for _, p := range joiners {
		g, err := JoinGroup(mustParse(w.t, c.Welcome).Welcome, p.bundle, p.signer, JoinOptions{Validator: w.validator, PSKs: worldPSK})
		if err != nil {
			w.t.Fatal(err)
		}
		p.Group = g
	}
	w.peers = append(stay, joiners...)
}

// receiveSome lets everyone and the follower receive proposals of all kinds, for
// Commits to refer to.
func (w *publicWorld) receiveSome() {
	w.t.Helper()
	f, err := NewPublicGroup(mustGroupInfo(w.t, w.peers[0]), nil, w.validator)
	if err != nil {
		w.t.Fatal(err)
	}
	w.follower = f
	for _, s := range w.proposals() {
		if s.m.auth.content.proposal.Type == ProposalReInit || w.rng.IntN(2) == 0 {
			continue
		}
		for _, p := range w.peers {
			w.receive(p, s)
		}
		if _, err := f.Process(s.m, testNow); err != nil {
			w.t.Fatal(err)
		}
	}
}

// receive lets a member keep a proposal, as its author does with an own one.
func (w *publicWorld) receive(p *peer, s sample) {
	w.t.Helper()
	_, err := p.Process(&Message{WireFormat: WireFormatPublicMessage, PublicMessage: s.m}, testNow)
	if errors.Is(err, ErrOwnMessage) {
		checker := p.checker(testNow)
		p.cur.received, err = checker.received(p.cur.received, &s.m.auth)
		for public, private := range s.kept.cur.ownUpdates {
			p.cur.keepOwnUpdate([]byte(public), private)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// keep notes the states that every refusal must leave as they are.
func (w *publicWorld) keep() {
	w.t.Helper()
	for _, p := range w.peers {
		p.SetPSKStore(worldPSK)
		w.states[p] = marshal(w.t, p.Group)
	}
	b, err := w.follower.MarshalBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	w.public = b
}

func (w *publicWorld) restored(p *peer) *Group {
	w.t.Helper()
	g, err := UnmarshalGroup(w.states[p], p.signer, w.validator)
	if err != nil {
		w.t.Fatal(err)
	}
	g.SetPSKStore(worldPSK)
	return g
}

// sample is a message that everyone accepts, and its author.
type sample struct {
	name   string
	m      *PublicMessage
	author *peer
	kept   *Group // the author's state, when it keeps something of the proposal
}

// proposals makes one proposal of each kind, by everyone who may.
func (w *publicWorld) proposals() (out []sample) {
	w.t.Helper()
	target := w.peers[w.rng.IntN(len(w.peers))].OwnIndex()
	add := w.stranger("added").bundle.KeyPackage()
	x := w.follower.Context().Extensions.clone()
	reinit := &ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1}
	for _, tt := range []struct {
		name string
		o    ProposeOptions
	}{
		{"add", ProposeOptions{Add: add}},
		{"update", ProposeOptions{Update: true}},
		{"remove", ProposeOptions{Remove: &target}},
		{"psk", ProposeOptions{PSK: &PreSharedKeyID{Type: PSKExternal, ID: []byte("known 1")}}},
		{"resumption", ProposeOptions{PSK: &PreSharedKeyID{
			Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: w.follower.Epoch(),
		}}},
		{"extensions", ProposeOptions{GroupContextExtensions: &x}},
		{"reinit", ProposeOptions{ReInit: reinit}},
	} {
		p := w.peers[w.rng.IntN(len(w.peers))]
		author := &peer{name: p.name, signer: p.signer, Group: reload(w.t, p.Group)}
		tt.o.AcceptTime, tt.o.AuthenticatedData = testNow, randomBytes(8) // no two are the same
		b, err := author.Propose(tt.o)
		if err != nil {
			w.t.Fatalf("%s: %v", tt.name, err)
		}
		out = append(out, sample{name: "proposal " + tt.name, m: mustParse(w.t, b).PublicMessage, author: p, kept: author.Group})
	}
	for _, tt := range []struct {
		name string
		p    *Proposal
	}{
		{"add", &Proposal{Type: ProposalAdd, Add: w.stranger("added").bundle.KeyPackage()}},
		{"remove", &Proposal{Type: ProposalRemove, Remove: target}},
		{"psk", &Proposal{Type: ProposalPSK, PSK: (&PreSharedKeyID{Type: PSKExternal, ID: []byte("known 2")}).withNonce()}},
		{"extensions", &Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: x}},
		{"reinit", &Proposal{Type: ProposalReInit, ReInit: reinit}},
	} {
		m := w.outside(w.service, SenderExternal, tt.p)
		out = append(out, sample{name: "external proposal " + tt.name, m: m, author: w.service})
	}
	fresh := w.stranger("fresh")
	m := w.outside(fresh, SenderNewMemberProposal, &Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()})
	return append(out, sample{name: "new member proposal", m: m, author: fresh})
}

// outside makes a proposal by someone outside the group.
func (w *publicWorld) outside(by *peer, sender SenderType, p *Proposal) *PublicMessage {
	g := w.peers[0].Group
	a := g.newContent(ContentProposal, randomBytes(8))
	a.wireFormat = WireFormatPublicMessage
	a.content.sender, a.content.proposal = Sender{Type: sender}, p
	a.signature = signWithLabel(by.signer, "FramedContentTBS", a.tbs(g.cur.encoded))
	return newPublicMessage(a, g.cur.encoded, nil)
}

// commits makes Commits of each kind, by members and from outside.
func (w *publicWorld) commits() (out []sample) {
	w.t.Helper()
	x := w.follower.Context().Extensions.clone()
	adds := keyPackagesOf([]*peer{w.stranger("added"), w.stranger("added")})
	psks := []*PreSharedKeyID{{Type: PSKExternal, ID: []byte("known 3")}, {
		Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: w.follower.Epoch(),
	}}
	for _, tt := range []struct {
		name    string
		o       CommitOptions
		removes bool
	}{
		{"what was proposed", CommitOptions{}, false},
		{"nothing", CommitOptions{IgnoreReceived: true}, false},
		{"adds", CommitOptions{Adds: adds, IgnoreReceived: true}, false},
		{"adds with path", CommitOptions{Adds: adds, IgnoreReceived: true, ForcePath: true}, false},
		{"a remove", CommitOptions{IgnoreReceived: true}, true},
		{"psks", CommitOptions{PSKs: psks, IgnoreReceived: true}, false},
		{"extensions", CommitOptions{GroupContextExtensions: &x, IgnoreReceived: true}, false},
		{"a reinit", CommitOptions{ReInit: &ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1}}, false},
		{"everything", CommitOptions{Adds: adds[:1], PSKs: psks[:1], ForcePath: true}, true},
	} {
		p := w.peers[w.rng.IntN(len(w.peers))]
		if victim := w.peers[w.rng.IntN(len(w.peers))]; tt.removes && victim != p {
			tt.o.Removes = []LeafIndex{victim.OwnIndex()}
		}
		c := p.mustCommit(w.t, tt.o)
		out = append(out, sample{name: "commit of " + tt.name, m: mustParse(w.t, c.Commit).PublicMessage, author: p})
	}
	gi := mustGroupInfo(w.t, w.peers[0])
	old := w.peers[w.rng.IntN(len(w.peers))]
	i := old.OwnIndex()
	fresh := w.stranger("fresh")
	for _, tt := range []struct {
		name string
		by   *peer
		o    ExternalJoinOptions
	}{
		{"join", fresh, ExternalJoinOptions{}},
		{"join with psk", fresh, ExternalJoinOptions{PSKs: worldPSK, PSKIDs: psks[:1]}},
		{"resync", old, ExternalJoinOptions{Resync: &i}},
	} {
		tt.o.Credential, tt.o.Signer, tt.o.Validator = BasicCredential([]byte(tt.by.name)), tt.by.signer, w.validator
		j, err := JoinExternal(gi, tt.o)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, sample{name: "external " + tt.name, m: mustParse(w.t, j.Commit).PublicMessage, author: tt.by})
	}
	return out
}
