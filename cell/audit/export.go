package audit

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"quicproquo.dev/schema/ids"
)

// Format names an export's format and version.
const Format = "quicproquo.dev/audit/v1"

// The lines of an export, one JSON object each: a header; the record of the last pruning, if the export begins there;
// then rows, each before the checkpoint that signs it, and checkpoints. docs/audit.md describes the fields.
type (
	headerLine struct {
		Type   string `json:"type"` // "header"
		Format string `json:"format"`
		Cell   ids.ID `json:"cell"`
		After  uint64 `json:"after"` // The checkpoint after which it begins.
		// OnlyMatching says that rows which did not match the filter are left out altogether: nothing can be proven of the rest.
		OnlyMatching bool `json:"onlyMatching,omitempty"`
	}
	prunedLine struct {
		Type       string `json:"type"` // "pruned"
		Checkpoint uint64 `json:"checkpoint"`
		At         string `json:"at"`
		signedText
	}
	checkpointLine struct {
		Type   string `json:"type"` // "checkpoint"
		Number uint64 `json:"number"`
		At     string `json:"at"`
		Hash   string `json:"hash"`
		signedText
	}
	signedText struct {
		Body      []byte `json:"body"`
		Key       []byte `json:"key"`
		Signature []byte `json:"signature"`
	}
	eventLine struct {
		Type    string            `json:"type"` // "event"
		At      string            `json:"at,omitempty"`
		Kind    string            `json:"kind,omitempty"`
		Outcome string            `json:"outcome,omitempty"`
		Reason  string            `json:"reason,omitempty"`
		Actor   string            `json:"actor,omitempty"`
		By      string            `json:"by,omitempty"`
		Subject string            `json:"subject,omitempty"`
		Device  string            `json:"device,omitempty"`
		Session string            `json:"session,omitempty"`
		Channel string            `json:"channel,omitempty"`
		Address string            `json:"address,omitempty"`
		Details map[string]uint64 `json:"details,omitempty"`
		Writer  ids.ID            `json:"writer"`
		Seq     uint64            `json:"seq"`
		Prev    string            `json:"prev"`
		Body    []byte            `json:"body"`
		Hash    string            `json:"hash"`
	}
	skippedLine struct {
		Type   string `json:"type"` // "skipped"
		Writer ids.ID `json:"writer"`
		Seq    uint64 `json:"seq"`
		Prev   string `json:"prev"`
		Digest string `json:"digest"` // BodyDigest.
		Hash   string `json:"hash"`
	}
)

const timeFormat = "2006-01-02T15:04:05.000000Z"

func newEventLine(r *Row) eventLine {
	l := eventLine{Type: "event", Writer: r.Writer, Seq: r.Seq, Prev: r.Prev.String(), Body: r.Body, Hash: r.Hash.String()}
	record, err := DecodeRecord(r.Body)
	if err != nil {
		return l // Of a newer release, or damaged: the row is exported as it is.
	}
	l.At, l.Kind, l.Outcome, l.Reason, l.Actor = record.At.Format(timeFormat), record.Kind.String(), record.Outcome.String(), record.Reason.String(), record.Actor.String()
	for to, ref := range map[*string]Ref{&l.By: record.By, &l.Subject: record.Subject, &l.Device: record.Device, &l.Session: record.Session, &l.Channel: record.Channel} {
		if !ref.IsZero() {
			*to = ref.String()
		}
	}
	if record.Address != (AddressRef{}) {
		l.Address = hex.EncodeToString(record.Address[:])
	}
	for _, d := range record.Details {
		if l.Details == nil {
			l.Details = map[string]uint64{}
		}
		l.Details[d.Field.String()] = d.Value
	}
	return l
}

// Filter chooses rows. The zero Filter takes all.
type Filter struct {
	Since, Until time.Time // From Since, before Until; zero is unbounded.
	Kinds        []Kind    // Any of them; none is all.
	Account      Ref       // The subject or who acted; zero is anybody.
}

func (f *Filter) takesAll() bool {
	return f.Since.IsZero() && f.Until.IsZero() && len(f.Kinds) == 0 && f.Account.IsZero()
}

func (f *Filter) takes(r *Row) bool {
	if f.takesAll() {
		return true
	}
	record, err := DecodeRecord(r.Body)
	return err == nil && !record.At.Before(f.Since) && (f.Until.IsZero() || record.At.Before(f.Until)) &&
		(len(f.Kinds) == 0 || slices.Contains(f.Kinds, record.Kind)) &&
		(f.Account.IsZero() || record.Subject == f.Account || record.By == f.Account)
}

// Exporter writes the lines of an export. It is a visitor of a log, and trusts nothing in it but that it can be decoded:
// a log that does not verify can be exported, as evidence.
type Exporter struct {
	Filter       Filter
	OnlyMatching bool // Leave out what does not match, instead of keeping its place in its chain.

	// Events and Skipped count what was written; Last is the last checkpoint, after which an export can go on.
	Events, Skipped, Last uint64

	out     *json.Encoder
	current *Filed
	at      time.Time
}

// NewExporter writes the header of an export of what cell has after a checkpoint; 0 is everything.
func NewExporter(w io.Writer, cell ids.ID, after uint64, onlyMatching bool) (*Exporter, error) {
	e := &Exporter{out: json.NewEncoder(w), OnlyMatching: onlyMatching, Last: after}
	return e, e.out.Encode(headerLine{Type: "header", Format: Format, Cell: cell, After: after, OnlyMatching: onlyMatching})
}

// Pruned writes the record of the last pruning.
func (e *Exporter) Pruned(s *Signed) error {
	p, err := DecodePruned(s.Body)
	if err != nil {
		return err
	}
	e.Last = p.Checkpoint
	return e.out.Encode(prunedLine{"pruned", p.Checkpoint, p.At.Format(timeFormat), *s.text()})
}

func (s *Signed) text() *signedText { return &signedText{s.Body, s.Key, s.Signature} }

// File begins a checkpoint, whose rows follow.
func (e *Exporter) File(f *Filed) (*Checkpoint, error) {
	c, err := DecodeCheckpoint(f.Body)
	if err != nil {
		return nil, &Fault{Kind: FaultForgedCheckpoint, Checkpoint: f.Number, Detail: err.Error()}
	}
	e.current, e.at = f, c.At
	return c, nil
}

// Row writes a row.
func (e *Exporter) Row(r *Row) error {
	if e.Filter.takes(r) {
		e.Events++
		return e.out.Encode(newEventLine(r))
	}
	if e.OnlyMatching {
		return nil
	}
	e.Skipped++
	return e.out.Encode(skippedLine{"skipped", r.Writer, r.Seq, r.Prev.String(), BodyDigest(r.Body).String(), r.Hash.String()})
}

// End writes the checkpoint.
func (e *Exporter) End() error {
	e.Last = e.current.Number
	return e.out.Encode(checkpointLine{"checkpoint", e.current.Number, e.at.Format(timeFormat), e.current.Hash().String(), *e.current.text()})
}

// ErrOnlyMatching says that an export was made without what it would need to be verified.
var ErrOnlyMatching = errors.New("this export leaves out what did not match its filter, so nothing of it can be proven: export again without --only-matching")

// VerifyExport verifies an export, or several of which each goes on where the one before ended, with v, whose Cell and
// After it sets. progress is called now and then with what was looked at so far; it may be nil.
func VerifyExport(r io.Reader, v *Verifier, progress func(Report)) (Report, error) {
	x := &exportReader{v: v}
	lines := newLines(r)
	for n := 1; ; n++ {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = x.line(line)
		}
		if err != nil {
			return v.Report(), fmt.Errorf("line %d: %w", n, err)
		}
		if progress != nil && n%progressEvery == 0 {
			progress(v.Report())
		}
	}
	if !x.begun {
		return v.Report(), errors.New("this is not an export of an audit log: there is no header")
	}
	return v.Finish()
}

const progressEvery = 4096

type exportReader struct {
	v     *Verifier
	begun bool
}

func (x *exportReader) line(b []byte) error {
	var t struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return errors.New("not a JSON object")
	}
	if !x.begun && t.Type != "header" {
		return errors.New("this is not an export of an audit log: it does not begin with a header")
	}
	switch t.Type {
	case "header":
		return read(b, x.header)
	case "pruned":
		return read(b, func(l *prunedLine) error {
			return x.v.Pruned(l.signed())
		})
	case "checkpoint":
		return read(b, x.checkpoint)
	case "event":
		return read(b, x.event)
	case "skipped":
		return read(b, x.skipped)
	}
	return fmt.Errorf("a line of type %q; a newer release may know it", t.Type)
}

func (t *signedText) signed() *Signed { return &Signed{t.Body, t.Key, t.Signature} }

func (x *exportReader) header(h *headerLine) error {
	switch {
	case h.Format != Format:
		return fmt.Errorf("the format is %q; this release reads %q", h.Format, Format)
	case h.OnlyMatching:
		return ErrOnlyMatching
	case !x.begun:
		x.v.Cell, x.v.After, x.begun = h.Cell, h.After, true
	case h.Cell != x.v.Cell || h.After != x.v.report.Last.Number:
		return fmt.Errorf("another export follows, of cell %s after checkpoint %d, but the one before is of cell %s and ends with checkpoint %d", h.Cell, h.After, x.v.Cell, x.v.report.Last.Number)
	}
	return nil
}

func (x *exportReader) checkpoint(l *checkpointLine) error {
	s := l.signed()
	c, err := x.v.Begin(l.Number, s)
	if err != nil {
		return err
	}
	if l.Hash != s.Hash().String() || l.At != c.At.Format(timeFormat) {
		return &Fault{Kind: FaultCopy, Checkpoint: l.Number, Detail: "its hash or its time is not that of what is signed"}
	}
	return x.v.End()
}

func (x *exportReader) event(l *eventLine) error {
	prev, err1 := ParseHash(l.Prev)
	hash, err2 := ParseHash(l.Hash)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r := Row{Writer: l.Writer, Seq: l.Seq, Prev: prev, Body: l.Body, Hash: hash}
	if err := x.v.Row(&r); err != nil {
		return err
	}
	if !l.shows(&r) {
		return &Fault{Kind: FaultCopy, Writer: l.Writer, Seq: l.Seq, Detail: "its fields say otherwise than its body"}
	}
	return nil
}

// shows reports whether the line's readable fields are those of its body.
func (l *eventLine) shows(r *Row) bool {
	want := newEventLine(r)
	a, err1 := json.Marshal(want)
	b, err2 := json.Marshal(l)
	return err1 == nil && err2 == nil && string(a) == string(b)
}

func (x *exportReader) skipped(l *skippedLine) error {
	prev, err1 := ParseHash(l.Prev)
	digest, err2 := ParseHash(l.Digest)
	hash, err3 := ParseHash(l.Hash)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	return x.v.Skip(l.Writer, l.Seq, prev, digest, hash)
}
