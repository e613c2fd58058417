package mls

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// decoder is one way into the engine for bytes: it decodes, and encodes what it understood.
type decoder struct {
	name   string
	decode func([]byte) ([]byte, error)
}

// decoders are all of them, in a fixed order: fuzzing inputs name one by its place.
var decoders = []decoder{
	{"message", func(b []byte) ([]byte, error) {
		m, err := ParseMessage(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	}},
	{"ratchet tree", func(b []byte) ([]byte, error) {
		t, err := parseTree(b)
		if err != nil {
			return nil, err
		}
		return t.encode(), nil
	}},
	{"key package bundle", func(b []byte) ([]byte, error) {
		k, err := UnmarshalKeyPackageBundle(b)
		if err != nil {
			return nil, err
		}
		return k.MarshalBinary()
	}},
	{"group", func(b []byte) ([]byte, error) {
		g, err := UnmarshalGroup(b, theSaved().signer, nil)
		if err != nil {
			return nil, err
		}
		return g.MarshalBinary()
	}},
	{"pending commit", func(b []byte) ([]byte, error) {
		p, err := theSaved().owner.UnmarshalPendingCommit(b)
		if err != nil {
			return nil, err
		}
		return p.MarshalBinary()
	}},
	{"public group", func(b []byte) ([]byte, error) {
		p, err := UnmarshalPublicGroup(b, nil)
		if err != nil {
			return nil, err
		}
		return p.MarshalBinary()
	}},
	structure("public message", decodePublicMessage),
	structure("private message", decodePrivateMessage),
	structure("welcome", decodeWelcome),
	structure("group info", decodeGroupInfo),
	structure("key package", decodeKeyPackage),
	structure("authenticated content", decodeAuthenticatedContent),
	structure("framed content", func(r *reader) *framedContent { c := decodeFramedContent(r); return &c }),
	structure("sender", decodeSender),
	structure("sender data", decodeSenderData),
	structure("proposal", decodeProposal),
	structure("proposal or reference", decodeProposalOrRef),
	structure("commit", decodeCommit),
	structure("update path", decodeUpdatePath),
	structure("reinit", decodeReInit),
	structure("pre-shared key id", decodePreSharedKeyID),
	structure("leaf node", decodeLeafNode),
	structure("parent node", decodeParentNode),
	structure("capabilities", decodeCapabilities),
	structure("credential", decodeCredential),
	structure("group context", func(r *reader) *GroupContext { c := decodeGroupContext(r); return &c }),
	structure("group secrets", decodeGroupSecrets),
	structure("encrypted group secrets", decodeEncryptedGroupSecrets),
	structure("HPKE ciphertext", decodeHPKECiphertext),
	structure("extensions", decodeExtensions),
	structure("secret tree", decodeSecretTree),
	structure("received proposal", decodeProposalEntry),
	structure("past epoch", decodePastEpoch),
	structure("path keys", decodePathKeys),
	structure("saved epoch", func(r *reader) savedEpoch { return savedEpoch{decodeEpochState(r)} }),
	contents("application_id", ExtensionApplicationID, func(x Extensions) ([]byte, error) {
		b, _ := x.Find(ExtensionApplicationID) // opaque, to the engine
		return b, nil
	}),
	contents("required_capabilities", ExtensionRequiredCapabilities, func(x Extensions) ([]byte, error) {
		rc, err := x.requiredCapabilities()
		return rc.Extension().Data, err
	}),
	contents("external_senders", ExtensionExternalSenders, func(x Extensions) ([]byte, error) {
		senders, err := x.externalSenders()
		return appendVector(nil, func(b []byte) []byte {
			for _, s := range senders {
				b = s.credential.append(appendOpaque(b, s.signatureKey))
			}
			return b
		}), err
	}),
	contents("external_pub", ExtensionExternalPub, func(x Extensions) ([]byte, error) {
		key, ok := (&GroupInfo{Extensions: x}).ExternalPub()
		if !ok {
			return nil, ErrMalformed
		}
		return externalPubExtension(key).Data, nil
	}),
}

// savedEpoch is an epoch as Group and PendingCommit save it.
type savedEpoch struct{ *epoch }

func (e savedEpoch) append(b []byte) []byte { return e.appendState(b) }

func structure[T encodable](name string, f func(*reader) T) decoder {
	return decoder{name, func(b []byte) ([]byte, error) {
		var v T
		if err := decode(b, name, func(r *reader) { v = f(r) }); err != nil {
			return nil, err
		}
		return encode(v), nil
	}}
}

// contents decodes the data of one kind of extension.
func contents(name string, kind ExtensionType, f func(Extensions) ([]byte, error)) decoder {
	return decoder{name, func(b []byte) ([]byte, error) { return f(Extensions{{Type: kind, Data: b}}) }}
}

func decoderNamed(t testing.TB, name string) decoder {
	t.Helper()
	at := slices.IndexFunc(decoders, func(d decoder) bool { return d.name == name })
	if at < 0 {
		t.Fatalf("no decoder is named %q", name)
	}
	return decoders[at]
}

// check decodes b. Whatever b is, that neither panics nor allocates much; what is
// accepted encodes to the same bytes. It reports whether b was accepted.
func (d decoder) check(t testing.TB, b []byte) bool {
	t.Helper()
	wantModest(t, d.name, len(b), func() { _, _ = d.decode(b) })
	again, err := d.decode(b)
	if err != nil {
		return false
	}
	if !bytes.Equal(again, b) {
		t.Errorf("%s: %d bytes are accepted, and encode to %d others", d.name, len(b), len(again))
	}
	return true
}

// saved is a state of each kind, with everything in it that there can be.
type saved struct {
	signer                                []byte
	owner                                 *Group
	group, pending, public, bundle, epoch []byte
	secretTree, past, keys, received      []byte
}

var (
	savedOnce  sync.Once
	savedState saved
)

func theSaved() *saved { return &savedState }

// makeSaved prepares theSaved, which decoders of saved states need.
func makeSaved(t testing.TB) *saved {
	t.Helper()
	savedOnce.Do(func() { savedState = newSaved(t) })
	if savedState.owner == nil {
		t.Fatal("no saved states")
	}
	return &savedState
}

func newSaved(t testing.TB) saved {
	t.Helper()
	members, newcomer := savedGroup(t)
	a, b := members[0], members[1]
	follower, err := NewPublicGroup(mustGroupInfo(t, a), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	remove := LeafIndex(3)
	proposal, err := a.Propose(ProposeOptions{Remove: &remove})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follower.Process(mustParse(t, proposal).PublicMessage, testNow); err != nil {
		t.Fatal(err)
	}
	b.mustProcess(t, proposal)
	pending := b.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{newcomer}), ForcePath: true})
	s := saved{signer: b.signer, owner: b.Group, group: marshal(t, b.Group)}
	for _, m := range []struct {
		to *[]byte
		of interface{ MarshalBinary() ([]byte, error) }
	}{{&s.pending, pending}, {&s.public, follower}, {&s.bundle, b.bundle}} {
		if *m.to, err = m.of.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
	}
	s.epoch = b.cur.appendState(nil)
	s.secretTree, s.past, s.keys = b.cur.messages.append(nil), b.past[0].append(nil), b.cur.keys.append(nil)
	s.received = b.cur.received[0].append(nil)
	return s
}

// A decoder that is new in the engine must be in the table above.
func TestEveryDecoderIsInTheTable(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("decoders_test.go")
	if err != nil {
		t.Fatal(err)
	}
	// Parts that only ever occur inside others of the table.
	inner := []string{
		"decodeExtension", "decodeUint16s", "decodeContentType", "decodePublicState", "decodeEpochSecrets", "decodeMap",
		"decodeNodeIndex", "decodeLeafIndex", "decodeRatchet", "decodeNodes", "decodeNode", "decodeContent", "decodeAuth", "decode",
	}
	declared := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?((?:decode|parse|Parse|Unmarshal)[A-Za-z0-9]*)\b`)
	found := 0
	for _, path := range sourceFiles(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			found++
			if !slices.Contains(inner, m[1]) && !regexp.MustCompile(`\b`+m[1]+`\b`).Match(table) {
				t.Errorf("%s: %s is not in the table of decoders", path, m[1])
			}
		}
	}
	if found < 40 {
		t.Errorf("%d decoders found in the source: the test looks for the wrong names", found)
	}
}

// sourceFiles lists the engine's files without the tests.
func sourceFiles(t testing.TB) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasSuffix(s, "_test.go") })
}

// seedInput is a well-formed input of one decoder.
type seedInput struct {
	decoder string
	b       []byte
}

// seedInputs returns inputs for every decoder, taken apart from the official vectors
// and, for what is saved, from a live group.
func seedInputs(t testing.TB) []seedInput {
	t.Helper()
	s := makeSaved(t)
	out := []seedInput{
		{"key package bundle", s.bundle}, {"group", s.group}, {"pending commit", s.pending}, {"public group", s.public},
		{"saved epoch", s.epoch}, {"secret tree", s.secretTree}, {"past epoch", s.past}, {"path keys", s.keys}, {"received proposal", s.received},
		{"application_id", []byte("id")},
		{"required_capabilities", RequiredCapabilities{
			Extensions: []ExtensionType{ExtensionLastResort}, Proposals: []ProposalType{0x0a0a}, Credentials: []CredentialType{CredentialBasic},
		}.Extension().Data},
		{"external_senders", appendVector(nil, func(b []byte) []byte {
			for _, c := range []Credential{BasicCredential([]byte("service")), {Type: CredentialX509, Identity: appendOpaque(nil, []byte("certificate"))}} {
				b = c.append(appendOpaque(b, publicOf(s.signer)))
			}
			return b
		})},
		{"external_pub", externalPubExtension(s.owner.cur.secrets.externalPublic()).Data},
		{"proposal or reference", encode(ProposalOrRef{Ref: &ProposalRef{1, 2, 3}})},
		{"proposal or reference", encode(ProposalOrRef{Proposal: &Proposal{Type: ProposalRemove, Remove: 5}})},
		{"sender", encode(Sender{Type: SenderExternal, ExternalIndex: 7})},
		{"sender data", encode(senderData{leaf: 1, generation: 2, reuseGuard: [4]byte{3, 4, 5, 6}})},
		{"pre-shared key id", encode(&PreSharedKeyID{Type: PSKResumption, Usage: ResumptionBranch, GroupID: []byte("group"), Epoch: 9, Nonce: make([]byte, hashSize)})},
		{"reinit", encode(&ReInit{GroupID: []byte("next"), Version: 1, CipherSuite: 1, Extensions: Extensions{{Type: 0x0a0a, Data: []byte("x")}}})},
	}
	add := func(name string, v encodable) { out = append(out, seedInput{name, encode(v)}) }
	join := loadVectors[passiveVector](t, "testdata/vectors/passive-client-handling-commit.json.gz")
	join = append(join, loadVectors[passiveVector](t, "testdata/vectors/passive-client-welcome.json.gz")...)
	for _, v := range join {
		add("key package", mustParse(t, v.KeyPackage).KeyPackage)
		add("welcome", mustParse(t, v.Welcome).Welcome)
		for _, e := range v.Epochs {
			out = append(out, seedInput{"message", e.Commit})
			for _, p := range e.Proposals {
				out = append(out, seedInput{"message", p})
			}
		}
		out = append(out, v.insides(t)...)
	}
	for _, v := range loadVectors[protectionVector](t, "testdata/vectors/message-protection.json.gz") {
		add("private message", mustParse(t, v.ApplicationPriv).PrivateMessage)
		m := mustParse(t, v.CommitPub).PublicMessage
		add("public message", m)
		add("authenticated content", &m.auth)
		add("framed content", &m.auth.content)
		add("commit", m.Commit())
		add("proposal", mustParse(t, v.ProposalPub).PublicMessage.Proposal())
	}
	for _, v := range loadVectors[treeKEMVector](t, "testdata/vectors/treekem.json.gz")[:4] {
		out = append(out, seedInput{"ratchet tree", v.RatchetTree}, seedInput{"update path", v.UpdatePaths[0].UpdatePath})
		for _, p := range treeOf(t, v.RatchetTree).parents {
			if p != nil {
				add("parent node", p)
			}
		}
		_ = decode(v.UpdatePaths[0].UpdatePath, "vector", func(r *reader) {
			for _, c := range decodeUpdatePath(r).nodes[0].secrets {
				add("HPKE ciphertext", c)
			}
		})
	}
	return out
}

func treeOf(t testing.TB, b []byte) *tree {
	t.Helper()
	tr, err := parseTree(b)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// insides takes apart what a Welcome hides.
func (v *passiveVector) insides(t testing.TB) []seedInput {
	t.Helper()
	kp, w := mustParse(t, v.KeyPackage).KeyPackage, mustParse(t, v.Welcome).Welcome
	secrets, err := w.openSecrets(kp.Ref(), v.InitPriv)
	if err != nil {
		t.Fatal(err)
	}
	psk, err := secrets.pskSecret(v)
	if err != nil {
		t.Fatal(err)
	}
	gi, err := w.groupInfo(secrets.joinerSecret, psk)
	if err != nil {
		t.Fatal(err)
	}
	return []seedInput{
		{"group secrets", encode(secrets)}, {"group info", encode(gi)}, {"group context", encode(&gi.GroupContext)},
		{"encrypted group secrets", encode(w.secrets[0])}, {"leaf node", encode(kp.LeafNode)}, {"extensions", encode(gi.Extensions)},
		{"capabilities", encode(kp.LeafNode.Capabilities)}, {"credential", encode(kp.LeafNode.Credential)},
	}
}

func TestSamplesCoverEveryDecoder(t *testing.T) {
	t.Parallel()
	taken := map[string]int{}
	for _, s := range seedInputs(t) {
		if decoderNamed(t, s.decoder).check(t, s.b) {
			taken[s.decoder]++
		} else {
			t.Errorf("%s: a sample is refused", s.decoder)
		}
	}
	for _, d := range decoders {
		if taken[d.name] == 0 {
			t.Errorf("%s: no sample", d.name)
		}
	}
	t.Log(fmt.Sprint(taken))
}
