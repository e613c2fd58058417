package mls

import "fmt"

// GroupContext is what all members of an epoch agree on (RFC 9420 §8.1).
type GroupContext struct {
	Version                 uint16
	CipherSuite             CipherSuite
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              Extensions
}

func (c *GroupContext) append(b []byte) []byte {
	b = appendUint16(b, c.Version)
	b = appendUint16(b, uint16(c.CipherSuite))
	b = appendOpaque(b, c.GroupID)
	b = appendUint64(b, c.Epoch)
	b = appendOpaque(b, c.TreeHash)
	b = appendOpaque(b, c.ConfirmedTranscriptHash)
	return c.Extensions.append(b)
}

func decodeGroupContext(r *reader) GroupContext {
	return GroupContext{
		Version:                 r.uint16(),
		CipherSuite:             CipherSuite(r.uint16()),
		GroupID:                 r.opaque(),
		Epoch:                   r.uint64(),
		TreeHash:                r.opaque(),
		ConfirmedTranscriptHash: r.opaque(),
		Extensions:              decodeExtensions(r),
	}
}

// checkProtocol refuses what this engine does not speak.
func (c *GroupContext) checkProtocol() error {
	if c.Version != versionMLS10 {
		return fmt.Errorf("%w: %d", ErrUnsupportedVersion, c.Version)
	}
	if c.CipherSuite != SuiteX25519AES128GCMSHA256Ed25519 {
		return fmt.Errorf("%w: 0x%04x", ErrUnsupportedSuite, uint16(c.CipherSuite))
	}
	return nil
}
