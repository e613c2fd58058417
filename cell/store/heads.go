package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// ErrMuted says that the account may not write to the channel: the other one of a direct channel blocks it.
var ErrMuted = errors.New("the account may not write to this channel")

// EpochError says that a message belongs to another epoch of the channel's MLS group, or to another generation.
type EpochError struct {
	Generation uint32
	Epoch      uint64 // The present one.
	Seq        uint64 // Of the Commit that began it.
}

// Error implements error.
func (e *EpochError) Error() string {
	return fmt.Sprintf("the channel is at epoch %d of generation %d since sequence %d", e.Epoch, e.Generation, e.Seq)
}

// RemoveFirstError says that nothing is taken before a Commit that removes a revoked device.
type RemoveFirstError struct{ Device ids.ID }

// Error implements error.
func (e *RemoveFirstError) Error() string {
	return fmt.Sprintf("device %s was revoked and is in the group: a Commit must remove it first", e.Device)
}

func (h *head) epochError() *EpochError { return &EpochError{h.generation, h.epoch, h.epochSeq} }

// refusedBy judges a new message of the channel's generation by what the channel's row says, and notes the refusal.
func (a *Append) refusedBy(h *head) bool {
	m := &a.Message
	switch {
	case slices.Contains(h.muted, m.SenderAccount):
		a.Err = ErrMuted
	case !h.removeFirst.IsZero():
		a.Err = &RemoveFirstError{h.removeFirst}
	case m.Epoch != h.epoch:
		a.Err = h.epochError()
	}
	return a.Err != nil
}

// expire gives a message the retention of its channel, where that has one of its own.
func (h *head) expire(m *Message) {
	if h.retention > 0 {
		m.ExpiresAt = m.AcceptedAt.Add(h.retention)
	}
}

// queueRemoveFirst marks the channels in whose MLS groups devices are: until a Commit has removed them, nothing else is
// taken there. It is for the transaction that revokes them, and goes before the removal of their cursors. It locks the
// channels in the one order, unless they are locked already.
func queueRemoveFirst(b *pgx.Batch, devices ...ids.ID) {
	b.Queue(removeFirstSQL(""), devices)
}

// queueRemoveFirstIn is queueRemoveFirst for some of the channels.
func queueRemoveFirstIn(b *pgx.Batch, channels, devices []ids.ID) {
	b.Queue(removeFirstSQL("AND channel_id = ANY ($2)"), devices, channels)
}

func removeFirstSQL(where string) string {
	return `WITH mine AS (SELECT channel_id FROM channels WHERE channel_id IN (SELECT channel_id FROM cursors WHERE device_id = ANY ($1) AND until_seq IS NULL)
		AND NOT channel_id = ANY ($1) ` + where + ` AND generation > 0 AND closed_until IS NULL ORDER BY channel_id FOR NO KEY UPDATE)
		UPDATE channels c SET remove_first = ARRAY (SELECT unnest(c.remove_first) UNION SELECT k.device_id FROM cursors k
			WHERE k.channel_id = c.channel_id AND k.device_id = ANY ($1) AND k.until_seq IS NULL ORDER BY 1)
		FROM mine WHERE c.channel_id = mine.channel_id`
}
