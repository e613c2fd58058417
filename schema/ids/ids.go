// Package ids defines the identifiers that travel on the wire.
package ids

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// Size is the length of an ID in bytes.
const Size = 16

// ID names an account, a device, a channel, a delivery or a request: 16 bytes, compared as they are.
type ID [Size]byte

// New returns a random ID.
func New() ID {
	var id ID
	rand.Read(id[:]) //nolint:errcheck // crypto/rand.Read never fails: it ends the program instead.
	return id
}

// NewDelivery returns a UUIDv7 (RFC 9562 §5.7) with the time now, as delivery ids must be.
func NewDelivery(now time.Time) ID {
	id := New()
	ms := uint64(now.UnixMilli()) //nolint:gosec // times before 1970 are refused by the cell, not by us.
	binary.BigEndian.PutUint32(id[0:], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:], uint16(ms)) //nolint:gosec // the low 16 bits.
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id
}

// DeliveryTime returns the time inside a UUIDv7; ok is false when id is not one.
func (id ID) DeliveryTime() (t time.Time, ok bool) {
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return time.Time{}, false
	}
	ms := int64(binary.BigEndian.Uint32(id[0:]))<<16 | int64(binary.BigEndian.Uint16(id[4:]))
	return time.UnixMilli(ms), true
}

// Compare orders ids by their bytes: negative, 0 or positive as id is before, the same as or after other.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// IsZero reports whether id is all zero, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String returns 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler with String's form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads String's form.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := Parse(string(b))
	*id = parsed
	return err
}

// FromBytes copies an ID out of b, which must be 16 bytes long.
func FromBytes(b []byte) (ID, error) {
	if len(b) != Size {
		return ID{}, fmt.Errorf("an id has %d bytes, not %d", Size, len(b))
	}
	return ID(b), nil
}

// Parse reads String's form.
func Parse(s string) (ID, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return ID{}, fmt.Errorf("an id is %d hex digits: %w", 2*Size, err)
	}
	return FromBytes(b)
}

// GroupIDSize is the length of the MLS group id of a channel's generation.
const GroupIDSize = Size + 4

// GroupID is the MLS group id of a channel's generation: the channel id, then the generation, big-endian.
func GroupID(channel ID, generation uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, GroupIDSize), channel[:]...), generation)
}

// ParseGroupID splits an MLS group id made by GroupID.
func ParseGroupID(b []byte) (channel ID, generation uint32, err error) {
	if len(b) != GroupIDSize {
		return ID{}, 0, fmt.Errorf("an MLS group id here has %d bytes, not %d", GroupIDSize, len(b))
	}
	return ID(b[:Size]), binary.BigEndian.Uint32(b[Size:]), nil
}
