package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

func TestVectorsWelcome(t *testing.T) {
	t.Parallel()
	type vector struct {
		InitPriv   hexBytes `json:"init_priv"`
		SignerPub  hexBytes `json:"signer_pub"`
		KeyPackage hexBytes `json:"key_package"`
		Welcome    hexBytes
	}
	runVectors(t, "welcome", 1, func(t *testing.T, v vector) {
		kp, w := mustParse(t, v.KeyPackage).KeyPackage, mustParse(t, v.Welcome).Welcome
		secrets, err := w.openSecrets(kp.Ref(), v.InitPriv)
		if err != nil {
			t.Fatal(err)
		}
		gi, err := w.groupInfo(secrets.joinerSecret, make([]byte, hashSize))
		if err != nil {
			t.Fatal(err)
		}
		if !verifyWithLabel(ed25519.PublicKey(v.SignerPub), "GroupInfoTBS", gi.appendContent(nil), gi.Signature) {
			t.Error("signature of the group info")
		}
		e, _ := newEpoch(gi.GroupContext, newTree(kp.LeafNode), entrance{joiner: secrets.joinerSecret, psk: make([]byte, hashSize)})
		wantBytes(t, "confirmation tag", e.confirmationTag, gi.ConfirmationTag)
	})
}

type passiveVector struct {
	ExternalPSKs []struct {
		ID  hexBytes `json:"psk_id"`
		PSK hexBytes
	} `json:"external_psks"`
	KeyPackage     hexBytes `json:"key_package"`
	SignaturePriv  hexBytes `json:"signature_priv"`
	EncryptionPriv hexBytes `json:"encryption_priv"`
	InitPriv       hexBytes `json:"init_priv"`
	Welcome        hexBytes
	RatchetTree    hexBytes `json:"ratchet_tree"`
	Authenticator  hexBytes `json:"initial_epoch_authenticator"`
	Epochs         []struct {
		Proposals     []hexBytes
		Commit        hexBytes
		Authenticator hexBytes `json:"epoch_authenticator"`
	}
}

func (v *passiveVector) PSK(id *PreSharedKeyID) ([]byte, error) {
	for _, p := range v.ExternalPSKs {
		if bytes.Equal(p.ID, id.ID) {
			return p.PSK, nil
		}
	}
	return nil, ErrUnknownPSK
}

// run joins and follows the whole history, saving and loading at each epoch.
func (v passiveVector) run(t *testing.T) {
	bundle := &KeyPackageBundle{
		keyPackage: mustParse(t, v.KeyPackage).KeyPackage, initPrivate: v.InitPriv, leafPrivate: v.EncryptionPriv,
	}
	if err := bundle.check(); err != nil {
		t.Fatal(err)
	}
	signer := ed25519.NewKeyFromSeed(v.SignaturePriv)
	g, err := JoinGroup(mustParse(t, v.Welcome).Welcome, bundle, signer, JoinOptions{RatchetTree: v.RatchetTree, PSKs: &v})
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "initial epoch authenticator", g.EpochAuthenticator(), v.Authenticator)
	for i, e := range v.Epochs {
		g = reload(t, g)
		g.SetPSKStore(&v)
		for _, p := range e.Proposals {
			if _, err := g.Process(mustParse(t, p), vectorTime); err != nil {
				t.Fatalf("epoch %d: proposal: %v", i, err)
			}
			g = reload(t, g)
			g.SetPSKStore(&v)
		}
		if _, err := g.Process(mustParse(t, e.Commit), vectorTime); err != nil {
			t.Fatalf("epoch %d: commit: %v", i, err)
		}
		wantBytes(t, "epoch authenticator", g.EpochAuthenticator(), e.Authenticator)
	}
}

// vectorTime lies within the lifetimes of the vectors' key packages.
var vectorTime = time.Unix(1700000000, 0)

// reload saves and loads a group, and checks that both states are the same.
func reload(t testing.TB, g *Group) *Group {
	t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := UnmarshalGroup(b, g.signer, g.validator)
	if err != nil {
		t.Fatal(err)
	}
	again, err := out.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, b) {
		t.Fatal("state encodes differently after a reload")
	}
	out.psks = g.psks
	return out
}

func TestVectorsPassiveClientWelcome(t *testing.T) {
	t.Parallel()
	runVectors(t, "passive-client-welcome", 8, func(t *testing.T, v passiveVector) { v.run(t) })
}

func TestVectorsPassiveClientHandlingCommit(t *testing.T) {
	t.Parallel()
	runVectors(t, "passive-client-handling-commit", 13, func(t *testing.T, v passiveVector) { v.run(t) })
}

func TestVectorsPassiveClientRandom(t *testing.T) {
	t.Parallel()
	runVectorFile(t, sharedVectors(t, "passive-client-random"), 1, func(t *testing.T, v passiveVector) { v.run(t) })
}

// What RFC 9420 §12.4.3.1 says of a Welcome that starts a group from another one.
func TestWelcomeWithResumptionPSK(t *testing.T) {
	t.Parallel()
	external := &PreSharedKeyID{Type: PSKExternal, ID: []byte("x")}
	resumption := func(u ResumptionUsage) *PreSharedKeyID {
		return &PreSharedKeyID{Type: PSKResumption, Usage: u, GroupID: []byte("old"), Epoch: 7}
	}
	store := PSKFunc(func(*PreSharedKeyID) ([]byte, error) { return []byte("psk"), nil })
	tests := []struct {
		name  string
		epoch uint64
		psks  []*PreSharedKeyID
		want  error
	}{
		{"reinit", 1, []*PreSharedKeyID{resumption(ResumptionReInit)}, nil},
		{"branch", 1, []*PreSharedKeyID{resumption(ResumptionBranch)}, nil},
		{"reinit and an external PSK", 1, []*PreSharedKeyID{external, resumption(ResumptionReInit)}, nil},
		{"branch and application", 1, []*PreSharedKeyID{resumption(ResumptionBranch), resumption(ResumptionApplication)}, nil},
		{"reinit and branch", 1, []*PreSharedKeyID{resumption(ResumptionReInit), resumption(ResumptionBranch)}, ErrInvalidWelcome},
		{"reinit twice", 1, []*PreSharedKeyID{resumption(ResumptionReInit), resumption(ResumptionReInit)}, ErrInvalidWelcome},
		{"reinit in a later epoch", 2, []*PreSharedKeyID{resumption(ResumptionReInit)}, ErrInvalidWelcome},
		{"branch in a later epoch", 2, []*PreSharedKeyID{resumption(ResumptionBranch)}, ErrInvalidWelcome},
		{"application in a later epoch", 2, []*PreSharedKeyID{resumption(ResumptionApplication)}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, fresh := newPeer(t, "a"), newPeer(t, "fresh")
			a.create(t)
			for a.Epoch()+1 < tt.epoch {
				spread(t, nil, a, a.mustCommit(t, CommitOptions{}))
			}
			a.SetPSKStore(store)
			ids := make([]*PreSharedKeyID, len(tt.psks))
			for i, id := range tt.psks {
				ids[i] = id.withNonce()
			}
			w := welcomeWithPSKs(t, a, fresh, ids)
			if _, err := JoinGroup(w, fresh.bundle, fresh.signer, JoinOptions{PSKs: store}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// welcomeWithPSKs adds fresh with PSKs that a Commit inside a group must not have.
func welcomeWithPSKs(t *testing.T, a, fresh *peer, ids []*PreSharedKeyID) *Welcome {
	t.Helper()
	self := Sender{Type: SenderMember, Leaf: a.own}
	add := proposalEntry{proposal: &Proposal{Type: ProposalAdd, Add: fresh.bundle.KeyPackage()}, sender: self}
	tr, err := newTransition(a.checker(testNow), []proposalEntry{add}, a.own, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr.psks = ids
	p, err := (&commitMaker{g: a.Group, tr: tr, sender: self}).make(true)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, p.Welcome).Welcome
}

// The committer may leave the tree out; whoever joins is given it another way.
func TestTreeOutOfBand(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 3)
	fresh, late := newPeer(t, "fresh"), newPeer(t, "late")
	c := peers[0].mustCommit(t, CommitOptions{Adds: keyPackagesOf([]*peer{fresh}), TreeOutOfBand: true})
	for _, p := range peers[1:] {
		p.mustProcess(t, c.Commit)
	}
	peers[0].mustMerge(t, c)
	w := mustParse(t, c.Welcome).Welcome
	if _, err := JoinGroup(w, fresh.bundle, fresh.signer, JoinOptions{}); !errors.Is(err, ErrInvalidWelcome) {
		t.Errorf("without the tree: %v", err)
	}
	tree := peers[0].RatchetTree()
	var err error
	if fresh.Group, err = JoinGroup(w, fresh.bundle, fresh.signer, JoinOptions{RatchetTree: tree}); err != nil {
		t.Fatal(err)
	}
	gi := mustParse(t, c.GroupInfo).GroupInfo
	j, err := JoinExternal(gi, ExternalJoinOptions{Credential: BasicCredential([]byte("late")), Signer: late.signer, RatchetTree: tree})
	if err != nil {
		t.Fatal(err)
	}
	all := append(peers, fresh)
	for _, p := range all {
		p.mustProcess(t, j.Commit)
	}
	late.Group = j.Group
	wantAgreement(t, append(all, late))
}
