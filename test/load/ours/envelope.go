package ours

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

const (
	generation = 1 // Of the channel,
	epoch      = 1 // and of its group: nobody was added since it was created.
)

// Sizes of what encryption adds (RFC 9420 §6.3, cipher suite 1).
const (
	senderDataSize = 4 + 4 + 4 + 16 // SenderData and an AES-GCM tag.
	// closingSize follows the content: the length of an Ed25519 signature, the signature, and a tag. A length precedes it.
	lengthSize, closingSize = 2, 2 + 64 + 16
)

// template is a PrivateMessage as MLS would make it of a content of peer.ContentSize bytes: the same header and the same
// length. In the place of what is encrypted stands the content as it is; a cell sees only the header.
type template struct {
	bytes   []byte
	aad, at int // Where the delivery id and the content go.
}

func newTemplate(channel ids.ID) *template {
	t := &template{}
	b := []byte{0, 1, 0, 2} // mls10, mls_private_message.
	b = vector(b, ids.GroupID(channel, generation))
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, 1) // application
	b = vector(b, make([]byte, ids.Size))
	t.aad = len(b) - ids.Size
	b = vector(b, noise(senderDataSize))
	b = vector(b, noise(lengthSize+peer.ContentSize+closingSize))
	t.at = len(b) - closingSize - peer.ContentSize
	t.bytes = b
	return t
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails.
	return b
}

// vector appends an opaque<V> (RFC 9420 §2.1.2).
func vector(b, v []byte) []byte {
	if n := len(v); n < 64 {
		b = append(b, byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(n)) //nolint:gosec // below 2^14.
	}
	return append(b, v...)
}

// fill returns the message with an id and a content; the next call overwrites it.
func (t *template) fill(id ids.ID, content []byte) []byte {
	copy(t.bytes[t.aad:], id[:])
	copy(t.bytes[t.at:], content)
	return t.bytes
}

// content returns what fill put into a message.
func content(payload []byte) ([]byte, error) {
	end := len(payload) - closingSize
	if end < peer.ContentSize {
		return nil, fmt.Errorf("a payload of %d bytes", len(payload))
	}
	return payload[end-peer.ContentSize : end], nil
}
