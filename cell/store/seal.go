package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// SealingKeySize is the length of a sealing key in bytes: AES-256.
const SealingKeySize = 32

// Sealer encrypts single columns with AES-256-GCM. A sealed value is the key's id (4 bytes, big-endian), a random
// nonce (12 bytes) and the ciphertext; the table, column and row it belongs to are authenticated, so that values
// cannot be moved. All keys open; the first key seals, or the one that Sealing has agreed on. It is safe for concurrent use.
type Sealer struct {
	current atomic.Uint32
	ids     []int64 // Of the keys, as in the file.
	aeads   map[uint32]cipher.AEAD
	index   []byte
}

// SealingKey is one key with the id that sealed values carry.
type SealingKey struct {
	ID  uint32
	Key []byte
}

// NewSealer takes the keys, the one that seals first, and the key of Index.
func NewSealer(keys []SealingKey, indexKey []byte) (*Sealer, error) {
	if len(keys) == 0 || len(indexKey) < SealingKeySize {
		return nil, fmt.Errorf("sealing needs at least one key, and an index key of %d bytes", SealingKeySize)
	}
	s := &Sealer{aeads: map[uint32]cipher.AEAD{}, index: indexKey}
	s.use(keys[0].ID)
	for _, k := range keys {
		if len(k.Key) != SealingKeySize {
			return nil, fmt.Errorf("sealing key %d has %d bytes, not %d", k.ID, len(k.Key), SealingKeySize)
		}
		s.ids = append(s.ids, int64(k.ID))
		block, err := aes.NewCipher(k.Key)
		if err != nil {
			return nil, err
		}
		if s.aeads[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return s, nil
}

const (
	keyIDSize = 4
	nonceSize = 12
)

// use has a key seal from now on.
func (s *Sealer) use(key uint32) { s.current.Store(key) }

// keyIDs are the ids of the keys, in the file's order.
func (s *Sealer) keyIDs() []int64 { return s.ids }

// seal encrypts plain for the place (such as "accounts.name") in the row of key.
func (s *Sealer) seal(place string, row, plain []byte) []byte {
	out := make([]byte, keyIDSize+nonceSize, keyIDSize+nonceSize+len(plain)+16)
	key := s.current.Load()
	binary.BigEndian.PutUint32(out, key)
	rand.Read(out[keyIDSize:]) //nolint:errcheck // crypto/rand.Read never fails.
	return s.aeads[key].Seal(out, out[keyIDSize:], plain, sealedData(place, row))
}

// open reverses seal.
func (s *Sealer) open(place string, row, sealed []byte) ([]byte, error) {
	if len(sealed) < keyIDSize+nonceSize {
		return nil, fmt.Errorf("%w: %s is too short to be sealed", ErrCorrupt, place)
	}
	id := binary.BigEndian.Uint32(sealed)
	aead, ok := s.aeads[id]
	if !ok {
		return nil, fmt.Errorf("%s is sealed with key %d, which this cell does not have; restore that key", place, id)
	}
	plain, err := aead.Open(nil, sealed[keyIDSize:keyIDSize+nonceSize], sealed[keyIDSize+nonceSize:], sealedData(place, row))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrCorrupt, place)
	}
	return plain, nil
}

func sealedData(place string, row []byte) []byte { return append([]byte(place+"\x00"), row...) }

// Index is a keyed hash by which equal values are found without being readable.
func (s *Sealer) Index(place, value string) []byte {
	m := hmac.New(sha256.New, s.index)
	m.Write([]byte(place + "\x00" + value))
	return m.Sum(nil)
}
