package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

const (
	purgeChannels = 200  // Channels looked at by one call.
	purgeMessages = 5000 // Sequences of a channel passed by one statement.
)

// PurgeAcknowledged deletes, in some of the channels after one, the messages that every device in the channel's group
// has acknowledged, where the channel keeps no history, or byPolicy and the channel leaves it to the policy. Devices that were
// removed, or revoked, are not waited for. It returns the last channel it looked at; more is false when there are none after it.
func (s *Store) PurgeAcknowledged(ctx context.Context, after ids.ID, byPolicy bool) (last ids.ID, more bool, err error) {
	rows, err := s.pool.Query(ctx, `SELECT c.channel_id, c.purged_seq, (SELECT min(k.acked_seq) FROM cursors k JOIN devices d USING (device_id)
			WHERE k.channel_id = c.channel_id AND k.until_seq IS NULL AND d.revoked_at IS NULL) AS acked
		FROM channels c WHERE ($1::uuid IS NULL OR c.channel_id > $1) AND c.last_seq > c.purged_seq AND c.kind <> $2 AND (c.history = $3 OR c.history = $4 AND $5)
		ORDER BY c.channel_id LIMIT $6`, after, ChannelInbox, HistoryOff, HistoryPolicy, byPolicy, purgeChannels)
	if err != nil {
		return after, false, classify(err)
	}
	type row struct {
		channel       ids.ID
		purged, acked uint64
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x row, err error) {
		var acked *uint64
		err = r.Scan(&x.channel, &x.purged, &acked)
		if acked != nil {
			x.acked = *acked
		}
		return x, err
	})
	if err != nil {
		return after, false, classify(err)
	}
	for _, x := range found {
		for at := x.purged; at < x.acked; at += purgeMessages {
			if err := s.purge(ctx, x.channel, at, min(at+purgeMessages, x.acked)); err != nil {
				return after, false, err
			}
		}
		last = x.channel
	}
	return last, len(found) == purgeChannels, nil
}

// purge deletes a channel's messages after one sequence up to another, and notes how far it has come. A crash between two
// calls leaves nothing undone that the next round does not do.
func (s *Store) purge(ctx context.Context, channel ids.ID, after, upTo uint64) error {
	// Two statements: the channel's row is what everybody waits for who writes to it.
	if _, err := s.pool.Exec(ctx, `DELETE FROM messages WHERE channel_id = $1 AND seq > $2 AND seq <= $3`, channel, after, upTo); err != nil {
		return classify(err)
	}
	_, err := s.pool.Exec(ctx, `UPDATE channels SET purged_seq = $2 WHERE channel_id = $1 AND purged_seq < $2`, channel, upTo)
	return classify(err)
}
