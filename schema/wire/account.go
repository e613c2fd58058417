package wire

import "quicproquo.dev/schema"

// DeleteAccountRequest deletes the account that the connection has proven. It is answered by Done.
type DeleteAccountRequest struct{ Name string }

// Method implements Request.
func (*DeleteAccountRequest) Method() string  { return "deleteAccount" }
func (r *DeleteAccountRequest) sizeHint() int { return len(r.Name) }

func (r *DeleteAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewDeleteAccount, func(s schema.DeleteAccountRequest) error { return s.SetName(r.Name) })
}

func decodeDeleteAccountRequest(s schema.DeleteAccountRequest) (*DeleteAccountRequest, error) {
	var d decoder
	return result(&d, &DeleteAccountRequest{d.text("name", 1, MaxName)(s.Name())})
}

// ExportAccountRequest asks for one page of what the cell has about the caller's account. It is answered by an ExportPage.
type ExportAccountRequest struct{ After []byte }

// Method implements Request.
func (*ExportAccountRequest) Method() string  { return "exportAccount" }
func (r *ExportAccountRequest) sizeHint() int { return len(r.After) }

func (r *ExportAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewExportAccount, func(s schema.ExportAccountRequest) error { return s.SetAfter(r.After) })
}

func decodeExportAccountRequest(s schema.ExportAccountRequest) (*ExportAccountRequest, error) {
	var d decoder
	return result(&d, &ExportAccountRequest{d.bytes("after", 0, MaxExportCursor)(s.After())})
}

// ExportPage is whole lines of JSON, and where to go on; without Next they were the last.
type ExportPage struct{ Lines, Next []byte }

func (r *ExportPage) sizeHint() int { return len(r.Lines) + len(r.Next) }

func (r *ExportPage) encodeResponse(p schema.Response) error {
	return fill(p.NewExportPage, func(s schema.ExportPage) error { return first(s.SetLines(r.Lines), s.SetNext(r.Next)) })
}

func decodeExportPage(s schema.ExportPage) (*ExportPage, error) {
	var d decoder
	return result(&d, &ExportPage{d.bytes("lines", 0, MaxExportPage)(s.Lines()), d.bytes("next", 0, MaxExportCursor)(s.Next())})
}
