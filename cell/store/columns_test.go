package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// TestColumnsAreWhatPgxMakesOfSlices holds each column against pgx's own encoding of the same values.
func TestColumnsAreWhatPgxMakesOfSlices(t *testing.T) {
	t.Parallel()
	a, b := ids.New(), ids.New()
	now := time.Now()
	for name, c := range map[string]struct {
		array  uint32
		slice  any
		column *column
	}{
		"ids, one of them zero": {pgtype.UUIDArrayOID, []ids.ID{a, {}, b}, columnOf(pgtype.UUIDOID, (*column).id, a, ids.ID{}, b)},
		"no ids":                {pgtype.UUIDArrayOID, []ids.ID{}, columnOf(pgtype.UUIDOID, (*column).id)},
		"bytes":                 {pgtype.ByteaArrayOID, [][]byte{{1, 2, 3}, {}, make([]byte, 3000)}, columnOf(pgtype.ByteaOID, (*column).bytes, []byte{1, 2, 3}, []byte{}, make([]byte, 3000))},
		"times":                 {pgtype.TimestamptzArrayOID, []time.Time{utc(now), utc(time.Unix(0, 0))}, columnOf(pgtype.TimestamptzOID, (*column).time, now, time.Unix(0, 0))},
		"bigint":                {pgtype.Int8ArrayOID, []int64{1, -1, 1 << 62}, columnOf(pgtype.Int8OID, (*column).int8, 1, -1, 1<<62)},
		"int":                   {pgtype.Int4ArrayOID, []int32{1, -1, 1 << 30}, columnOf(pgtype.Int4OID, (*column).int4, 1, -1, 1<<30)},
		"smallint":              {pgtype.Int2ArrayOID, []int16{1, -1, 1 << 14}, columnOf(pgtype.Int2OID, (*column).int2, 1, -1, 1<<14)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := pgtype.NewMap()
			registerID(m)
			want, err := m.Encode(c.array, pgtype.BinaryFormatCode, c.slice, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Encode(c.array, pgtype.BinaryFormatCode, c.column, []byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			got, ok := bytes.CutPrefix(got, []byte("before"))
			if !ok {
				t.Fatal("what was in the buffer is gone")
			}
			want[7] = got[7] // Whether there are NULLs is a hint, which is not read.
			if !bytes.Equal(got, want) {
				t.Errorf("%x, pgx makes %x", got, want)
			}
		})
	}
}

func columnOf[V any](element uint32, add func(*column, V), values ...V) *column {
	c := newColumn(element, len(values), 16)
	for _, v := range values {
		add(c, v)
	}
	return c
}
