package mls

import (
	"errors"
	"testing"
)

// signedBy frames content from outside the group and signs it.
func signedBy(p *peer, g *Group, sender Sender, proposal *Proposal) *Message {
	a := g.newContent(ContentProposal, nil)
	a.wireFormat = WireFormatPublicMessage
	a.content.sender = sender
	a.content.proposal = proposal
	a.signature = signWithLabel(p.signer, "FramedContentTBS", a.tbs(g.cur.encoded))
	return &Message{WireFormat: WireFormatPublicMessage, PublicMessage: newPublicMessage(a, g.cur.encoded, g.cur.secrets.membership)}
}

func TestProposalsFromOutside(t *testing.T) {
	t.Parallel()
	service, fresh := newPeer(t, "service"), newPeer(t, "fresh")
	creator, member := newPeer(t, "creator"), newPeer(t, "member")
	senders := appendVector(nil, func(b []byte) []byte {
		return BasicCredential([]byte("service")).append(appendOpaque(b, publicOf(service.signer)))
	})
	g, err := CreateGroup(GroupOptions{
		GroupID: []byte("group"), Credential: BasicCredential([]byte("creator")), Signer: creator.signer,
		Extensions: Extensions{{Type: ExtensionExternalSenders, Data: senders}},
	})
	if err != nil {
		t.Fatal(err)
	}
	creator.Group = g
	c := creator.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{member})})
	creator.mustMerge(t, c)
	member.join(t, c.Welcome)
	peers := []*peer{creator, member}

	external := Sender{Type: SenderExternal}
	add := &Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()}
	tests := []struct {
		name   string
		by     *peer
		sender Sender
		p      *Proposal
		want   error
	}{
		{"add by the service", service, external, add, nil},
		{"add by the newcomer", fresh, Sender{Type: SenderNewMemberProposal}, add, nil},
		{"add by another for the newcomer", service, Sender{Type: SenderNewMemberProposal}, add, ErrSignature},
		{"remove by the newcomer", fresh, Sender{Type: SenderNewMemberProposal}, &Proposal{Type: ProposalRemove}, ErrInvalidMessage},
		{"update by the service", service, external, &Proposal{Type: ProposalUpdate, Update: fresh.bundle.keyPackage.LeafNode}, ErrInvalidProposal},
		{"external init by the service", service, external, &Proposal{Type: ProposalExternalInit}, ErrInvalidProposal},
		{"unknown service", service, Sender{Type: SenderExternal, ExternalIndex: 1}, add, ErrInvalidMessage},
		{"impostor", fresh, external, add, ErrSignature},
		{"proposal by the author of an external commit", fresh, Sender{Type: SenderNewMemberCommit}, add, ErrInvalidMessage},
		{"external init by a member", creator, Sender{Type: SenderMember}, &Proposal{Type: ProposalExternalInit}, ErrInvalidProposal},
		{"update of a member with the wrong leaf", creator, Sender{Type: SenderMember}, &Proposal{Type: ProposalUpdate, Update: fresh.bundle.keyPackage.LeafNode}, ErrInvalidProposal},
	}
	for _, tt := range tests {
		m := signedBy(tt.by, creator.Group, tt.sender, tt.p)
		got, err := member.Process(m, testNow)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && (got.Kind != ProposalReceived || got.Proposal.Type != tt.p.Type || got.SenderType != tt.sender.Type) {
			t.Errorf("%s: got %+v", tt.name, got)
		}
		if tt.want == nil && tt.sender == external {
			if _, err := member.Process(m, testNow); !errors.Is(err, ErrReplay) {
				t.Errorf("%s again: got %v, want ErrReplay", tt.name, err)
			}
			if _, err := creator.Process(m, testNow); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Of the two Adds of one key, the selection takes one.
	member.Group = reload(t, member.Group)
	creator.mustProcess2(t, signedBy(fresh, creator.Group, Sender{Type: SenderNewMemberProposal}, add))
	c = member.mustCommit(t, CommitOptions{})
	spread(t, peers, member, c)
	fresh.join(t, c.Welcome)
	wantAgreement(t, append(peers, fresh))
}

func (p *peer) mustProcess2(t *testing.T, m *Message) {
	t.Helper()
	if _, err := p.Process(m, testNow); err != nil {
		t.Fatal(err)
	}
}

func TestProposeOptionsRefused(t *testing.T) {
	t.Parallel()
	p := newGroup(t, 2)[0]
	self, nobody := LeafIndex(0), LeafIndex(5)
	for name, tt := range map[string]struct {
		o    ProposeOptions
		want error
	}{
		"nothing":       {ProposeOptions{}, ErrInvalidArgument},
		"two":           {ProposeOptions{Update: true, Remove: &self}, ErrInvalidArgument},
		"remove nobody": {ProposeOptions{Remove: &nobody}, ErrNoSuchMember},
		"expired":       {ProposeOptions{Add: newPeer(t, "x").bundle.KeyPackage(), AcceptTime: testNow.AddDate(1, 0, 0)}, ErrExpired},
	} {
		if _, err := p.Propose(tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// commitOf lets from commit exactly these proposals, whatever the rules say.
func forgedCommit(t *testing.T, from *peer, withPath bool, proposals ...ProposalOrRef) *Message {
	t.Helper()
	a := from.newContent(ContentCommit, nil)
	a.wireFormat = WireFormatPublicMessage
	a.content.commit = &Commit{Proposals: proposals}
	if withPath {
		tr := from.cur.tree.clone()
		p := tr.generatePath(from.own, *tr.leaf(from.own), from.signer, from.GroupID())
		if err := p.encrypt(tr, nil, nil); err != nil {
			t.Fatal(err)
		}
		a.content.commit.Path = p.path
	}
	from.signContent(a)
	a.confirmationTag = make([]byte, hashSize)
	return &Message{WireFormat: WireFormatPublicMessage, PublicMessage: newPublicMessage(a, from.cur.encoded, from.cur.secrets.membership)}
}

func TestCommitsRefused(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b := peers[0], peers[1]
	fresh, twin := newPeer(t, "fresh"), newPeer(t, "twin")
	twin.signer = fresh.signer
	twin.renew(t)
	value := func(p *Proposal) ProposalOrRef { return ProposalOrRef{Proposal: p} }
	add := value(&Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()})
	remove := func(i LeafIndex) ProposalOrRef { return value(&Proposal{Type: ProposalRemove, Remove: i}) }
	update := *a.cur.tree.leaf(0)
	update.Source = LeafFromUpdate
	update.EncryptionKey = newHPKEKeyPair().public
	update.sign(a.signer, a.GroupID(), 0)
	gce := value(&Proposal{Type: ProposalGroupContextExtensions})
	psk := value(&Proposal{Type: ProposalPSK, PSK: &PreSharedKeyID{Type: PSKExternal, ID: []byte("x"), Nonce: make([]byte, 32)}})
	branch := value(&Proposal{Type: ProposalPSK, PSK: &PreSharedKeyID{Type: PSKResumption, Usage: ResumptionBranch, Nonce: make([]byte, 32)}})
	reinit := value(&Proposal{Type: ProposalReInit, ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}})
	old := value(&Proposal{Type: ProposalReInit, ReInit: &ReInit{GroupID: []byte("x"), Version: 0, CipherSuite: 1}})
	tests := []struct {
		name      string
		path      bool
		proposals []ProposalOrRef
		want      error
	}{
		{"empty without a path", false, nil, ErrInvalidCommit},
		{"remove without a path", false, []ProposalOrRef{remove(2)}, ErrInvalidCommit},
		{"extensions without a path", false, []ProposalOrRef{gce}, ErrInvalidCommit},
		{"own removal", true, []ProposalOrRef{remove(0)}, ErrInvalidProposal},
		{"removed twice", true, []ProposalOrRef{remove(2), remove(2)}, ErrInvalidProposal},
		{"nobody removed", true, []ProposalOrRef{remove(7)}, ErrNoSuchMember},
		{"own update", true, []ProposalOrRef{value(&Proposal{Type: ProposalUpdate, Update: &update})}, ErrInvalidProposal},
		{"added twice", false, []ProposalOrRef{add, add}, ErrKeyReuse},
		{"one signature key added twice", false, []ProposalOrRef{add, value(&Proposal{Type: ProposalAdd, Add: twin.bundle.KeyPackage()})}, ErrKeyReuse},
		{"member added", false, []ProposalOrRef{value(&Proposal{Type: ProposalAdd, Add: b.bundle.KeyPackage()})}, ErrKeyReuse},
		{"extensions twice", true, []ProposalOrRef{gce, gce}, ErrInvalidProposal},
		{"PSK twice", false, []ProposalOrRef{psk, psk}, ErrInvalidProposal},
		{"unknown PSK", false, []ProposalOrRef{psk}, ErrUnknownPSK},
		{"PSK for a branch", false, []ProposalOrRef{branch}, ErrInvalidProposal},
		{"reinit and add", false, []ProposalOrRef{reinit, add}, ErrInvalidProposal},
		{"reinit to version 0", false, []ProposalOrRef{old}, ErrInvalidProposal},
		{"external init", true, []ProposalOrRef{value(&Proposal{Type: ProposalExternalInit})}, ErrInvalidProposal},
		{"unknown reference", true, []ProposalOrRef{{Ref: &ProposalRef{}}}, ErrUnknownProposal},
		{"path for another context", true, nil, ErrDecrypt},
		{"wrong confirmation tag", false, []ProposalOrRef{add}, ErrConfirmationTag},
	}
	follower, err := NewPublicGroup(mustGroupInfo(t, b), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What only a member can see.
	secret := map[error]bool{ErrUnknownPSK: true, ErrDecrypt: true, ErrConfirmationTag: true}
	before := marshal(t, b.Group)
	for _, tt := range tests {
		m := forgedCommit(t, a, tt.path, tt.proposals...)
		if _, err := b.Process(m, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		wantBytes2(t, tt.name, marshal(t, b.Group), before)
		want := tt.want
		if secret[want] {
			want = nil
		}
		if _, err := follower.Clone().Process(m.PublicMessage, testNow); !errors.Is(err, want) {
			t.Errorf("%s: follower: got %v, want %v", tt.name, err, want)
		}
	}
}

func TestUpdateIsSuperseded(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b, c := peers[0], peers[1], peers[2]
	for range 2 {
		m, err := b.Propose(ProposeOptions{Update: true})
		if err != nil {
			t.Fatal(err)
		}
		b.Group = reload(t, b.Group)
		a.mustProcess(t, m)
		c.mustProcess(t, m)
	}
	// b's own commit leaves its updates out, a's takes the later one.
	if p := b.mustCommit(t, CommitOptions{}); len(mustParse(t, p.Commit).PublicMessage.Commit().Proposals) != 0 {
		t.Error("own update in the own commit")
	}
	if a.ProposalsWaiting() != 2 || b.ProposalsWaiting() != 2 {
		t.Errorf("%d and %d proposals wait, want 2", a.ProposalsWaiting(), b.ProposalsWaiting())
	}
	p := a.mustCommit(t, CommitOptions{})
	refs := mustParse(t, p.Commit).PublicMessage.Commit().Proposals
	if len(refs) != 1 || *refs[0].Ref != a.cur.received[1].ref {
		t.Errorf("%d proposals committed", len(refs))
	}
	spread(t, peers, a, p)
	wantAgreement(t, peers)
	if a.ProposalsWaiting() != 0 || b.ProposalsWaiting() != 0 {
		t.Error("proposals wait in a new epoch")
	}
}
