package mls

import (
	"encoding/binary"
	"fmt"
)

// PrivateMessage is an encrypted message (RFC 9420 §6.3). Its exported fields are
// what everyone can see, a delivery service included; they are authenticated
// towards the members.
type PrivateMessage struct {
	GroupID           []byte
	Epoch             uint64
	ContentType       ContentType
	AuthenticatedData []byte

	encryptedSenderData []byte
	ciphertext          []byte
}

func (m *PrivateMessage) append(b []byte) []byte {
	b = m.appendAAD(b)
	b = appendOpaque(b, m.encryptedSenderData)
	return appendOpaque(b, m.ciphertext)
}

// appendAAD writes PrivateContentAAD, which is the head of the message too.
func (m *PrivateMessage) appendAAD(b []byte) []byte {
	b = appendOpaque(b, m.GroupID)
	b = appendUint64(b, m.Epoch)
	b = append(b, byte(m.ContentType))
	return appendOpaque(b, m.AuthenticatedData)
}

func decodePrivateMessage(r *reader) *PrivateMessage {
	return &PrivateMessage{
		GroupID:             r.opaque(),
		Epoch:               r.uint64(),
		ContentType:         decodeContentType(r),
		AuthenticatedData:   r.opaque(),
		encryptedSenderData: r.opaque(),
		ciphertext:          r.opaque(),
	}
}

// senderData is SenderData (RFC 9420 §6.3.2).
type senderData struct {
	leaf       LeafIndex
	generation uint32
	reuseGuard [4]byte
}

func (d senderData) append(b []byte) []byte {
	b = appendUint32(b, uint32(d.leaf))
	b = appendUint32(b, d.generation)
	return append(b, d.reuseGuard[:]...)
}

func decodeSenderData(r *reader) (d senderData) {
	d.leaf, d.generation = LeafIndex(r.uint32()), r.uint32()
	copy(d.reuseGuard[:], r.take(4))
	return d
}

// senderDataAAD is SenderDataAAD (RFC 9420 §6.3.2).
func (m *PrivateMessage) senderDataAAD() []byte {
	b := appendOpaque(nil, m.GroupID)
	b = appendUint64(b, m.Epoch)
	return append(b, byte(m.ContentType))
}

// senderDataKeys derives key and nonce from a sample of the ciphertext.
func senderDataKeys(secret, ciphertext []byte) (key, nonce []byte) {
	sample := ciphertext[:min(hashSize, len(ciphertext))]
	return expandWithLabel(secret, "key", sample, keySize), expandWithLabel(secret, "nonce", sample, nonceSize)
}

func (m *PrivateMessage) openSenderData(secret []byte) (d senderData, err error) {
	key, nonce := senderDataKeys(secret, m.ciphertext)
	pt, err := aeadOpen(key, nonce, m.encryptedSenderData, m.senderDataAAD())
	if err != nil {
		return d, fmt.Errorf("sender data: %w", err)
	}
	err = decode(pt, "sender data", func(r *reader) { d = decodeSenderData(r) })
	return d, err
}

// guarded mixes the reuse guard into the nonce.
func (d senderData) guarded(nonce []byte) []byte {
	out := append([]byte(nil), nonce...)
	guard := binary.BigEndian.Uint32(d.reuseGuard[:])
	binary.BigEndian.PutUint32(out, binary.BigEndian.Uint32(out)^guard)
	return out
}

// seal encrypts signed content under one key of the sender's ratchet. The padded
// content is as long as one whose content proper (application data) has paddedSize bytes.
func sealPrivateMessage(a *authenticatedContent, d senderData, k messageKey, senderDataSecret []byte, paddedSize int) *PrivateMessage {
	c := &a.content
	m := &PrivateMessage{GroupID: c.groupID, Epoch: c.epoch, ContentType: c.contentType, AuthenticatedData: c.authenticatedData}
	pt := make([]byte, 0, max(len(c.application), paddedSize)+128)
	pt = a.appendAuth(c.appendContent(pt))
	if missing := paddedSize - len(c.application); c.contentType == ContentApplication && missing > 0 {
		missing += varintSize(paddedSize) - varintSize(len(c.application))
		pt = append(pt, make([]byte, missing)...)
	}
	m.ciphertext = aeadSeal(k.key, d.guarded(k.nonce), pt, m.appendAAD(nil))
	clear(pt)
	key, nonce := senderDataKeys(senderDataSecret, m.ciphertext)
	m.encryptedSenderData = aeadSeal(key, nonce, encode(d), m.senderDataAAD())
	return m
}

// open decrypts the content. It checks the padding, not the signature.
func (m *PrivateMessage) open(d senderData, k messageKey) (*authenticatedContent, error) {
	pt, err := aeadOpen(k.key, d.guarded(k.nonce), m.ciphertext, m.appendAAD(nil))
	if err != nil {
		return nil, err
	}
	a := &authenticatedContent{wireFormat: WireFormatPrivateMessage, content: framedContent{
		groupID:           m.GroupID,
		epoch:             m.Epoch,
		sender:            Sender{Type: SenderMember, Leaf: d.leaf},
		authenticatedData: m.AuthenticatedData,
		contentType:       m.ContentType,
	}}
	err = decode(pt, "private message content", func(r *reader) {
		a.content.decodeContent(r)
		a.decodeAuth(r)
		for _, x := range r.b {
			if x != 0 {
				r.fail("padding is not zero")
				break
			}
		}
		r.b = nil
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}
