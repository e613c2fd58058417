package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
)

// acceptAll is a validator without an opinion.
type acceptAll struct{}

func (acceptAll) ValidateCredential(Credential, ed25519.PublicKey) error { return nil }

// refuse refuses one identity, and counts how often it was asked.
type refuse struct {
	name  string
	asked int
}

var errRefused = errors.New("refused by the test")

func (r *refuse) ValidateCredential(c Credential, key ed25519.PublicKey) error {
	r.asked++
	if len(key) != ed25519.PublicKeySize {
		return errors.New("no key")
	}
	if bytes.Equal(c.Identity, []byte(r.name)) {
		return errRefused
	}
	return nil
}

func wantRefused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrCredential) || !errors.Is(err, errRefused) {
		t.Errorf("%s: got %v, want ErrCredential and the validator's own error", what, err)
	}
}

func TestValidatorSeesEveryLeaf(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b, fresh := peers[0], peers[1], newPeer(t, "fresh")
	v := &refuse{name: "fresh"}
	wantRefused(t, "key package", fresh.bundle.KeyPackage().Verify(testNow, v))

	a.validator = v
	_, err := a.Commit(CommitOptions{Adds: keyPackagesOf([]*peer{fresh}), AcceptTime: testNow})
	wantRefused(t, "making a commit", err)
	a.validator = nil
	c := a.mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
	b.validator = v
	_, err = b.Process(mustParse(t, c.Commit), testNow)
	wantRefused(t, "processing a commit", err)

	for _, name := range []string{peers[0].name, peers[3].name, "fresh"} {
		w := &refuse{name: name}
		_, err = JoinGroup(mustParse(t, c.Welcome).Welcome, fresh.bundle, fresh.signer, JoinOptions{Validator: w})
		wantRefused(t, "joining with "+name, err)
		wantRefused(t, "group info with "+name, mustParse(t, c.GroupInfo).GroupInfo.Verify(nil, w))
	}
	w := &refuse{}
	if _, err := JoinGroup(mustParse(t, c.Welcome).Welcome, fresh.bundle, fresh.signer, JoinOptions{Validator: w}); err != nil || w.asked != 5 {
		t.Errorf("joining: %v, asked %d times, want 5", err, w.asked)
	}
	_, err = CreateGroup(GroupOptions{GroupID: []byte("g"), Credential: BasicCredential([]byte("fresh")), Signer: fresh.signer, Validator: v})
	wantRefused(t, "creating", err)
	path := a.mustCommit(t, CommitOptions{ForcePath: true})
	b.validator = &refuse{name: a.name}
	_, err = b.Process(mustParse(t, path.Commit), testNow)
	wantRefused(t, "leaf in a path", err)
	update, err := a.Propose(ProposeOptions{Update: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Process(mustParse(t, update), testNow)
	wantRefused(t, "leaf in an update", err)
}

func TestX509IsRefused(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "p")
	b := *p.bundle.keyPackage
	leaf := *b.LeafNode
	leaf.Credential.Type = CredentialX509
	leaf.Credential.Identity = appendOpaque(nil, []byte("certificate"))
	leaf.sign(p.signer, nil, 0)
	b.LeafNode = &leaf
	b.Signature = signWithLabel(p.signer, "KeyPackageTBS", b.appendContent(nil))
	m := mustParse(t, appendMessage(WireFormatKeyPackage, &b))
	if err := m.KeyPackage.Verify(testNow, nil); !errors.Is(err, ErrUnsupportedCredential) {
		t.Errorf("got %v, want ErrUnsupportedCredential", err)
	}
	leaf.Credential.Type = 0x0a0a
	if _, err := ParseMessage(appendMessage(WireFormatKeyPackage, &b)); !errors.Is(err, ErrUnsupportedCredential) && !errors.Is(err, ErrMalformed) {
		t.Errorf("unknown credential type: got %v", err)
	}
}
