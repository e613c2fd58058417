// Package codes is the form of what people copy by hand: invitations, recovery codes, reset codes. Each is 128 random
// bits, written as 28 characters in groups of four, of which the last twelve bits find most typing errors. Codes of new
// devices, which live for minutes, are shorter: 80 random bits in 20 characters, of which the last twenty bits find them.
package codes

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Kind is what a code is for. The kind is part of the check, so that a code of one kind is none of another.
type Kind string

// The kinds; their values are part of the protocol.
const (
	Invitation Kind = "invitation" // To make an account where not everybody may.
	Recovery   Kind = "recovery"   // To set a new password when the old one is forgotten.
	Reset      Kind = "reset"      // To start an account over when nothing of it is left, minted by the cell's admin.

	link Kind = "link" // A Link's.
)

// Size of a code in bytes.
const Size = 16

// Code is one code. It is a secret.
type Code [Size]byte

// New draws a code.
func New() Code {
	var c Code
	rand.Read(c[:]) //nolint:errcheck // crypto/rand.Read never fails.
	return c
}

// The characters: digits and letters without those that look like others (Crockford's base 32).
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

const (
	characters = 28 // Of 5 bits: 128 of the code, 12 of the check.
	group      = 4
)

// ErrNone says that a text is no code of the kind that was asked for: a character is wrong or missing, or it is a code
// of another kind.
var ErrNone = errors.New("that is not such a code: compare it character by character")

// Format returns the code as people copy it.
func (c Code) Format(k Kind) string { return format(k, c[:], characters) }

// Parse reads a code. Case, spaces and dashes do not matter, and O, I and L are taken for the digits that they look
// like.
func Parse(k Kind, text string) (c Code, err error) {
	err = parse(k, c[:], characters, text)
	return c, err
}

// format writes a secret with its check in so many characters.
func format(k Kind, secret []byte, characters int) string {
	var b strings.Builder
	bits := checked(k, secret, characters)
	for i := range characters {
		if i > 0 && i%group == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[five(bits, i)])
	}
	return b.String()
}

// checked is the secret, and of its check as many bits as the characters have room for.
func checked(k Kind, secret []byte, characters int) []byte {
	sum := sha256.Sum256(append([]byte("qpq/1 code "+string(k)+"\x00"), secret...))
	b := append(bytes.Clone(secret), sum[:]...)[:(5*characters+7)/8]
	if over := 8*len(b) - 5*characters; over > 0 {
		b[len(b)-1] &= 0xff << over
	}
	return b
}

// five returns the i-th five bits of b.
func five(b []byte, i int) byte {
	at := 5 * i
	v := uint16(b[at/8]) << 8
	if at/8+1 < len(b) {
		v |= uint16(b[at/8+1])
	}
	return byte(v>>(11-at%8)) & 31 //nolint:gosec // five bits.
}

// parse reads a text of so many characters into secret. After an error, secret is zero.
func parse(k Kind, secret []byte, characters int, text string) error {
	bits := make([]byte, (5*characters+7)/8)
	n := 0
	for _, r := range strings.ToUpper(text) {
		if r == '-' || r == ' ' {
			continue
		}
		v := strings.IndexRune(alphabet, lookalike(r))
		if v < 0 || n == characters {
			return ErrNone
		}
		for bit := range 5 {
			if v&(16>>bit) != 0 {
				bits[(5*n+bit)/8] |= 0x80 >> ((5*n + bit) % 8)
			}
		}
		n++
	}
	if n != characters || !bytes.Equal(checked(k, bits[:len(secret)], characters), bits) {
		return ErrNone
	}
	copy(secret, bits)
	return nil
}

func lookalike(r rune) rune {
	switch r {
	case 'O':
		return '0'
	case 'I', 'L':
		return '1'
	}
	return r
}

// Argon2id's cost. A code has 128 bits, so that no stretching is needed to keep it from being guessed; it is a margin.
const (
	argonTime      = 1
	argonMemoryKiB = 16 << 10
	argonThreads   = 1
)

// Keys are what follows from a recovery or reset code. The cell knows the public half of Signing and nothing else.
type Keys struct {
	Signing ed25519.PrivateKey // Proves the code without showing it.
	Wrap    []byte             // In the place of OPAQUE's export key: wraps the root key. 64 bytes.
}

// Derive computes the keys of a code, at Argon2id's cost.
func (c Code) Derive(k Kind) Keys {
	secret := argon2.IDKey(c[:], []byte("qpq/1 "+string(k)+" code"), argonTime, argonMemoryKiB, argonThreads, 64)
	defer clear(secret)
	seed := expand(secret, "qpq/1 recovery key", ed25519.SeedSize)
	defer clear(seed)
	return Keys{Signing: ed25519.NewKeyFromSeed(seed), Wrap: expand(secret, "qpq/1 recovery wrap", 64)}
}

func expand(secret []byte, info string, n int) []byte {
	b, err := hkdf.Key(sha512.New, secret, nil, info, n)
	if err != nil {
		panic("codes: HKDF refused its input: " + err.Error()) //nolint:forbidigo // the lengths are constants that it takes.
	}
	return b
}

// Clear overwrites the keys.
func (k Keys) Clear() {
	clear(k.Signing)
	clear(k.Wrap)
}

// Public is the half that the cell keeps.
func (k Keys) Public() ed25519.PublicKey { return k.Signing.Public().(ed25519.PublicKey) } //nolint:forcetypeassert // always is.

const proofLabel = "qpq/1 recovery proof\x00"

// Prove shows that who opened a connection holds the code: a signature over the connection's TLS exporter.
func (k Keys) Prove(exporter []byte) []byte {
	return ed25519.Sign(k.Signing, append([]byte(proofLabel), exporter...))
}

// Verify checks Prove's result. A key of another length is no key.
func Verify(public ed25519.PublicKey, exporter, proof []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, append([]byte(proofLabel), exporter...), proof)
}
