package mls

import (
	"bytes"
	"testing"
)

func TestFaultTinyTreeAllocatesGigabytes(t *testing.T) {
	// Not parallel: it measures what is allocated.
	inputs := [][]byte{
		{0xbf, 0xff, 0xff, 0xff, 1, 1, 0, 0},
		{0x07, 0, 0, 0, 0, 0, 0, 0},
		{0x05, 1, 1, 0xbf, 0xff, 0xff},
		{0xbf, 0xff, 0xff, 0xff},
	}
	makeSaved(t)
	for _, in := range inputs {
		for _, d := range decoders {
			if d.name == "application_id" { // any bytes are one
				continue
			}
			if d.check(t, in) {
				t.Errorf("%x: accepted as %s", in, d.name)
			}
		}
	}
}

func TestFaultOneFlippedBytePanics(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b, fresh := peers[0], peers[1], newPeer(t, "fresh")
	gone := peers[3].OwnIndex()
	proposal, err := peers[2].Propose(ProposeOptions{Update: true})
	if err != nil {
		t.Fatal(err)
	}
	a.mustProcess(t, proposal)
	b.mustProcess(t, proposal)
	c := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh}), Removes: []LeafIndex{gone}})
	application := a.mustEncrypt(t, "hello")
	before := marshal(t, b.Group)
	watch := newSecretWatch(secretsOf(b.Group))
	try := func(name string, in []byte, use func(*Message) error) {
		bits := []byte{1, 0x80}
		if len(in) > 1000 {
			bits = bits[:1]
		}
		for i := range in {
			for _, bit := range bits {
				bad := bytes.Clone(in)
				bad[i] ^= bit
				m, err := ParseMessage(bad)
				if err == nil {
					err = use(m)
				}
				if err == nil {
					t.Errorf("%s with byte %d flipped is accepted", name, i)
				}
				watch.check(t, err)
			}
		}
	}
	process := func(m *Message) error { _, err := b.Process(m, testNow); return err }
	try("application", application, process)
	try("commit", c.Commit, process)
	try("proposal", proposal, process)
	wantBytes2(t, "group", marshal(t, b.Group), before)
	try("welcome", c.Welcome, func(m *Message) error {
		if m.Welcome == nil {
			return ErrInvalidMessage
		}
		_, err := JoinGroup(m.Welcome, fresh.bundle, fresh.signer, JoinOptions{})
		return err
	})
	try("group info", c.GroupInfo, func(m *Message) error {
		if m.GroupInfo == nil {
			return ErrInvalidMessage
		}
		return m.GroupInfo.Verify(nil, nil)
	})
	kp, err := fresh.bundle.KeyPackage().MarshalMessage()
	if err != nil {
		t.Fatal(err)
	}
	try("key package", kp, func(m *Message) error {
		if m.KeyPackage == nil {
			return ErrInvalidMessage
		}
		return m.KeyPackage.Verify(testNow, nil)
	})
	b.mustProcess(t, application)
	b.mustProcess(t, c.Commit)
}

// Keys of any length reach the signature check before anything else is known of
// them: of newcomers who propose or commit, of members in a tree that is not yet
// verified, of external senders.
func TestFaultOddKeyLengthPanics(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a, b, fresh := peers[0], peers[1], newPeer(t, "fresh")
	j, err := JoinExternal(mustGroupInfo(t, a), ExternalJoinOptions{Credential: BasicCredential([]byte("fresh")), Signer: fresh.signer})
	if err != nil {
		t.Fatal(err)
	}
	follower, err := NewPublicGroup(mustGroupInfo(t, a), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := marshal(t, b.Group)
	for _, n := range []int{0, 1, 31, 33, 64} {
		key := make([]byte, n)
		add := *fresh.bundle.KeyPackage()
		leaf := *add.LeafNode
		leaf.SignatureKey = key
		add.LeafNode = &leaf
		joins := mustParse(t, j.Commit)
		joins.PublicMessage.Commit().Path.LeafNode.SignatureKey = key
		for name, m := range map[string]*Message{
			"proposal": signedBy(fresh, a.Group, Sender{Type: SenderNewMemberProposal}, &Proposal{Type: ProposalAdd, Add: &add}),
			"commit":   joins,
		} {
			if _, err := b.Process(m, testNow); err == nil {
				t.Errorf("%s with a key of %d bytes is accepted", name, n)
			}
			if _, err := follower.Process(m.PublicMessage, testNow); err == nil {
				t.Errorf("%s with a key of %d bytes is accepted by the follower", name, n)
			}
		}
		if add.Verify(testNow, nil) == nil {
			t.Errorf("a key package with a key of %d bytes is accepted", n)
		}
		tr := a.cur.tree.clone()
		leaf = *tr.leaf(0)
		leaf.SignatureKey = key
		tr.setLeaf(0, &leaf)
		gi := mustGroupInfo(t, a)
		gi.Extensions[0].Data = tr.encode()
		h := tr.treeHash()
		gi.GroupContext.TreeHash = h[:]
		gi.sign(a.signer)
		if gi.Verify(nil, nil) == nil {
			t.Errorf("a tree with a key of %d bytes is accepted", n)
		}
	}
	wantBytes2(t, "group", marshal(t, b.Group), before)
}
