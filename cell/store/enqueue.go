package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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

	Duplicate bool
	Err       error // ErrNotFound, ErrClosed, ErrOtherGeneration, ErrDeliveryIDReused or Admit's: this message was not stored.
}

// AppendBatch stores messages of any channels in one transaction and two round trips. An error means that nothing
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
	if err := t.read(ctx); err != nil {
		return classify(err)
	}
	t.decide()
	if err := t.write(ctx, s); err != nil {
		return classify(err)
	}
	done = true
	return nil
}

// deliveryKey is what a delivery id is unique within.
type deliveryKey struct{ sender, id ids.ID }

// appendTx is one AppendBatch.
type appendTx struct {
	batch   []*Append
	conn    *pgx.Conn
	heads   map[ids.ID]*head
	earlier map[deliveryKey]*Append // Already stored: Message.Seq, AcceptedAt and fingerprint.
	members map[deliveryKey]bool    // (device, channel) pairs that exist.
	fresh   []*Append
}

// read locks the heads, and then, seeing everything that was stored under earlier locks, reads the dedup rows and
// the cursors that grant the right to write.
func (t *appendTx) read(ctx context.Context) error {
	var channels, chanOf, senders, deliveries []ids.ID
	var times []time.Time
	for _, a := range t.batch {
		chanOf = append(chanOf, a.Message.ChannelID)
		senders, deliveries, times = append(senders, a.Message.SenderID), append(deliveries, a.Message.DeliveryID), append(times, utc(a.IDTime))
	}
	channels = slices.Clone(chanOf)
	slices.SortFunc(channels, ids.ID.Compare)
	channels = slices.Compact(channels)
	var b pgx.Batch
	b.Queue(begin)
	b.Queue(lockHeadsSQL, channels)
	b.Queue(`SELECT k.device_id, k.channel_id FROM cursors k JOIN (SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[])) AS n (device_id, channel_id)
		USING (device_id, channel_id)`, senders, chanOf)
	b.Queue(`SELECT i.sender_id, i.delivery_id, i.seq, i.accepted_at, i.fingerprint FROM delivery_ids i
		JOIN unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS n (sender_id, delivery_id, id_time) USING (sender_id, delivery_id, id_time)`, senders, deliveries, times)
	results := t.conn.SendBatch(ctx, &b)
	defer results.Close() //nolint:errcheck // the last read returned the error.
	if _, err := results.Exec(); err != nil {
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	if t.heads, err = collectHeads(rows); err != nil {
		return err
	}
	if err := t.readMembers(results); err != nil {
		return err
	}
	return t.readEarlier(results)
}

func (t *appendTx) readMembers(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	t.members = map[deliveryKey]bool{}
	var device, channel ids.ID
	_, err = pgx.ForEachRow(rows, []any{&device, &channel}, func() error {
		t.members[deliveryKey{device, channel}] = true
		return nil
	})
	return err
}

func (t *appendTx) readEarlier(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	t.earlier = map[deliveryKey]*Append{}
	var key deliveryKey
	var seq uint64
	var accepted time.Time
	var fingerprint []byte
	_, err = pgx.ForEachRow(rows, []any{&key.sender, &key.id, &seq, &accepted, &fingerprint}, func() error {
		a := &Append{Message: Message{Seq: seq, AcceptedAt: accepted}}
		copy(a.Message.fingerprint[:], fingerprint)
		t.earlier[key] = a
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
		case !known, !t.members[deliveryKey{m.SenderID, m.ChannelID}]:
			a.Err = ErrNotFound
		case seen && first.Message.Fingerprint() != m.Fingerprint():
			a.Err = ErrDeliveryIDReused
		case seen:
			a.Duplicate, m.Seq, m.AcceptedAt = true, first.Message.Seq, first.Message.AcceptedAt
		case h.closed:
			a.Err = ErrClosed
		case h.generation != m.Generation:
			a.Err = ErrOtherGeneration
		case !a.admitted():
		default:
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

func (t *appendTx) write(ctx context.Context, s *Store) error {
	var b pgx.Batch
	if len(t.fresh) > 0 {
		messages := make([]Message, len(t.fresh))
		for i, a := range t.fresh {
			messages[i] = a.Message
		}
		queueMessages(&b, messages)
		t.queueDeliveryIDs(&b)
		queueHeads(&b, t.heads)
	}
	b.Queue("COMMIT").Exec(committed)
	return t.conn.SendBatch(ctx, &b).Close()
}

// committed looks at what COMMIT did: of a transaction that has failed it makes a ROLLBACK, without an error.
func committed(tag pgconn.CommandTag) error {
	if tag.String() != "COMMIT" {
		return fmt.Errorf("%w: the commit ended as %s", ErrUnavailable, tag)
	}
	return nil
}

func (t *appendTx) queueDeliveryIDs(b *pgx.Batch) {
	// Sorted: two transactions that insert the same ids wait for each other in one order.
	slices.SortFunc(t.fresh, func(a, b *Append) int {
		return cmp.Or(a.Message.SenderID.Compare(b.Message.SenderID), a.Message.DeliveryID.Compare(b.Message.DeliveryID))
	})
	n := len(t.fresh)
	senders, deliveries, channels := make([]ids.ID, n), make([]ids.ID, n), make([]ids.ID, n)
	times, accepted := make([]time.Time, n), make([]time.Time, n)
	seqs, fingerprints := make([]int64, n), make([][]byte, n)
	for i, a := range t.fresh {
		m, sum := &a.Message, a.Message.Fingerprint()
		senders[i], deliveries[i], channels[i] = m.SenderID, m.DeliveryID, m.ChannelID
		times[i], accepted[i] = utc(a.IDTime), utc(m.AcceptedAt)
		seqs[i], fingerprints[i] = int64(m.Seq), sum[:] //nolint:gosec // below 2^63.
	}
	b.Queue(`INSERT INTO delivery_ids (sender_id, delivery_id, id_time, channel_id, seq, accepted_at, fingerprint)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[], $5::bigint[], $6::timestamptz[], $7::bytea[])`,
		senders, deliveries, times, channels, seqs, accepted, fingerprints)
}
