package ours

import (
	"context"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Stored counts what was written to the database since it began.
type Stored struct {
	Messages, DeliveryIDs float64 // Rows.
	Statements, WAL       float64 // Of those that store messages: locks, lookups and writes.
	Cursors, CursorWAL    float64 // Rows that acknowledgements moved, and the log that they took.
}

// StatementSettings has PostgreSQL count what statements do, as Stored needs it.
func StatementSettings() map[string]string {
	return map[string]string{"shared_preload_libraries": "pg_stat_statements"}
}

const storedSQL = `SELECT (SELECT count(*) FROM messages)::float8, (SELECT count(*) FROM delivery_ids)::float8,
	coalesce(sum(calls) FILTER (WHERE stores), 0)::float8, coalesce(sum(wal_bytes) FILTER (WHERE stores), 0)::float8,
	coalesce(sum(rows) FILTER (WHERE acknowledges), 0)::float8, coalesce(sum(wal_bytes) FILTER (WHERE acknowledges), 0)::float8
	FROM (SELECT *, query ~ 'INSERT INTO messages|LEFT JOIN cursors k|FROM channels WHERE ctid|UPDATE channels (c )?SET last_seq' AS stores, query ~ 'UPDATE cursors' AS acknowledges FROM pg_stat_statements) AS s`

// Stored reads the counts.
func (s *System) Stored(ctx context.Context) (Stored, error) {
	var n Stored
	db, err := s.Database(ctx)
	if err != nil {
		return n, err
	}
	defer db.Close(ctx)
	if _, err := db.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`); err != nil {
		return n, err
	}
	err = db.QueryRow(ctx, storedSQL).Scan(&n.Messages, &n.DeliveryIDs, &n.Statements, &n.WAL, &n.Cursors, &n.CursorWAL)
	return n, err
}

// PushSize is how many bytes the frame of a pushed message has.
func PushSize() (int, error) {
	b, err := wire.Marshal(wire.Envelope{Body: &wire.Delivery{ChannelID: ids.New(), Seq: 1, Kind: wire.KindApplication, SenderAccountID: ids.New(),
		SenderDeviceID: ids.New(), DeliveryID: ids.New(), Payload: make([]byte, payloadSize())}})
	return len(b), err
}
