package mls

import (
	"bytes"
	"errors"
	"testing"
)

// retag returns the Commit with another confirmation tag, otherwise as sound as before.
func retag(t *testing.T, from *peer, commit []byte) *Message {
	t.Helper()
	m := mustParse(t, commit).PublicMessage
	m.auth.confirmationTag = make([]byte, hashSize)
	return &Message{WireFormat: WireFormatPublicMessage, PublicMessage: newPublicMessage(&m.auth, from.cur.encoded, from.cur.secrets.membership)}
}

// A member that was told of its removal cannot check the confirmation tag. Should
// the Commit be void for the others, it must not be lost to the group.
func TestVoidRemovalIsTakenBack(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, victim := peers[0], peers[2]
	void := retag(t, a, a.mustCommit(t, CommitOptions{Removes: []LeafIndex{2}}).Commit)
	if got, err := victim.Process(void, testNow); err != nil || !got.SelfRemoved {
		t.Fatalf("got %+v, %v", got, err)
	}
	victim.Group = reload(t, victim.Group)
	if _, err := victim.Encrypt(nil, nil, 0); victim.Active() || !errors.Is(err, ErrRemoved) {
		t.Errorf("encrypt: got %v, want ErrRemoved", err)
	}
	if _, err := peers[1].Process(void, testNow); !errors.Is(err, ErrConfirmationTag) {
		t.Errorf("another member: got %v, want ErrConfirmationTag", err)
	}
	spread(t, peers, a, a.mustCommit(t, CommitOptions{ForcePath: true}))
	if !victim.Active() {
		t.Error("the victim stays silent")
	}
	wantAgreement(t, peers)
	peers[1].mustProcess(t, victim.mustEncrypt(t, "still here"))
}

// sealHandshake sends a handshake message as PrivateMessage.
func sealHandshake(t *testing.T, from *peer, public []byte, g uint32, k messageKey) []byte {
	t.Helper()
	a := mustParse(t, public).PublicMessage.auth
	a.wireFormat = WireFormatPrivateMessage
	from.signContent(&a)
	d := senderData{leaf: from.own, generation: g, reuseGuard: [4]byte{9, 8, 7, 6}}
	return appendMessage(WireFormatPrivateMessage, sealPrivateMessage(&a, d, k, from.cur.secrets.senderData, 0))
}

func TestHandshakeInPrivateMessages(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b := peers[0], peers[1]
	remove := LeafIndex(2)
	public, err := a.Propose(ProposeOptions{Remove: &remove})
	if err != nil {
		t.Fatal(err)
	}
	g, k, err := a.cur.messages.take(a.own, handshakeRatchet)
	if err != nil {
		t.Fatal(err)
	}
	private := sealHandshake(t, a, public, g, k)
	if got := b.mustProcess(t, private); got.Kind != ProposalReceived || got.Proposal.Remove != 2 {
		t.Errorf("got %+v", got)
	}
	b.Group = reload(t, b.Group)
	if _, err := b.Process(mustParse(t, private), testNow); !errors.Is(err, ErrReplay) {
		t.Errorf("again: got %v, want ErrReplay", err)
	}
	// A Commit whose confirmation tag is wrong consumes nothing.
	before := marshal(t, b.Group)
	g, k, err = a.cur.messages.take(a.own, handshakeRatchet)
	if err != nil {
		t.Fatal(err)
	}
	void, err := retag(t, a, a.mustCommit(t, CommitOptions{IgnoreReceived: true}).Commit).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Process(mustParse(t, sealHandshake(t, a, void, g, k)), testNow); err == nil {
		t.Error("a commit with a wrong confirmation tag is accepted")
	}
	wantBytes2(t, "group", marshal(t, b.Group), before)
	// Application messages have a ratchet of their own.
	b.mustProcess(t, a.mustEncrypt(t, "hello"))
}

func TestMessagesRefused(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b, stranger := peers[0], peers[1], newPeer(t, "stranger")
	stranger.create(t)
	other := newGroup(t, 2)
	other[0].cur.context.GroupID = []byte("other")
	kp, err := stranger.bundle.KeyPackage().MarshalMessage()
	if err != nil {
		t.Fatal(err)
	}
	commit := mustParse(t, a.mustCommit(t, CommitOptions{ForcePath: true}).Commit)
	edit := func(f func(*PublicMessage)) *Message {
		m := *commit.PublicMessage
		f(&m)
		return &Message{WireFormat: WireFormatPublicMessage, PublicMessage: &m}
	}
	rekey := func(f func(*framedContent)) *Message { // with a good membership tag and the old signature
		return edit(func(m *PublicMessage) {
			f(&m.auth.content)
			*m = *newPublicMessage(&m.auth, a.cur.encoded, a.cur.secrets.membership)
		})
	}
	application := a.newContent(ContentApplication, nil)
	application.wireFormat = WireFormatPublicMessage
	a.signContent(application)
	tests := []struct {
		name string
		m    *Message
		want error
	}{
		{"key package", mustParse(t, kp), ErrInvalidMessage},
		{"nothing", &Message{}, ErrInvalidMessage},
		{"other group", mustParse(t, other[0].mustCommit(t, CommitOptions{}).Commit), ErrWrongGroup},
		{"past epoch", edit(func(m *PublicMessage) { m.auth.content.epoch = 0 }), ErrPastEpoch},
		{"future epoch", edit(func(m *PublicMessage) { m.auth.content.epoch = 1 << 63 }), ErrFutureEpoch},
		{"no membership tag", edit(func(m *PublicMessage) { m.membershipTag = nil }), ErrMembershipTag},
		{"short membership tag", edit(func(m *PublicMessage) { m.membershipTag = m.membershipTag[:31] }), ErrMembershipTag},
		{"other sender", rekey(func(c *framedContent) { c.sender.Leaf = 2 }), ErrSignature},
		{"sender outside the tree", rekey(func(c *framedContent) { c.sender.Leaf = 3 }), ErrNoSuchMember},
		{"sender far outside", rekey(func(c *framedContent) { c.sender.Leaf = 1<<32 - 1 }), ErrNoSuchMember},
		{"sender from outside", rekey(func(c *framedContent) { c.sender = Sender{Type: SenderExternal} }), ErrInvalidMessage},
		{"sender is new", rekey(func(c *framedContent) { c.sender = Sender{Type: SenderNewMemberCommit} }), ErrSignature},
		{"other authenticated data", rekey(func(c *framedContent) { c.authenticatedData = []byte("x") }), ErrSignature},
		{"application data in public", &Message{PublicMessage: newPublicMessage(application, a.cur.encoded, a.cur.secrets.membership)}, ErrInvalidMessage},
	}
	before := marshal(t, b.Group)
	for _, tt := range tests {
		if _, err := b.Process(tt.m, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	wantBytes2(t, "group", marshal(t, b.Group), before)
	if _, err := a.Process(commit, testNow); !errors.Is(err, ErrOwnMessage) {
		t.Errorf("own commit: got %v, want ErrOwnMessage", err)
	}
	if _, err := b.Process(commit, testNow); err != nil {
		t.Error(err)
	}
}

func TestParseMessageRefuses(t *testing.T) {
	t.Parallel()
	kp, err := newPeer(t, "p").bundle.KeyPackage().MarshalMessage()
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) []byte { b := bytes.Clone(kp); b[at] = to; return b }
	for name, tt := range map[string]struct {
		in   []byte
		want error
	}{
		"version 0":         {change(1, 0), ErrUnsupportedVersion},
		"version 2":         {change(1, 2), ErrUnsupportedVersion},
		"GREASE version":    {change(0, 0x0a), ErrUnsupportedVersion},
		"wire format 0":     {change(3, 0), ErrMalformed},
		"wire format 6":     {change(3, 6), ErrMalformed},
		"trailing byte":     {append(bytes.Clone(kp), 0), ErrMalformed},
		"last byte missing": {kp[:len(kp)-1], ErrMalformed},
		"empty":             {nil, ErrMalformed},
		"too large":         {make([]byte, MaxMessageSize+1), ErrTooLarge},
	} {
		if _, err := ParseMessage(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	// A suite that is not ours parses, and is refused by name when it is used.
	m, err := ParseMessage(change(7, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.KeyPackage.Verify(testNow, nil); !errors.Is(err, ErrUnsupportedSuite) {
		t.Errorf("suite 2: got %v, want ErrUnsupportedSuite", err)
	}
}

// No member can keep the others from committing by a proposal that fits nowhere.
func TestPoisonousProposalsAreLeftOut(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b, c := peers[0], peers[1], peers[2]
	x := Extensions{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}}.Extension()}
	spread(t, peers, a, a.mustCommit(t, CommitOptions{GroupContextExtensions: &x}))
	propose := func(p *Proposal) {
		t.Helper()
		content := b.newContent(ContentProposal, nil)
		content.wireFormat = WireFormatPublicMessage
		content.content.proposal = p
		b.signContent(content)
		m := &Message{PublicMessage: newPublicMessage(content, b.cur.encoded, b.cur.secrets.membership)}
		for _, to := range []*peer{a, c, peers[3]} {
			to.mustProcess2(t, m)
		}
	}
	fresh := newPeer(t, "fresh")
	poor := fresh.resigned(func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Extensions = nil })
	taken := newPeer(t, "taken").resigned(func(_ *KeyPackage, l *LeafNode) {})
	taken.LeafNode.EncryptionKey = c.cur.tree.leaf(3).EncryptionKey
	impossible := Extensions{{Type: 0xf0f0}}
	update := *b.cur.tree.leaf(1)
	update.Source, update.EncryptionKey = LeafFromUpdate, c.cur.tree.leaf(2).EncryptionKey
	update.sign(b.signer, b.GroupID(), 1)
	last := LeafIndex(3)

	propose(&Proposal{Type: ProposalAdd, Add: poor})
	propose(&Proposal{Type: ProposalUpdate, Update: &update})
	propose(&Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: impossible})
	propose(&Proposal{Type: ProposalPSK, PSK: &PreSharedKeyID{Type: PSKExternal, ID: []byte("?"), Nonce: make([]byte, 32)}})
	propose(&Proposal{Type: ProposalReInit, ReInit: &ReInit{Version: 1, CipherSuite: 1}})
	propose(&Proposal{Type: ProposalRemove, Remove: c.OwnIndex()})
	propose(&Proposal{Type: ProposalAdd, Add: newPeer(t, "good").bundle.KeyPackage()})
	propose(&Proposal{Type: ProposalRemove, Remove: last})
	pending := c.mustCommit(t, CommitOptions{})
	if n := len(mustParse(t, pending.Commit).PublicMessage.Commit().Proposals); n != 2 {
		t.Errorf("%d proposals committed, want the Add and the Remove that fit", n)
	}
	a.mustProcess(t, pending.Commit)
	c.mustMerge(t, pending)
	wantAgreement(t, []*peer{a, c})
}
