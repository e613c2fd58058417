// Package devicelink encodes what a new device and a device of an account tell each other through the cell, so that the
// one joins the account of the other: an offer and an approval. Both are protected by keys that follow from a code which
// people carry from one to the other (codes.Link), so that the cell can neither exchange what is in them nor read the
// approval.
//
// An offer; integers are big-endian:
//
//	0    version      1 byte, 1
//	1    deviceId     16 bytes
//	17   deviceKey    32 bytes, Ed25519
//	49   exchangeKey  32 bytes, X25519
//	81   name         1 byte of length, up to 128 bytes of UTF-8
//	     mac          32 bytes: HMAC-SHA-256 by the code's offer key of the label "qpq/1 link offer\x00", the link's id and all before
//
// An approval:
//
//	0    version      1 byte, 1
//	1    exchangeKey  32 bytes, X25519
//	33   AES-256-GCM of the content, with a nonce of 12 zero bytes; bytes 0–32 and the link's id are authenticated with it
//
// Its key serves once: HKDF-SHA-512 of the X25519 secret of both exchange keys and the code's approval key, with the
// offer's SHA-256 as the salt and "qpq/1 link approval" as the info. So whoever learns the code afterwards learns nothing
// from what went through the cell. The content:
//
//	0    version      1 byte, 1
//	1    accountId    16 bytes
//	17   rootKey      32 bytes, Ed25519
//	49   name         2 bytes of length, the account's name
//	     contacts     2 bytes of number, then for each: accountId 16 bytes, rootKey 32 bytes, name with 2 bytes of length
//	     zeros        to a length that says little
package devicelink

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
)

const (
	version    = 1
	offerFixed = 1 + ids.Size + 32 + 32 + 1
	offerLabel = "qpq/1 link offer\x00"
	// MaxName is the length of a device's name in bytes.
	MaxName = 128
)

var (
	// ErrInvalid says that what should be an offer or an approval is none, of whichever code.
	ErrInvalid = errors.New("not a valid device link")
	// ErrForged says that an offer or approval was not made by who holds the code: the code is another's, or what was made
	// with it was exchanged on its way.
	ErrForged = errors.New("what came with that code was not made with it: somebody may stand in between")
)

// Offer is what a new device tells of itself.
type Offer struct {
	DeviceID    ids.ID
	DeviceKey   ed25519.PublicKey
	ExchangeKey []byte // X25519.
	Name        string
}

// Exchange is the new device's key for its approval.
type Exchange struct{ key *ecdh.PrivateKey }

// NewExchange draws a key.
func NewExchange() (*Exchange, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the exchange key: %w", err)
	}
	return &Exchange{key}, nil
}

// Public is the half for the offer.
func (x *Exchange) Public() []byte { return x.key.PublicKey().Bytes() }

// Seal returns an offer's bytes under a code's keys. The name has at most MaxName bytes.
func (o *Offer) Seal(k *codes.LinkKeys) []byte {
	b := append(make([]byte, 0, offerFixed+len(o.Name)+sha256.Size), version)
	b = append(b, o.DeviceID[:]...)
	b = append(b, o.DeviceKey...)
	b = append(b, o.ExchangeKey...)
	b = append(append(b, byte(len(o.Name))), o.Name...) //nolint:gosec // at most MaxName.
	return append(b, offerMAC(k, b)...)
}

func offerMAC(k *codes.LinkKeys, b []byte) []byte {
	m := hmac.New(sha256.New, k.Offer)
	m.Write([]byte(offerLabel))
	m.Write(k.ID[:])
	m.Write(b)
	return m.Sum(nil)
}

// ParseOffer reads an offer without a code, and so believes nothing of it.
func ParseOffer(b []byte) (*Offer, error) {
	if len(b) < offerFixed+sha256.Size || b[0] != version {
		return nil, fmt.Errorf("%w: an offer of version %d begins otherwise", ErrInvalid, version)
	}
	b = slices.Clone(b)
	name := b[offerFixed : len(b)-sha256.Size]
	o := &Offer{DeviceID: ids.ID(b[1:17]), DeviceKey: b[17:49], ExchangeKey: b[49:81], Name: string(name)}
	if len(name) > MaxName || int(b[offerFixed-1]) != len(name) || !utf8.Valid(name) || o.DeviceID.IsZero() {
		return nil, fmt.Errorf("%w: an offer's name or id is wrong", ErrInvalid)
	}
	return o, nil
}

// OpenOffer reads an offer, which must have been made by a holder of the code. Errors: ErrInvalid, ErrForged.
func OpenOffer(b []byte, k *codes.LinkKeys) (*Offer, error) {
	o, err := ParseOffer(b)
	if err != nil {
		return nil, err
	}
	if body := len(b) - sha256.Size; !hmac.Equal(b[body:], offerMAC(k, b[:body])) {
		return nil, ErrForged
	}
	return o, nil
}
