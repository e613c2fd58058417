package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ErrConflict says that a compare-and-set lost: somebody was first.
var ErrConflict = errors.New("somebody else was first")

// ChannelKind says what a channel is.
type ChannelKind int16

// The kinds, as stored.
const (
	ChannelDirect ChannelKind = 1
	ChannelGroup  ChannelKind = 2
	ChannelInbox  ChannelKind = 3 // Of the device with the same id.
)

// Channel is a row of channels.
type Channel struct {
	ID         ids.ID
	Kind       ChannelKind
	Generation uint32
	LastSeq    uint64
}

// DirectChannel returns the one channel between two accounts and makes it when there is none; what events make of its
// id is stored when it is made. ErrNotFound: one of the accounts is not there, or is being deleted.
func (s *Store) DirectChannel(ctx context.Context, a, b ids.ID, now time.Time, events ...func(channel ids.ID) audit.Event) (Channel, error) {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	c, err := s.directChannel(ctx, a, b)
	if !errors.Is(err, ErrNotFound) {
		return c, err
	}
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if err := bothThere(ctx, tx, a, b); err != nil {
			return err
		}
		id := ids.New()
		var batch pgx.Batch
		batch.Queue(`INSERT INTO channels (channel_id, kind, created_at) VALUES ($1, $2, $3)`, id, ChannelDirect, utc(now))
		batch.Queue(`INSERT INTO direct_channels (account_low, account_high, channel_id) VALUES ($1, $2, $3)`, a, b, id)
		batch.Queue(`INSERT INTO channel_members (channel_id, account_id) VALUES ($1, $2), ($1, $3)`, id, a, b)
		for _, e := range events {
			if err := r.queue(ctx, &batch, e(id)); err != nil {
				return err
			}
		}
		return r.send(ctx, &batch)
	})
	if err != nil && !errors.Is(err, ErrExists) { // Another opener was first: read theirs.
		return Channel{}, err
	}
	return s.directChannel(ctx, a, b)
}

// bothThere keeps two accounts from being deleted until the transaction ends. ErrNotFound: one of them is.
func bothThere(ctx context.Context, tx pgx.Tx, a, b ids.ID) error {
	tag, err := tx.Exec(ctx, `SELECT FROM accounts WHERE account_id IN ($1, $2) AND deleting_at IS NULL ORDER BY account_id FOR KEY SHARE`, a, b)
	if err == nil && tag.RowsAffected() != 2 {
		err = ErrNotFound
	}
	return err
}

func (s *Store) directChannel(ctx context.Context, low, high ids.ID) (Channel, error) {
	var c Channel
	err := s.pool.QueryRow(ctx, `SELECT c.channel_id, c.kind, c.generation, c.last_seq FROM direct_channels d JOIN channels c USING (channel_id)
		WHERE d.account_low = $1 AND d.account_high = $2`, low, high).Scan(&c.ID, &c.Kind, &c.Generation, &c.LastSeq)
	return c, classify(err)
}

// ChannelMembers returns the accounts of a channel; ErrNotFound when there is no such channel.
func (s *Store) ChannelMembers(ctx context.Context, channel ids.ID) ([]ids.ID, error) {
	rows, err := s.pool.Query(ctx, `SELECT account_id FROM channel_members WHERE channel_id = $1 ORDER BY account_id`, channel)
	if err != nil {
		return nil, classify(err)
	}
	members, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	if err == nil && len(members) == 0 {
		err = ErrNotFound
	}
	return members, classify(err)
}

// Group is a new generation of a channel.
type Group struct {
	ChannelID  ids.ID
	Generation uint32 // The channel's present one plus 1.
	Epoch      uint64
	GroupInfo  []byte
	Creator    ids.ID    // Device.
	Welcomes   []Message // In the inboxes of the other member devices; Seq is filled in.
	At         time.Time
}

// CreateGroup makes a generation with its Welcomes and cursors, in one transaction, and returns the channel's last
// sequence before the new generation. ErrConflict when the channel is no longer at the generation before; but the
// winner who asks again, with the same GroupInfo, is answered as the first time, and its Welcomes keep Seq 0. The events
// are stored with a generation that is made. ErrRevoked: one of the devices was revoked.
func (s *Store) CreateGroup(ctx context.Context, g *Group, events ...audit.Event) (start uint64, err error) {
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		devices := append(inboxes(g.Welcomes), g.Creator) // Their inboxes have the same ids.
		heads, err := lockHeads(ctx, tx, append(devices, g.ChannelID))
		if err != nil {
			return err
		}
		head, ok := heads[g.ChannelID]
		if !ok {
			return ErrNotFound
		}
		if head.closed {
			return ErrClosed
		}
		if g.Generation > head.generation+1 {
			return ErrConflict // There is none such, nor can it be made.
		}
		if g.Generation <= head.generation {
			start, err = s.earlierCreation(ctx, tx, g)
			return err
		}
		if err := allLive(ctx, tx, devices); err != nil { // Who revokes one holds its inbox.
			return err
		}
		start = head.lastSeq
		if err := assignSeqs(heads, g.Welcomes); err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(`UPDATE channels SET generation = $2, epoch = $3 WHERE channel_id = $1`, g.ChannelID, g.Generation, g.Epoch)
		b.Queue(`INSERT INTO groups (channel_id, generation, epoch, start_seq, group_info_sealed, creator_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			g.ChannelID, g.Generation, g.Epoch, start, s.sealer.seal("groups.group_info", ids.GroupID(g.ChannelID, g.Generation), g.GroupInfo), g.Creator, utc(g.At))
		b.Queue(`INSERT INTO cursors (device_id, channel_id, acked_seq) SELECT unnest($1::uuid[]), $2, $3 ON CONFLICT (device_id, channel_id) DO NOTHING`,
			devices, g.ChannelID, start)
		queueHeads(&b, heads)
		queueMessages(&b, g.Welcomes)
		return r.send(ctx, &b, events...)
	})
	return start, err
}

// allLive checks that devices are not revoked.
func allLive(ctx context.Context, tx pgx.Tx, devices []ids.ID) error {
	var live int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM devices WHERE device_id = ANY ($1) AND revoked_at IS NULL`, devices).Scan(&live)
	if err == nil && live != len(devices) {
		err = ErrRevoked
	}
	return err
}

// earlierCreation answers a repeated creation, and tells it from one that lost.
func (s *Store) earlierCreation(ctx context.Context, tx pgx.Tx, g *Group) (start uint64, err error) {
	var creator ids.ID
	var sealed []byte
	err = tx.QueryRow(ctx, `SELECT creator_id, group_info_sealed, start_seq FROM groups WHERE channel_id = $1 AND generation = $2`,
		g.ChannelID, g.Generation).Scan(&creator, &sealed, &start)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, ErrConflict
	}
	if err != nil {
		return 0, err
	}
	info, err := s.sealer.open("groups.group_info", ids.GroupID(g.ChannelID, g.Generation), sealed)
	if err != nil {
		return 0, err
	}
	if creator != g.Creator || !bytes.Equal(info, g.GroupInfo) {
		return 0, ErrConflict
	}
	return start, nil
}

// inboxes lists the channels of messages, each once.
func inboxes(messages []Message) []ids.ID {
	var list []ids.ID
	for i := range messages {
		if !slices.Contains(list, messages[i].ChannelID) {
			list = append(list, messages[i].ChannelID)
		}
	}
	return list
}
