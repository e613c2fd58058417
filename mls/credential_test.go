package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
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

// senderJudge is a validator that has an opinion of external senders as well.
type senderJudge struct{ refuse }

func (j *senderJudge) ValidateExternalSender(c Credential, key ed25519.PublicKey) error {
	return j.ValidateCredential(c, key)
}

func externalSendersExtension(key []byte, name string) Extension {
	return Extension{Type: ExtensionExternalSenders, Data: appendVector(nil, func(b []byte) []byte {
		return BasicCredential([]byte(name)).append(appendOpaque(b, key))
	})}
}

// Credentials of external senders are validated like those of members, wherever the
// extension enters (RFC 9420 §5.3.1).
func TestExternalSendersAreValidated(t *testing.T) {
	t.Parallel()
	key := publicOf(newPeer(t, "service").signer)
	trusting, strict := &senderJudge{refuse{name: "nobody"}}, &senderJudge{refuse{name: "service"}}
	validators := []struct {
		name string
		v    CredentialValidator
		ok   bool
	}{{"none", nil, true}, {"that knows the service", trusting, true}, {"that refuses it", strict, false}, {"that knows no senders", acceptAll{}, false}}
	x := Extensions{externalSendersExtension(key, "service")}
	for _, tt := range validators {
		check := func(where string, err error) {
			t.Helper()
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrCredential) {
				t.Errorf("validator %s: %s: got %v", tt.name, where, err)
			}
		}
		peers := newGroup(t, 2)
		fresh := newPeer(t, "fresh")
		c := peers[0].mustCommit(t, CommitOptions{GroupContextExtensions: &x, Adds: keyPackagesOf([]*peer{fresh})})
		peers[1].validator = tt.v
		_, err := peers[1].Process(mustParse(t, c.Commit), testNow)
		check("processing a commit", err)
		_, err = JoinGroup(mustParse(t, c.Welcome).Welcome, fresh.bundle, fresh.signer, JoinOptions{Validator: tt.v})
		check("joining", err)
		check("group info", mustParse(t, c.GroupInfo).GroupInfo.Verify(nil, tt.v))
		peers[0].validator = tt.v
		_, err = peers[0].Commit(CommitOptions{GroupContextExtensions: &x})
		check("making a commit", err)
		_, err = peers[0].Propose(ProposeOptions{GroupContextExtensions: &x})
		check("proposing", err)
		_, err = CreateGroup(GroupOptions{GroupID: []byte("g"), Credential: BasicCredential([]byte("p")), Signer: fresh.signer, Extensions: x, Validator: tt.v})
		check("creating", err)
	}
	short := Extensions{externalSendersExtension(key[1:], "service")}
	if _, err := newGroup(t, 1)[0].Commit(CommitOptions{GroupContextExtensions: &short}); !errors.Is(err, ErrInvalidProposal) {
		t.Errorf("short signature key: got %v, want ErrInvalidProposal", err)
	}
}

// atMost bounds the lifetime of KeyPackages.
type atMost struct {
	acceptAll
	longest time.Duration
}

func (a atMost) ValidateLifetime(notBefore, notAfter time.Time) error {
	if notAfter.Sub(notBefore) > a.longest {
		return errRefused
	}
	return nil
}

func TestLongestLifetimeIsTheApplications(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 2)
	fresh := newPeer(t, "fresh") // lives for two hours
	c := peers[0].mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh})})
	peers[1].validator = atMost{longest: 2*time.Hour - time.Second}
	_, err := peers[1].Process(mustParse(t, c.Commit), testNow)
	wantRefused(t, "processing a commit", err)
	wantRefused(t, "key package", fresh.bundle.KeyPackage().Verify(testNow, peers[1].validator))
	peers[1].validator = atMost{longest: 2 * time.Hour}
	spread(t, peers, peers[0], c)
}
