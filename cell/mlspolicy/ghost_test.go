package mlspolicy

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// The cell takes no leaf that the account's root key did not sign, whatever else is right about it.

type account struct {
	id   ids.ID
	root ed25519.PrivateKey
}

func makeAccount() account {
	_, root, _ := ed25519.GenerateKey(nil)
	return account{ids.New(), root}
}

func (a account) public() ed25519.PublicKey { return a.root.Public().(ed25519.PublicKey) }

type device struct {
	account
	id  ids.ID
	key ed25519.PrivateKey
}

func (a account) device() device {
	_, key, _ := ed25519.GenerateKey(nil)
	return device{a, ids.New(), key}
}

func (d device) certificate(root ed25519.PrivateKey) []byte {
	return devicecert.Issue(root, d.account.id, d.id, d.key.Public().(ed25519.PublicKey), time.Now()).Marshal()
}

func (d device) bundle(t *testing.T, certificate []byte, signer ed25519.PrivateKey) *mls.KeyPackageBundle {
	t.Helper()
	b, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: mls.BasicCredential(certificate), Signer: signer,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUploadedKeyPackagesAreSignedByTheRoot(t *testing.T) {
	t.Parallel()
	alice, mallory := makeAccount(), makeAccount()
	phone, ghost := alice.device(), alice.device()
	unsigned := phone.certificate(alice.root)
	unsigned[len(unsigned)-1] ^= 1
	for what, x := range map[string]struct {
		certificate []byte
		signer      ed25519.PrivateKey
		want        string // Empty: it is taken.
	}{
		"the device's own":                 {phone.certificate(alice.root), phone.key, ""},
		"signed by another root":           {phone.certificate(mallory.root), phone.key, "root key"},
		"another device of the account":    {ghost.certificate(alice.root), ghost.key, "another device"},
		"another account":                  {mallory.device().certificate(mallory.root), phone.key, "key"},
		"a signature that was changed":     {unsigned, phone.key, "sign"},
		"another key than the certified":   {phone.certificate(alice.root), ghost.key, "key"},
		"a certificate that is cut off":    {phone.certificate(alice.root)[:100], phone.key, "certificate"},
		"a name in place of a certificate": {[]byte("alice"), phone.key, "certificate"},
		"signed by the device itself":      {phone.certificate(phone.key), phone.key, "root key"},
	} {
		message, err := phone.bundle(t, x.certificate, x.signer).KeyPackage().MarshalMessage()
		if err != nil {
			t.Fatal(err)
		}
		_, err = KeyPackage(message, phone.id, alice.id, alice.public(), time.Now(), time.Hour)
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case x.want != "" && (!wire.HasCode(err, wire.CodeInvalidKeyPackage) || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v, want it to speak of the %s", what, err, x.want)
		}
	}
}

// groupOf makes the GroupInfo of a group that creator makes with members, each by its certificate.
func groupOf(t *testing.T, channel ids.ID, creator device, certificate []byte, members map[*device][]byte) []byte {
	t.Helper()
	g, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(channel, 1), Credential: mls.BasicCredential(certificate), Signer: creator.key})
	if err != nil {
		t.Fatal(err)
	}
	var adds []*mls.KeyPackage
	for d, c := range members {
		adds = append(adds, d.bundle(t, c, d.key).KeyPackage())
	}
	commit, err := g.Commit(mls.CommitOptions{Adds: adds})
	if err != nil {
		t.Fatal(err)
	}
	return commit.GroupInfo
}

func TestLeavesOfAGroupAreSignedByTheirRoots(t *testing.T) {
	t.Parallel()
	alice, bob, mallory := makeAccount(), makeAccount(), makeAccount()
	phone, laptop, ghost := alice.device(), bob.device(), bob.device()
	channel := ids.New()
	good := phone.certificate(alice.root)
	changed := laptop.certificate(bob.root)
	changed[40] ^= 1
	for what, x := range map[string]struct {
		creator []byte
		members map[*device][]byte
		refused bool
	}{
		"as it should be":                {good, map[*device][]byte{&laptop: laptop.certificate(bob.root)}, false},
		"a certificate that was changed": {good, map[*device][]byte{&laptop: changed}, true},
		"no certificate":                 {good, map[*device][]byte{&laptop: []byte("bob")}, true},
		"a creator without certificate":  {[]byte("alice"), map[*device][]byte{&laptop: laptop.certificate(bob.root)}, true},
		"a ghost under another root beside the account's own device": {good, map[*device][]byte{&laptop: laptop.certificate(bob.root),
			&ghost: ghost.certificate(mallory.root)}, true},
		"the certificate of another device": {good, map[*device][]byte{&ghost: laptop.certificate(bob.root)}, true},
	} {
		g, err := GroupInfo(groupOf(t, channel, phone, x.creator, x.members), channel, 1, 8)
		if x.refused != (err != nil) || err != nil && !wire.HasCode(err, wire.CodeInvalidMessage) {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil && (!g.Roots[alice.id].Equal(alice.public()) || !g.Roots[bob.id].Equal(bob.public()) || len(g.Members) != 2) {
			t.Errorf("%s: %+v", what, g)
		}
	}
	// A whole account under one foreign root passes here; the caller compares Roots with the accounts'.
	g, err := GroupInfo(groupOf(t, channel, phone, good, map[*device][]byte{&ghost: ghost.certificate(mallory.root)}), channel, 1, 8)
	if err != nil || g.Roots[bob.id].Equal(bob.public()) {
		t.Errorf("a foreign root is not told: %v", err)
	}
}
