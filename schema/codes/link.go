package codes

import (
	"crypto/rand"
	"strings"

	"golang.org/x/crypto/argon2"

	"quicproquo.dev/schema/ids"
)

// LinkSize of a Link in bytes.
const LinkSize = 10

const linkCharacters = 20 // Of 5 bits: 80 of the code, 20 of the check.

// Link is the code that a new device shows, and that its person brings to a device of the account. It is a secret.
type Link [LinkSize]byte

// NewLink draws a code.
func NewLink() Link {
	var c Link
	rand.Read(c[:]) //nolint:errcheck // crypto/rand.Read never fails.
	return c
}

// Format returns the code as people copy it.
func (c Link) Format() string { return format(link, c[:], linkCharacters) }

// linkScheme is what a QR code's text begins with.
const linkScheme = "qpq-link:"

// QR returns the text of a QR code with the code in it. All of its characters are of QR's alphanumeric mode once they
// are upper case.
func (c Link) QR() string { return linkScheme + strings.ReplaceAll(c.Format(), "-", "") }

// ParseLink reads what Format or QR wrote, as leniently as Parse.
func ParseLink(text string) (c Link, err error) {
	text = strings.TrimSpace(text)
	if len(text) > len(linkScheme) && strings.EqualFold(text[:len(linkScheme)], linkScheme) {
		text = text[len(linkScheme):]
	}
	err = parse(link, c[:], linkCharacters, text)
	return c, err
}

// LinkKeys are what follows from a Link. The cell knows ID alone.
type LinkKeys struct {
	ID       ids.ID
	Offer    []byte // Authenticates what the new device offers. 32 bytes.
	Approval []byte // Goes into the key of what the other device answers. 32 bytes.
}

// Derive computes the keys of a code, at Argon2id's cost: it makes the 80 bits ones that nobody can search, neither for the
// minutes in which they are of use nor later.
func (c Link) Derive() LinkKeys {
	secret := argon2.IDKey(c[:], []byte("qpq/1 link code"), argonTime, argonMemoryKiB, argonThreads, 64)
	defer clear(secret)
	return LinkKeys{ID: ids.ID(expand(secret, "qpq/1 link id", ids.Size)), Offer: expand(secret, "qpq/1 link offer", 32),
		Approval: expand(secret, "qpq/1 link approval", 32)}
}

// Clear overwrites the keys.
func (k LinkKeys) Clear() {
	clear(k.Offer)
	clear(k.Approval)
}
