package devicecert

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
)

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

var issuedAt = time.Date(2026, 3, 4, 5, 6, 7, 891_234_567, time.UTC)

func makeCertificate() *Certificate {
	return Issue(key(1), ids.ID{0: 0xaa, 15: 1}, ids.ID{0: 0xdd, 15: 2}, public(key(2)), issuedAt)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want := makeCertificate()
	b := want.Marshal()
	got, err := Parse(b)
	if err != nil || len(b) != Size {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got.AccountID != want.AccountID || got.DeviceID != want.DeviceID || !got.RootKey.Equal(public(key(1))) ||
		!got.DeviceKey.Equal(public(key(2))) || !got.IssuedAt.Equal(issuedAt.Truncate(time.Millisecond)) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !bytes.Equal(got.Marshal(), b) {
		t.Error("a parsed certificate marshals to other bytes")
	}
}

// The layout in the package's comment and in docs/protocol.md.
func TestLayout(t *testing.T) {
	t.Parallel()
	c := makeCertificate()
	b := c.Marshal()
	fields := []struct {
		name     string
		from, to int
		want     []byte
	}{
		{"version", 0, 1, []byte{1}},
		{"accountId", 1, 17, c.AccountID[:]},
		{"deviceId", 17, 33, c.DeviceID[:]},
		{"rootKey", 33, 65, public(key(1))},
		{"deviceKey", 65, 97, public(key(2))},
		{"issuedAt", 97, 105, binary.BigEndian.AppendUint64(nil, uint64(issuedAt.UnixMilli()))},
	}
	for _, f := range fields {
		if got := b[f.from:f.to]; !bytes.Equal(got, f.want) {
			t.Errorf("%s: %x, want %x", f.name, got, f.want)
		}
	}
	if !ed25519.Verify(public(key(1)), append([]byte("qpq/1 device certificate\x00"), b[:105]...), b[105:]) {
		t.Error("the signature is not the root's over the label and the first 105 bytes")
	}
}

func TestParseRefusesEveryChangedByte(t *testing.T) {
	t.Parallel()
	good := makeCertificate().Marshal()
	for i := range good {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= mask
			if _, err := Parse(bad); !errors.Is(err, ErrInvalid) {
				t.Fatalf("byte %d changed by %#x: %v, want ErrInvalid", i, mask, err)
			}
		}
	}
}

func TestParseRefusesOtherLengths(t *testing.T) {
	t.Parallel()
	good := append(makeCertificate().Marshal(), make([]byte, 64)...)
	for n := range good {
		if _, err := Parse(good[:n]); (err == nil) != (n == Size) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestParseRefusesAnotherRootsSignature(t *testing.T) {
	t.Parallel()
	forged := makeCertificate()
	forged.signature = ed25519.Sign(key(3), append([]byte(certLabel), forged.signed()...))
	if _, err := Parse(forged.Marshal()); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed by another key: %v", err)
	}
	unlabelled := makeCertificate()
	unlabelled.signature = ed25519.Sign(key(1), unlabelled.signed())
	if _, err := Parse(unlabelled.Marshal()); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed without the label: %v", err)
	}
}

func TestParsedCertificatesDoNotAlias(t *testing.T) {
	t.Parallel()
	b := makeCertificate().Marshal()
	c, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	want := c.Marshal()
	clear(b)
	if !bytes.Equal(c.Marshal(), want) {
		t.Error("the certificate changed with the slice it was parsed from")
	}
}

func TestProofIsBoundToConnectionAndDevice(t *testing.T) {
	t.Parallel()
	device := key(2)
	exporter := bytes.Repeat([]byte{7}, ExporterSize)
	proof := Prove(device, exporter)
	if !VerifyProof(public(device), exporter, proof) {
		t.Fatal("an honest proof does not verify")
	}
	other := bytes.Clone(exporter)
	other[ExporterSize-1] ^= 1
	cases := []struct {
		name            string
		key             ed25519.PublicKey
		exporter, proof []byte
	}{
		{"another connection", public(device), other, proof},
		{"another device", public(key(3)), exporter, proof},
		{"no key", nil, exporter, proof},
		{"half a key", public(device)[:16], exporter, proof},
		{"no exporter", public(device), nil, Prove(device, nil)},
		{"a short exporter", public(device), exporter[:31], Prove(device, exporter[:31])},
		{"no proof", public(device), exporter, nil},
		{"a short proof", public(device), exporter, proof[:63]},
		{"a long proof", public(device), exporter, append(bytes.Clone(proof), 0)},
		{"a signature without the label", public(device), exporter, ed25519.Sign(device, exporter)},
		{"a signature of the other label", public(device), exporter, ed25519.Sign(device, append([]byte(certLabel), exporter...))},
	}
	for _, c := range cases {
		if VerifyProof(c.key, c.exporter, c.proof) {
			t.Errorf("%s: the proof verifies", c.name)
		}
	}
	for i := range proof {
		bad := bytes.Clone(proof)
		if bad[i] ^= 0x10; VerifyProof(public(device), exporter, bad) {
			t.Fatalf("byte %d changed: the proof verifies", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	good := makeCertificate().Marshal()
	f.Add(good)
	f.Add(good[:Size-1])
	f.Add(make([]byte, Size))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && !bytes.Equal(c.Marshal(), b) {
			t.Fatalf("%x parses, but marshals to %x", b, c.Marshal())
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v is not ErrInvalid", err)
		}
	})
}
