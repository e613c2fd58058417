package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// Keys sign checkpoints, vouch for rows, and hide the names of admins. They are secrets. Safe for concurrent use.
type Keys struct {
	signing []ed25519.PrivateKey // The first signs.
	macs    [][]byte             // The first vouches, all verify.
	admin   []byte
}

// Format implements fmt.Formatter: nothing is printed, whatever the verb.
func (*Keys) Format(f fmt.State, _ rune) { fmt.Fprint(f, "(secret)") }

// LogValue implements slog.LogValuer: nothing is logged.
func (*Keys) LogValue() slog.Value { return slog.StringValue("(secret)") }

// NewKeys derives keys from seeds of 32 bytes. The first signs and vouches, all verify; admins' names are hashed under the last,
// which a rotation leaves in its place.
func NewKeys(seeds ...[]byte) (*Keys, error) {
	if len(seeds) == 0 {
		return nil, errors.New("the audit log needs a key")
	}
	k := &Keys{}
	for _, seed := range seeds {
		if len(seed) != ed25519.SeedSize {
			return nil, fmt.Errorf("a key of the audit log has %d bytes, not %d", ed25519.SeedSize, len(seed))
		}
		signing, err := derive(seed, "signing")
		if err != nil {
			return nil, err
		}
		vouching, err := derive(seed, "rows")
		if err != nil {
			return nil, err
		}
		if k.admin, err = derive(seed, "admins"); err != nil {
			return nil, err
		}
		k.signing, k.macs = append(k.signing, ed25519.NewKeyFromSeed(signing)), append(k.macs, vouching)
	}
	return k, nil
}

func derive(seed []byte, what string) ([]byte, error) {
	return hkdf.Key(sha256.New, seed, []byte("qpq/1 audit"), what, ed25519.SeedSize)
}

// Admin is the pseudonym of an admin's name.
func (k *Keys) Admin(name string) Ref {
	return Ref(mac(k.admin, "qpq/1 audit admin\x00", []byte(name))[:len(Ref{})])
}

// Trust are the public keys whose checkpoints are believed.
type Trust []ed25519.PublicKey

// Trust returns the keys' public halves, the one that signs first.
func (k *Keys) Trust() Trust {
	var t Trust
	for _, s := range k.signing {
		t = append(t, s.Public().(ed25519.PublicKey)) //nolint:errcheck,forcetypeassert // it is one.
	}
	return t
}

// Has reports whether key is trusted.
func (t Trust) Has(key ed25519.PublicKey) bool {
	return slices.ContainsFunc(t, func(k ed25519.PublicKey) bool { return k.Equal(key) })
}

const pemType = "PUBLIC KEY"

// PEM returns the keys as SubjectPublicKeyInfo (RFC 8410), one block each.
func (t Trust) PEM() ([]byte, error) {
	var out bytes.Buffer
	for _, key := range t {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, err
		}
		if err := pem.Encode(&out, &pem.Block{Type: pemType, Bytes: der}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// ParseTrust reads what PEM wrote.
func ParseTrust(b []byte) (Trust, error) {
	var t Trust
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		ed, ok := key.(ed25519.PublicKey)
		if block.Type != pemType || err != nil || !ok {
			return nil, errors.New("a PEM block is not an Ed25519 public key, as `cell audit key` prints it")
		}
		t = append(t, ed)
	}
	if len(t) == 0 {
		return nil, errors.New("there is no PEM block with a public key, as `cell audit key` prints it")
	}
	return t, nil
}
