package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// column is an array for unnest, built in the binary form in which PostgreSQL takes it: the lane's batches would spend
// more on turning slices into that form by way of reflection than on everything else. Each is built for one statement.
type column struct {
	element uint32 // OID.
	count   int
	b       []byte
}

// The layout (array_recv): dimensions, whether there are NULLs, the element's OID; of the one dimension its length and
// lower bound; then each element behind its length.
const (
	columnHeader = 20
	elementHead  = 4
	null         = 0xffffffff // The length of a NULL.
)

// newColumn makes room for count elements of size bytes each.
func newColumn(element uint32, count, size int) *column {
	return &column{element: element, b: make([]byte, columnHeader, columnHeader+count*(elementHead+size))}
}

func (c *column) begin(size uint32) {
	c.count++
	c.b = binary.BigEndian.AppendUint32(c.b, size)
}

// id adds an id; the zero id is NULL.
func (c *column) id(id ids.ID) {
	if id.IsZero() {
		c.begin(null)
		return
	}
	c.begin(ids.Size)
	c.b = append(c.b, id[:]...)
}

// tid adds the place of a row.
func (c *column) tid(t pgtype.TID) {
	c.begin(placeSize)
	c.b = binary.BigEndian.AppendUint32(c.b, t.BlockNumber)
	c.b = binary.BigEndian.AppendUint16(c.b, t.OffsetNumber)
}

func (c *column) bytes(b []byte) {
	c.begin(uint32(len(b))) //nolint:gosec // payloads are below 5 MiB.
	c.b = append(c.b, b...)
}

func (c *column) int8(v int64) {
	c.begin(8)
	c.b = binary.BigEndian.AppendUint64(c.b, uint64(v)) //nolint:gosec // the same bits.
}

func (c *column) int4(v int32) {
	c.begin(4)
	c.b = binary.BigEndian.AppendUint32(c.b, uint32(v)) //nolint:gosec // the same bits.
}

func (c *column) int2(v int16) {
	c.begin(2)
	c.b = binary.BigEndian.AppendUint16(c.b, uint16(v)) //nolint:gosec // the same bits.
}

// postgresEpoch is 2000-01-01 in microseconds since 1970.
const postgresEpoch = 946_684_800_000_000

// time adds a timestamptz, which has microseconds.
func (c *column) time(t time.Time) { c.int8(t.UnixMicro() - postgresEpoch) }

// appendTo appends the finished array.
func (c *column) appendTo(buf []byte) []byte {
	binary.BigEndian.PutUint32(c.b, 1)
	binary.BigEndian.PutUint32(c.b[4:], 1)
	binary.BigEndian.PutUint32(c.b[8:], c.element)
	binary.BigEndian.PutUint32(c.b[12:], uint32(c.count)) //nolint:gosec // batches are small.
	binary.BigEndian.PutUint32(c.b[16:], 1)
	return append(buf, c.b...)
}

// columnPlan lets pgx take a column as a parameter.
type columnPlan struct{}

// SetNext implements pgtype.WrappedEncodePlanNextSetter.
func (columnPlan) SetNext(pgtype.EncodePlan) {}

// Encode implements pgtype.EncodePlan.
func (columnPlan) Encode(value any, buf []byte) ([]byte, error) {
	c, ok := value.(*column)
	if !ok {
		return nil, fmt.Errorf("a %T is no column", value)
	}
	return c.appendTo(buf), nil
}

// wrapColumn tells pgx that a column can stand for what it would take itself for the same parameter.
func wrapColumn(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	c, ok := value.(*column)
	if !ok {
		return nil, nil, false
	}
	switch c.element {
	case pgtype.UUIDOID:
		return columnPlan{}, [][ids.Size]byte(nil), true
	case pgtype.TIDOID:
		return columnPlan{}, []pgtype.TID(nil), true
	case pgtype.ByteaOID:
		return columnPlan{}, [][]byte(nil), true
	case pgtype.TimestamptzOID:
		return columnPlan{}, []time.Time(nil), true
	case pgtype.Int8OID:
		return columnPlan{}, []int64(nil), true
	case pgtype.Int4OID:
		return columnPlan{}, []int32(nil), true
	case pgtype.Int2OID:
		return columnPlan{}, []int16(nil), true
	}
	return nil, nil, false
}
