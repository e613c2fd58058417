package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

type exportedMessage struct {
	Type       string      `json:"type"` // messageSent or inboxMessage
	ChannelID  ids.ID      `json:"channelId"`
	Seq        uint64      `json:"seq"`
	Kind       MessageKind `json:"kind"` // 1 application, 2 commit, 3 proposal, 4 Welcome, 5 notice.
	DeviceID   ids.ID      `json:"deviceId"`
	DeliveryID ids.ID      `json:"deliveryId"`
	About      *ids.ID     `json:"aboutChannelId,omitempty"`
	Generation uint32      `json:"generation"`
	AcceptedAt time.Time   `json:"acceptedAt"`
	ExpiresAt  time.Time   `json:"expiresAt"`
	Bytes      int         `json:"bytes"` // Of ciphertext, which its devices can read and the cell cannot.
}

const messageColumnsExported = `m.channel_id, m.seq, m.kind, m.sender_id, m.delivery_id, m.about_channel, m.generation, m.accepted_at, m.expires_at, octet_length(m.payload)`

func exportMessage(kind string) func(pgx.CollectableRow) (any, []byte, error) {
	return func(r pgx.CollectableRow) (any, []byte, error) {
		m := exportedMessage{Type: kind}
		err := r.Scan(&m.ChannelID, &m.Seq, &m.Kind, &m.DeviceID, &m.DeliveryID, &m.About, &m.Generation, &m.AcceptedAt, &m.ExpiresAt, &m.Bytes)
		return m, seqKey(m.ChannelID, m.Seq), err
	}
}

// sentLines are the messages that the account's devices have sent into its channels, some channels at a time.
func (x *exporting) sentLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	const atOnce = 50
	channel, seq := readSeqKey(key)
	lines, err := x.collect(ctx, exportLines, exportMessage("messageSent"), `SELECT `+messageColumnsExported+`
		FROM (SELECT channel_id FROM channel_members WHERE account_id = $1 AND channel_id >= $2 ORDER BY channel_id LIMIT $3) c
		CROSS JOIN LATERAL (SELECT * FROM messages WHERE channel_id = c.channel_id AND (c.channel_id > $2 OR seq > $4) AND sender_id = ANY ($5) AND expires_at > $6
			ORDER BY seq LIMIT $7) m ORDER BY m.channel_id, m.seq LIMIT $7`,
		x.account, channel, atOnce, seq, x.devices, x.now, exportLines)
	if err != nil || x.goOn != nil {
		return lines, err
	}
	var last *ids.ID // Of the channels that were looked at, if there may be others behind it.
	err = x.s.pool.QueryRow(ctx, `SELECT channel_id FROM channel_members WHERE account_id = $1 AND channel_id >= $2 ORDER BY channel_id OFFSET $3 - 1 LIMIT 1`,
		x.account, channel, atOnce).Scan(&last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return lines, nil
	case err == nil:
		x.goOn = seqKey(*last, 1<<63-1)
	}
	return lines, err
}

// inboxLines are what waits for the account's devices themselves.
func (x *exporting) inboxLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	channel, seq := readSeqKey(key)
	return x.collect(ctx, exportLines, exportMessage("inboxMessage"), `SELECT `+messageColumnsExported+` FROM messages m
		WHERE channel_id = ANY ($1) AND (channel_id, seq) > ($2, $3) AND expires_at > $4 ORDER BY channel_id, seq LIMIT $5`,
		x.devices, channel, seq, x.now, exportLines)
}
