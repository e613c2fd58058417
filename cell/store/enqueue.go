package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// Errors of single messages in a batch, besides ErrNotFound (no such channel, or none the device may write to).
var (
	ErrOtherGeneration  = errors.New("the channel is at another generation")
	ErrDeliveryIDReused = errors.New("the delivery id was used for another message")
)

// Append is one message to store and, after AppendBatch, what became of it.
type Append struct {
	Message Message   // Seq and AcceptedAt are filled in; of the first when Duplicate.
	IDTime  time.Time // Of the delivery id.
	// Admit is asked when the message is found to be new and would be stored; its error becomes Err. When the batch is
	// tried again, so is Admit. Nil: it is stored.
	Admit func() error
	// Withdraw is called when Admit had let the message pass, and then it was found to be no new one after all. Nil:
	// there is nothing to take back.
	Withdraw func()

	Duplicate bool
	Err       error // ErrNotFound, ErrClosed, ErrOtherGeneration, ErrDeliveryIDReused, ErrMuted, *EpochError, *RemoveFirstError or Admit's: this message was not stored.
}

// AppendBatch stores messages of any channels in one transaction and at most three round trips, mostly one if they are
// few and else two. An error means that nothing
// was stored, as far as can be known; Append.Err concerns a single message. What it reports as stored is durable.
func (s *Store) AppendBatch(ctx context.Context, batch []*Append) error {
	conn, err := s.urgent.Acquire(ctx)
	if err != nil {
		return classify(err)
	}
	defer conn.Release()
	done := false
	defer func() {
		if !done {
			ctx, cancel := cleanup(ctx)
			defer cancel()
			_, _ = conn.Exec(ctx, "ROLLBACK") // A connection that cannot is closed by the pool.
		}
	}()
	t := &appendTx{batch: batch, conn: conn.Conn()}
	stored, err := t.express(ctx, s)
	if err == nil && !stored {
		err = t.inTwo(ctx, s)
	}
	done = err == nil
	return classify(err)
}

// inTwo reads what there is to know, decides, and writes.
func (t *appendTx) inTwo(ctx context.Context, s *Store) error {
	if err := t.read(ctx, s); err != nil {
		return err
	}
	t.decide()
	return t.write(ctx, s)
}

// deliveryKey is what a delivery id is unique within.
type deliveryKey struct{ sender, id ids.ID }

// appendTx is one AppendBatch.
type appendTx struct {
	batch     []*Append
	conn      *pgx.Conn
	heads     map[ids.ID]*head
	asked     map[ids.ID]uint64       // How many messages there are for each channel.
	earlier   map[deliveryKey]*Append // Already stored: Message.Seq, AcceptedAt and fingerprint.
	strangers map[deliveryKey]bool    // (device, channel) pairs without a cursor that grants the right to write.
	fresh     []*Append
}

// read moves the heads as far as all the batch would go, and with that locks them; and then, seeing everything that was
// stored under earlier locks, looks whose right to write is missing and what delivery ids were used before.
func (t *appendTx) read(ctx context.Context, s *Store) error {
	var b pgx.Batch
	b.Queue(begin)
	settings := s.queueByIndex(&b)
	t.queueMove(&b)
	t.queueExceptions(&b)
	results := t.conn.SendBatch(ctx, &b)
	defer results.Close() //nolint:errcheck // the last read returned the error.
	for range 1 + settings {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	if t.heads, err = collectHeads(rows); err != nil {
		return err
	}
	for id, h := range t.heads {
		h.lastSeq -= t.asked[id]
		h.before = h.lastSeq
	}
	return t.readExceptions(results)
}

// moveSQL moves heads, and says what they are then. Each is looked up in turn, in the order of the arrays, and locked as it
// is moved. Nearly always all of a batch is stored, and so this is all that is written of a head.
const moveSQL = `UPDATE channels SET last_seq = last_seq + n.messages FROM unnest($1::uuid[], $2::bigint[]) AS n (id, messages) WHERE channel_id = n.id RETURNING ` + headColumns

func (t *appendTx) queueMove(b *pgx.Batch) {
	channels := t.channels()
	t.asked = make(map[ids.ID]uint64, len(channels))
	for _, a := range t.batch {
		t.asked[a.Message.ChannelID]++
	}
	all, messages := newColumn(pgtype.UUIDOID, len(channels), ids.Size), newColumn(pgtype.Int8OID, len(channels), bigSize)
	for _, id := range channels {
		all.id(id)
		messages.int8(int64(t.asked[id])) //nolint:gosec // batches are small.
	}
	b.Queue(moveSQL, all, messages)
}

// channels are those of the batch, in the order in which they are locked.
func (t *appendTx) channels() []ids.ID {
	all := make([]ids.ID, len(t.batch))
	for i, a := range t.batch {
		all[i] = a.Message.ChannelID
	}
	slices.SortFunc(all, ids.ID.Compare)
	return slices.Compact(all)
}

// exceptionsSQL finds the messages whose sender may not write to the channel, and those whose delivery id was used
// before; of all the others, which are nearly all, it returns nothing. Each costs two looks into an index. The span of
// the ids' times, which says no more than the times themselves, is known before the first: other days' partitions are
// left alone.
const (
	exceptionsSQL = `SELECT n.sender_id, n.channel_id, n.delivery_id, k.device_id IS NULL, coalesce(i.seq, 0), i.accepted_at, i.fingerprint
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS n (sender_id, channel_id, delivery_id, id_time)` + exceptionsFrom + `$5 AND $6` + exceptionsWhere
	exceptionsFrom = `
	LEFT JOIN cursors k ON k.device_id = n.sender_id AND k.channel_id = n.channel_id AND k.until_seq IS NULL
	LEFT JOIN LATERAL (SELECT d.seq, d.accepted_at, d.fingerprint FROM delivery_ids d
		WHERE d.sender_id = n.sender_id AND d.delivery_id = n.delivery_id AND d.id_time = n.id_time AND d.id_time BETWEEN `
	exceptionsWhere = ` OFFSET 0) AS i ON true WHERE k.device_id IS NULL OR i.seq IS NOT NULL`
)

func (t *appendTx) queueExceptions(b *pgx.Batch) {
	n := len(t.batch)
	senders, channels, deliveries := newColumn(pgtype.UUIDOID, n, ids.Size), newColumn(pgtype.UUIDOID, n, ids.Size), newColumn(pgtype.UUIDOID, n, ids.Size)
	times := newColumn(pgtype.TimestamptzOID, n, timeSize)
	for _, a := range t.batch {
		m := &a.Message
		senders.id(m.SenderID)
		channels.id(m.ChannelID)
		deliveries.id(m.DeliveryID)
		times.time(a.IDTime)
	}
	first, last := t.span()
	b.Queue(exceptionsSQL, senders, channels, deliveries, times, first, last)
}

// span is the first and the last of the delivery ids' times.
func (t *appendTx) span() (first, last time.Time) {
	first, last = t.batch[0].IDTime, t.batch[0].IDTime
	for _, a := range t.batch {
		if a.IDTime.Before(first) {
			first = a.IDTime
		}
		if a.IDTime.After(last) {
			last = a.IDTime
		}
	}
	return utc(first), utc(last)
}

func (t *appendTx) readExceptions(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	t.earlier, t.strangers = make(map[deliveryKey]*Append, len(t.batch)), map[deliveryKey]bool{}
	var sender, channel, delivery ids.ID
	var stranger bool
	var seq uint64
	var accepted *time.Time
	var fingerprint []byte
	_, err = pgx.ForEachRow(rows, []any{&sender, &channel, &delivery, &stranger, &seq, &accepted, &fingerprint}, func() error {
		if stranger {
			t.strangers[deliveryKey{sender, channel}] = true
		}
		if seq > 0 {
			a := &Append{Message: Message{Seq: seq, AcceptedAt: *accepted}}
			copy(a.Message.fingerprint[:], fingerprint)
			t.earlier[deliveryKey{sender, delivery}] = a
		}
		return nil
	})
	return err
}

// decide gives every message its sequence, its duplicate's, or its error. Dedup comes first: a retry is answered
// even when the channel has moved on since.
func (t *appendTx) decide() {
	for _, a := range t.batch {
		a.Duplicate, a.Err = false, nil // It may have been in a batch that failed.
		m := &a.Message
		key := deliveryKey{m.SenderID, m.DeliveryID}
		h, known := t.heads[m.ChannelID]
		first, seen := t.earlier[key]
		switch {
		case !known, t.strangers[deliveryKey{m.SenderID, m.ChannelID}]:
			a.Err = ErrNotFound
		case seen && first.Message.Fingerprint() != m.Fingerprint():
			a.Err = ErrDeliveryIDReused
		case seen:
			a.Duplicate, m.Seq, m.AcceptedAt = true, first.Message.Seq, first.Message.AcceptedAt
		case h.closed:
			a.Err = ErrClosed
		case h.generation != m.Generation:
			a.Err = ErrOtherGeneration
		case a.refusedBy(h):
		case !a.admitted():
		default:
			h.expire(m)
			h.lastSeq++
			h.grown = true
			m.Seq = h.lastSeq
			m.Fingerprint() // Once, before the message is copied.
			t.earlier[key] = a
			t.fresh = append(t.fresh, a)
		}
	}
}

// admitted asks Admit, and notes its refusal.
func (a *Append) admitted() bool {
	if a.Admit != nil {
		a.Err = a.Admit()
	}
	return a.Err == nil
}

// write stores what is to be stored, and moves heads back that were moved too far.
func (t *appendTx) write(ctx context.Context, s *Store) error {
	var b pgx.Batch
	if len(t.fresh) > 0 {
		b.Queue(storeSQL, t.columns()...)
	}
	back := t.tooFar()
	queueHeads(&b, back)
	b.Queue("COMMIT").Exec(committed)
	if err := t.conn.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	s.heads.forget(slices.Collect(maps.Keys(back))) // Written once more, they stand elsewhere now.
	maps.DeleteFunc(t.heads, func(id ids.ID, _ *head) bool { return back[id] != nil })
	s.heads.remember(t.heads)
	return nil
}

// tooFar are the heads of channels of which not all messages are stored.
func (t *appendTx) tooFar() map[ids.ID]*head {
	heads := map[ids.ID]*head{}
	for id, h := range t.heads {
		if h.lastSeq < h.before+t.asked[id] {
			h.grown = true // In the database it was.
			heads[id] = h
		}
	}
	return heads
}

// committed looks at what COMMIT did: of a transaction that has failed it makes a ROLLBACK, without an error.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return fmt.Errorf("%w: the commit ended as %s", ErrUnavailable, tag)
	}
	return nil
}

// storeSQL stores messages with their delivery ids. The heads have been moved.
const storeSQL = `WITH m AS (
		INSERT INTO messages (` + messageColumnNames + `) SELECT * FROM ` + messageRows + `)
	INSERT INTO delivery_ids (` + deliveryColumnNames + `) SELECT * FROM ` + deliveryRows

// The parameters of storeSQL, which the two tables share as far as they have the same columns.
const (
	messageColumnNames = `channel_id, seq, sender_id, delivery_id, accepted_at, checksum, about_channel, expires_at, generation, kind, payload`
	messageRows        = `unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::bytea[], $7::uuid[], $8::timestamptz[], $9::int[], $10::smallint[], $11::bytea[])`

	deliveryColumnNames = `channel_id, seq, sender_id, delivery_id, accepted_at, fingerprint, id_time`
	deliveryRows        = `unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::bytea[], $12::timestamptz[])`
)

const (
	intSize, smallSize, bigSize = 4, 2, 8
	timeSize                    = bigSize
	placeSize                   = 6
)

// columns makes the parameters of storeSQL.
func (t *appendTx) columns() []any {
	// Sorted: two transactions that insert the same delivery ids wait for each other in one order.
	slices.SortFunc(t.fresh, func(a, b *Append) int {
		return cmp.Or(a.Message.SenderID.Compare(b.Message.SenderID), a.Message.DeliveryID.Compare(b.Message.DeliveryID))
	})
	n, payload := len(t.fresh), 0
	for _, a := range t.fresh {
		payload += len(a.Message.Payload)
	}
	id := func() *column { return newColumn(pgtype.UUIDOID, n, ids.Size) }
	at := func() *column { return newColumn(pgtype.TimestamptzOID, n, timeSize) }
	channels, senders, deliveries, abouts := id(), id(), id(), id()
	accepted, expires, times := at(), at(), at()
	seqs, generations, kinds := newColumn(pgtype.Int8OID, n, bigSize), newColumn(pgtype.Int4OID, n, intSize), newColumn(pgtype.Int2OID, n, smallSize)
	sums, payloads := newColumn(pgtype.ByteaOID, n, fingerprintSize), newColumn(pgtype.ByteaOID, n, payload/n+1)
	for _, a := range t.fresh {
		m, sum := &a.Message, a.Message.Fingerprint()
		channels.id(m.ChannelID)
		senders.id(m.SenderID)
		deliveries.id(m.DeliveryID)
		abouts.id(m.AboutChannel)
		accepted.time(m.AcceptedAt)
		expires.time(m.ExpiresAt)
		times.time(a.IDTime)
		seqs.int8(int64(m.Seq))               //nolint:gosec // below 2^63.
		generations.int4(int32(m.Generation)) //nolint:gosec // generations are few.
		kinds.int2(int16(m.Kind))
		sums.bytes(sum[:])
		payloads.bytes(m.Payload)
	}
	return []any{channels, seqs, senders, deliveries, accepted, sums, abouts, expires, generations, kinds, payloads, times}
}
