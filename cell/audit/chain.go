package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"quicproquo.dev/schema/ids"
)

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String returns 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads String's form.
func ParseHash(s string) (Hash, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Hash{}) {
		return Hash{}, fmt.Errorf("a hash is %d hex digits", 2*len(Hash{}))
	}
	return Hash(b), nil
}

// MAC is what a process of the cell vouches for a row with.
type MAC [16]byte

// Row is a record in its chain.
type Row struct {
	Writer ids.ID // Of the chain: 12 random bytes of a process, and 4 that count its chains.
	Seq    uint64 // From 1, without gap.
	Prev   Hash   // The Hash of the row before; Genesis in the first.
	Body   []byte // The record's canonical encoding.
	Hash   Hash
	MAC    MAC
}

// Head is how far a chain goes.
type Head struct {
	Seq  uint64
	Hash Hash
}

// Genesis is what the first row of a chain follows: it binds the chain to its cell.
func Genesis(cell, writer ids.ID) Hash {
	return digest("qpq/1 audit chain\x00", cell[:], writer[:])
}

// BodyDigest is what of a body goes into its row's hash. An export can have it in the place of a body that it leaves out.
func BodyDigest(body []byte) Hash { return digest("qpq/1 audit body\x00", body) }

// RowHash is the hash of a row.
func RowHash(writer ids.ID, seq uint64, prev, body Hash) Hash {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], seq)
	return digest("qpq/1 audit row\x00", writer[:], n[:], prev[:], body[:])
}

// Sum is the hash that the row should have.
func (r *Row) Sum() Hash { return RowHash(r.Writer, r.Seq, r.Prev, BodyDigest(r.Body)) }

// digest hashes a label and parts, of which all but one have a fixed length.
func digest(label string, parts ...[]byte) Hash {
	h := sha256.New()
	h.Write([]byte(label))
	for _, p := range parts {
		h.Write(p)
	}
	return Hash(h.Sum(nil))
}

// Next makes the row that follows head in writer's chain. After the zero Head it is the first of a chain of cell.
func (k *Keys) Next(cell, writer ids.ID, head Head, body []byte) Row {
	r := Row{Writer: writer, Seq: head.Seq + 1, Prev: head.Hash, Body: body}
	if head.Seq == 0 {
		r.Prev = Genesis(cell, writer)
	}
	r.Hash = r.Sum()
	r.MAC = k.rowMAC(k.macs[0], r.Hash)
	return r
}

func (*Keys) rowMAC(key []byte, h Hash) MAC {
	return MAC(mac(key, "qpq/1 audit row MAC\x00", h[:])[:len(MAC{})])
}

// Vouches reports whether the cell made the row's hash.
func (k *Keys) Vouches(r *Row) bool {
	for _, key := range k.macs {
		want := k.rowMAC(key, r.Hash)
		if hmac.Equal(want[:], r.MAC[:]) {
			return true
		}
	}
	return false
}
