package mls

import (
	"bytes"
	"errors"
	"testing"
	"testing/cryptotest"
)

// liveGroup is a group whose member sends, correctly signed and encrypted, whatever
// the fuzzer makes up.
type liveGroup struct {
	sender, receiver *peer
	state            []byte // of the receiver
	follower         *PublicGroup
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

// extensions are group extensions with content of each kind.
func (l *liveGroup) extensions(f *testing.F) *Extensions {
	x := Extensions{RequiredCapabilities{Extensions: []ExtensionType{ExtensionLastResort}, Credentials: []CredentialType{CredentialBasic}}.Extension()}
	for _, s := range seedInputs(f) {
		if s.decoder == "application_id" {
			x = append(x, Extension{Type: ExtensionApplicationID, Data: s.b})
		}
	}
	return &x
}

// wantFollower lets a follower process the same message: it accepts what the member
// accepts, and refuses what the member refuses but for what only members can see.
func (l *liveGroup) wantFollower(t *testing.T, p *PublicGroup, m *Message, member error) {
	if m.PublicMessage == nil {
		return
	}
	before, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Process(m.PublicMessage, testNow)
	secret := false
	for _, e := range []error{ErrConfirmationTag, ErrDecrypt, ErrUnknownPSK, ErrInvalidCommit, ErrOwnMessage} {
		secret = secret || errors.Is(member, e)
	}
	if (err == nil) != (member == nil) && !(err == nil && secret) {
		t.Fatalf("follower: %v, member: %v", err, member)
	}
	after, e := p.MarshalBinary()
	if e != nil {
		t.Fatal(e)
	}
	if err != nil && !bytes.Equal(before, after) {
		t.Fatalf("the follower changed although: %v", err)
	}
	if err == nil {
		if _, err := UnmarshalPublicGroup(after, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzProcess(f *testing.F) {
	peers, fresh := savedGroup(f)
	follower, err := NewPublicGroup(mustGroupInfo(f, peers[0]), nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	l := &liveGroup{sender: peers[0], receiver: peers[1], state: marshal(f, peers[1].Group), follower: follower}
	for _, o := range []CommitOptions{
		{ForcePath: true}, {Adds: keyPackagesOf([]*peer{fresh})}, {Removes: []LeafIndex{2}}, {Removes: []LeafIndex{1}},
		{ReInit: &ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}}, {GroupContextExtensions: l.extensions(f)},
		{PSKs: []*PreSharedKeyID{{Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: 1}}},
	} {
		c := mustParse(f, l.sender.mustCommit(f, o).Commit).PublicMessage
		f.Add(encode(c.Commit()), uint8(ContentCommit), uint8(SenderMember), uint32(0))
		for _, p := range c.Commit().Proposals {
			if p.Proposal == nil {
				continue
			}
			f.Add(encode(p.Proposal), uint8(ContentProposal), uint8(SenderMember), uint32(1))
			f.Add(encode(p.Proposal), uint8(ContentProposal), uint8(SenderNewMemberProposal), uint32(1))
		}
	}
	gi, err := l.sender.GroupInfo()
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
		follower := l.follower.Clone()
		_, err = g.Process(m, testNow)
		l.wantFollower(t, follower, m, err)
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
	peers, joiner := savedGroup(f)
	w := mustParse(f, peers[0].mustCommit(f, CommitOptions{Adds: keyPackagesOf([]*peer{joiner}), ForcePath: true}).Welcome).Welcome
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

// FuzzWelcomeBytes joins by a Welcome as it comes from the wire.
func FuzzWelcomeBytes(f *testing.F) {
	for _, v := range loadVectors[passiveVector](f, "testdata/vectors/passive-client-welcome.json.gz") {
		f.Add([]byte(v.Welcome), []byte(v.RatchetTree))
	}
	peers, joiner := savedGroup(f)
	good := peers[0].mustCommit(f, CommitOptions{Adds: keyPackagesOf([]*peer{joiner}), ForcePath: true}).Welcome
	f.Add(good, []byte(nil))
	f.Fuzz(func(t *testing.T, b, tree []byte) {
		decoderNamed(t, "message").check(t, b)
		m, err := ParseMessage(b)
		if err != nil || m.Welcome == nil {
			return
		}
		o := JoinOptions{}
		if len(tree) > 0 {
			o.RatchetTree = tree
		}
		g, err := JoinGroup(m.Welcome, joiner.bundle, joiner.signer, o)
		if err != nil {
			return
		}
		wantKeysMatch(t, g)
		reload(t, g)
	})
}

// FuzzGroupInfo brings a GroupInfo, truly signed by a member, to everyone who takes
// one: a newcomer, a new follower, and a follower that knows the epoch.
func FuzzGroupInfo(f *testing.F) {
	peers, fresh := savedGroup(f)
	signer := peers[0]
	known := mustGroupInfo(f, signer)
	follower, err := NewPublicGroup(known, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(known), true, false)
	f.Add(encode(known), false, false)
	f.Add(encode(known), true, true)
	for _, s := range seedInputs(f) {
		if s.decoder == "group info" {
			f.Add(s.b, true, true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, sign, rehash bool) {
		cryptotest.SetGlobalRandom(t, 1) // else each run covers other code, and the fuzzer takes that for news
		if !decoderNamed(t, "group info").check(t, b) {
			return
		}
		var gi *GroupInfo
		_ = decode(b, "group info", func(r *reader) { gi = decodeGroupInfo(r) })
		if data, ok := gi.Extensions.Find(ExtensionRatchetTree); ok && rehash {
			decoderNamed(t, "ratchet tree").check(t, data)
			if tr, err := parseTree(data); err == nil { // get past the tree hash
				h := tr.treeHash()
				gi.GroupContext.TreeHash = h[:]
			}
		}
		if sign {
			gi.sign(signer.signer)
		}
		if err := follower.VerifyGroupInfo(gi); err == nil && !bytes.Equal(encode(&gi.GroupContext), encode(&known.GroupContext)) {
			t.Fatal("a GroupInfo of another state is taken for this one's")
		}
		verified := gi.Verify(nil, nil)
		p, err := NewPublicGroup(gi, nil, nil)
		if (err == nil) != (verified == nil) {
			t.Fatalf("verified: %v, followed: %v", verified, err)
		}
		j, joined := JoinExternal(gi, ExternalJoinOptions{Credential: BasicCredential([]byte("fresh")), Signer: fresh.signer})
		if joined != nil {
			return
		}
		if verified != nil {
			t.Fatalf("joined by a GroupInfo that does not verify: %v", verified)
		}
		if _, err := p.Process(mustParse(t, j.Commit).PublicMessage, testNow); err != nil {
			t.Fatalf("the follower refuses the newcomer: %v", err)
		}
		reload(t, j.Group)
	})
}
