package mls

import "crypto/sha256"

func hashOf(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// confirmedTranscriptHash adds a Commit to the transcript (RFC 9420 §8.2).
func confirmedTranscriptHash(interim []byte, a *authenticatedContent) []byte {
	b := appendUint16(nil, uint16(a.wireFormat))
	b = a.content.append(b)
	return hashOf(interim, appendOpaque(b, a.signature))
}

// interimTranscriptHash closes it with the confirmation tag.
func interimTranscriptHash(confirmed, confirmationTag []byte) []byte {
	return hashOf(confirmed, appendOpaque(nil, confirmationTag))
}
