package mls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

// resigned returns a copy of p's key package, changed and signed again.
func (p *peer) resigned(change func(*KeyPackage, *LeafNode)) *KeyPackage {
	kp := *p.bundle.keyPackage
	leaf := *kp.LeafNode
	kp.LeafNode = &leaf
	change(&kp, &leaf)
	leaf.sign(p.signer, nil, 0)
	kp.Signature = signWithLabel(p.signer, "KeyPackageTBS", kp.appendContent(nil))
	return &kp
}

func TestKeyPackageVerify(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "p")
	grease := []ExtensionType{ExtensionLastResort, 0x0a0a, 0xeaea}
	tests := []struct {
		name   string
		change func(*KeyPackage, *LeafNode)
		want   error
	}{
		{"as it is", func(*KeyPackage, *LeafNode) {}, nil},
		{"GREASE in capabilities", func(_ *KeyPackage, l *LeafNode) {
			l.Capabilities.Extensions = grease
			l.Capabilities.Proposals = []ProposalType{0x1a1a}
			l.Capabilities.Credentials = []CredentialType{0x2a2a, CredentialBasic}
			l.Capabilities.CipherSuites = []CipherSuite{0x3a3a, 1}
			l.Capabilities.Versions = []uint16{0x4a4a, 1}
		}, nil},
		{"GREASE extension that is listed", func(_ *KeyPackage, l *LeafNode) {
			l.Capabilities.Extensions = grease
			l.Extensions = Extensions{{Type: 0x0a0a, Data: []byte("x")}}
		}, nil},
		{"extension that is not listed", func(_ *KeyPackage, l *LeafNode) { l.Extensions = Extensions{{Type: 0x0a0a}} }, ErrUnsupportedCapability},
		{"version 0", func(kp *KeyPackage, _ *LeafNode) { kp.Version = 0 }, ErrUnsupportedVersion},
		{"version 2", func(kp *KeyPackage, _ *LeafNode) { kp.Version = 2 }, ErrUnsupportedVersion},
		{"suite 0", func(kp *KeyPackage, _ *LeafNode) { kp.CipherSuite = 0 }, ErrUnsupportedSuite},
		{"suite 2", func(kp *KeyPackage, _ *LeafNode) { kp.CipherSuite = 2 }, ErrUnsupportedSuite},
		{"GREASE suite", func(kp *KeyPackage, _ *LeafNode) { kp.CipherSuite = 0x0a0a }, ErrUnsupportedSuite},
		{"init key is encryption key", func(kp *KeyPackage, l *LeafNode) { kp.InitKey = l.EncryptionKey }, ErrKeyReuse},
		{"short init key", func(kp *KeyPackage, _ *LeafNode) { kp.InitKey = kp.InitKey[:31] }, ErrInvalidLeaf},
		{"short encryption key", func(_ *KeyPackage, l *LeafNode) { l.EncryptionKey = l.EncryptionKey[:31] }, ErrInvalidLeaf},
		{"long signature key", func(_ *KeyPackage, l *LeafNode) { l.SignatureKey = make([]byte, 33) }, ErrInvalidLeaf},
		{"init key of low order", func(kp *KeyPackage, _ *LeafNode) { kp.InitKey = make([]byte, 32) }, ErrInvalidLeaf},
		{"encryption key of low order", func(_ *KeyPackage, l *LeafNode) { l.EncryptionKey = append([]byte{1}, make([]byte, 31)...) }, ErrInvalidLeaf},
		{"leaf of an update", func(_ *KeyPackage, l *LeafNode) { l.Source = LeafFromUpdate }, ErrInvalidLeaf},
		{"leaf of a commit", func(_ *KeyPackage, l *LeafNode) { l.Source = LeafFromCommit }, ErrInvalidLeaf},
		{"suite not listed", func(_ *KeyPackage, l *LeafNode) { l.Capabilities.CipherSuites = []CipherSuite{2} }, ErrUnsupportedCapability},
		{"version not listed", func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Versions = nil }, ErrUnsupportedCapability},
		{"credential not listed", func(_ *KeyPackage, l *LeafNode) { l.Capabilities.Credentials = nil }, ErrUnsupportedCapability},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := p.resigned(tt.change).Verify(testNow, acceptAll{}); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestKeyPackageSignatures(t *testing.T) {
	t.Parallel()
	p, other := newPeer(t, "p"), newPeer(t, "other")
	outer := *p.bundle.keyPackage
	outer.Signature = other.bundle.keyPackage.Signature
	inner := p.resigned(func(*KeyPackage, *LeafNode) {})
	inner.LeafNode.Signature = other.bundle.keyPackage.LeafNode.Signature
	inner.Signature = signWithLabel(p.signer, "KeyPackageTBS", inner.appendContent(nil))
	for name, kp := range map[string]*KeyPackage{"key package": &outer, "leaf": inner} {
		if err := kp.Verify(testNow, nil); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
}

func TestKeyPackageOptions(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "p")
	for name, change := range map[string]func(*KeyPackageOptions){
		"no signer":     func(o *KeyPackageOptions) { o.Signer = nil },
		"x509":          func(o *KeyPackageOptions) { o.Credential.Type = CredentialX509 },
		"ends too soon": func(o *KeyPackageOptions) { o.NotAfter = o.NotBefore.Add(-time.Second) },
		"no time":       func(o *KeyPackageOptions) { o.NotBefore = time.Time{} },
	} {
		o := p.options()
		change(&o)
		if _, err := NewKeyPackage(o); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: got %v, want ErrInvalidArgument", name, err)
		}
	}
	o := p.options()
	o.LastResort = true
	b, err := NewKeyPackage(o)
	if err != nil {
		t.Fatal(err)
	}
	kp := b.KeyPackage()
	if !kp.LastResort() || p.bundle.KeyPackage().LastResort() {
		t.Error("last_resort is not told")
	}
	if from, until := kp.Lifetime(); !from.Equal(o.NotBefore) || !until.Equal(o.NotAfter) {
		t.Errorf("lifetime %v to %v", from, until)
	}
	if !bytes.Equal(kp.SignatureKey(), publicOf(p.signer)) || !kp.Credential().Equal(o.Credential) {
		t.Error("key or credential differ from the options")
	}
	if err := kp.Verify(testNow, nil); err != nil {
		t.Error(err)
	}
	if kp.Ref() == p.bundle.KeyPackage().Ref() {
		t.Error("two key packages have the same reference")
	}
}

func TestKeyPackageBundleIsSaved(t *testing.T) {
	t.Parallel()
	p, other := newPeer(t, "p"), newPeer(t, "other")
	b, err := p.bundle.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := UnmarshalKeyPackageBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.KeyPackage().Ref() != p.bundle.KeyPackage().Ref() ||
		!bytes.Equal(loaded.initPrivate, p.bundle.initPrivate) || !bytes.Equal(loaded.leafPrivate, p.bundle.leafPrivate) {
		t.Error("the bundle changed")
	}
	mixed := &KeyPackageBundle{keyPackage: p.bundle.keyPackage, initPrivate: other.bundle.initPrivate, leafPrivate: p.bundle.leafPrivate}
	m, _ := mixed.MarshalBinary()
	for name, in := range map[string][]byte{"other keys": m, "cut": b[:len(b)-1], "longer": append(bytes.Clone(b), 0), "version": append([]byte{9}, b[1:]...), "empty": nil} {
		if _, err := UnmarshalKeyPackageBundle(in); !errors.Is(err, ErrState) {
			t.Errorf("%s: got %v, want ErrState", name, err)
		}
	}
}

func TestJoinNeedsTheRightKeys(t *testing.T) {
	t.Parallel()
	peers := newPeers(t, 3)
	peers[0].create(t)
	c := peers[0].mustCommit(t, CommitOptions{Adds: keyPackagesOf(peers[1:2])})
	w := mustParse(t, c.Welcome).Welcome
	if w.Includes(peers[2].bundle.KeyPackage().Ref()) || !w.Includes(peers[1].bundle.KeyPackage().Ref()) || len(w.KeyPackageRefs()) != 1 {
		t.Errorf("welcome for %v", w.KeyPackageRefs())
	}
	tests := []struct {
		name   string
		bundle *KeyPackageBundle
		signer ed25519.PrivateKey
		want   error
	}{
		{"for another", peers[2].bundle, peers[2].signer, ErrNotAddressed},
		{"wrong signer", peers[1].bundle, peers[2].signer, ErrInvalidArgument},
		{"no signer", peers[1].bundle, nil, ErrInvalidArgument},
		{"right", peers[1].bundle, peers[1].signer, nil},
	}
	for _, tt := range tests {
		if _, err := JoinGroup(w, tt.bundle, tt.signer, JoinOptions{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
