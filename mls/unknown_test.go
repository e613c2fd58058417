package mls

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// Messages of the engine github.com/cisco/go-mls, which speaks draft 09: accepting
// one would be a downgrade.
func TestFaultDraft09IsSpoken(t *testing.T) {
	t.Parallel()
	makeSaved(t)
	raw, err := os.ReadFile("testdata/draft09-fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixtures map[string]string
	if err := json.Unmarshal(raw, &fixtures); err != nil {
		t.Fatal(err)
	}
	if len(fixtures) != 5 {
		t.Fatalf("%d fixtures, want 5", len(fixtures))
	}
	for name, text := range fixtures {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range decoders {
			if d.name == "application_id" { // any bytes are one
				continue
			}
			if _, err := d.decode(b); err == nil {
				t.Errorf("%s: accepted as %s", name, d.name)
			}
			// The same behind an MLSMessage header of each kind.
			for kind := WireFormatPublicMessage; kind <= WireFormatKeyPackage; kind++ {
				wrapped := append(appendUint16(appendUint16(nil, versionMLS10), uint16(kind)), b...)
				if _, err := d.decode(wrapped); err == nil {
					t.Errorf("%s in wire format %d: accepted as %s", name, kind, d.name)
				}
			}
		}
	}
}

// grease are the values that RFC 9420 §13.5 reserves so that unknown ones are met
// in practice; unassigned are some that no registry knows, and some for private use.
var (
	grease = []uint16{
		0x0a0a, 0x1a1a, 0x2a2a, 0x3a3a, 0x4a4a, 0x5a5a, 0x6a6a, 0x7a7a, 0x8a8a, 0x9a9a, 0xaaaa, 0xbaba, 0xcaca, 0xdada, 0xeaea,
	}
	unassigned = []uint16{0x0100, 0x7fff, 0xf000, 0xfafa, 0xffff}
)

func greaseOf[T ~uint16](known ...T) []T {
	var out []T
	for _, v := range append(append([]uint16(nil), grease...), unassigned...) {
		out = append(out, T(v))
	}
	return append(out, known...)
}

// unknownWorld is a group, and messages of each kind with a known layout.
type unknownWorld struct {
	peers                                                []*peer
	keyPackage, welcome, info, proposal, commit, private []byte
}

func newUnknownWorld(t *testing.T) *unknownWorld {
	t.Helper()
	w := &unknownWorld{peers: newGroup(t, 3)}
	a := w.peers[0]
	remove := LeafIndex(2)
	var err error
	if w.keyPackage, err = newPeer(t, "fresh").bundle.KeyPackage().MarshalMessage(); err != nil {
		t.Fatal(err)
	}
	c := a.mustCommit(t, CommitOptions{Adds: []*KeyPackage{mustParse(t, w.keyPackage).KeyPackage}, ForcePath: true})
	w.welcome, w.commit, w.info = c.Welcome, c.Commit, c.GroupInfo
	if w.proposal, err = a.Propose(ProposeOptions{Remove: &remove}); err != nil {
		t.Fatal(err)
	}
	w.private = a.mustEncrypt(t, "hello")
	return w
}

// Places in an MLSMessage of the group named "group".
const (
	atVersion     = 0
	atWireFormat  = 2
	atSuite       = 4  // of a Welcome
	atKeyPackage  = 4  // its version, then its suite
	atInfo        = 4  // version of the GroupContext, then its suite
	atPrivateType = 18 // content type of a PrivateMessage
	atSender      = 18 // of a PublicMessage
	atContent     = 24 // content type of a PublicMessage by a member
	atProposal    = 25 // type of the proposal in it
)

func with16(b []byte, at int, v uint16) []byte {
	out := bytes.Clone(b)
	copy(out[at:], appendUint16(nil, v))
	return out
}

func with8(b []byte, at int, v uint8) []byte {
	out := bytes.Clone(b)
	out[at] = v
	return out
}

// Values that this engine does not know, each where RFC 9420 has it refused.
func TestUnknownValuesAreRefused(t *testing.T) {
	t.Parallel()
	w := newUnknownWorld(t)
	wide, narrow := slices.Clip(greaseOf[uint16]()), []uint16{0, 9, 0x0a, 0xfa, 0xff}
	parse := func(b []byte) error { _, err := ParseMessage(b); return err }
	verify := func(b []byte) error {
		m, err := ParseMessage(b)
		if err != nil {
			return err
		}
		switch {
		case m.KeyPackage != nil:
			return m.KeyPackage.Verify(testNow, nil)
		case m.GroupInfo != nil:
			return m.GroupInfo.Verify(nil, nil)
		}
		_, err = JoinGroup(m.Welcome, w.peers[0].bundle, w.peers[0].signer, JoinOptions{})
		return err
	}
	inLeaf := func(change func(*LeafNode, uint16)) func(uint16) []byte {
		return func(v uint16) []byte {
			return appendMessage(WireFormatKeyPackage, newPeer(t, "p").resigned(func(_ *KeyPackage, l *LeafNode) { change(l, v) }))
		}
	}
	psk := encode(&PreSharedKeyID{Type: PSKResumption, Usage: ResumptionApplication, Nonce: make([]byte, hashSize)})
	structureOf := func(name string) func([]byte) error {
		return func(b []byte) error { _, err := decoderNamed(t, name).decode(b); return err }
	}
	tests := []struct {
		section, name string
		values        []uint16
		input         func(uint16) []byte
		take          func([]byte) error
		want          error
	}{
		{"§6", "version of the MLSMessage", append(wide, 0, 2), func(v uint16) []byte { return with16(w.commit, atVersion, v) }, parse, ErrUnsupportedVersion},
		{"§6", "wire format", append(wide, 0, 6, 7), func(v uint16) []byte { return with16(w.commit, atWireFormat, v) }, parse, ErrMalformed},
		{"§6", "content type in public", narrow, func(v uint16) []byte { return with8(w.commit, atContent, uint8(v)) }, parse, ErrMalformed},
		{"§6", "content type in private", append(narrow, 4), func(v uint16) []byte { return with8(w.private, atPrivateType, uint8(v)) }, parse, ErrMalformed},
		{"§6", "sender type", append(narrow, 5), func(v uint16) []byte { return with8(w.commit, atSender, uint8(v)) }, parse, ErrMalformed},
		{"§7.2", "leaf node source", append(narrow, 4), func(v uint16) []byte {
			return inLeaf(func(l *LeafNode, v uint16) { l.Source = LeafNodeSource(v) })(v)
		}, parse, ErrMalformed},
		{"§5.3", "credential type", append(wide, 0, 3, 4), inLeaf(func(l *LeafNode, v uint16) { l.Credential.Type = CredentialType(v) }), parse, ErrUnsupportedCredential},
		{"§5.3", "credential type X.509", []uint16{2}, inLeaf(func(l *LeafNode, v uint16) {
			l.Credential = Credential{Type: CredentialType(v), Identity: appendOpaque(nil, []byte("certificate"))}
		}), verify, ErrUnsupportedCredential},
		{"§8.4", "PSK type", append(narrow, 3), func(v uint16) []byte { return with8(psk, 0, uint8(v)) }, structureOf("pre-shared key id"), ErrMalformed},
		{"§8.4", "resumption PSK usage", append(narrow, 4), func(v uint16) []byte { return with8(psk, 1, uint8(v)) }, structureOf("pre-shared key id"), ErrMalformed},
		{"§10", "version of a KeyPackage", append(wide, 0, 2), func(v uint16) []byte { return with16(w.keyPackage, atKeyPackage, v) }, verify, ErrUnsupportedVersion},
		{"§10", "suite of a KeyPackage", append(wide, 0, 2, 3, 4, 5, 6, 7), func(v uint16) []byte { return with16(w.keyPackage, atKeyPackage+2, v) }, verify, ErrUnsupportedSuite},
		{"§12.1", "proposal type", append(wide, 0, 8, 9, 10), func(v uint16) []byte { return with16(w.proposal, atProposal, v) }, parse, ErrMalformed},
		{"§12.4", "proposal type in a Commit", append(wide, 0, 8), func(v uint16) []byte { return with16(w.commit, atProposal+3, v) }, parse, ErrMalformed},
		{"§12.4", "proposal or reference", append(narrow, 3), func(v uint16) []byte { return with8(w.commit, atProposal+2, uint8(v)) }, parse, ErrMalformed},
		{"§12.4.3", "version in a GroupInfo", append(wide, 0, 2), func(v uint16) []byte { return with16(w.info, atInfo, v) }, verify, ErrUnsupportedVersion},
		{"§12.4.3", "suite in a GroupInfo", append(wide, 0, 2, 7), func(v uint16) []byte { return with16(w.info, atInfo+2, v) }, verify, ErrUnsupportedSuite},
		{"§12.4.3.1", "suite of a Welcome", append(wide, 0, 2, 3, 4, 5, 6, 7), func(v uint16) []byte { return with16(w.welcome, atSuite, v) }, verify, ErrUnsupportedSuite},
		{"§7.3", "leaf extension that is not listed", wide, inLeaf(func(l *LeafNode, v uint16) { l.Extensions = Extensions{{Type: ExtensionType(v)}} }), verify, ErrUnsupportedCapability},
		{"§13.4", "extension type given twice", wide, inLeaf(func(l *LeafNode, v uint16) {
			l.Extensions = Extensions{{Type: ExtensionType(v)}, {Type: ExtensionType(v)}}
		}), parse, ErrMalformed},
		{"§7.3", "capabilities of unknown suites only", wide, inLeaf(func(l *LeafNode, v uint16) { l.Capabilities.CipherSuites = []CipherSuite{CipherSuite(v)} }), verify, ErrUnsupportedCapability},
		{"§7.3", "capabilities of unknown versions only", wide, inLeaf(func(l *LeafNode, v uint16) { l.Capabilities.Versions = []uint16{v} }), verify, ErrUnsupportedCapability},
		{"§7.3", "capabilities of unknown credentials only", wide, inLeaf(func(l *LeafNode, v uint16) { l.Capabilities.Credentials = []CredentialType{CredentialType(v)} }), verify, ErrUnsupportedCapability},
	}
	for _, b := range [][]byte{w.commit, w.proposal, w.private, w.keyPackage} {
		if err := parse(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range tests {
		for _, v := range tt.values {
			if err := tt.take(tt.input(v)); !errors.Is(err, tt.want) {
				t.Errorf("%s, %s 0x%04x: got %v, want %v", tt.section, tt.name, v, err, tt.want)
			}
		}
	}
}

// Extensions of the group itself are the one place where unknown values are binding:
// who does not support one neither joins nor lets it in (RFC 9420 §11.1, §12.1.7, §13.4).
func TestUnknownGroupExtensionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]func(uint16) Extension{
		"extension": func(v uint16) Extension { return Extension{Type: ExtensionType(v)} },
		"required extension": func(v uint16) Extension {
			return RequiredCapabilities{Extensions: []ExtensionType{ExtensionType(v)}}.Extension()
		},
		"required proposal": func(v uint16) Extension {
			return RequiredCapabilities{Proposals: []ProposalType{ProposalType(v)}}.Extension()
		},
		"required credential": func(v uint16) Extension {
			return RequiredCapabilities{Credentials: []CredentialType{CredentialType(v)}}.Extension()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peers := newGroup(t, 2)
			a, b := peers[0], peers[1]
			for _, v := range greaseOf[uint16](8) {
				x := Extensions{x(v)}
				want := func(where string, err error) {
					t.Helper()
					if !errors.Is(err, ErrUnsupportedCapability) {
						t.Errorf("0x%04x: %s: got %v, want ErrUnsupportedCapability", v, where, err)
					}
				}
				_, err := a.Commit(CommitOptions{GroupContextExtensions: &x, AcceptTime: testNow})
				want("making a commit", err)
				p := &Proposal{Type: ProposalGroupContextExtensions, GroupContextExtensions: x}
				_, err = b.Process(forgedCommit(t, a, true, ProposalOrRef{Proposal: p}), testNow)
				want("processing a commit", err)
				gi := mustGroupInfo(t, a)
				gi.GroupContext.Extensions = x
				gi.sign(a.signer)
				want("group info", gi.Verify(nil, nil))
				_, err = JoinExternal(gi, ExternalJoinOptions{Credential: BasicCredential([]byte("x")), Signer: newPeer(t, "x").signer})
				want("joining from outside", err)
				fresh := newPeer(t, "fresh")
				_, err = JoinGroup(forgedWelcome(t, a, fresh, func(gi *GroupInfo) {
					gi.GroupContext.Extensions = x
					gi.sign(a.signer)
				}), fresh.bundle, fresh.signer, JoinOptions{})
				want("joining by a welcome", err)
			}
		})
	}
}

// Values that RFC 9420 §7.2, §10, §12.4.3, §13.4 and §13.5 have ignored: a member
// with all of them everywhere is added, verified, talked to and removed like any other.
func TestUnknownValuesAreIgnored(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	a := peers[0]
	fresh := newPeer(t, "fresh")
	random := func() (x Extensions) {
		for i, e := range greaseOf[ExtensionType]() {
			x = append(x, Extension{Type: e, Data: bytes.Repeat([]byte{byte(i)}, i*7)})
		}
		return x
	}
	kp := fresh.resigned(func(kp *KeyPackage, l *LeafNode) {
		l.Capabilities = Capabilities{
			Versions:     greaseOf[uint16](versionMLS10),
			CipherSuites: greaseOf(SuiteX25519AES128GCMSHA256Ed25519, 2, 7),
			Extensions:   greaseOf(ExtensionLastResort),
			Proposals:    greaseOf[ProposalType](8, 9),
			Credentials:  greaseOf(CredentialBasic, CredentialX509),
		}
		l.Extensions, kp.Extensions = random(), random()
	})
	fresh.bundle.keyPackage = kp
	if err := kp.Verify(testNow, nil); err != nil {
		t.Fatalf("§7.2, §10.1: %v", err)
	}
	c := a.mustCommit(t, CommitOptions{Adds: []*KeyPackage{mustParse(t, appendMessage(WireFormatKeyPackage, kp)).KeyPackage}})
	spread(t, peers, a, c)
	fresh.join(t, c.Welcome)
	peers = append(peers, fresh)
	wantAgreement(t, peers)
	// Its leaf keeps what it lists through Updates and Commits of its own.
	spread(t, peers, fresh, fresh.mustCommit(t, CommitOptions{ForcePath: true}))
	for _, p := range peers {
		p.Group = reload(t, p.Group)
		if got := len(p.cur.tree.leaf(fresh.own).Extensions); got != len(random()) {
			t.Errorf("%s: %d extensions in the leaf, want %d", p.name, got, len(random()))
		}
	}
	a.mustProcess(t, fresh.mustEncrypt(t, "hello"))

	// §12.4.3: unknown extensions of a GroupInfo, in a Welcome and outside.
	gi := mustGroupInfo(t, a)
	gi.Extensions = append(random(), gi.Extensions...)
	gi.sign(a.signer)
	gi = mustParse(t, appendMessage(WireFormatGroupInfo, gi)).GroupInfo
	if err := gi.Verify(nil, nil); err != nil {
		t.Errorf("§12.4.3: %v", err)
	}
	follower, err := NewPublicGroup(gi, nil, nil)
	if err != nil {
		t.Fatalf("§12.4.3: follower: %v", err)
	}
	if err := follower.VerifyGroupInfo(gi); err != nil {
		t.Errorf("§12.4.3: follower: %v", err)
	}
	next := newPeer(t, "next")
	if _, err := JoinGroup(forgedWelcome(t, a, next, func(gi *GroupInfo) {
		gi.Extensions = append(random(), gi.Extensions...)
		gi.sign(a.signer)
	}), next.bundle, next.signer, JoinOptions{}); err != nil {
		t.Errorf("§12.4.3.1: %v", err)
	}
	j, err := JoinExternal(gi, ExternalJoinOptions{Credential: BasicCredential([]byte("next")), Signer: next.signer})
	if err != nil {
		t.Fatalf("§12.4.3.2: %v", err)
	}
	for _, p := range peers {
		p.mustProcess(t, j.Commit)
	}
	next.Group = j.Group
	wantAgreement(t, append(peers, next))
	if _, err := follower.Process(mustParse(t, j.Commit).PublicMessage, testNow); err != nil {
		t.Errorf("§12.4.3.2: follower: %v", err)
	}
}

// A ReInit may lead to what this engine does not know: it says so and closes the
// group (RFC 9420 §12.1.5). Only an older version is invalid.
func TestReInitToUnknownParameters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version uint16
		suite   CipherSuite
		want    error
	}{{1, 2, nil}, {2, 1, nil}, {0xfafa, 0x0a0a, nil}, {0, 1, ErrInvalidProposal}} {
		t.Run(fmt.Sprintf("%d, %d", tt.version, tt.suite), func(t *testing.T) {
			t.Parallel()
			peers := newGroup(t, 2)
			r := &ReInit{GroupID: []byte("next"), Version: tt.version, CipherSuite: tt.suite, Extensions: Extensions{{Type: 0x0a0a, Data: []byte("x")}}}
			c, err := peers[0].Commit(CommitOptions{ReInit: r})
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			got := peers[1].mustProcess(t, c.Commit)
			if got.ReInit == nil || !bytes.Equal(encode(got.ReInit), encode(r)) || peers[1].Active() {
				t.Errorf("got %+v", got.ReInit)
			}
		})
	}
}
