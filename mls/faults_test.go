package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"
)

// The tests named TestFault are named after faults that were found in other Go
// engines; each shows that this one does not have it.

// forgedWelcome makes a Welcome for fresh like Commit does, with a change of the
// GroupInfo before it is sealed.
func forgedWelcome(t *testing.T, a, fresh *peer, change func(*GroupInfo)) *Welcome {
	t.Helper()
	checker := a.checker(testNow)
	entries := []proposalEntry{{
		proposal: &Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()},
		sender:   Sender{Type: SenderMember, Leaf: a.own},
	}}
	tr, err := newTransition(checker, entries, a.own, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &commitMaker{g: a.Group, tr: tr, sender: Sender{Type: SenderMember, Leaf: a.own}}
	if err := c.makePath(false); err != nil {
		t.Fatal(err)
	}
	tr.confirm(c.sign())
	next, err := c.enter()
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.makeWelcome(next)
	if err != nil {
		t.Fatal(err)
	}
	key, nonce := welcomeKeys(c.welcome)
	gi := next.groupInfo(a.own, a.signer, withTree)
	change(gi)
	w.encryptedGroupInfo = aeadSeal(key, nonce, encode(gi), nil)
	pt := encode(&groupSecrets{joinerSecret: c.joiner})
	if w.secrets[0].secrets, err = encryptWithLabel(fresh.bundle.keyPackage.InitKey, "Welcome", w.encryptedGroupInfo, pt); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestFaultWelcomeWithoutTreeIsAcceptedUnsigned(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, fresh, stranger := peers[0], newPeer(t, "fresh"), newPeer(t, "stranger")
	tree := func(gi *GroupInfo) []byte { b, _ := gi.Extensions.Find(ExtensionRatchetTree); return b }
	var outside []byte
	withoutTree := func(gi *GroupInfo) { outside = tree(gi); gi.Extensions = nil }
	resign := func(gi *GroupInfo) { gi.sign(a.signer) }
	tests := []struct {
		name   string
		change func(*GroupInfo)
		give   bool
		want   error
	}{
		{"as it is", func(*GroupInfo) {}, false, nil},
		{"no tree anywhere", func(gi *GroupInfo) { withoutTree(gi); resign(gi) }, false, ErrInvalidWelcome},
		{"tree out of band", func(gi *GroupInfo) { withoutTree(gi); resign(gi) }, true, nil},
		{"tree out of band, not signed", func(gi *GroupInfo) { withoutTree(gi); gi.Signature = nil }, true, ErrSignature},
		{"tree out of band, signed by a stranger", func(gi *GroupInfo) { withoutTree(gi); gi.sign(stranger.signer) }, true, ErrSignature},
		{"signature of the wrong bytes", func(gi *GroupInfo) { gi.Signature[3] ^= 1 }, false, ErrSignature},
		{"signer is no member", func(gi *GroupInfo) { gi.Signer = 9; resign(gi) }, false, ErrInvalidWelcome},
		{"signer is the joiner", func(gi *GroupInfo) { gi.Signer = 3; gi.sign(fresh.signer) }, false, ErrInvalidWelcome},
		{"wrong tree hash", func(gi *GroupInfo) { gi.GroupContext.TreeHash = make([]byte, 32); resign(gi) }, false, ErrInvalidTree},
		{"wrong confirmation tag", func(gi *GroupInfo) { gi.ConfirmationTag = make([]byte, 32); resign(gi) }, false, ErrConfirmationTag},
		{"another epoch", func(gi *GroupInfo) { gi.GroupContext.Epoch++; resign(gi) }, false, ErrConfirmationTag},
		{"another suite", func(gi *GroupInfo) { gi.GroupContext.CipherSuite = 2; resign(gi) }, false, ErrUnsupportedSuite},
	}
	for _, tt := range tests {
		w := forgedWelcome(t, a, fresh, tt.change)
		o := JoinOptions{}
		if tt.give {
			o.RatchetTree = outside
		}
		if _, err := JoinGroup(w, fresh.bundle, fresh.signer, o); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestFaultReplayedApplicationMessage(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	first, second := peers[0].mustEncrypt(t, "1"), peers[0].mustEncrypt(t, "2")
	for _, b := range [][]byte{second, first} {
		peers[1].mustProcess(t, b)
	}
	for range 2 {
		for _, b := range [][]byte{first, second} {
			if _, err := peers[1].Process(mustParse(t, b), testNow); !errors.Is(err, ErrReplay) {
				t.Errorf("got %v, want ErrReplay", err)
			}
		}
		peers[1].Group = reload(t, peers[1].Group)
	}
}

// secretsOf lists everything secret in a group's state.
func secretsOf(g *Group) [][]byte {
	var out [][]byte
	for _, s := range g.cur.secrets.all() {
		out = append(out, *s)
	}
	out = append(out, g.cur.keys.leaf)
	for _, k := range g.cur.keys.parents {
		out = append(out, k)
	}
	out = append(out, messageSecretsOf(g.cur.messages)...)
	for _, p := range g.past {
		out = append(out, p.senderData, p.resumption)
		out = append(out, messageSecretsOf(p.messages)...)
	}
	copies := make([][]byte, 0, len(out))
	for _, s := range out {
		if len(s) > 0 {
			copies = append(copies, bytes.Clone(s))
		}
	}
	return copies
}

func messageSecretsOf(st *secretTree) (out [][]byte) {
	for _, s := range st.nodes {
		out = append(out, s)
	}
	for _, s := range st.senders {
		for _, r := range s {
			out = append(out, r.secret)
			for _, k := range r.skipped {
				out = append(out, k.key)
			}
		}
	}
	return out
}

// What a message was decrypted with is not in the state afterwards, and neither is
// anything that it could be derived from.
func TestFaultConsumedKeysAreInTheSavedState(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 5)
	a, b := peers[0], peers[1]
	messages := [][]byte{a.mustEncrypt(t, "0"), a.mustEncrypt(t, "1"), a.mustEncrypt(t, "2")}
	for n, i := range []int{2, 0, 1} {
		st := b.cur.messages
		before := messageSecretsOf(st)
		copies := make([][]byte, len(before))
		for j, s := range before {
			copies[j] = bytes.Clone(s)
		}
		key, err := st.find(0, applicationRatchet, uint32(i))
		if err != nil {
			t.Fatal(err)
		}
		used := bytes.Clone(key.key)
		saved := marshal(t, b.Group)
		b.mustProcess(t, messages[i])
		after := marshal(t, b.Group)
		if bytes.Contains(after, used) {
			t.Errorf("message %d: its key is still there", i)
		}
		gone := 0
		for j, s := range copies {
			if !bytes.Contains(saved, s) {
				t.Fatal("a secret is not where the test looks for it")
			}
			if !bytes.Contains(after, s) {
				gone++
				if bytes.Equal(before[j], s) {
					t.Errorf("message %d: a dropped secret was not cleared", i)
				}
			}
		}
		if want := 1; gone != want {
			t.Errorf("step %d: %d secrets gone, want %d", n, gone, want)
		}
		copyOf, err := UnmarshalGroup(after, b.signer, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copyOf.Process(mustParse(t, messages[i]), testNow); !errors.Is(err, ErrReplay) {
			t.Errorf("message %d from the saved state: %v", i, err)
		}
	}
	// The same for sending: no key is left of a message once it is out.
	key := messageSecretsOf(a.cur.messages)
	if len(key) == 0 {
		t.Fatal("no secrets")
	}
	st, _ := UnmarshalGroup(marshal(t, a.Group), a.signer, nil)
	for g := range uint32(3) {
		if _, err := st.cur.messages.find(0, applicationRatchet, g); !errors.Is(err, ErrReplay) {
			t.Errorf("key of the sent message %d: %v", g, err)
		}
	}
}

// An ended epoch leaves no secret in the state but those for late messages.
func TestPastEpochIsErased(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a := peers[0]
	spread(t, peers, a, a.mustCommit(t, CommitOptions{ForcePath: true}))
	old := a.cur
	kept := []*[]byte{&old.secrets.senderData, &old.secrets.resumption}
	var secrets [][]byte
	for _, s := range old.secrets.all() {
		if !slices.Contains(kept, s) {
			secrets = append(secrets, bytes.Clone(*s))
		}
	}
	secrets = append(secrets, bytes.Clone(old.keys.leaf))
	for _, k := range old.keys.parents {
		secrets = append(secrets, bytes.Clone(k))
	}
	spread(t, peers, a, a.mustCommit(t, CommitOptions{ForcePath: true}))
	state := marshal(t, a.Group)
	for i, s := range secrets {
		if bytes.Contains(state, s) {
			t.Errorf("secret %d of the past epoch is still there", i)
		}
	}
	for _, s := range [][]byte{old.secrets.init, old.secrets.membership, old.secrets.exporter, old.keys.leaf} {
		if !bytes.Equal(s, make([]byte, len(s))) {
			t.Error("a secret of the past epoch was not cleared")
		}
	}
}

func TestFaultExternalCommitEvictsAMember(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	gi, err := peers[0].Group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	victim := LeafIndex(1)
	outsider := newPeer(t, "outsider")
	_, err = JoinExternal(mustParse(t, gi).GroupInfo, ExternalJoinOptions{
		Credential: BasicCredential([]byte("outsider")), Signer: outsider.signer, Resync: &victim,
	})
	if !errors.Is(err, ErrCredential) {
		t.Errorf("own engine makes it: got %v, want ErrCredential", err)
	}
	// An attacker's engine makes it all the same.
	j, err := JoinExternal(mustParse(t, gi).GroupInfo, ExternalJoinOptions{
		Credential: BasicCredential([]byte("outsider")), Signer: outsider.signer, Resync: &victim, Validator: anySuccessor{},
	})
	if err != nil {
		t.Fatal(err)
	}
	follower, err := NewPublicGroup(mustParse(t, gi).GroupInfo, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := mustParse(t, j.Commit)
	if _, err := follower.Process(m.PublicMessage, testNow); !errors.Is(err, ErrCredential) {
		t.Errorf("follower: got %v, want ErrCredential", err)
	}
	for _, p := range peers {
		before := marshal(t, p.Group)
		if _, err := p.Process(m, testNow); !errors.Is(err, ErrCredential) {
			t.Errorf("%s: got %v, want ErrCredential", p.name, err)
		}
		wantBytes2(t, p.name, marshal(t, p.Group), before)
	}
	// The same from the member itself, under a new signature key, is welcome.
	again := newPeer(t, peers[1].name)
	if j, err = JoinExternal(mustParse(t, gi).GroupInfo, ExternalJoinOptions{
		Credential: BasicCredential([]byte(again.name)), Signer: again.signer, Resync: &victim,
	}); err != nil {
		t.Fatal(err)
	}
	if got := peers[1].mustProcess(t, j.Commit); !got.SelfRemoved {
		t.Error("the stale state does not see that it was replaced")
	}
	again.Group = j.Group
	for _, p := range []*peer{peers[0], peers[2]} {
		p.mustProcess(t, j.Commit)
	}
	wantAgreement(t, []*peer{peers[0], again, peers[2]})
}

// anySuccessor lets everyone replace everyone.
type anySuccessor struct{ acceptAll }

func (anySuccessor) ValidateSuccession(_, _ Credential, _, _ ed25519.PublicKey) error { return nil }

func TestFaultExpiredKeyPackagePasses(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	a, p := peers[0], newPeer(t, "p")
	kp := p.bundle.KeyPackage()
	c := a.mustCommit(t, CommitOptions{Adds: []*KeyPackage{kp}})
	proposal, err := a.Propose(ProposeOptions{Add: kp, AcceptTime: testNow})
	if err != nil {
		t.Fatal(err)
	}
	follower, err := NewPublicGroup(mustGroupInfo(t, a), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	from, until := kp.Lifetime()
	tests := []struct {
		at   time.Time
		want error
	}{
		{from, nil}, {until, nil}, {testNow, nil},
		{from.Add(-time.Second), ErrNotYetValid}, {until.Add(time.Second), ErrExpired},
		{time.Unix(-1, 0), ErrNotYetValid},
	}
	for _, tt := range tests {
		want := func(where string, err error) {
			t.Helper()
			if !errors.Is(err, tt.want) {
				t.Errorf("at %v: %s: got %v, want %v", tt.at, where, err, tt.want)
			}
		}
		want("key package", kp.Verify(tt.at, nil))
		_, err := a.Commit(CommitOptions{Adds: []*KeyPackage{kp}, AcceptTime: tt.at, IgnoreReceived: true})
		want("making a commit", err)
		for name, m := range map[string][]byte{"commit": c.Commit, "proposal": proposal} {
			member := reload(t, peers[1].Group)
			_, err = member.Process(mustParse(t, m), tt.at)
			want("processing a "+name, err)
			_, err = follower.Clone().Process(mustParse(t, m).PublicMessage, tt.at)
			want("following a "+name, err)
		}
	}
	if err := kp.Verify(time.Time{}, nil); !errors.Is(err, ErrNotYetValid) {
		t.Errorf("at no time: got %v, want ErrNotYetValid", err)
	}
}

func TestFaultRatchetRunsToGenerationOneMillion(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	a, b := peers[0], peers[1]
	content := a.newContent(ContentApplication, nil)
	content.wireFormat = WireFormatPrivateMessage
	a.signContent(content)
	_, key, err := a.cur.messages.take(a.own, applicationRatchet)
	if err != nil {
		t.Fatal(err)
	}
	before := marshal(t, b.Group)
	for _, g := range []uint32{maxSkip + 1, 1_000_000, 1<<32 - 1} {
		m := sealPrivateMessage(content, senderData{leaf: a.own, generation: g}, key, a.cur.secrets.senderData, 0)
		_, err := b.Process(&Message{WireFormat: WireFormatPrivateMessage, PrivateMessage: m}, testNow)
		if !errors.Is(err, ErrGenerationTooFar) {
			t.Errorf("generation %d: got %v, want ErrGenerationTooFar", g, err)
		}
	}
	wantBytes2(t, "group", marshal(t, b.Group), before)
}

func TestFaultEveryMessageHasGenerationZero(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	a, b := peers[0], peers[1]
	seen := map[string]bool{}
	for want := range uint32(5) {
		m := mustParse(t, a.mustEncrypt(t, "the same text"))
		d, err := m.PrivateMessage.openSenderData(b.cur.secrets.senderData)
		if err != nil {
			t.Fatal(err)
		}
		if d.generation != want {
			t.Errorf("message %d has generation %d", want, d.generation)
		}
		key, err := b.cur.messages.find(a.own, applicationRatchet, d.generation)
		if err != nil {
			t.Fatal(err)
		}
		if k := string(key.key) + string(key.nonce); seen[k] {
			t.Error("a message key is used twice")
		} else {
			seen[k] = true
		}
		if _, err := b.Process(m, testNow); err != nil {
			t.Fatal(err)
		}
		a.Group = reload(t, a.Group) // where it must go on, not begin again
	}
}
