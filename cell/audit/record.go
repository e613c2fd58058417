package audit

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Ref is a pseudonym: of an account, or of a device, session or channel as its account has it. Zero is none.
type Ref [16]byte

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// String returns 32 lower-case hex digits.
func (r Ref) String() string { return hex.EncodeToString(r[:]) }

// ParseRef reads String's form.
func ParseRef(s string) (Ref, error) {
	var r Ref
	if n, err := hex.Decode(r[:], []byte(s[:min(len(s), 2*len(r))])); err != nil || n != len(r) || len(s) != 2*len(r) {
		return Ref{}, fmt.Errorf("a pseudonym is %d hex digits", 2*len(r))
	}
	return r, nil
}

// AddressRef is an address under a key of a few days. Zero is none.
type AddressRef [8]byte

// Record is an event as it is stored: pseudonyms in the place of ids.
type Record struct {
	At      time.Time // Microseconds count.
	Kind    Kind
	Outcome Outcome
	Reason  Reason
	Actor   ActorKind
	Subject Ref // The account it is about.
	By      Ref // The account or admin who acted.
	Device  Ref
	Session Ref
	Channel Ref
	Address AddressRef
	Details []Detail // Ascending by Field.
}

// The canonical encoding. A record has exactly one; integers are big-endian:
//
//	0    version    1 byte, 1
//	1    kind       2 bytes, not 0
//	3    outcome    1 byte, not 0
//	4    reason     2 bytes
//	6    actor      1 byte, not 0
//	7    at         8 bytes, microseconds since 1970 UTC
//	15   present    1 byte: bits 0–5 for subject, by, device, session, channel, address
//	16   those that are present, 16 bytes each, the address 8, none of them zero
//	     details    1 byte, their number, at most 8
//	     each       1 byte, the field, not 0 and above the one before; 8 bytes, its value
//
// Numbers that this release does not know are kept as they are.
const (
	recordVersion = 1
	recordHead    = 16
	// MaxBody is the length of the longest record.
	MaxBody = recordHead + 5*16 + 8 + 1 + maxDetails*9
)

var (
	errRecord = errors.New("not the canonical encoding of a record")
	// ErrNewerRecord is a record of a version that this release cannot read.
	ErrNewerRecord = errors.New("a record of a newer release")
)

// Detail returns one of Details; 0 when it is not there.
func (r *Record) Detail(f Field) uint64 {
	for _, d := range r.Details {
		if d.Field == f {
			return d.Value
		}
	}
	return 0
}

func (r *Record) refs() [5]*Ref {
	return [5]*Ref{&r.Subject, &r.By, &r.Device, &r.Session, &r.Channel}
}

// Encode returns the canonical encoding.
func (r *Record) Encode() ([]byte, error) {
	if r.Kind == kindNone || r.Outcome == 0 || r.Actor == 0 || len(r.Details) > maxDetails {
		return nil, fmt.Errorf("%w: kind %d, outcome %d, actor %d, %d details", errRecord, r.Kind, r.Outcome, r.Actor, len(r.Details))
	}
	b := append(make([]byte, 0, MaxBody), recordVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(r.Kind))
	b = append(b, byte(r.Outcome))
	b = binary.BigEndian.AppendUint16(b, uint16(r.Reason))
	b = append(b, byte(r.Actor))
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMicro())) //nolint:gosec // read back the same way.
	b = append(b, 0)
	for i, ref := range r.refs() {
		if !ref.IsZero() {
			b[recordHead-1] |= 1 << i
			b = append(b, ref[:]...)
		}
	}
	if r.Address != (AddressRef{}) {
		b[recordHead-1] |= 1 << 5
		b = append(b, r.Address[:]...)
	}
	b = append(b, byte(len(r.Details))) //nolint:gosec // at most maxDetails.
	last := Field(0)
	for _, d := range r.Details {
		if d.Field <= last {
			return nil, fmt.Errorf("%w: details out of order", errRecord)
		}
		last = d.Field
		b = binary.BigEndian.AppendUint64(append(b, byte(d.Field)), d.Value)
	}
	return b, nil
}

// DecodeRecord reads what Encode wrote, and nothing else.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > 0 && b[0] > recordVersion {
		return nil, ErrNewerRecord
	}
	if len(b) < recordHead+1 || len(b) > MaxBody || b[0] != recordVersion {
		return nil, errRecord
	}
	r := &Record{Kind: Kind(binary.BigEndian.Uint16(b[1:])), Outcome: Outcome(b[3]), Reason: Reason(binary.BigEndian.Uint16(b[4:])),
		Actor: ActorKind(b[6]), At: time.UnixMicro(int64(binary.BigEndian.Uint64(b[7:]))).UTC()} //nolint:gosec // as it was written.
	if r.Kind == kindNone || r.Outcome == 0 || r.Actor == 0 {
		return nil, errRecord
	}
	rest, err := r.decodeRefs(b[recordHead-1], b[recordHead:])
	if err != nil {
		return nil, err
	}
	return r, r.decodeDetails(rest)
}

func (r *Record) decodeRefs(present byte, b []byte) ([]byte, error) {
	for i, ref := range r.refs() {
		if present&(1<<i) == 0 {
			continue
		}
		if len(b) < len(ref) {
			return nil, errRecord
		}
		copy(ref[:], b)
		if b = b[len(ref):]; ref.IsZero() {
			return nil, errRecord
		}
	}
	if present&(1<<5) != 0 {
		if len(b) < len(r.Address) {
			return nil, errRecord
		}
		r.Address = AddressRef(b[:len(r.Address)])
		if b = b[len(r.Address):]; r.Address == (AddressRef{}) {
			return nil, errRecord
		}
	}
	if present >= 1<<6 {
		return nil, errRecord
	}
	return b, nil
}

func (r *Record) decodeDetails(b []byte) error {
	const size = 9
	if len(b) < 1 || b[0] > maxDetails || len(b) != 1+int(b[0])*size {
		return errRecord
	}
	last := Field(0)
	for b = b[1:]; len(b) > 0; b = b[size:] {
		d := Detail{Field(b[0]), binary.BigEndian.Uint64(b[1:])}
		if d.Field <= last {
			return errRecord
		}
		last = d.Field
		r.Details = append(r.Details, d)
	}
	return nil
}
