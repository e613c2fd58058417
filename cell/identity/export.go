package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/wire"
)

// exportPage is how long the lines of a page are before no more are added; one line is far shorter than what is left then.
const exportPage = wire.MaxExportPage / 2

// ExportAccount returns one page of what the cell has about the caller's account, as lines of JSON. That somebody exports
// is recorded with the first page.
func (s *Service) ExportAccount(ctx context.Context, p Principal, r *wire.ExportAccountRequest) (*wire.ExportPage, error) {
	if len(r.After) == 0 {
		if err := s.told(ctx, audit.AccountExported(audit.ByAccount(p.AccountID), p.AccountID), nil); err != nil {
			return nil, err
		}
	}
	lines, next, err := s.store.Export(ctx, p.AccountID, r.After, s.now())
	switch {
	case errors.Is(err, store.ErrCursor):
		return nil, wire.Errorf(wire.CodeInvalidArgument, "after is not what a page before said; begin anew").With("field", "after")
	case err != nil:
		return nil, noAccount(err)
	}
	return page(lines, next)
}

// page packs as many lines as fit.
func page(lines []store.ExportLine, next []byte) (*wire.ExportPage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i, l := range lines {
		if err := e.Encode(l.Value); err != nil {
			return nil, err
		}
		if b.Len() >= exportPage && i+1 < len(lines) {
			return &wire.ExportPage{Lines: b.Bytes(), Next: l.Next}, nil
		}
	}
	return &wire.ExportPage{Lines: b.Bytes(), Next: next}, nil
}
