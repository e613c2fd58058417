package peer

import (
	"encoding/binary"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
)

// Application makes what a cell sees as an application message of a group: an MLSMessage with a PrivateMessage (RFC 9420
// §6.3) whose ciphertext is any bytes. Nobody decrypts it.
func Application(channel ids.ID, generation uint32, epoch uint64, delivery ids.ID, ciphertext []byte) []byte {
	b := []byte{0, 1, 0, byte(mls.WireFormatPrivateMessage)} // Version mls10.
	b = opaqueBytes(b, ids.GroupID(channel, generation))
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(b, byte(mls.ContentApplication))
	b = opaqueBytes(b, delivery[:]) // authenticated_data
	b = opaqueBytes(b, make([]byte, 28))
	return opaqueBytes(b, ciphertext)
}

// opaqueBytes appends a vector with its length (RFC 9420 §2.1.2).
func opaqueBytes(b, v []byte) []byte {
	switch n := len(v); {
	case n < 1<<6:
		b = append(b, byte(n))
	case n < 1<<14:
		b = binary.BigEndian.AppendUint16(b, uint16(n)|1<<14) //nolint:gosec // bounded.
	default:
		b = binary.BigEndian.AppendUint32(b, uint32(n)|2<<30) //nolint:gosec // messages are far smaller.
	}
	return append(b, v...)
}
