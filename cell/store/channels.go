package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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

// History is how long messages are kept that everybody has acknowledged.
type History int16

// The ways to keep them, as stored.
const (
	HistoryPolicy History = 0 // As the policy says.
	HistoryOn     History = 1 // Until their retention is over.
	HistoryOff    History = 2 // No longer.
)

// Channel is a row of channels, as an account sees it.
type Channel struct {
	ID         ids.ID
	Kind       ChannelKind
	Generation uint32
	Epoch      uint64
	LastSeq    uint64
	Retention  time.Duration // 0: as the policy says.
	History    History
	Role       Role
	Peer       ids.ID  // Of a direct channel: the other account.
	Contact    Contact // With the peer.
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
	var id ids.ID
	err := s.pool.QueryRow(ctx, `SELECT channel_id FROM direct_channels WHERE account_low = $1 AND account_high = $2`, low, high).Scan(&id)
	if err != nil {
		return Channel{}, classify(err)
	}
	return s.ChannelOf(ctx, low, id)
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
	ChannelID      ids.ID
	Generation     uint32 // The channel's present one plus 1.
	Epoch          uint64
	GroupInfo      []byte
	State          []byte // Its public state; nil: it is what GroupInfo shows.
	Creator        ids.ID // Device.
	CreatorAccount ids.ID
	Welcomes       []Message // In the inboxes of the other member devices; Seq is filled in.
	At             time.Time

	Base       *GroupHead // What it was judged by.
	Accounts   []ids.ID   // Of a group channel: who is in it from now on.
	VotesSince time.Time  // Votes from before count no more.
}

// QuorumError says that too few of a channel's accounts have voted for its next generation.
type QuorumError struct{ Votes, Needed int }

// Error implements error.
func (e *QuorumError) Error() string {
	return fmt.Sprintf("%d of the channel's accounts have voted for a new generation, it takes %d", e.Votes, e.Needed)
}

// Quorum is how many of a channel's accounts move it to its next generation: a majority, of a direct channel either one.
func Quorum(kind ChannelKind, members int) int {
	if kind == ChannelDirect {
		return 1
	}
	return members/2 + 1
}

// CreateGroup makes a generation with its Welcomes and cursors, in one transaction, and returns the channel's last
// sequence before the new generation. ErrConflict when the channel is no longer at the generation before; but the
// winner who asks again, with the same GroupInfo, is answered as the first time, and its Welcomes keep Seq 0. The events
// are stored with a generation that is made. ErrRevoked: one of the devices was revoked; *QuorumError: a generation after
// the first is not wanted by enough, the creator's account counting as a vote; ErrMoved: g.Base is old.
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
		if err := g.judge(ctx, tx); err != nil {
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
		s.queueGroup(&b, g, start, devices)
		queueHeads(&b, heads)
		queueMessages(&b, g.Welcomes)
		return r.send(ctx, &b, events...)
	})
	return start, err
}

// judge looks again at what g was judged by, now that nobody can change it.
func (g *Group) judge(ctx context.Context, tx pgx.Tx) error {
	now := &GroupHead{ID: g.ChannelID}
	if err := now.read(ctx, tx); err != nil {
		return err
	}
	if g.Base != nil && !maps.Equal(now.Members, g.Base.Members) {
		return ErrMoved
	}
	if g.Generation == 1 {
		return nil
	}
	votes, members, err := countVotes(ctx, tx, g.ChannelID, g.Generation, g.CreatorAccount, g.VotesSince)
	if err != nil {
		return err
	}
	if needed := Quorum(now.Kind, members); votes < needed {
		return &QuorumError{votes, needed}
	}
	return nil
}

// queueGroup makes the generation the channel's own: what was of the one before ends with it.
func (s *Store) queueGroup(b *pgx.Batch, g *Group, start uint64, devices []ids.ID) {
	row := ids.GroupID(g.ChannelID, g.Generation)
	var state []byte
	if g.State != nil {
		state = s.sealer.seal(statePlace, row, g.State)
	}
	b.Queue(`UPDATE channels SET generation = $2, epoch = $3, epoch_seq = $4, remove_first = NULL WHERE channel_id = $1`, g.ChannelID, g.Generation, g.Epoch, start)
	b.Queue(`INSERT INTO groups (channel_id, generation, epoch, start_seq, group_info_sealed, creator_id, created_at, state_sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		g.ChannelID, g.Generation, g.Epoch, start, s.sealer.seal(infoPlace, row, g.GroupInfo), g.Creator, utc(g.At), state)
	b.Queue(`DELETE FROM generation_votes WHERE channel_id = $1 AND generation <= $2`, g.ChannelID, g.Generation)
	b.Queue(`WITH mine AS (SELECT device_id FROM cursors WHERE channel_id = $1 AND NOT device_id = ANY ($2) AND until_seq IS NULL ORDER BY device_id FOR NO KEY UPDATE)
		UPDATE cursors k SET until_seq = $3 FROM mine WHERE k.device_id = mine.device_id AND k.channel_id = $1`, g.ChannelID, devices, start)
	queueBegin(b, g.ChannelID, devices, start)
	if g.Base == nil || g.Base.Kind != ChannelGroup {
		b.Queue(`UPDATE channels c SET muted = (SELECT nullif(array_remove(ARRAY[CASE WHEN t.low_blocks THEN t.account_high END, CASE WHEN t.high_blocks THEN t.account_low END], NULL), '{}')
			FROM direct_channels d JOIN contacts t USING (account_low, account_high) WHERE d.channel_id = c.channel_id) WHERE c.channel_id = $1`, g.ChannelID)
		return
	}
	b.Queue(`DELETE FROM channel_members WHERE channel_id = $1 AND NOT account_id = ANY ($2)`, g.ChannelID, g.Accounts)
	b.Queue(`INSERT INTO channel_members (channel_id, account_id, role, joined_at) SELECT $1, unnest($2::uuid[]), $3, $4 ON CONFLICT DO NOTHING`,
		g.ChannelID, g.Accounts, RoleMember, utc(g.At))
	queueSuccessor(b, g.ChannelID)
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
	info, err := s.sealer.open(infoPlace, ids.GroupID(g.ChannelID, g.Generation), sealed)
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
