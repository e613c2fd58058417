package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ErrMoved says that what a change was judged by has changed meanwhile: judge it again.
var ErrMoved = errors.New("the channel has changed meanwhile")

// Role is what an account may do in a channel.
type Role int16

// The roles, as stored. Those of a direct channel are all RoleMember.
const (
	RoleMember    Role = 1
	RoleModerator Role = 2
	RoleAdmin     Role = 3
)

// GroupHead is a channel's row with its members: what changes of its MLS group are judged by.
type GroupHead struct {
	ID          ids.ID
	Kind        ChannelKind
	Generation  uint32
	Epoch       uint64
	EpochSeq    uint64 // Of the Commit that began the epoch, or of the last message before the generation.
	Proposals   int    // That wait in this epoch.
	RemoveFirst []ids.ID
	Muted       []ids.ID
	Members     map[ids.ID]Role
}

// GroupHead reads a channel's head. ErrNotFound: there is no such channel.
func (s *Store) GroupHead(ctx context.Context, channel ids.ID) (*GroupHead, error) {
	h := &GroupHead{ID: channel}
	err := s.tx(ctx, func(tx pgx.Tx) error { return h.read(ctx, tx) })
	return h, err
}

func (h *GroupHead) read(ctx context.Context, tx pgx.Tx) error {
	var b pgx.Batch
	b.Queue(`SELECT c.kind, c.generation, c.epoch, greatest(c.epoch_seq, coalesce(g.start_seq, 0)), coalesce(g.proposals, 0), coalesce(c.remove_first, '{}'), coalesce(c.muted, '{}')
		FROM channels c LEFT JOIN groups g ON g.channel_id = c.channel_id AND g.generation = c.generation WHERE c.channel_id = $1 AND c.kind <> $2`, h.ID, ChannelInbox)
	b.Queue(`SELECT account_id, role FROM channel_members WHERE channel_id = $1`, h.ID)
	results := tx.SendBatch(ctx, &b)
	defer results.Close() //nolint:errcheck // the last read returned the error.
	if err := results.QueryRow().Scan(&h.Kind, &h.Generation, &h.Epoch, &h.EpochSeq, &h.Proposals, &h.RemoveFirst, &h.Muted); err != nil {
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	h.Members = map[ids.ID]Role{}
	var account ids.ID
	var role Role
	_, err = pgx.ForEachRow(rows, []any{&account, &role}, func() error {
		h.Members[account] = role
		return nil
	})
	return err
}

// EpochError says where the channel is.
func (h *GroupHead) EpochError() *EpochError { return &EpochError{h.Generation, h.Epoch, h.EpochSeq} }

// GroupState is the MLS group of one generation as the cell follows it.
type GroupState struct {
	Epoch     uint64
	Proposals int
	GroupInfo []byte
	State     []byte // Nil while it is what GroupInfo shows.
}

// GroupState reads the group of a channel's generation. ErrNotFound: there is none.
func (s *Store) GroupState(ctx context.Context, channel ids.ID, generation uint32) (*GroupState, error) {
	var g GroupState
	var info, state []byte
	err := s.pool.QueryRow(ctx, `SELECT epoch, proposals, group_info_sealed, state_sealed FROM groups WHERE channel_id = $1 AND generation = $2`,
		channel, generation).Scan(&g.Epoch, &g.Proposals, &info, &state)
	if err != nil {
		return nil, classify(err)
	}
	row := ids.GroupID(channel, generation)
	if g.GroupInfo, err = s.sealer.open(infoPlace, row, info); err != nil || state == nil {
		return &g, err
	}
	g.State, err = s.sealer.open(statePlace, row, state)
	return &g, err
}

// Where columns of groups are sealed.
const (
	infoPlace  = "groups.group_info"
	statePlace = "groups.state"
)

// Change is a Commit or a proposal to be stored with what follows from it, as it was judged against Base.
type Change struct {
	Base    *GroupHead
	Message Message // Kind, epoch, delivery id and all; Seq is filled in, and AcceptedAt for a duplicate.
	IDTime  time.Time
	State   []byte // The group's public state after it.

	// Of a Commit.
	GroupInfo []byte
	Welcomes  []Message // Seq is filled in.
	Adds      []ids.ID  // Devices that come into the group, the joiner of an external Commit among them.
	Removes   []ids.ID  // Devices that leave it.
	Joins     []ids.ID  // Accounts that become members of the channel.
	Leaves    []ids.ID  // Accounts that are members no more.
	Duplicate bool      // It was stored before: Message says where.
}

// EarlierChange looks a delivery id up, and reports whether it was stored. ErrDeliveryIDReused: with something else.
func (s *Store) EarlierChange(ctx context.Context, c *Change) (bool, error) {
	err := s.tx(ctx, func(tx pgx.Tx) error { return c.dedup(ctx, tx) })
	return c.Duplicate, err
}

func (c *Change) dedup(ctx context.Context, tx pgx.Tx) error {
	m := &c.Message
	var seq uint64
	var accepted time.Time
	var fingerprint []byte
	err := tx.QueryRow(ctx, `SELECT seq, accepted_at, fingerprint FROM delivery_ids WHERE sender_id = $1 AND delivery_id = $2 AND id_time = $3`,
		m.SenderID, m.DeliveryID, utc(c.IDTime)).Scan(&seq, &accepted, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if want := m.Fingerprint(); string(want[:]) != string(fingerprint) {
		return ErrDeliveryIDReused
	}
	c.Duplicate, m.Seq, m.AcceptedAt = true, seq, accepted
	return nil
}

// StoreChange stores a Commit or a proposal with all that follows from it, in one transaction, and events. A retry is
// answered as the first time, whatever has become of the channel. Else the epoch decides: *EpochError says that another
// Commit was first. *RemoveFirstError, ErrMuted, ErrRevoked, ErrClosed: as they say. ErrMoved: c.Base is old, judge again.
func (s *Store) StoreChange(ctx context.Context, c *Change, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		c.Duplicate = false
		// Whoever revokes a device holds its inbox, so the inboxes of those that come in are locked too.
		heads, err := lockHeads(ctx, tx, slices.Concat([]ids.ID{c.Base.ID, c.Message.SenderID}, c.Adds, inboxes(c.Welcomes)))
		if err != nil {
			return err
		}
		if err := c.dedup(ctx, tx); err != nil || c.Duplicate {
			return err
		}
		if err := c.judge(ctx, tx, heads[c.Base.ID]); err != nil {
			return err
		}
		return s.storeChange(ctx, r, c, heads, events)
	})
}

// judge looks again at what c was judged by, now that nobody can change it.
func (c *Change) judge(ctx context.Context, tx pgx.Tx, h *head) error {
	if h == nil {
		return ErrNotFound
	}
	if h.closed {
		return ErrClosed
	}
	now := &GroupHead{ID: c.Base.ID}
	if err := now.read(ctx, tx); err != nil {
		return err
	}
	m := &c.Message
	if now.Generation != m.Generation || now.Epoch != m.Epoch {
		return now.EpochError()
	}
	if slices.Contains(now.Muted, m.SenderAccount) {
		return ErrMuted
	}
	for _, d := range now.RemoveFirst {
		if !slices.Contains(c.Removes, d) {
			return &RemoveFirstError{d}
		}
	}
	if !maps.Equal(now.Members, c.Base.Members) || m.Kind == MessageProposal && now.Proposals != c.Base.Proposals {
		return ErrMoved
	}
	return allLive(ctx, tx, append([]ids.ID{m.SenderID}, c.Adds...))
}

// allLive checks that devices, whose inboxes are locked, are not revoked.
func allLive(ctx context.Context, tx pgx.Tx, devices []ids.ID) error {
	devices = slices.Clone(devices)
	slices.SortFunc(devices, ids.ID.Compare)
	devices = slices.Compact(devices)
	var live int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM devices WHERE device_id = ANY ($1) AND revoked_at IS NULL`, devices).Scan(&live)
	if err == nil && live != len(devices) {
		err = ErrRevoked
	}
	return err
}

func (s *Store) storeChange(ctx context.Context, r *recording, c *Change, heads map[ids.ID]*head, events []audit.Event) error {
	h, m := heads[c.Base.ID], &c.Message
	if len(c.Removes) > 0 {
		m.AboutChannel = c.Base.ID
	}
	h.expire(m)
	h.lastSeq++
	h.grown = true
	m.Seq = h.lastSeq
	if err := assignSeqs(heads, c.Welcomes); err != nil {
		return err
	}
	var b pgx.Batch
	queueHeads(&b, heads)
	queueMessages(&b, append([]Message{*m}, c.Welcomes...))
	sum := m.Fingerprint()
	b.Queue(`INSERT INTO delivery_ids (sender_id, delivery_id, id_time, channel_id, seq, accepted_at, fingerprint) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		m.SenderID, m.DeliveryID, utc(c.IDTime), m.ChannelID, m.Seq, utc(m.AcceptedAt), sum[:])
	row := ids.GroupID(c.Base.ID, m.Generation)
	state := s.sealer.seal(statePlace, row, c.State)
	if m.Kind == MessageProposal {
		b.Queue(`UPDATE groups SET proposals = proposals + 1, state_sealed = $3 WHERE channel_id = $1 AND generation = $2`, c.Base.ID, m.Generation, state)
		return r.send(ctx, &b, events...)
	}
	b.Queue(`UPDATE groups SET epoch = $3, proposals = 0, state_sealed = $4, group_info_sealed = $5 WHERE channel_id = $1 AND generation = $2`,
		c.Base.ID, m.Generation, m.Epoch+1, state, s.sealer.seal(infoPlace, row, c.GroupInfo))
	b.Queue(`UPDATE channels SET epoch = $2, epoch_seq = $3, remove_first = NULL WHERE channel_id = $1`, c.Base.ID, m.Epoch+1, m.Seq)
	c.queueReaders(&b)
	c.queueMembers(&b)
	return r.send(ctx, &b, events...)
}

// queueReaders lets those who were removed read up to the Commit, and those who were added from it on.
func (c *Change) queueReaders(b *pgx.Batch) {
	m := &c.Message
	gone := slices.DeleteFunc(slices.Clone(c.Removes), func(d ids.ID) bool { return slices.Contains(c.Adds, d) })
	if len(gone) > 0 {
		queueEnd(b, m.ChannelID, gone, m.Seq)
	}
	if len(c.Adds) > 0 {
		queueBegin(b, m.ChannelID, c.Adds, m.Seq)
	}
}

// queueEnd ends what devices may read of a channel after a sequence.
func queueEnd(b *pgx.Batch, channel ids.ID, devices []ids.ID, seq uint64) {
	b.Queue(`WITH mine AS (SELECT device_id FROM cursors WHERE channel_id = $1 AND device_id = ANY ($2) AND until_seq IS NULL ORDER BY device_id FOR NO KEY UPDATE)
		UPDATE cursors k SET until_seq = $3 FROM mine WHERE k.device_id = mine.device_id AND k.channel_id = $1`, channel, devices, seq)
}

// maxGaps is how often a device may be removed and come back, before it has read what is from before, and still read that.
const maxGaps = 256

// queueBegin lets devices read a channel after a sequence. One that reads it already goes on where it is. One that was removed, and
// has not read up to its removal, does that first.
func queueBegin(b *pgx.Batch, channel ids.ID, devices []ids.ID, seq uint64) {
	devices = slices.Clone(devices)
	slices.SortFunc(devices, ids.ID.Compare)
	b.Queue(`INSERT INTO cursors AS k (device_id, channel_id, acked_seq) SELECT unnest($1::uuid[]), $2, $3 ON CONFLICT (device_id, channel_id)
		DO UPDATE SET until_seq = NULL, acked_seq = CASE WHEN k.acked_seq < k.until_seq AND coalesce(cardinality(k.gaps), 0) < $4 THEN k.acked_seq ELSE excluded.acked_seq END,
			gaps = CASE WHEN k.acked_seq < k.until_seq AND coalesce(cardinality(k.gaps), 0) < $4 THEN coalesce(k.gaps, '{}') || ARRAY[k.until_seq, excluded.acked_seq] END
		WHERE k.until_seq IS NOT NULL`, devices, channel, seq, 2*maxGaps)
}

// queueMembers has the channel's members follow its group. A group that would be without an admin gets the one who has
// the highest role, or has been there longest.
func (c *Change) queueMembers(b *pgx.Batch) {
	if c.Base.Kind != ChannelGroup {
		return
	}
	if len(c.Joins) > 0 {
		b.Queue(`INSERT INTO channel_members (channel_id, account_id, role, joined_at) SELECT $1, unnest($2::uuid[]), $3, $4 ON CONFLICT DO NOTHING`,
			c.Base.ID, c.Joins, RoleMember, utc(c.Message.AcceptedAt))
	}
	if len(c.Leaves) > 0 {
		b.Queue(`DELETE FROM channel_members WHERE channel_id = $1 AND account_id = ANY ($2)`, c.Base.ID, c.Leaves)
		queueSuccessor(b, c.Base.ID)
	}
}

// queueSuccessor makes somebody a group's admin when nobody is left who is one. The two of a direct channel are none.
func queueSuccessor(b *pgx.Batch, channel ids.ID) {
	b.Queue(`UPDATE channel_members SET role = $2 WHERE channel_id = $1
		AND NOT EXISTS (SELECT FROM channel_members WHERE channel_id = $1 AND role = $2)
		AND EXISTS (SELECT FROM channels WHERE channel_id = $1 AND kind = $3)
		AND account_id = (SELECT account_id FROM channel_members WHERE channel_id = $1 ORDER BY role DESC, joined_at, account_id LIMIT 1)`, channel, RoleAdmin, ChannelGroup)
}

// GoneDevices returns those of the devices that are revoked or unknown.
func (s *Store) GoneDevices(ctx context.Context, devices []ids.ID) (map[ids.ID]bool, error) {
	live, err := s.DeviceAccounts(ctx, devices)
	if err != nil {
		return nil, err
	}
	gone := map[ids.ID]bool{}
	for _, d := range devices {
		if _, ok := live[d]; !ok {
			gone[d] = true
		}
	}
	return gone, nil
}

// LiveAccounts returns those of the accounts that have a device which is not revoked.
func (s *Store) LiveAccounts(ctx context.Context, accounts []ids.ID) (map[ids.ID]bool, error) {
	return queryMap[bool](ctx, s, `SELECT DISTINCT account_id, true FROM devices WHERE account_id = ANY ($1) AND revoked_at IS NULL`, accounts)
}

// VoteGeneration notes an account's vote for a channel's next generation with events, and returns how many of the
// channel's accounts have voted since a time, and how many it has. *EpochError: the channel is at another generation.
func (s *Store) VoteGeneration(ctx context.Context, channel ids.ID, generation uint32, account ids.ID, now, since time.Time, events ...audit.Event) (votes, members int, err error) {
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		heads, err := lockHeads(ctx, tx, []ids.ID{channel})
		if err != nil {
			return err
		}
		h, ok := heads[channel]
		if !ok {
			return ErrNotFound
		}
		if h.generation == 0 || generation != h.generation+1 {
			return h.epochError()
		}
		tag, err := tx.Exec(ctx, `INSERT INTO generation_votes (channel_id, generation, account_id, voted_at) SELECT $1, $2, $3, $4
			WHERE EXISTS (SELECT FROM channel_members WHERE channel_id = $1 AND account_id = $3)
			ON CONFLICT (channel_id, generation, account_id) DO UPDATE SET voted_at = excluded.voted_at`, channel, generation, account, utc(now))
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrNotFound // It left meanwhile.
		}
		if votes, members, err = countVotes(ctx, tx, channel, generation, ids.ID{}, since); err != nil {
			return err
		}
		return r.send(ctx, &pgx.Batch{}, events...)
	})
	return votes, members, err
}

// countVotes counts the channel's accounts, and those of them that have voted, or are voter.
func countVotes(ctx context.Context, tx pgx.Tx, channel ids.ID, generation uint32, voter ids.ID, since time.Time) (votes, members int, err error) {
	err = tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE v.voted_at > $4 OR m.account_id = $3), count(*) FROM channel_members m
		LEFT JOIN generation_votes v ON v.channel_id = m.channel_id AND v.account_id = m.account_id AND v.generation = $2 WHERE m.channel_id = $1`,
		channel, generation, voter, utc(since)).Scan(&votes, &members)
	return votes, members, err
}

// SweepGroups forgets the cursors of removed devices that have read what they may, or can read nothing more, and votes
// that count no longer.
func (s *Store) SweepGroups(ctx context.Context, now, votesBefore time.Time) error {
	return s.tx(ctx, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`WITH ended AS (SELECT device_id, channel_id FROM cursors k WHERE until_seq IS NOT NULL AND (acked_seq >= until_seq OR NOT EXISTS (SELECT FROM messages m
			WHERE m.channel_id = k.channel_id AND m.seq > k.acked_seq AND m.seq <= k.until_seq AND m.expires_at > $1)) ORDER BY device_id, channel_id LIMIT 1000 FOR UPDATE)
			DELETE FROM cursors k USING ended e WHERE k.device_id = e.device_id AND k.channel_id = e.channel_id`, utc(now))
		b.Queue(`DELETE FROM generation_votes WHERE voted_at <= $1`, utc(votesBefore))
		return tx.SendBatch(ctx, &b).Close()
	})
}
