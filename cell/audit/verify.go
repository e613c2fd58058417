package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"quicproquo.dev/schema/ids"
)

// FaultKind is what is wrong with a log.
type FaultKind string

// What can be wrong.
const (
	FaultEdited            FaultKind = "edited"             // A row's content is not what its hash was made of.
	FaultUnlinked          FaultKind = "unlinked"           // A row does not continue the one before: one of the two is another.
	FaultMissing           FaultKind = "missing"            // Rows are gone.
	FaultMissingChain      FaultKind = "missing chain"      // All rows of a chain are gone.
	FaultRewritten         FaultKind = "rewritten"          // Rows are consistent, but not what a checkpoint signed.
	FaultNotOurs           FaultKind = "not ours"           // A row that no process of the cell wrote.
	FaultOutOfOrder        FaultKind = "out of order"       // A row comes after one that it stands before.
	FaultUnsigned          FaultKind = "unsigned"           // A row stands before a checkpoint that does not have it.
	FaultForgedCheckpoint  FaultKind = "forged checkpoint"  // The signature does not verify.
	FaultForeignKey        FaultKind = "foreign key"        // The signature is by a key that is not trusted.
	FaultMissingCheckpoint FaultKind = "missing checkpoint" // Its number is left out.
	FaultFork              FaultKind = "fork"               // Two logs, each signed: a database restored to an earlier state, or a second one.
	FaultCopy              FaultKind = "copy differs"       // A column or a text says otherwise than what is signed.
)

// Fault is the first thing that is wrong with a log.
type Fault struct {
	Kind       FaultKind
	Writer     ids.ID // Of the chain; zero when it is not about one.
	Seq        uint64 // Of the first bad row.
	Checkpoint uint64 // The number; 0 when it is not about one.
	Detail     string
}

// Error implements error.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", f.Kind)
	if !f.Writer.IsZero() {
		fmt.Fprintf(&b, "chain %s, row %d: ", f.Writer, f.Seq)
	}
	if f.Checkpoint > 0 {
		fmt.Fprintf(&b, "checkpoint %d: ", f.Checkpoint)
	}
	return b.String() + f.Detail
}

// Anchor is a checkpoint that was seen before, and kept where the log's owner cannot change it.
type Anchor struct {
	Number uint64
	Hash   Hash
}

// ParseAnchor reads NUMBER:HASH.
func ParseAnchor(s string) (Anchor, error) {
	var a Anchor
	number, hash, ok := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(number, "%d", &a.Number); err != nil || !ok || a.Number == 0 {
		return Anchor{}, fmt.Errorf("%q is not NUMBER:HASH of a checkpoint", s)
	}
	var err error
	a.Hash, err = ParseHash(hash)
	return a, err
}

// String returns what ParseAnchor reads.
func (a Anchor) String() string { return fmt.Sprintf("%d:%s", a.Number, a.Hash) }

// Report is what was looked at.
type Report struct {
	Rows        uint64    // All of them.
	Unsigned    uint64    // Those after the last checkpoint,
	Since       time.Time // of which the oldest is of this time.
	Skipped     uint64    // Those whose content an export left out.
	Undecoded   uint64    // Those that a newer release wrote: their hashes verify, their content was not looked at.
	Checkpoints uint64
	Chains      int
	PrunedTo    uint64    // The checkpoint up to which the log was pruned; 0: it begins at its beginning.
	First       uint64    // The first checkpoint that was looked at; 0: none.
	Last        Anchor    // The last checkpoint.
	LastAt      time.Time // Its time.
	Notes       []string  // What is not wrong, but should be known.
}

// Verifier follows a log: rows, each before the checkpoint that signs it, then that checkpoint. It keeps the head of
// each chain and nothing else. Every method returns a *Fault at the first thing that is wrong; then it is done.
type Verifier struct {
	// Trust are the keys whose checkpoints are believed.
	Trust Trust
	// Keys are the cell's own; with them, each row's MAC is checked too. May be nil.
	Keys *Keys
	// Cell is whose log it is.
	Cell ids.ID
	// After is the checkpoint after which the log begins, where it is a part whose beginning is not looked at; 0 for all.
	After uint64
	// Anchors are held against the log's checkpoints.
	Anchors []Anchor

	report     Report
	chains     map[ids.ID]*chain
	moved      map[ids.ID]struct{} // Since the last checkpoint.
	current    *Checkpoint
	inside     bool // The log is a part: chains and checkpoints may go on from what was not looked at.
	next       uint64
	prev       Hash
	epoch      uint64
	earliest   time.Time // Of the rows since the last checkpoint.
	latest     time.Time
	skew       time.Duration
	checkpoint Anchor // The one under way.
}

type chain struct {
	head, covered Head
}

// DefaultRetention is how long events are kept where nobody says otherwise.
const DefaultRetention = 400 * 24 * time.Hour

// skewShown is by how much times may be out of step without a note.
const skewShown = 2 * time.Minute

func (v *Verifier) start() {
	if v.chains == nil {
		v.chains, v.moved, v.next, v.inside = map[ids.ID]*chain{}, map[ids.ID]struct{}{}, v.After+1, v.After > 0
	}
}

// Pruned begins the log where an earlier part was removed.
func (v *Verifier) Pruned(s *Signed) error {
	v.start()
	p, err := s.Pruned(v.Trust)
	if err != nil {
		return &Fault{Kind: signatureFault(err), Detail: "the record of the last pruning: " + err.Error()}
	}
	if p.Cell != v.Cell {
		return &Fault{Kind: FaultFork, Checkpoint: p.Checkpoint, Detail: "the record of the last pruning is of another cell, " + p.Cell.String()}
	}
	v.inside = false
	v.next, v.prev, v.report.PrunedTo = p.Checkpoint+1, p.Hash, p.Checkpoint
	v.report.Last, v.report.LastAt = Anchor{p.Checkpoint, p.Hash}, p.At
	if err := v.held(v.report.Last); err != nil {
		return err
	}
	for _, h := range p.Heads {
		v.chains[h.Writer] = &chain{head: h.Head, covered: h.Head}
	}
	return nil
}

func signatureFault(err error) FaultKind {
	if errors.Is(err, errForeignKey) {
		return FaultForeignKey
	}
	return FaultForgedCheckpoint
}

// Begin verifies a checkpoint by itself and in its chain. number is what it is filed under. The rows that it signs may
// follow, if they have not come already; then End.
func (v *Verifier) Begin(number uint64, s *Signed) (*Checkpoint, error) {
	v.start()
	c, err := s.Checkpoint(v.Trust)
	if err != nil {
		return nil, &Fault{Kind: signatureFault(err), Checkpoint: number, Detail: err.Error()}
	}
	v.checkpoint = Anchor{c.Number, s.Hash()}
	switch {
	case c.Number != number:
		return nil, &Fault{Kind: FaultCopy, Checkpoint: number, Detail: fmt.Sprintf("it is signed as checkpoint %d", c.Number)}
	case c.Cell != v.Cell:
		return nil, &Fault{Kind: FaultFork, Checkpoint: number, Detail: "it is of another cell, " + c.Cell.String()}
	case c.Number > v.next:
		return nil, &Fault{Kind: FaultMissingCheckpoint, Checkpoint: v.next, Detail: fmt.Sprintf("it is not there; the next that is there is %d", c.Number)}
	case c.Number < v.next:
		return nil, &Fault{Kind: FaultOutOfOrder, Checkpoint: c.Number, Detail: fmt.Sprintf("checkpoint %d was expected", v.next)}
	case c.Prev != v.prev && (!v.inside || v.report.Checkpoints > 0):
		return nil, &Fault{Kind: FaultFork, Checkpoint: c.Number, Detail: fmt.Sprintf("it follows another checkpoint %d, with hash %s", c.Number-1, c.Prev)}
	}
	if err := v.held(v.checkpoint); err != nil {
		return nil, err
	}
	v.current = c
	return c, nil
}

// File verifies a checkpoint as Begin does, and what its columns say against what is signed.
func (v *Verifier) File(f *Filed) (*Checkpoint, error) {
	c, err := v.Begin(f.Number, &f.Signed)
	if err != nil {
		return nil, err
	}
	if !f.At.Equal(c.At) {
		return nil, &Fault{Kind: FaultCopy, Checkpoint: c.Number, Detail: "its column at is not what is signed"}
	}
	if !slices.EqualFunc(f.Heads, c.Moves, func(h WriterHead, m Move) bool { return h.Writer == m.Writer && h.Head == m.To }) {
		return nil, &Fault{Kind: FaultCopy, Checkpoint: c.Number, Detail: "its heads in audit_checkpoint_heads are not those that are signed"}
	}
	return c, nil
}

// held compares a checkpoint with the anchors.
func (v *Verifier) held(c Anchor) error {
	for _, a := range v.Anchors {
		if a.Number == c.Number && a.Hash != c.Hash {
			return &Fault{Kind: FaultFork, Checkpoint: c.Number, Detail: fmt.Sprintf("its hash is %s, but was %s when it was kept: this is another log, or the database was restored to an earlier state and went on", c.Hash, a.Hash)}
		}
	}
	return nil
}

// Continue has a chain begin behind a head that somebody else has verified.
func (v *Verifier) Continue(h WriterHead) {
	v.start()
	v.chains[h.Writer] = &chain{head: h.Head, covered: h.Head}
}

// Row takes the next row of its chain.
func (v *Verifier) Row(r *Row) error {
	digest := BodyDigest(r.Body)
	if RowHash(r.Writer, r.Seq, r.Prev, digest) != r.Hash {
		return &Fault{Kind: FaultEdited, Writer: r.Writer, Seq: r.Seq, Detail: "its content is not what its hash was made of"}
	}
	if v.Keys != nil && !v.Keys.Vouches(r) {
		return &Fault{Kind: FaultNotOurs, Writer: r.Writer, Seq: r.Seq, Detail: "it was not written by this cell: its MAC is wrong"}
	}
	if err := v.link(r.Writer, r.Seq, r.Prev, r.Hash); err != nil {
		return err
	}
	return v.content(r)
}

func (v *Verifier) content(r *Row) error {
	record, err := DecodeRecord(r.Body)
	if errors.Is(err, ErrNewerRecord) {
		v.report.Undecoded++
		return nil
	}
	if err != nil {
		return &Fault{Kind: FaultEdited, Writer: r.Writer, Seq: r.Seq, Detail: err.Error()}
	}
	if v.earliest.IsZero() || record.At.Before(v.earliest) {
		v.earliest = record.At
	}
	if record.At.After(v.latest) {
		v.latest = record.At
	}
	return nil
}

// Skip takes the next row of its chain without its body.
func (v *Verifier) Skip(writer ids.ID, seq uint64, prev, body, hash Hash) error {
	if RowHash(writer, seq, prev, body) != hash {
		return &Fault{Kind: FaultEdited, Writer: writer, Seq: seq, Detail: "what is left of it is not what its hash was made of"}
	}
	v.report.Skipped++
	return v.link(writer, seq, prev, hash)
}

func (v *Verifier) link(writer ids.ID, seq uint64, prev, hash Hash) error {
	v.start()
	c, known := v.chains[writer]
	if !known {
		c = &chain{head: Head{Hash: Genesis(v.Cell, writer)}}
		if v.inside && seq > 1 {
			c.head = Head{seq - 1, prev}
			c.covered = c.head // As it claims; the first checkpoint that has the chain says what it continues.
		}
		v.chains[writer] = c
	}
	switch {
	case seq > c.head.Seq+1:
		return missing(writer, c.head.Seq+1, seq-1, fmt.Sprintf("row %d is there", seq))
	case seq <= c.head.Seq:
		return &Fault{Kind: FaultOutOfOrder, Writer: writer, Seq: seq, Detail: fmt.Sprintf("it comes after row %d", c.head.Seq)}
	case prev != c.head.Hash:
		return &Fault{Kind: FaultUnlinked, Writer: writer, Seq: seq, Detail: "it does not continue the row before it: one of the two was exchanged"}
	}
	c.head = Head{seq, hash}
	v.moved[writer] = struct{}{}
	v.report.Rows++
	return nil
}

func missing(writer ids.ID, from, to uint64, why string) *Fault {
	f := &Fault{Kind: FaultMissing, Writer: writer, Seq: from, Detail: "it is not there; " + why}
	if to > from {
		f.Detail = fmt.Sprintf("it and those up to row %d are not there; %s", to, why)
	}
	return f
}

// End holds the chains against the checkpoint of Begin.
func (v *Verifier) End() error {
	c := v.current
	for i := range c.Moves {
		if err := v.hold(&c.Moves[i]); err != nil {
			return err
		}
		delete(v.moved, c.Moves[i].Writer)
	}
	if len(v.moved) > 0 {
		return v.unsigned(c.Number)
	}
	v.note(c)
	v.next, v.prev, v.current = c.Number+1, v.checkpoint.Hash, nil
	v.earliest, v.latest = time.Time{}, time.Time{}
	v.report.Checkpoints++
	v.report.Last, v.report.LastAt, v.epoch = v.checkpoint, c.At, c.RestoreEpoch
	if v.report.First == 0 {
		v.report.First = c.Number
	}
	return nil
}

func (v *Verifier) hold(m *Move) error {
	number := v.current.Number
	signed := fmt.Sprintf("checkpoint %d signed it", number)
	c, known := v.chains[m.Writer]
	switch {
	case !known:
		f := missing(m.Writer, m.From.Seq+1, m.To.Seq, signed)
		f.Kind, f.Checkpoint = FaultMissingChain, number
		return f
	case c.head.Seq < m.To.Seq:
		f := missing(m.Writer, c.head.Seq+1, m.To.Seq, signed)
		f.Checkpoint = number
		return f
	case c.head.Seq > m.To.Seq:
		return &Fault{Kind: FaultUnsigned, Writer: m.Writer, Seq: m.To.Seq + 1, Checkpoint: number, Detail: "it stands before the checkpoint, which ends with the row before it"}
	case c.head.Hash != m.To.Hash:
		return &Fault{Kind: FaultRewritten, Writer: m.Writer, Seq: m.From.Seq + 1, Checkpoint: number,
			Detail: fmt.Sprintf("it, or one of those up to row %d, is another than when the checkpoint was signed", m.To.Seq)}
	case c.covered != m.From:
		return &Fault{Kind: FaultFork, Writer: m.Writer, Seq: m.From.Seq, Checkpoint: number,
			Detail: fmt.Sprintf("the checkpoint continues it, but the one before ends with row %d", c.covered.Seq)}
	}
	c.covered = m.To
	return nil
}

// unsigned is the fault of the first chain, by its id, that has rows which the checkpoint does not have.
func (v *Verifier) unsigned(number uint64) error {
	f := &Fault{Kind: FaultUnsigned, Checkpoint: number, Detail: "it stands before the checkpoint, which does not have it"}
	for w := range v.moved {
		if f.Writer.IsZero() || w.Compare(f.Writer) < 0 {
			f.Writer, f.Seq = w, v.chains[w].covered.Seq+1
		}
	}
	return f
}

// note keeps what is odd but proves nothing: clocks, and a restore that was declared.
func (v *Verifier) note(c *Checkpoint) {
	if v.epoch > 0 && c.RestoreEpoch != v.epoch {
		v.report.Notes = append(v.report.Notes, fmt.Sprintf("between checkpoints %d and %d the database was restored (epoch %d, then %d)", c.Number-1, c.Number, v.epoch, c.RestoreEpoch))
	}
	if !v.latest.IsZero() {
		v.skew = max(v.skew, v.latest.Sub(c.At))
		if v.report.Checkpoints > 0 {
			v.skew = max(v.skew, v.report.LastAt.Sub(v.earliest))
		}
	}
}

// Covered is the head of a chain as the last checkpoint has it; ok is false for a chain that none has.
func (v *Verifier) Covered(writer ids.ID) (h Head, ok bool) {
	c, ok := v.chains[writer]
	if !ok || c.covered.Seq == 0 {
		return Head{}, false
	}
	return c.covered, true
}

// Heads lists the chains that checkpoints have, in no order.
func (v *Verifier) Heads() []WriterHead {
	var list []WriterHead
	for w, c := range v.chains {
		if c.covered.Seq > 0 {
			list = append(list, WriterHead{w, c.covered})
		}
	}
	return list
}

// Report returns what was looked at so far.
func (v *Verifier) Report() Report {
	r := v.report
	r.Chains = len(v.chains)
	return r
}

// Finish ends the log. Rows that came after the last checkpoint are in their chains, but could be cut off unseen.
func (v *Verifier) Finish() (Report, error) {
	v.start()
	r := v.Report()
	for w := range v.moved {
		c := v.chains[w]
		r.Unsigned += c.head.Seq - c.covered.Seq
	}
	if r.Unsigned > 0 {
		r.Since = v.earliest
	}
	if v.skew > skewShown {
		r.Notes = append(r.Notes, fmt.Sprintf("times of events and of checkpoints are up to %s out of step: the clocks of servers differed, or something was slow", v.skew.Round(time.Second)))
	}
	if r.Undecoded > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d rows were written by a newer release; their hashes verify, their content was not looked at", r.Undecoded))
	}
	for _, a := range v.Anchors {
		switch {
		case a.Number > r.Last.Number:
			return r, &Fault{Kind: FaultFork, Checkpoint: a.Number, Detail: fmt.Sprintf("it was kept, but the log ends with checkpoint %d: its end was cut off, or the database was restored to an earlier state", r.Last.Number)}
		case r.First > 0 && a.Number < r.First && a.Number != r.PrunedTo, r.First == 0 && a.Number < r.PrunedTo:
			r.Notes = append(r.Notes, fmt.Sprintf("checkpoint %d, which was kept, is before what was looked at", a.Number))
		}
	}
	return r, nil
}
