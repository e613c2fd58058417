package mls

import (
	"crypto/ed25519"
	"testing"
)

func TestVectorsCryptoBasics(t *testing.T) {
	t.Parallel()
	type vector struct {
		RefHash struct {
			Label      string
			Out, Value hexBytes
		} `json:"ref_hash"`
		ExpandWithLabel struct {
			Secret, Context, Out hexBytes
			Label                string
			Length               int
		} `json:"expand_with_label"`
		DeriveSecret struct {
			Label       string
			Out, Secret hexBytes
		} `json:"derive_secret"`
		DeriveTreeSecret struct {
			Label       string
			Generation  uint32
			Length      int
			Out, Secret hexBytes
		} `json:"derive_tree_secret"`
		SignWithLabel struct {
			Priv, Pub, Content, Signature hexBytes
			Label                         string
		} `json:"sign_with_label"`
		EncryptWithLabel struct {
			Priv, Pub, Context, Plaintext, Ciphertext hexBytes
			KemOutput                                 hexBytes `json:"kem_output"`
			Label                                     string
		} `json:"encrypt_with_label"`
	}
	runVectors(t, "crypto-basics", 1, func(t *testing.T, v vector) {
		ref := refHash(v.RefHash.Label, v.RefHash.Value)
		wantBytes(t, "ref_hash", ref[:], v.RefHash.Out)
		x := v.ExpandWithLabel
		wantBytes(t, "expand_with_label", expandWithLabel(x.Secret, x.Label, x.Context, x.Length), x.Out)
		wantBytes(t, "derive_secret", deriveSecret(v.DeriveSecret.Secret, v.DeriveSecret.Label), v.DeriveSecret.Out)
		d := v.DeriveTreeSecret
		wantBytes(t, "derive_tree_secret", deriveTreeSecret(d.Secret, d.Label, d.Generation, d.Length), d.Out)

		s := v.SignWithLabel
		if !verifyWithLabel(ed25519.PublicKey(s.Pub), s.Label, s.Content, s.Signature) {
			t.Error("sign_with_label: signature does not verify")
		}
		if verifyWithLabel(ed25519.PublicKey(s.Pub), s.Label+"x", s.Content, s.Signature) {
			t.Error("sign_with_label: verifies under another label")
		}
		wantBytes(t, "sign_with_label", signWithLabel(ed25519.NewKeyFromSeed(s.Priv), s.Label, s.Content), s.Signature)

		e := v.EncryptWithLabel
		c := hpkeCiphertext{kemOutput: e.KemOutput, ciphertext: e.Ciphertext}
		pt, err := decryptWithLabel(e.Priv, e.Label, e.Context, c)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "encrypt_with_label", pt, e.Plaintext)
		if c, err = encryptWithLabel(e.Pub, e.Label, e.Context, e.Plaintext); err != nil {
			t.Fatal(err)
		}
		if pt, err = decryptWithLabel(e.Priv, e.Label, e.Context, c); err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "own ciphertext", pt, e.Plaintext)
	})
}

func TestEncryptRefusesLowOrderKey(t *testing.T) {
	t.Parallel()
	for _, pk := range [][]byte{make([]byte, 32), make([]byte, 31), nil} {
		if _, err := encryptWithLabel(pk, "x", nil, nil); err == nil {
			t.Errorf("encrypted to the key %x", pk)
		}
	}
}

// Nobody can encrypt to a key of low order: a leaf or a node that has one keeps
// everyone else from sending a path, so it must not get into a tree.
func TestLowOrderKeysAreNotUsable(t *testing.T) {
	t.Parallel()
	tried := 0
	for key := range lowOrderKeys {
		for _, top := range []byte{0, 0x80} { // X25519 ignores the highest bit
			pk := key
			pk[31] |= top
			if _, err := encryptWithLabel(pk[:], "x", nil, nil); err == nil {
				t.Errorf("%x is not of low order", pk)
			}
			if usableKey(pk[:]) {
				t.Errorf("%x is usable", pk)
			}
			tried++
		}
	}
	if tried != 14 {
		t.Errorf("%d keys of low order, want 14", tried)
	}
	good := newHPKEKeyPair().public
	if !usableKey(good) || usableKey(good[1:]) || usableKey(nil) {
		t.Error("usableKey is wrong about sound keys or about lengths")
	}
}
