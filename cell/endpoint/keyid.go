package endpoint

import (
	"crypto/sha256"
	"encoding/binary"
)

// KeyID tells the certificate's key in use from others: the first four bytes of the SHA-256 of its SubjectPublicKeyInfo.
func (c *Certificate) KeyID() uint32 {
	leaf := c.current.Load().Leaf
	if leaf == nil { // An old setting of Go (x509keypairleaf).
		return 0
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return binary.BigEndian.Uint32(sum[:])
}
