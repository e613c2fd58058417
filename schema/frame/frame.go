// Package frame cuts a byte stream into Cap'n Proto messages and bounds what a stranger can make us allocate.
//
// A frame is one message in Cap'n Proto's standard stream framing, unpacked:
//
//	u32 LE   number of segments, minus 1
//	u32 LE   words of each segment, in order
//	         4 bytes of zero when that leaves half a word
//	         the segments
//
// Control streams carry frames of at most ControlLimit bytes, one after the other. A larger frame, up to the
// receiver's cap, travels alone on a unidirectional stream that its sender opens and closes.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"capnproto.org/go/capnp/v3"
)

const (
	// ControlLimit is the largest frame on a control stream, in bytes, its segment table included.
	ControlLimit = 64 << 10
	// MaxSegments is the most segments a message may have: builders in other languages emit several.
	MaxSegments = 16
	// DepthLimit is how deep pointers may nest.
	DepthLimit = 8
	// traversalSlack is what a reader may read beyond the frame's own length, in bytes.
	traversalSlack = 4 << 10

	wordSize  = 8
	firstRead = 64 << 10 // Body bytes allocated before any of the body has arrived.
)

// ErrMalformed says that the bytes are no frame, or no message.
var ErrMalformed = errors.New("malformed frame")

// TooLargeError says that a frame exceeds the receiver's limit. Nothing of its body has been read or allocated.
type TooLargeError struct {
	Size, Limit uint64 // Bytes.
	TableSize   int    // Bytes of the frame that were read: its segment table.
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("frame of %d bytes is above the limit of %d", e.Size, e.Limit)
}

// Read reads one frame of at most limit bytes. It returns io.EOF when r ends before the first byte,
// io.ErrUnexpectedEOF when it ends inside, *TooLargeError, or ErrMalformed. Memory grows as the body arrives, so a
// sender pays in bytes for what it makes us allocate. The caller owns the returned slice.
func Read(r io.Reader, limit int) ([]byte, error) {
	var table [4 + 4*MaxSegments + 4]byte
	if _, err := io.ReadFull(r, table[:4]); err != nil {
		return nil, err
	}
	tableSize, err := tableSize(table[:4])
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, table[4:tableSize]); err != nil {
		return nil, noEOF(err)
	}
	total := uint64(tableSize) + bodySize(table[:tableSize]) //nolint:gosec // tableSize is at most 72.
	if total > uint64(limit) {                               //nolint:gosec // limits are positive constants.
		return nil, &TooLargeError{Size: total, Limit: uint64(limit), TableSize: tableSize} //nolint:gosec // as above.
	}
	return readBody(r, table[:tableSize], int(total)) //nolint:gosec // at most limit, which is an int.
}

// tableSize returns the length of the segment table that starts with head, in bytes.
func tableSize(head []byte) (int, error) {
	segments := uint64(binary.LittleEndian.Uint32(head)) + 1
	if segments > MaxSegments {
		return 0, fmt.Errorf("%w: %d segments, at most %d are taken", ErrMalformed, segments, MaxSegments)
	}
	return (4 + 4*int(segments) + wordSize - 1) &^ (wordSize - 1), nil
}

// bodySize adds up a whole segment table, in bytes.
func bodySize(table []byte) uint64 {
	var words uint64
	segments := int(binary.LittleEndian.Uint32(table)) + 1
	for i := range segments {
		words += uint64(binary.LittleEndian.Uint32(table[4+4*i:]))
	}
	return words * wordSize
}

func readBody(r io.Reader, table []byte, total int) ([]byte, error) {
	buf := make([]byte, min(total, len(table)+firstRead))
	have := copy(buf, table)
	for {
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, noEOF(err)
		}
		if have = len(buf); have == total {
			return buf, nil
		}
		grown := make([]byte, min(total, 2*have))
		copy(grown, buf)
		buf = grown
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Open reads a whole frame as a message, without copying: the message reads from b. Its traversal is limited to
// b's length and a little more, its depth to DepthLimit.
func Open(b []byte) (*capnp.Message, error) {
	if len(b) < wordSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	size, err := tableSize(b)
	if err != nil {
		return nil, err
	}
	if len(b) < size || uint64(size)+bodySize(b[:size]) != uint64(len(b)) { //nolint:gosec // both are small.
		return nil, fmt.Errorf("%w: the segment table does not add up to %d bytes", ErrMalformed, len(b))
	}
	m := new(message)
	m.TraverseLimit, m.DepthLimit = uint64(len(b))+traversalSlack, DepthLimit
	if _, err := m.Reset(m.read(b, size)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return &m.Message, nil
}

// message is a message with room for the one segment that nearly all have: together they are one allocation.
type message struct {
	capnp.Message
	single capnp.ReadOnlySingleSegment
}

// read returns the arena of the frame b. It cannot allocate: the message is for reading only.
func (m *message) read(b []byte, tableSize int) capnp.Arena {
	if binary.LittleEndian.Uint32(b) == 0 {
		m.single.ReplaceData(b[tableSize:])
		return &m.single
	}
	return capnp.MultiSegment(segments(b, tableSize))
}

func segments(b []byte, tableSize int) [][]byte {
	n := int(binary.LittleEndian.Uint32(b)) + 1
	segs, rest := make([][]byte, n), b[tableSize:]
	for i := range segs {
		size := int(binary.LittleEndian.Uint32(b[4+4*i:])) * wordSize
		segs[i], rest = rest[:size:size], rest[size:]
	}
	return segs
}

// Build returns the frame of the message that fill writes. sizeHint is the expected body in bytes: when it
// suffices, building allocates once. The caller owns the returned slice.
func Build(sizeHint int, fill func(*capnp.Segment) error) ([]byte, error) {
	sizeHint = (sizeHint + wordSize - 1) &^ (wordSize - 1)
	buf := make([]byte, wordSize, wordSize+sizeHint)
	_, seg, err := capnp.NewMessage(capnp.SingleSegment(buf[wordSize:wordSize:cap(buf)]))
	if err == nil && fill(seg) == nil {
		n := len(seg.Data())
		binary.LittleEndian.PutUint32(buf[4:], uint32(n/wordSize)) //nolint:gosec // below the frame limits.
		return buf[:wordSize+n], nil
	}
	msg, seg := capnp.NewSingleSegmentMessage(nil)
	if err := fill(seg); err != nil {
		return nil, fmt.Errorf("building a message: %w", err)
	}
	return msg.Marshal()
}
