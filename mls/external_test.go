package mls

import (
	"errors"
	"testing"
)

func mustGroupInfo(t testing.TB, p *peer) *GroupInfo {
	t.Helper()
	b, err := p.Group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, b).GroupInfo
}

func TestExternalJoinWithPSK(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	p := newPeer(t, "new")
	store := PSKFunc(func(*PreSharedKeyID) ([]byte, error) { return []byte("psk"), nil })
	gi := mustGroupInfo(t, peers[0])
	tree := peers[0].RatchetTree()
	gi.Extensions = Extensions{{Type: ExtensionExternalPub, Data: appendOpaque(nil, peers[0].cur.secrets.externalPublic())}}
	gi.sign(peers[0].signer)
	o := ExternalJoinOptions{
		Credential: BasicCredential([]byte("new")), Signer: p.signer, RatchetTree: tree, PSKs: store,
		PSKIDs: []*PreSharedKeyID{{Type: PSKExternal, ID: []byte("id")}},
	}
	j, err := JoinExternal(gi, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Group = reload(t, j.Group)
	for _, m := range peers {
		if _, err := m.Process(mustParse(t, j.Commit), testNow); !errors.Is(err, ErrUnknownPSK) {
			t.Errorf("without the PSK: got %v, want ErrUnknownPSK", err)
		}
		m.SetPSKStore(store)
		m.mustProcess(t, j.Commit)
	}
	wantAgreement(t, append(peers, p))
	if err := mustParse(t, j.GroupInfo).GroupInfo.Verify(nil, nil); err != nil {
		t.Error(err)
	}
	peers[0].mustProcess(t, p.mustEncrypt(t, "hello"))
}

func TestExternalJoinRefused(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	p := newPeer(t, "new")
	nobody := LeafIndex(5)
	resign := func(f func(*GroupInfo)) *GroupInfo {
		gi := mustGroupInfo(t, peers[0])
		f(gi)
		gi.sign(peers[0].signer)
		return gi
	}
	external := func(data []byte) func(*GroupInfo) {
		return func(gi *GroupInfo) { gi.Extensions[1].Data = data }
	}
	tests := []struct {
		name string
		gi   *GroupInfo
		o    ExternalJoinOptions
		want error
	}{
		{"no external_pub", resign(func(gi *GroupInfo) { gi.Extensions = gi.Extensions[:1] }), ExternalJoinOptions{}, ErrInvalidWelcome},
		{"external_pub without its length", resign(external(make([]byte, 32))), ExternalJoinOptions{}, ErrInvalidWelcome},
		{"external_pub of low order", resign(external(appendOpaque(nil, make([]byte, 32)))), ExternalJoinOptions{}, ErrInvalidWelcome},
		{"no tree", resign(func(gi *GroupInfo) { gi.Extensions = gi.Extensions[1:] }), ExternalJoinOptions{}, ErrInvalidWelcome},
		{"not signed", func() *GroupInfo { gi := mustGroupInfo(t, peers[0]); gi.Signature = nil; return gi }(), ExternalJoinOptions{}, ErrSignature},
		{"no signer", mustGroupInfo(t, peers[0]), ExternalJoinOptions{Signer: []byte{1}}, ErrInvalidArgument},
		{"key of a member", mustGroupInfo(t, peers[0]), ExternalJoinOptions{Signer: peers[1].signer}, ErrKeyReuse},
		{"resync of nobody", mustGroupInfo(t, peers[0]), ExternalJoinOptions{Resync: &nobody}, ErrNoSuchMember},
		{"unknown PSK", mustGroupInfo(t, peers[0]), ExternalJoinOptions{PSKIDs: []*PreSharedKeyID{{Type: PSKExternal}}}, ErrUnknownPSK},
	}
	for _, tt := range tests {
		tt.o.Credential = BasicCredential([]byte("new"))
		if tt.o.Signer == nil {
			tt.o.Signer = p.signer
		}
		if _, err := JoinExternal(tt.gi, tt.o); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// What the rules for external Commits forbid, sent by someone who does not care.
func TestExternalCommitsRefused(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	p := newPeer(t, "new")
	follower, err := NewPublicGroup(mustGroupInfo(t, peers[0]), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	base, err := JoinExternal(mustGroupInfo(t, peers[0]), ExternalJoinOptions{Credential: BasicCredential([]byte("new")), Signer: p.signer})
	if err != nil {
		t.Fatal(err)
	}
	initial := mustParse(t, base.Commit).PublicMessage.Commit().Proposals[0]
	value := func(p *Proposal) ProposalOrRef { return ProposalOrRef{Proposal: p} }
	remove := value(&Proposal{Type: ProposalRemove, Remove: 1})
	ref := peers[0].Group
	update, err := ref.Propose(ProposeOptions{Remove: &[]LeafIndex{2}[0]})
	if err != nil {
		t.Fatal(err)
	}
	peers[1].mustProcess(t, update)
	if _, err := follower.Process(mustParse(t, update).PublicMessage, testNow); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*Commit)
		want   error
	}{
		{"no external init", func(c *Commit) { c.Proposals = nil }, ErrInvalidProposal},
		{"two external inits", func(c *Commit) { c.Proposals = []ProposalOrRef{initial, initial} }, ErrInvalidProposal},
		{"removes another", func(c *Commit) { c.Proposals = []ProposalOrRef{initial, remove} }, ErrInvalidProposal},
		{"removes two", func(c *Commit) { c.Proposals = []ProposalOrRef{initial, remove, remove} }, ErrInvalidProposal},
		{"adds", func(c *Commit) {
			c.Proposals = []ProposalOrRef{initial, value(&Proposal{Type: ProposalAdd, Add: newPeer(t, "x").bundle.KeyPackage()})}
		}, ErrInvalidProposal},
		{"sets extensions", func(c *Commit) {
			c.Proposals = []ProposalOrRef{initial, value(&Proposal{Type: ProposalGroupContextExtensions})}
		}, ErrInvalidProposal},
		{"refers", func(c *Commit) { c.Proposals = []ProposalOrRef{initial, {Ref: &peers[1].cur.received[0].ref}} }, ErrInvalidProposal},
		{"no path", func(c *Commit) { c.Path = nil }, ErrInvalidMessage},
		{"leaf of a key package", func(c *Commit) { c.Path.LeafNode = p.bundle.keyPackage.LeafNode }, ErrInvalidCommit},
		{"one node too few", func(c *Commit) { c.Path.nodes = c.Path.nodes[1:] }, ErrInvalidCommit},
		{"other key in the path", func(c *Commit) { c.Path.nodes[0].encryptionKey = randomBytes(32) }, ErrInvalidCommit},
		{"key of low order in the path", func(c *Commit) { c.Path.nodes[0].encryptionKey = make([]byte, 32) }, ErrInvalidCommit},
		{"one ciphertext too many", func(c *Commit) {
			c.Path.nodes[0].secrets = append(c.Path.nodes[0].secrets, c.Path.nodes[0].secrets[0])
		}, ErrInvalidCommit},
	}
	before := marshal(t, peers[1].Group)
	for _, tt := range tests {
		m := mustParse(t, base.Commit)
		a := &m.PublicMessage.auth
		tt.change(a.content.commit)
		a.signature = signWithLabel(p.signer, "FramedContentTBS", a.tbs(peers[1].cur.encoded))
		if _, err := peers[1].Process(m, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if _, err := follower.Process(m.PublicMessage, testNow); !errors.Is(err, tt.want) {
			t.Errorf("%s: follower: got %v, want %v", tt.name, err, tt.want)
		}
	}
	wantBytes2(t, "group", marshal(t, peers[1].Group), before)
	if _, err := follower.Process(mustParse(t, base.Commit).PublicMessage, testNow); err != nil {
		t.Error(err)
	}
	peers[1].mustProcess(t, base.Commit)
}

// The leaf of a resync must be what an Update of the removed leaf could be (RFC 9420
// §12.2): the same encryption key again would leave the old state's owner inside.
func TestResyncNeedsANewEncryptionKey(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	victim := LeafIndex(2)
	checker := peers[0].checker(testNow)
	entries := (&ExternalJoinOptions{Resync: &victim}).entries(make([]byte, 32))
	old := peers[0].cur.tree.leaf(victim)
	fresh := *old
	fresh.EncryptionKey = newHPKEKeyPair().public
	for want, leaf := range map[error]*LeafNode{ErrKeyReuse: old, nil: &fresh} {
		if err := checker.checkExternal(entries, leaf); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
