package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// MessageKind says what a message's payload is.
type MessageKind int16

// The kinds, as stored.
const (
	MessageApplication MessageKind = 1
	MessageCommit      MessageKind = 2
	MessageProposal    MessageKind = 3
	MessageWelcome     MessageKind = 4
	MessageNotice      MessageKind = 5
)

// Message is a row of messages. Its fields do not change once it is stored, so it is shared between readers.
type Message struct {
	ChannelID               ids.ID
	Seq                     uint64
	Kind                    MessageKind
	Generation              uint32
	SenderAccount, SenderID ids.ID // SenderID is the device.
	DeliveryID              ids.ID
	Epoch                   uint64 // Of the group in which it was made; known of what is to be stored, not of what was read.
	AboutChannel            ids.ID // Of a Welcome; of a Commit that removed devices, its own channel; else zero.
	AcceptedAt, ExpiresAt   time.Time
	Payload                 []byte
	fingerprint             [fingerprintSize]byte
}

const fingerprintSize = 16

// Fingerprint is the first 16 bytes of SHA-256 over what makes two messages the same: channel, generation, kind,
// payload. It is the dedup fingerprint and, stored beside the row, the integrity check of its payload.
func (m *Message) Fingerprint() [fingerprintSize]byte {
	if m.fingerprint == ([fingerprintSize]byte{}) {
		h := sha256.New()
		h.Write(m.ChannelID[:])
		var fixed [6]byte
		binary.BigEndian.PutUint32(fixed[:], m.Generation)
		binary.BigEndian.PutUint16(fixed[4:], uint16(m.Kind)) //nolint:gosec // kinds are small.
		h.Write(fixed[:])
		h.Write(m.Payload)
		copy(m.fingerprint[:], h.Sum(nil))
	}
	return m.fingerprint
}

// head is what a channel's row says while its lock is held.
type head struct {
	generation  uint32
	epoch       uint64
	lastSeq     uint64
	epochSeq    uint64        // Of the Commit that began the epoch.
	retention   time.Duration // The channel's own; 0: the policy's.
	removeFirst ids.ID        // A revoked device that is in the group still; zero: there is none.
	muted       []ids.ID      // Accounts that may not write.
	closed      bool
	version     int64      // Of the row: the transaction that wrote it (xmin),
	place       pgtype.TID // and where it stands (ctid): as long as nobody else writes it can be found there, without its index.
	before      uint64     // LastSeq as AppendBatch found it, or expected it.
	grown       bool
}

// lockHeads locks the channels' rows, in one order everywhere, until the transaction ends: whoever holds the lock
// assigns the next sequences, so that sequence order is commit order.
func lockHeads(ctx context.Context, tx pgx.Tx, channels []ids.ID) (map[ids.ID]*head, error) {
	rows, err := tx.Query(ctx, lockHeadsSQL, channels)
	if err != nil {
		return nil, err
	}
	return collectHeads(rows)
}

const (
	lockHeadsSQL = `SELECT ` + headColumns + ` FROM channels WHERE channel_id = ANY ($1) ORDER BY channel_id FOR NO KEY UPDATE`
	headColumns  = `channel_id, generation, last_seq, closed_until IS NOT NULL, epoch, epoch_seq, coalesce(retention_sec, 0), remove_first[1], muted, xmin::text::bigint, ctid`
)

func collectHeads(rows pgx.Rows) (map[ids.ID]*head, error) {
	heads := map[ids.ID]*head{}
	var id ids.ID
	var h head
	var retention int64
	_, err := pgx.ForEachRow(rows, []any{&id, &h.generation, &h.lastSeq, &h.closed, &h.epoch, &h.epochSeq, &retention, &h.removeFirst, &h.muted, &h.version, &h.place}, func() error {
		one := h
		one.retention = time.Duration(retention) * time.Second
		heads[id] = &one
		h = head{} // What it points to belongs to one.
		return nil
	})
	return heads, err
}

// assignSeqs gives each message the next sequence of its channel.
func assignSeqs(heads map[ids.ID]*head, messages []Message) error {
	for i := range messages {
		h, ok := heads[messages[i].ChannelID]
		if !ok {
			return ErrNotFound
		}
		h.lastSeq++
		h.grown = true
		messages[i].Seq = h.lastSeq
	}
	return nil
}

func queueHeads(b *pgx.Batch, heads map[ids.ID]*head) {
	if channels, seqs := grown(heads); len(channels) > 0 {
		b.Queue(`UPDATE channels c SET last_seq = n.seq FROM unnest($1::uuid[], $2::bigint[]) AS n (id, seq) WHERE c.channel_id = n.id`, channels, seqs)
	}
}

// grown are the channels that have new messages, and their ends.
func grown(heads map[ids.ID]*head) (channels []ids.ID, seqs []int64) {
	for id, h := range heads {
		if h.grown {
			channels, seqs = append(channels, id), append(seqs, int64(h.lastSeq)) //nolint:gosec // below 2^63.
		}
	}
	return channels, seqs
}

func queueMessages(b *pgx.Batch, messages []Message) {
	if len(messages) == 0 {
		return
	}
	var c messageColumns
	for i := range messages {
		c.add(&messages[i])
	}
	b.Queue(`INSERT INTO messages (channel_id, seq, expires_at, accepted_at, sender_id, delivery_id, about_channel, generation, kind, checksum, payload)
		SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::uuid[], $7::uuid[], $8::int[], $9::smallint[], $10::bytea[], $11::bytea[])`,
		c.channels, c.seqs, c.expires, c.accepted, c.senders, c.deliveries, c.abouts, c.generations, c.kinds, c.checksums, c.payloads)
}

// messageColumns turns rows into the arrays that one statement inserts.
type messageColumns struct {
	channels, senders, deliveries, abouts []ids.ID
	seqs                                  []int64
	expires, accepted                     []time.Time
	generations                           []int32
	kinds                                 []int16
	checksums, payloads                   [][]byte
}

func (c *messageColumns) add(m *Message) {
	sum := m.Fingerprint()
	c.channels = append(c.channels, m.ChannelID)
	c.seqs = append(c.seqs, int64(m.Seq)) //nolint:gosec // below 2^63.
	c.expires = append(c.expires, utc(m.ExpiresAt))
	c.accepted = append(c.accepted, utc(m.AcceptedAt))
	c.senders = append(c.senders, m.SenderID)
	c.deliveries = append(c.deliveries, m.DeliveryID)
	c.abouts = append(c.abouts, m.AboutChannel)
	c.generations = append(c.generations, int32(m.Generation)) //nolint:gosec // generations are few.
	c.kinds = append(c.kinds, int16(m.Kind))
	c.checksums = append(c.checksums, sum[:])
	c.payloads = append(c.payloads, m.Payload)
}

// readSQL cuts the page by size where the rows are: a length is known without reading the payload.
const readSQL = `WITH page AS (SELECT * FROM messages WHERE channel_id = $1 AND seq > $2 AND expires_at > $3 ORDER BY seq LIMIT $4),
	sized AS (SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) AS total FROM page)
	SELECT m.seq, m.kind, m.generation, coalesce(d.account_id, m.sender_id), m.sender_id, m.delivery_id, m.about_channel,
	m.accepted_at, m.expires_at, m.checksum, m.payload, gone.account_sealed FROM sized m LEFT JOIN devices d ON d.device_id = m.sender_id
	LEFT JOIN departed_senders gone ON gone.device_id = m.sender_id AND d.device_id IS NULL
	WHERE m.total <= $5 OR m.total = octet_length(m.payload) ORDER BY m.seq`

// ReadMessages returns up to limit unexpired messages of a channel after a sequence, in order, and their total
// payload stays at or below maxBytes unless the first alone exceeds it. At a row that fails its check it stops, and
// returns what comes before that row together with ErrCorrupt.
func (s *Store) ReadMessages(ctx context.Context, channel ids.ID, after uint64, limit, maxBytes int, now time.Time) ([]*Message, error) {
	rows, err := s.pool.Query(ctx, readSQL, channel, after, utc(now), limit, maxBytes)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	var list []*Message
	for rows.Next() {
		m, err := s.scanMessage(rows, channel)
		if err != nil {
			return list, err
		}
		list = append(list, m)
	}
	return list, classify(rows.Err())
}

func (s *Store) scanMessage(rows pgx.Rows, channel ids.ID) (*Message, error) {
	m := &Message{ChannelID: channel}
	var sum, departed []byte
	if err := rows.Scan(&m.Seq, &m.Kind, &m.Generation, &m.SenderAccount, &m.SenderID, &m.DeliveryID, &m.AboutChannel,
		&m.AcceptedAt, &m.ExpiresAt, &sum, &m.Payload, &departed); err != nil {
		return nil, classify(err)
	}
	if departed != nil {
		var err error
		if m.SenderAccount, err = s.departed(m.SenderID, departed); err != nil {
			return nil, err
		}
	}
	if want := m.Fingerprint(); !bytes.Equal(sum, want[:]) {
		return nil, fmt.Errorf("%w: message %d of channel %s", ErrCorrupt, m.Seq, channel)
	}
	return m, nil
}

// Cursor is how far a device has acknowledged a channel.
type Cursor struct {
	ChannelID ids.ID
	AckedSeq  uint64
	LastSeq   uint64 // The channel's.
	Until     uint64 // The last that the device may read: it was removed from the group. 0: it is in the group.

	Generation uint32 // The channel's.

	// Gaps are pairs of sequences, in order: after one up to the other the device reads nothing, because it was not in the group.
	Gaps []uint64
}

// Cursors returns every channel that a device reads, its inbox first.
func (s *Store) Cursors(ctx context.Context, device ids.ID) ([]Cursor, error) {
	rows, err := s.pool.Query(ctx, `SELECT k.channel_id, k.acked_seq, c.last_seq, coalesce(k.until_seq, 0), c.generation, coalesce(k.gaps, '{}') FROM cursors k JOIN channels c USING (channel_id)
		WHERE k.device_id = $1 AND (k.until_seq IS NULL OR k.acked_seq < k.until_seq) ORDER BY k.channel_id <> $1, k.channel_id`, device)
	if err != nil {
		return nil, classify(err)
	}
	cursors, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Cursor])
	return cursors, classify(err)
}

// CursorOf returns how far a device has acknowledged one channel; ErrNotFound: it does not read that channel.
func (s *Store) CursorOf(ctx context.Context, device, channel ids.ID) (Cursor, error) {
	c := Cursor{ChannelID: channel}
	err := s.pool.QueryRow(ctx, `SELECT k.acked_seq, c.last_seq, coalesce(k.until_seq, 0), c.generation, coalesce(k.gaps, '{}') FROM cursors k JOIN channels c USING (channel_id)
		WHERE k.device_id = $1 AND k.channel_id = $2`, device, channel).Scan(&c.AckedSeq, &c.LastSeq, &c.Until, &c.Generation, &c.Gaps)
	return c, classify(err)
}

// ChannelCounts returns how many channels each of the devices reads.
func (s *Store) ChannelCounts(ctx context.Context, devices []ids.ID) (map[ids.ID]int, error) {
	return queryMap[int](ctx, s, `SELECT device_id, count(*) FROM cursors
		WHERE device_id = ANY ($1) AND (until_seq IS NULL OR acked_seq < until_seq) GROUP BY device_id`, devices)
}

// BeginSubscription counts a device's subscriptions, over all processes, and returns the number of this one. ErrNotFound: the
// device is revoked.
func (s *Store) BeginSubscription(ctx context.Context, device ids.ID) (number uint64, err error) {
	err = s.pool.QueryRow(ctx, `UPDATE devices SET subscription = subscription + 1 WHERE device_id = $1 AND revoked_at IS NULL RETURNING subscription`, device).Scan(&number)
	return number, classify(err)
}

// Subscriptions returns the number of each device's latest subscription.
func (s *Store) Subscriptions(ctx context.Context, devices []ids.ID) (map[ids.ID]uint64, error) {
	return queryMap[uint64](ctx, s, `SELECT device_id, subscription FROM devices WHERE device_id = ANY ($1)`, devices)
}

// LastSeqs returns the last sequence of each of the channels that exists.
func (s *Store) LastSeqs(ctx context.Context, channels []ids.ID) (map[ids.ID]uint64, error) {
	return queryMap[uint64](ctx, s, `SELECT channel_id, last_seq FROM channels WHERE channel_id = ANY ($1)`, channels)
}

// Ack is one device's cumulative acknowledgement of one channel.
type Ack struct {
	DeviceID, ChannelID ids.ID
	Seq                 uint64
}

// Acknowledge moves cursors forward, never back and never beyond the channel's end. It changes only rows that exist.
// It does not wait for the disk: a database that crashes may forget the last second's, and what they acknowledged is
// delivered again.
func (s *Store) Acknowledge(ctx context.Context, acks []Ack) error {
	slices.SortFunc(acks, func(a, b Ack) int { // One lock order everywhere.
		return cmp.Or(a.DeviceID.Compare(b.DeviceID), a.ChannelID.Compare(b.ChannelID))
	})
	n := len(acks)
	devices, channels, seqs := newColumn(pgtype.UUIDOID, n, ids.Size), newColumn(pgtype.UUIDOID, n, ids.Size), newColumn(pgtype.Int8OID, n, bigSize)
	for _, a := range acks {
		devices.id(a.DeviceID)
		channels.id(a.ChannelID)
		seqs.int8(int64(a.Seq)) //nolint:gosec // checked against the channel's end.
	}
	var b pgx.Batch // One transaction: what is sent together, without a BEGIN, is one.
	b.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	s.queueByIndex(&b)
	b.Queue(acknowledgeSQL, devices, channels, seqs)
	return classify(s.urgent.SendBatch(ctx, &b).Close())
}

// Rows are locked as they are updated, in the order of the arrays: with the plans that byIndexSQL leaves, each is looked up
// in turn. To lock them by a statement of their own first would cost another look, and an entry in the log, for each.
const acknowledgeSQL = `UPDATE cursors k SET acked_seq = least(a.seq, c.last_seq)
	FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS a (device_id, channel_id, seq) JOIN channels c ON c.channel_id = a.channel_id
	WHERE k.device_id = a.device_id AND k.channel_id = a.channel_id AND k.acked_seq < least(a.seq, c.last_seq)`
