package ours

import (
	"context"
	"fmt"
)

// fillChunk is how many rows one statement of Fill makes.
const fillChunk = 50_000

// Fill writes messages of other people, with their delivery ids, straight into the tables until there are so many in
// all: in the partitions that today's traffic goes to, of the size that it has, in the order in which it would come.
func (s *System) Fill(ctx context.Context, messages int) error {
	db, err := s.Database(ctx)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	var have int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM messages`).Scan(&have); err != nil {
		return err
	}
	for have < messages {
		n := min(fillChunk, messages-have)
		if _, err := db.Exec(ctx, fillSQL, have, n, payloadSize()); err != nil {
			return fmt.Errorf("filling the tables at %d: %w", have, err)
		}
		have += n
	}
	for _, sql := range []string{`ANALYZE messages, delivery_ids`, `CHECKPOINT`} { // As would be done in time.
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// fillSQL makes rows as of 1,000 channels with one sender each. What is not random repeats, and is not compressed.
const fillSQL = `WITH n AS MATERIALIZED (
		SELECT i, md5('channel ' || i % 1000)::uuid AS channel, md5('sender ' || i % 1000)::uuid AS sender,
			(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || substr('7' || md5(i::text), 1, 4) || '8' || substr(md5(i::text), 5, 15))::uuid AS delivery
		FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS i),
	m AS (INSERT INTO messages (channel_id, seq, expires_at, accepted_at, sender_id, delivery_id, generation, kind, checksum, payload)
		SELECT channel, i / 1000 + 1, now() + interval '7 days', now(), sender, delivery, 1, 1, decode(md5(i::text), 'hex'), decode(repeat('a5', $3::int), 'hex') FROM n)
	INSERT INTO delivery_ids (sender_id, delivery_id, id_time, channel_id, seq, accepted_at, fingerprint)
		SELECT sender, delivery, date_trunc('milliseconds', now()), channel, i / 1000 + 1, now(), decode(md5(i::text), 'hex') FROM n`

// payloadSize is that of every message here.
func payloadSize() int { return len(newTemplate([16]byte{}).bytes) }
