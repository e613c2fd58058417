package store

import (
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// pgID lets pgx read and write an ids.ID as uuid, in its binary form.
type pgID ids.ID

// ScanUUID implements pgtype.UUIDScanner.
func (p *pgID) ScanUUID(v pgtype.UUID) error {
	if !v.Valid {
		*p = pgID{}
		return nil
	}
	*p = v.Bytes
	return nil
}

// UUIDValue implements pgtype.UUIDValuer. The zero id is NULL.
func (p pgID) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: p, Valid: p != pgID{}}, nil
}

// registerID teaches one connection's type map about ids.ID and column.
func registerID(m *pgtype.Map) {
	m.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapEncodeID, wrapColumn}, m.TryWrapEncodePlanFuncs...)
	m.TryWrapScanPlanFuncs = append([]pgtype.TryWrapScanPlanFunc{wrapScanID}, m.TryWrapScanPlanFuncs...)
}

type encodeIDPlan struct{ next pgtype.EncodePlan }

func (p *encodeIDPlan) SetNext(next pgtype.EncodePlan) { p.next = next }
func (p *encodeIDPlan) Encode(value any, buf []byte) ([]byte, error) {
	return p.next.Encode(pgID(value.(ids.ID)), buf)
}

func wrapEncodeID(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	if id, ok := value.(ids.ID); ok {
		return &encodeIDPlan{}, pgID(id), true
	}
	return nil, nil, false
}

type scanIDPlan struct{ next pgtype.ScanPlan }

func (p *scanIDPlan) SetNext(next pgtype.ScanPlan) { p.next = next }
func (p *scanIDPlan) Scan(src []byte, dst any) error {
	return p.next.Scan(src, (*pgID)(dst.(*ids.ID)))
}

func wrapScanID(target any) (pgtype.WrappedScanPlanNextSetter, any, bool) {
	if id, ok := target.(*ids.ID); ok {
		return &scanIDPlan{}, (*pgID)(id), true
	}
	return nil, nil, false
}

// isNetwork reports whether err came from the connection rather than from the database.
func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
