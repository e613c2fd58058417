package devicelink

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"math"

	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
)

const (
	approvalFixed = 1 + 32
	tagSize       = 16
	// MaxContent is the length of an approval's content in bytes: what the protocol's 16,384 leave.
	MaxContent  = 16384 - approvalFixed - tagSize
	contentStep = 4096 // Contents are as long as a multiple of this, or MaxContent.
	nonceSize   = 12
)

// Approval is what a device of the account tells the new one.
type Approval struct {
	AccountID ids.ID
	RootKey   ed25519.PublicKey
	Name      string // The account's.
	Contacts  []Contact
}

// Contact is an account whose root key the device trusts.
type Contact struct {
	AccountID ids.ID
	RootKey   ed25519.PublicKey
	Name      string
}

// Seal returns an approval's bytes for an offer under a code's keys. Contacts that have no room are left out, from the end.
func (a *Approval) Seal(offer []byte, k *codes.LinkKeys) ([]byte, error) {
	o, err := OpenOffer(offer, k)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().NewPublicKey(o.ExchangeKey)
	if err != nil {
		return nil, fmt.Errorf("%w: the exchange key: %w", ErrInvalid, err)
	}
	mine, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the exchange key: %w", err)
	}
	aead, err := approvalAEAD(mine, theirs, offer, k)
	if err != nil {
		return nil, err
	}
	content, err := a.content()
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, approvalFixed+len(content)+tagSize), version)
	b = append(b, mine.PublicKey().Bytes()...)
	return aead.Seal(b, make([]byte, nonceSize), content, authenticated(b, k)), nil
}

// authenticated is what stands before an approval's ciphertext, and the link's id.
func authenticated(head []byte, k *codes.LinkKeys) []byte {
	return append(head[:approvalFixed:approvalFixed], k.ID[:]...)
}

func approvalAEAD(mine *ecdh.PrivateKey, theirs *ecdh.PublicKey, offer []byte, k *codes.LinkKeys) (cipher.AEAD, error) {
	shared, err := mine.ECDH(theirs)
	if err != nil {
		return nil, fmt.Errorf("%w: the exchange key: %w", ErrInvalid, err)
	}
	salt := sha256.Sum256(offer)
	key, err := hkdf.Key(sha512.New, append(shared, k.Approval...), salt[:], "qpq/1 link approval", 32)
	if err != nil {
		return nil, fmt.Errorf("the approval's key: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("the approval's key: %w", err)
	}
	return cipher.NewGCM(block)
}

// Open reads the approval of an offer that was made with x. Errors: ErrInvalid, ErrForged.
func (x *Exchange) Open(approval, offer []byte, k *codes.LinkKeys) (*Approval, error) {
	if len(approval) < approvalFixed+tagSize || approval[0] != version {
		return nil, fmt.Errorf("%w: an approval of version %d begins otherwise", ErrInvalid, version)
	}
	theirs, err := ecdh.X25519().NewPublicKey(approval[1:approvalFixed])
	if err != nil {
		return nil, fmt.Errorf("%w: the exchange key: %w", ErrInvalid, err)
	}
	aead, err := approvalAEAD(x.key, theirs, offer, k)
	if err != nil {
		return nil, err
	}
	content, err := aead.Open(nil, make([]byte, nonceSize), approval[approvalFixed:], authenticated(approval, k))
	if err != nil {
		return nil, ErrForged
	}
	return parseContent(content)
}

func (a *Approval) content() ([]byte, error) {
	b := append(make([]byte, 0, MaxContent), version)
	b = append(b, a.AccountID[:]...)
	b = append(b, a.RootKey...)
	b, ok := appendName(b, a.Name)
	if !ok || len(a.RootKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: the account's name or key has a wrong length", ErrInvalid)
	}
	number := len(b)
	b = append(b, 0, 0)
	for i, c := range a.Contacts {
		if i == math.MaxUint16 || len(b)+ids.Size+len(c.RootKey)+2+len(c.Name) > MaxContent {
			break
		}
		b = append(append(b, c.AccountID[:]...), c.RootKey...)
		if b, ok = appendName(b, c.Name); !ok || len(c.RootKey) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: a contact's name or key has a wrong length", ErrInvalid)
		}
		binary.BigEndian.PutUint16(b[number:], uint16(i+1)) //nolint:gosec // below the break.
	}
	size := min((len(b)+contentStep-1)/contentStep*contentStep, MaxContent)
	return append(b, make([]byte, size-len(b))...), nil
}

// maxText is the length of a name in bytes.
const maxText = 1024

func appendName(b []byte, name string) ([]byte, bool) {
	if len(name) > maxText {
		return b, false
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...), true //nolint:gosec // just checked.
}

func parseContent(b []byte) (*Approval, error) {
	r := reader{b: b}
	if v := r.take(1); r.short || v[0] != version {
		return nil, fmt.Errorf("%w: an approval whose content has another version", ErrInvalid)
	}
	a := &Approval{AccountID: r.id(), RootKey: r.take(ed25519.PublicKeySize), Name: r.name()}
	for range r.number() {
		a.Contacts = append(a.Contacts, Contact{AccountID: r.id(), RootKey: r.take(ed25519.PublicKeySize), Name: r.name()})
		if r.short {
			break
		}
	}
	if r.short {
		return nil, fmt.Errorf("%w: an approval whose content ends too soon", ErrInvalid)
	}
	return a, nil
}

// reader takes pieces off b; once there are too few bytes it is short, and returns nothing more.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || len(r.b) < n {
		r.short = true
		return nil
	}
	piece := r.b[:n:n]
	r.b = r.b[n:]
	return piece
}

func (r *reader) id() (id ids.ID) {
	copy(id[:], r.take(ids.Size))
	return id
}

func (r *reader) number() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) name() string { return string(r.take(r.number())) }
