package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/wire"
)

// pageTarget is when a page of an export is full, in bytes. A line more still fits into wire.MaxExportPage.
const pageTarget = 256 << 10

// cursor is where an export begins, or goes on. Its bytes are a kind and two numbers, big-endian: the checkpoint before, 8
// bytes; for a page that goes on, how many rows of the checkpoint after it came already, 8 bytes.
type cursor struct {
	goesOn bool
	after  uint64
	rows   uint64
}

const (
	cursorBegins = 1
	cursorGoesOn = 2
)

// AfterCheckpoint is the cursor of an export that begins after a checkpoint, as where one before has ended.
func AfterCheckpoint(n uint64) []byte { return cursor{after: n}.bytes() }

func (c cursor) bytes() []byte {
	if !c.goesOn {
		return binary.BigEndian.AppendUint64([]byte{cursorBegins}, c.after)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{cursorGoesOn}, c.after), c.rows)
}

func parseCursor(b []byte) (cursor, error) {
	switch {
	case len(b) == 0:
		return cursor{}, nil
	case len(b) == 9 && b[0] == cursorBegins:
		return cursor{after: binary.BigEndian.Uint64(b[1:])}, nil
	case len(b) == 17 && b[0] == cursorGoesOn:
		return cursor{true, binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, nil
	}
	return cursor{}, errCursor("this is no place in an export; begin anew")
}

func errCursor(message string) *wire.Error {
	return wire.Errorf(wire.CodeInvalidCursor, "%s", message).With("field", "after")
}

// exportAudit returns a page of the audit log. That somebody exports is recorded, with each page but those by which a
// connection goes on where its own page before ended.
func (s *Service) exportAudit(ctx context.Context, a *Admin, r *wire.AdminExportAuditRequest) (*wire.ExportPage, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from, err := parseCursor(r.After)
	if err != nil {
		return nil, err
	}
	if from.after > 1<<62 || from.rows > 1<<62 {
		return nil, errCursor("there is no such checkpoint; begin anew")
	}
	if !from.goesOn || !bytes.Equal(r.After, a.next) {
		if err := s.o.Sink.Record(ctx, audit.AuditExported(a.By(), from.after).At(s.o.Now())); err != nil {
			return nil, err
		}
	}
	p, err := s.page(ctx, from)
	if err != nil {
		return nil, err
	}
	a.next = p.Next
	return p, nil
}

func (s *Service) page(ctx context.Context, from cursor) (*wire.ExportPage, error) {
	p := &page{from: from, at: cursor{goesOn: true, after: from.after}}
	var err error
	if p.x, err = audit.NewExporter(&p.lines, s.o.Cell, from.after, false); err != nil {
		return nil, err
	}
	if from.goesOn {
		p.lines.Reset() // The header was the first page's.
	}
	var fault *audit.Fault
	if err := s.o.Log.VisitAudit(ctx, from.after, p); errors.As(err, &fault) {
		s.o.Logger.ErrorContext(ctx, "the audit log does not verify, and cannot be exported by a call", "error", err)
		return nil, wire.Errorf(wire.CodeInternal, "the stored audit log was changed: look at it with cell audit verify, and keep it with cell audit export")
	} else if err != nil {
		return nil, err
	}
	if p.at.rows < p.skip() {
		return nil, errPlace
	}
	out := &wire.ExportPage{Lines: p.lines.Bytes()}
	if p.full {
		out.Next = p.at.bytes()
	}
	return out, nil
}

// page is an Exporter that stops when it has enough: a store.AuditVisitor.
type page struct {
	x     *audit.Exporter
	lines bytes.Buffer
	from  cursor
	at    cursor // What the next page would go on with.
	begun bool   // A checkpoint was looked at.
	full  bool
}

// skip is how many rows of the first checkpoint came before.
func (p *page) skip() uint64 {
	if p.begun {
		return 0
	}
	return p.from.rows
}

var (
	errPruned = errCursor("the log was pruned meanwhile; begin the export anew")
	errPlace  = errCursor("the log has not what this place says; begin the export anew")
)

// Pruned implements store.AuditVisitor.
func (p *page) Pruned(s *audit.Signed) error {
	if !p.from.goesOn {
		err := p.x.Pruned(s)
		p.at.after = p.x.Last
		return err
	}
	pruned, err := audit.DecodePruned(s.Body)
	if err == nil && pruned.Checkpoint > p.from.after {
		err = errPruned
	}
	return err
}

// File implements store.AuditVisitor.
func (p *page) File(f *audit.Filed) (*audit.Checkpoint, error) { return p.x.File(f) }

// Row implements store.AuditVisitor.
func (p *page) Row(r *audit.Row) error {
	if p.at.rows < p.skip() {
		p.at.rows++
		return nil
	}
	if p.lines.Len() >= pageTarget {
		p.full = true
		return store.ErrStopAudit
	}
	p.at.rows++
	return p.x.Row(r)
}

// End implements store.AuditVisitor.
func (p *page) End() error {
	if p.at.rows < p.skip() {
		return errPlace
	}
	err := p.x.End()
	p.begun = true
	p.at = cursor{goesOn: true, after: p.x.Last}
	if err == nil && p.lines.Len() >= pageTarget {
		p.full = true
		err = store.ErrStopAudit
	}
	return err
}
