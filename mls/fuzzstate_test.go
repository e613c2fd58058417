package mls

import (
	"bytes"
	"testing"
)

func FuzzUnmarshalGroup(f *testing.F) {
	peers, _ := savedGroup(f)
	p := peers[1]
	f.Add(marshal(f, p.Group))
	commit := peers[2].mustCommit(f, CommitOptions{ForcePath: true}).Commit
	for range 3 {
		peers[0].mustEncrypt(f, "lost")
	}
	p.mustProcess(f, peers[0].mustEncrypt(f, "x"))
	f.Add(marshal(f, p.Group))
	late := peers[2].mustEncrypt(f, "y")
	spread(f, peers, peers[0], peers[0].mustCommit(f, CommitOptions{}))
	f.Add(marshal(f, p.Group))
	f.Fuzz(func(t *testing.T, b []byte) {
		wantModest(t, "group", len(b), func() { _, _ = UnmarshalGroup(b, p.signer, nil) })
		g, err := UnmarshalGroup(b, p.signer, nil)
		if err != nil {
			return
		}
		if !bytes.Equal(marshal(t, g), b) {
			t.Fatal("encodes differently")
		}
		g.Members()
		_, _ = g.Process(mustParse(t, late), testNow)
		_, _ = g.Process(mustParse(t, commit), testNow)
		_, _ = g.Encrypt([]byte("x"), nil, 10)
		_, _ = g.Commit(CommitOptions{AcceptTime: testNow})
		_, _ = g.GroupInfo()
	})
}

func FuzzUnmarshalPendingCommit(f *testing.F) {
	s := makeSaved(f)
	f.Add(s.pending)
	peers, newcomer := savedGroup(f)
	p := peers[1] // as in makeSaved
	for _, o := range []CommitOptions{
		{}, {Removes: []LeafIndex{2}}, {Adds: keyPackagesOf([]*peer{newcomer})},
		{ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}},
	} {
		b, err := p.mustCommit(f, o).MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	state := marshal(f, p.Group)
	f.Fuzz(func(t *testing.T, b []byte) {
		decoderNamed(t, "pending commit").check(t, b)
		g, err := UnmarshalGroup(state, p.signer, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := g.UnmarshalPendingCommit(b)
		if err != nil {
			return
		}
		if g.Merge(c) != nil {
			if !bytes.Equal(marshal(t, g), state) {
				t.Fatal("the group changed by a Commit that was not merged")
			}
			return
		}
		_, _ = g.Encrypt([]byte("x"), nil, 0)
		_, _ = g.Commit(CommitOptions{AcceptTime: testNow})
		_, _ = g.MarshalBinary()
	})
}

func FuzzUnmarshalPublicGroup(f *testing.F) {
	s := makeSaved(f)
	f.Add(s.public)
	peers, _ := savedGroup(f)
	follower, err := NewPublicGroup(mustGroupInfo(f, peers[0]), nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	remove := LeafIndex(3)
	proposal, err := peers[1].Propose(ProposeOptions{Remove: &remove})
	if err != nil {
		f.Fatal(err)
	}
	for range 2 {
		b, err := follower.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		_, _ = follower.Process(mustParse(f, proposal).PublicMessage, testNow)
	}
	peers[0].mustProcess(f, proposal)
	commit := mustParse(f, peers[0].mustCommit(f, CommitOptions{}).Commit).PublicMessage
	f.Fuzz(func(t *testing.T, b []byte) {
		if !decoderNamed(t, "public group").check(t, b) {
			return
		}
		p, err := UnmarshalPublicGroup(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Members()
		p.RatchetTree()
		_, _ = p.Clone().Process(mustParse(t, proposal).PublicMessage, testNow)
		_, _ = p.Process(commit, testNow)
		_, _ = p.MarshalBinary()
	})
}

func FuzzUnmarshalKeyPackageBundle(f *testing.F) {
	peers, newcomer := savedGroup(f)
	welcome := mustParse(f, peers[0].mustCommit(f, CommitOptions{Adds: keyPackagesOf([]*peer{newcomer})}).Welcome).Welcome
	peers = append(peers, newcomer)
	for _, p := range peers {
		b, err := p.bundle.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !decoderNamed(t, "key package bundle").check(t, b) {
			return
		}
		bundle, err := UnmarshalKeyPackageBundle(b)
		if err != nil {
			t.Fatal(err)
		}
		_ = bundle.KeyPackage().Verify(testNow, nil)
		_, _ = JoinGroup(welcome, bundle, newcomer.signer, JoinOptions{})
	})
}
