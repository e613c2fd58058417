package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// Notice is what devices are told in their inboxes about an account.
type Notice struct {
	Account ids.ID
	Device  ids.ID // Which it is about, and which is not told; zero: the account as a whole.
	Others  bool   // The account's own devices are not told either.
	Payload []byte // wire.MarshalNotice's.
	At      time.Time
	Until   time.Time // Its retention's end.
}

// told are the devices that hear of an account: its own, but one, and those of the accounts with which it has a
// channel that has a group.
const told = `SELECT device_id FROM devices WHERE revoked_at IS NULL AND device_id IS DISTINCT FROM $2 AND (account_id = $1 AND NOT $3 OR account_id IN (
	SELECT other.account_id FROM channel_members mine JOIN channels c USING (channel_id) JOIN channel_members other USING (channel_id)
	WHERE mine.account_id = $1 AND other.account_id <> $1 AND c.generation > 0))`

func (n *Notice) told(ctx context.Context, tx pgx.Tx) ([]ids.ID, error) {
	rows, err := tx.Query(ctx, told, n.Account, n.Device, n.Others)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[ids.ID])
}

// queueNotices puts a notice into the inboxes of the account's other devices and of the devices of everybody whom it
// shares a channel with. It locks those inboxes and further channels, in the one order, and returns what is locked: nothing
// else in the transaction may lock channels, and devices and sessions are locked after them. The notices returned are
// stored once the transaction has committed, and may be announced then.
func (s *Store) queueNotices(ctx context.Context, tx pgx.Tx, b *pgx.Batch, n *Notice, further ...ids.ID) ([]*Message, map[ids.ID]*head, error) {
	inboxes, err := n.told(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	heads, err := lockHeads(ctx, tx, append(inboxes, further...))
	if err != nil {
		return nil, nil, err
	}
	if inboxes, err = n.told(ctx, tx); err != nil { // Whose inboxes are locked, and who was not revoked meanwhile.
		return nil, nil, err
	}
	var messages []Message
	for _, inbox := range inboxes {
		if _, locked := heads[inbox]; locked {
			messages = append(messages, n.to(inbox))
		}
	}
	queued, err := queueInto(b, heads, messages)
	return queued, heads, err
}

// queueInto stores messages behind the ends of their channels, which are locked, and returns them as they may be announced
// once the transaction has committed.
func queueInto(b *pgx.Batch, heads map[ids.ID]*head, messages []Message) ([]*Message, error) {
	if err := assignSeqs(heads, messages); err != nil {
		return nil, err
	}
	queueHeads(b, heads)
	queueMessages(b, messages)
	list := make([]*Message, len(messages))
	for i := range messages {
		list[i] = &messages[i]
	}
	return list, nil
}

// to is the notice as one device's delivery. The account's device is the sender, where there is one.
func (n *Notice) to(inbox ids.ID) Message {
	sender := n.Device
	if sender.IsZero() {
		sender = n.Account
	}
	return Message{ChannelID: inbox, Kind: MessageNotice, SenderAccount: n.Account, SenderID: sender,
		DeliveryID: ids.NewDelivery(n.At), AcceptedAt: n.At, ExpiresAt: n.Until, Payload: n.Payload}
}
