package audit

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/schema/ids"
)

// Checkpoint signs how far every chain went. It lists the chains that moved since the checkpoint before; together
// with it and those before, it says where each chain of the cell ends.
type Checkpoint struct {
	Cell         ids.ID
	RestoreEpoch uint64
	Number       uint64 // From 1, without gap.
	Prev         Hash   // The Hash of the checkpoint before; zero in the first.
	At           time.Time
	Moves        []Move // Ascending by Writer.
}

// Move is one chain's way from one checkpoint to another.
type Move struct {
	Writer   ids.ID
	From, To Head // From is zero for a chain that no earlier checkpoint has.
}

// Pruned says that everything up to a checkpoint was removed on purpose, and where the chains stood.
type Pruned struct {
	Cell       ids.ID
	Checkpoint uint64
	Hash       Hash // Of that checkpoint.
	At         time.Time
	Heads      []WriterHead // Ascending by Writer: of the chains that may go on.
}

// WriterHead is the head of a chain.
type WriterHead struct {
	Writer ids.ID
	Head
}

// Signed is an encoded Checkpoint or Pruned with its signature.
type Signed struct {
	Body      []byte
	Key       ed25519.PublicKey
	Signature []byte
}

// Filed is a checkpoint as a database has it: what is signed, and copies by which it is found.
type Filed struct {
	Signed
	Number uint64
	At     time.Time
	Heads  []WriterHead // Ascending by Writer.
}

// The encodings. Integers are big-endian, times microseconds since 1970 UTC.
//
//	checkpoint: version 1, cell 16, restoreEpoch 8, number 8, prev 32, at 8, count 4, then each 16 + 8 + 32 + 8 + 32
//	pruned:     version 1, cell 16, checkpoint 8, hash 32, at 8, count 4, then each 16 + 8 + 32
const (
	signedVersion  = 1
	checkpointHead = 77
	moveSize       = 96
	prunedHead     = 69
	headSize       = 56
	// MaxMoves is how many chains one checkpoint or pruning can have.
	MaxMoves = 1 << 16

	checkpointLabel = "qpq/1 audit checkpoint\x00"
	prunedLabel     = "qpq/1 audit pruned\x00"
)

var errSigned = errors.New("not the canonical encoding")

// Encode returns the canonical encoding.
func (c *Checkpoint) Encode() []byte {
	b := append(make([]byte, 0, checkpointHead+len(c.Moves)*moveSize), signedVersion)
	b = append(b, c.Cell[:]...)
	b = binary.BigEndian.AppendUint64(b, c.RestoreEpoch)
	b = binary.BigEndian.AppendUint64(b, c.Number)
	b = append(b, c.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.At.UnixMicro())) //nolint:gosec // read back the same way.
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.Moves)))     //nolint:gosec // at most MaxMoves.
	for _, m := range c.Moves {
		b = appendHead(append(b, m.Writer[:]...), m.From)
		b = appendHead(b, m.To)
	}
	return b
}

func appendHead(b []byte, h Head) []byte {
	return append(binary.BigEndian.AppendUint64(b, h.Seq), h.Hash[:]...)
}

func readHead(b []byte) Head { return Head{binary.BigEndian.Uint64(b), Hash(b[8:40])} }

// DecodeCheckpoint reads what Encode wrote, and nothing else.
func DecodeCheckpoint(b []byte) (*Checkpoint, error) {
	if len(b) < checkpointHead || b[0] != signedVersion {
		return nil, fmt.Errorf("%w of a checkpoint", errSigned)
	}
	c := &Checkpoint{Cell: ids.ID(b[1:17]), RestoreEpoch: binary.BigEndian.Uint64(b[17:]), Number: binary.BigEndian.Uint64(b[25:]),
		Prev: Hash(b[33:65]), At: micro(b[65:])}
	count := binary.BigEndian.Uint32(b[73:])
	if b = b[checkpointHead:]; c.Number == 0 || count > MaxMoves || len(b) != int(count)*moveSize {
		return nil, fmt.Errorf("%w of a checkpoint", errSigned)
	}
	for ; len(b) > 0; b = b[moveSize:] {
		m := Move{Writer: ids.ID(b[:16]), From: readHead(b[16:]), To: readHead(b[56:])}
		if m.To.Seq <= m.From.Seq || m.From.Seq == 0 && m.From.Hash != (Hash{}) || len(c.Moves) > 0 && c.Moves[len(c.Moves)-1].Writer.Compare(m.Writer) >= 0 {
			return nil, fmt.Errorf("%w of a checkpoint", errSigned)
		}
		c.Moves = append(c.Moves, m)
	}
	return c, nil
}

func micro(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC() //nolint:gosec // as it was written.
}

// Encode returns the canonical encoding.
func (p *Pruned) Encode() []byte {
	b := append(make([]byte, 0, prunedHead+len(p.Heads)*headSize), signedVersion)
	b = append(b, p.Cell[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Checkpoint)
	b = append(b, p.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.At.UnixMicro())) //nolint:gosec // read back the same way.
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.Heads)))     //nolint:gosec // at most MaxMoves.
	for _, h := range p.Heads {
		b = appendHead(append(b, h.Writer[:]...), h.Head)
	}
	return b
}

// DecodePruned reads what Encode wrote, and nothing else.
func DecodePruned(b []byte) (*Pruned, error) {
	if len(b) < prunedHead || b[0] != signedVersion {
		return nil, fmt.Errorf("%w of a pruning", errSigned)
	}
	p := &Pruned{Cell: ids.ID(b[1:17]), Checkpoint: binary.BigEndian.Uint64(b[17:]), Hash: Hash(b[25:57]), At: micro(b[57:])}
	count := binary.BigEndian.Uint32(b[65:])
	if b = b[prunedHead:]; p.Checkpoint == 0 || count > MaxMoves || len(b) != int(count)*headSize {
		return nil, fmt.Errorf("%w of a pruning", errSigned)
	}
	for ; len(b) > 0; b = b[headSize:] {
		h := WriterHead{ids.ID(b[:16]), readHead(b[16:])}
		if h.Seq == 0 || len(p.Heads) > 0 && p.Heads[len(p.Heads)-1].Writer.Compare(h.Writer) >= 0 {
			return nil, fmt.Errorf("%w of a pruning", errSigned)
		}
		p.Heads = append(p.Heads, h)
	}
	return p, nil
}

// Sign encodes and signs a checkpoint.
func (k *Keys) Sign(c *Checkpoint) Signed { return k.sign(checkpointLabel, c.Encode()) }

// SignPruned encodes and signs a pruning.
func (k *Keys) SignPruned(p *Pruned) Signed { return k.sign(prunedLabel, p.Encode()) }

func (k *Keys) sign(label string, body []byte) Signed {
	key := k.signing[0]
	return Signed{body, key.Public().(ed25519.PublicKey), ed25519.Sign(key, append([]byte(label), body...))} //nolint:errcheck,forcetypeassert // it is one.
}

// Hash is what the next checkpoint calls this one.
func (s *Signed) Hash() Hash { return digest("qpq/1 audit checkpoint hash\x00", s.Body) }

// Checkpoint verifies the signature and decodes.
func (s *Signed) Checkpoint(t Trust) (*Checkpoint, error) {
	if err := s.verify(t, checkpointLabel); err != nil {
		return nil, err
	}
	return DecodeCheckpoint(s.Body)
}

// Pruned verifies the signature and decodes.
func (s *Signed) Pruned(t Trust) (*Pruned, error) {
	if err := s.verify(t, prunedLabel); err != nil {
		return nil, err
	}
	return DecodePruned(s.Body)
}

var (
	errForeignKey = errors.New("it is signed with a key that is not one of the cell's")
	errSignature  = errors.New("its signature does not verify")
)

func (s *Signed) verify(t Trust, label string) error {
	switch {
	case len(s.Key) != ed25519.PublicKeySize || !t.Has(s.Key):
		return errForeignKey
	case !ed25519.Verify(s.Key, append([]byte(label), s.Body...), s.Signature):
		return errSignature
	}
	return nil
}
