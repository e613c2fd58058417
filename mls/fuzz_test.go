package mls

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// seedMessages adds the official MLSMessages, those outside the project included
// when they are there.
func seedMessages(f *testing.F, add func([]byte)) {
	for _, v := range loadVectors[passiveVector](f, "testdata/vectors/passive-client-handling-commit.json.gz") {
		add(v.KeyPackage)
		add(v.Welcome)
		for _, e := range v.Epochs {
			add(e.Commit)
			for _, p := range e.Proposals {
				add(p)
			}
		}
	}
	for _, v := range loadVectors[protectionVector](f, "testdata/vectors/message-protection.json.gz") {
		for _, b := range [][]byte{v.ProposalPriv, v.ProposalPub, v.CommitPriv, v.CommitPub, v.ApplicationPriv} {
			add(b)
		}
	}
	path := filepath.Join("..", "..", "shared", "mls-vectors", "messages.json.gz")
	if _, err := os.Stat(path); err != nil {
		f.Logf("seeds of messages.json are not at %s", path)
		return
	}
	for i, v := range loadVectors[map[string]hexBytes](f, path) {
		for name, b := range v {
			if i%50 == 0 && (name[:3] == "mls" || name[:3] == "pub" || name == "private_message") {
				add(b)
			}
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	seedMessages(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parsed, but encodes differently: %v", err)
		}
		if m.KeyPackage != nil {
			m.KeyPackage.Ref()
			m.KeyPackage.Lifetime()
		}
		if m.GroupInfo != nil {
			m.GroupInfo.ExternalPub()
			_ = m.GroupInfo.Verify(nil, nil)
		}
	})
}

func FuzzKeyPackage(f *testing.F) {
	seedMessages(f, func(b []byte) {
		if m, err := ParseMessage(b); err == nil && m.KeyPackage != nil {
			f.Add(encode(m.KeyPackage), true)
			f.Add(encode(m.KeyPackage), false)
		}
	})
	p := newPeer(f, "p")
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		var kp *KeyPackage
		if decode(b, "key package", func(r *reader) { kp = decodeKeyPackage(r) }) != nil {
			return
		}
		if !bytes.Equal(encode(kp), b) {
			t.Fatal("encodes differently")
		}
		if sign { // get past the signatures
			kp.LeafNode.SignatureKey = publicOf(p.signer)
			kp.LeafNode.sign(p.signer, nil, 0)
			kp.Signature = signWithLabel(p.signer, "KeyPackageTBS", kp.appendContent(nil))
		}
		if kp.Verify(vectorTime, nil) != nil {
			return
		}
		// What verifies can be added.
		p.create(t)
		c, err := p.Commit(CommitOptions{Adds: []*KeyPackage{kp}, AcceptTime: vectorTime})
		if err != nil {
			return // a low-order key, for instance
		}
		mustParse(t, c.Welcome)
	})
}

func FuzzTree(f *testing.F) {
	type vector struct {
		Tree    hexBytes
		GroupID hexBytes `json:"group_id"`
	}
	var groupID []byte
	for _, v := range loadVectors[vector](f, "testdata/vectors/tree-validation.json.gz") {
		f.Add([]byte(v.Tree), uint32(1))
		groupID = v.GroupID
	}
	p := newPeer(f, "p")
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		tr, err := parseTree(b)
		if err != nil {
			return
		}
		if !bytes.Equal(tr.encode(), b) {
			t.Fatal("encodes differently")
		}
		tr.treeHash()
		_ = tr.validate(&GroupContext{GroupID: groupID}, nil)
		i := LeafIndex(at % uint32(len(tr.leaves)))
		if tr.leaf(i) == nil {
			_, _ = tr.add(p.bundle.keyPackage.LeafNode)
			return
		}
		tr.generatePath(i, *tr.leaf(i), p.signer, groupID)
		tr.remove(i)
		if len(tr.leaves) > 1 {
			tr.treeHash()
		}
	})
}

func FuzzUnmarshalGroup(f *testing.F) {
	peers := newGroup(f, 3)
	p := peers[1]
	f.Add(marshal(f, p.Group))
	p.mustProcess(f, peers[0].mustEncrypt(f, "x"))
	m, err := p.Propose(ProposeOptions{Update: true})
	if err != nil {
		f.Fatal(err)
	}
	peers[0].mustProcess(f, m)
	peers[2].mustProcess(f, m)
	f.Add(marshal(f, p.Group))
	spread(f, peers, peers[0], peers[0].mustCommit(f, CommitOptions{}))
	for range 3 {
		peers[0].mustEncrypt(f, "lost")
	}
	p.mustProcess(f, peers[0].mustEncrypt(f, "x"))
	late := peers[2].mustEncrypt(f, "y")
	f.Add(marshal(f, p.Group))
	commit := peers[2].mustCommit(f, CommitOptions{ForcePath: true}).Commit
	f.Fuzz(func(t *testing.T, b []byte) {
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

// liveGroup is a group whose member sends, correctly signed and encrypted, whatever
// the fuzzer makes up.
type liveGroup struct {
	sender, receiver *peer
	state            []byte
}

func (l *liveGroup) content(kind ContentType, b []byte) (*authenticatedContent, error) {
	a := l.sender.newContent(kind, nil)
	if err := decode(b, "content", a.content.decodeContent); err != nil {
		return nil, err
	}
	if kind == ContentCommit {
		a.confirmationTag = make([]byte, hashSize)
	}
	return a, nil
}

// public frames the content, as sent by a member or from outside.
func (l *liveGroup) public(a *authenticatedContent, sender SenderType) *Message {
	a.wireFormat = WireFormatPublicMessage
	if sender != SenderMember {
		a.content.sender = Sender{Type: sender}
	}
	if p := a.content.commit; sender == SenderNewMemberCommit && p != nil && p.Path != nil {
		p.Path.LeafNode.SignatureKey = publicOf(l.sender.signer)
	}
	l.sender.signContent(a)
	g := l.sender.cur
	return &Message{WireFormat: WireFormatPublicMessage, PublicMessage: newPublicMessage(a, g.encoded, g.secrets.membership)}
}

func (l *liveGroup) private(a *authenticatedContent, generation uint32) (*Message, error) {
	a.wireFormat = WireFormatPrivateMessage
	l.sender.signContent(a)
	st, err := UnmarshalGroup(l.state, l.receiver.signer, nil)
	if err != nil {
		return nil, err
	}
	key, err := st.cur.messages.find(l.sender.own, ratchetFor(a.content.contentType), generation)
	if err != nil {
		return nil, err
	}
	d := senderData{leaf: l.sender.own, generation: generation}
	m := sealPrivateMessage(a, d, key.messageKey, l.sender.cur.secrets.senderData, 0)
	return &Message{WireFormat: WireFormatPrivateMessage, PrivateMessage: m}, nil
}

func FuzzProcess(f *testing.F) {
	peers := newGroup(f, 4)
	l := &liveGroup{sender: peers[0], receiver: peers[1], state: marshal(f, peers[1].Group)}
	fresh := newPeer(f, "fresh")
	for _, o := range []CommitOptions{
		{ForcePath: true}, {Adds: keyPackagesOf([]*peer{fresh})}, {Removes: []LeafIndex{2}}, {Removes: []LeafIndex{1}},
		{ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}},
	} {
		c := mustParse(f, l.sender.mustCommit(f, o).Commit).PublicMessage
		f.Add(encode(c.Commit()), uint8(ContentCommit), uint8(SenderMember), uint32(0))
		for _, p := range c.Commit().Proposals {
			f.Add(encode(p.Proposal), uint8(ContentProposal), uint8(SenderMember), uint32(1))
			f.Add(encode(p.Proposal), uint8(ContentProposal), uint8(SenderNewMemberProposal), uint32(1))
		}
	}
	gi, err := l.sender.Group.GroupInfo()
	if err != nil {
		f.Fatal(err)
	}
	j, err := JoinExternal(mustParse(f, gi).GroupInfo, ExternalJoinOptions{Credential: BasicCredential([]byte("x")), Signer: fresh.signer})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(mustParse(f, j.Commit).PublicMessage.Commit()), uint8(ContentCommit), uint8(SenderNewMemberCommit), uint32(0))
	f.Add(appendOpaque(nil, []byte("hello")), uint8(ContentApplication), uint8(0), uint32(3))
	f.Fuzz(func(t *testing.T, b []byte, kind, sender uint8, generation uint32) {
		a, err := l.content(ContentType(kind), b)
		if err != nil || kind < 1 || kind > 3 {
			return
		}
		var m *Message
		if sender >= uint8(SenderMember) && sender <= uint8(SenderNewMemberCommit) {
			m = l.public(a, SenderType(sender))
		} else if m, err = l.private(a, generation); err != nil {
			return
		}
		g, err := UnmarshalGroup(l.state, l.receiver.signer, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Process(m, testNow)
		if err != nil && !bytes.Equal(marshal(t, g), l.state) {
			t.Fatalf("the group changed although: %v", err)
		}
		if err == nil {
			_, _ = g.Commit(CommitOptions{AcceptTime: testNow})
			reload(t, g)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	peers := newPeers(f, 3)
	peers[0].create(f)
	w := mustParse(f, peers[0].mustCommit(f, CommitOptions{Adds: keyPackagesOf(peers[1:]), ForcePath: true}).Welcome).Welcome
	joiner := peers[1]
	secrets, err := w.openSecrets(joiner.bundle.KeyPackage().Ref(), joiner.bundle.initPrivate)
	if err != nil {
		f.Fatal(err)
	}
	gi, err := w.groupInfo(secrets.joinerSecret, make([]byte, hashSize))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(secrets), encode(gi), true)
	f.Add(encode(secrets), encode(gi), false)
	f.Fuzz(func(t *testing.T, secrets, info []byte, sign bool) {
		var s *groupSecrets
		var gi *GroupInfo
		if decode(secrets, "s", func(r *reader) { s = decodeGroupSecrets(r) }) != nil ||
			decode(info, "gi", func(r *reader) { gi = decodeGroupInfo(r) }) != nil {
			return
		}
		if sign {
			gi.sign(peers[0].signer)
		}
		psk, err := s.pskSecret(PSKFunc(func(*PreSharedKeyID) ([]byte, error) { return []byte("psk"), nil }))
		if err != nil {
			return
		}
		welcome, _ := welcomeAndMember(s.joinerSecret, psk)
		key, nonce := welcomeKeys(welcome)
		forged := &Welcome{CipherSuite: w.CipherSuite, encryptedGroupInfo: aeadSeal(key, nonce, encode(gi), nil)}
		kp := joiner.bundle.KeyPackage()
		ct, err := encryptWithLabel(kp.InitKey, "Welcome", forged.encryptedGroupInfo, secrets)
		if err != nil {
			t.Fatal(err)
		}
		forged.secrets = []encryptedGroupSecrets{{newMember: kp.Ref(), secrets: ct}}
		g, err := JoinGroup(forged, joiner.bundle, joiner.signer, JoinOptions{PSKs: PSKFunc(func(*PreSharedKeyID) ([]byte, error) { return []byte("psk"), nil })})
		if err == nil {
			wantKeysMatch(t, g)
			reload(t, g)
		}
	})
}
