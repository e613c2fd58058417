package mls

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// CipherSuite is an MLS cipher suite (RFC 9420 §17.1).
type CipherSuite uint16

// SuiteX25519AES128GCMSHA256Ed25519 is the one suite of this engine:
// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.
const SuiteX25519AES128GCMSHA256Ed25519 CipherSuite = 0x0001

const (
	versionMLS10 = 1

	hashSize    = sha256.Size // Nh
	keySize     = 16          // Nk of AES-128-GCM
	nonceSize   = 12          // Nn
	hpkeKeySize = 32          // X25519
	tagSize     = 16          // of the AEADs of all suites of RFC 9420

	// labelPrefix separates MLS 1.0 from every draft and every other protocol.
	labelPrefix = "MLS 1.0 "
)

var (
	suiteKEM  = hpke.DHKEM(ecdh.X25519())
	suiteKDF  = hpke.HKDFSHA256()
	suiteAEAD = hpke.AES128GCM()
)

// must unwraps results of functions that fail only for lengths which the engine
// fixes itself. Nothing from outside reaches such a length.
func must[T any](v T, err error) T {
	if err != nil {
		panic("mls: a primitive refused a length of the engine's own") //nolint:forbidigo // see above.
	}
	return v
}

// extract is KDF.Extract (RFC 9420 §5.1).
func extract(salt, ikm []byte) []byte {
	return must(hkdf.Extract(sha256.New, ikm, salt))
}

// expandWithLabel is ExpandWithLabel (RFC 9420 §8). length is at most 255*32.
func expandWithLabel(secret []byte, label string, context []byte, length int) []byte {
	info := make([]byte, 0, 2+1+len(labelPrefix)+len(label)+4+len(context))
	info = appendUint16(info, uint16(length)) //nolint:gosec // at most 255*32.
	info = appendLabel(info, label)
	info = appendOpaque(info, context)
	return must(hkdf.Expand(sha256.New, secret, string(info), length))
}

// deriveSecret is DeriveSecret (RFC 9420 §8).
func deriveSecret(secret []byte, label string) []byte {
	return expandWithLabel(secret, label, nil, hashSize)
}

// deriveTreeSecret is DeriveTreeSecret (RFC 9420 §9).
func deriveTreeSecret(secret []byte, label string, generation uint32, length int) []byte {
	var context [4]byte
	return expandWithLabel(secret, label, appendUint32(context[:0], generation), length)
}

// appendLabel writes the label with its prefix as opaque<V>.
func appendLabel(b []byte, label string) []byte {
	b = appendVarint(b, len(labelPrefix)+len(label))
	b = append(b, labelPrefix...)
	return append(b, label...)
}

// labeled is the common form of SignContent and EncryptContext (RFC 9420 §5.1.2, §5.1.3).
func labeled(label string, content []byte) []byte {
	b := make([]byte, 0, 1+len(labelPrefix)+len(label)+4+len(content))
	return appendOpaque(appendLabel(b, label), content)
}

func signWithLabel(key ed25519.PrivateKey, label string, content []byte) []byte {
	return ed25519.Sign(key, labeled(label, content))
}

func verifyWithLabel(key ed25519.PublicKey, label string, content, signature []byte) bool {
	// ed25519.Verify panics on a key of another length.
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	return ed25519.Verify(key, labeled(label, content), signature)
}

// refHash is RefHash (RFC 9420 §5.2). Unlike the other functions it takes its
// label in full, prefix included.
func refHash(label string, value []byte) [hashSize]byte {
	b := make([]byte, 0, 8+len(label)+len(value))
	return sha256.Sum256(appendOpaque(appendOpaque(b, []byte(label)), value))
}

func computeMAC(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

func verifyMAC(key, data, tag []byte) bool {
	return hmac.Equal(computeMAC(key, data), tag)
}

func newAEAD(key []byte) cipher.AEAD {
	return must(cipher.NewGCM(must(aes.NewCipher(key))))
}

func aeadSeal(key, nonce, plaintext, aad []byte) []byte {
	return newAEAD(key).Seal(nil, nonce, plaintext, aad)
}

func aeadOpen(key, nonce, ciphertext, aad []byte) ([]byte, error) {
	pt, err := newAEAD(key).Open(nil, nonce, ciphertext, aad)
	if err != nil {
		return nil, ErrDecrypt
	}
	return pt, nil
}

// hpkeCiphertext is HPKECiphertext (RFC 9420 §7.6).
type hpkeCiphertext struct {
	kemOutput  []byte
	ciphertext []byte
}

func (c hpkeCiphertext) append(b []byte) []byte {
	return appendOpaque(appendOpaque(b, c.kemOutput), c.ciphertext)
}

func decodeHPKECiphertext(r *reader) hpkeCiphertext {
	c := hpkeCiphertext{kemOutput: r.opaque(), ciphertext: r.opaque()}
	if len(c.ciphertext) < tagSize {
		r.fail("HPKE ciphertext shorter than its tag")
	}
	return c
}

// encryptWithLabel is EncryptWithLabel (RFC 9420 §5.1.3). It fails on a public
// key that is malformed or of low order.
func encryptWithLabel(public []byte, label string, context, plaintext []byte) (c hpkeCiphertext, err error) {
	pk, err := suiteKEM.NewPublicKey(public)
	if err != nil {
		return c, fmt.Errorf("%w: HPKE public key", ErrInvalidLeaf)
	}
	enc, sender, err := hpke.NewSender(pk, suiteKDF, suiteAEAD, labeled(label, context))
	if err != nil {
		return c, fmt.Errorf("%w: HPKE public key", ErrInvalidLeaf)
	}
	ct, err := sender.Seal(nil, plaintext)
	if err != nil {
		return c, fmt.Errorf("%w: HPKE seal", ErrInvalidLeaf)
	}
	return hpkeCiphertext{kemOutput: enc, ciphertext: ct}, nil
}

// decryptWithLabel is DecryptWithLabel (RFC 9420 §5.1.3).
func decryptWithLabel(private []byte, label string, context []byte, c hpkeCiphertext) ([]byte, error) {
	sk, err := suiteKEM.NewPrivateKey(private)
	if err != nil {
		return nil, ErrDecrypt
	}
	recipient, err := hpke.NewRecipient(c.kemOutput, sk, suiteKDF, suiteAEAD, labeled(label, context))
	if err != nil {
		return nil, ErrDecrypt
	}
	pt, err := recipient.Open(nil, c.ciphertext)
	if err != nil {
		return nil, ErrDecrypt
	}
	return pt, nil
}

// lowOrderKeys are the X25519 public keys (RFC 7748) whose shared secret with every
// private key is zero, which HPKE refuses: nobody can encrypt to one. A leaf or node
// with such a key would keep all other members from sending a path.
var lowOrderKeys = map[[hpkeKeySize]byte]bool{
	{}:  true,
	{1}: true,
	{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	}: true,
	{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	}: true,
	aroundPrime(0xec): true,
	aroundPrime(0xed): true,
	aroundPrime(0xee): true,
}

// aroundPrime returns 2^255-256+low, little-endian. The field's prime is that for 0xed.
func aroundPrime(low byte) [hpkeKeySize]byte {
	k := [hpkeKeySize]byte(bytes.Repeat([]byte{0xff}, hpkeKeySize))
	k[0], k[hpkeKeySize-1] = low, 0x7f
	return k
}

// usableKey reports whether public is an X25519 key that one can encrypt to.
func usableKey(public []byte) bool {
	if len(public) != hpkeKeySize {
		return false
	}
	k := [hpkeKeySize]byte(public)
	k[hpkeKeySize-1] &= 0x7f // X25519 ignores the highest bit
	return !lowOrderKeys[k]
}

// hpkeKeyPair holds the raw keys, so that the private one can be cleared.
type hpkeKeyPair struct{ private, public []byte }

// deriveKeyPair is KEM.DeriveKeyPair.
func deriveKeyPair(secret []byte) hpkeKeyPair {
	sk := must(suiteKEM.DeriveKeyPair(secret))
	return hpkeKeyPair{private: must(sk.Bytes()), public: sk.PublicKey().Bytes()}
}

// newHPKEKeyPair draws a fresh key pair.
func newHPKEKeyPair() hpkeKeyPair {
	seed := randomBytes(hashSize)
	defer clear(seed)
	return deriveKeyPair(seed)
}

// randomBytes draws from the system's generator, which never fails (crypto/rand
// stops the program instead).
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
