package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// A small batch takes one round trip instead of two when its channels are as this process left them: it is decided by
// the heads as they are remembered, and stored by a statement that stores nothing unless the database agrees. Where
// that does not hold, another process writes to the channel or a message is no new one, the batch takes two after all.

const (
	expressMost = 32   // Messages; of more, what they cost in any case outweighs a round trip.
	headsMost   = 4096 // Remembered.
)

// headCache remembers the heads of channels that this process wrote to. It is safe for concurrent use.
type headCache struct {
	mu    sync.Mutex
	heads map[ids.ID]remembered
}

// remembered is a head as a transaction of this process left it.
type remembered struct {
	head head
	sure bool // Nobody else had written between that transaction and the one before it: so it may go on.
}

// expect returns copies of the heads of channels, if all are expected to be as remembered.
func (c *headCache) expect(channels []ids.ID) (map[ids.ID]*head, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	heads := make(map[ids.ID]*head, len(channels))
	for _, id := range channels {
		r, ok := c.heads[id]
		if !ok || !r.sure {
			return nil, false
		}
		h := r.head
		h.before = h.lastSeq
		heads[id] = &h
	}
	return heads, true
}

// remember notes heads as a commit has left them.
func (c *headCache) remember(heads map[ids.ID]*head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heads == nil {
		c.heads = map[ids.ID]remembered{}
	}
	for id, h := range heads {
		if len(c.heads) >= headsMost {
			clear(c.heads)
		}
		before, known := c.heads[id]
		one := *h
		one.grown = false
		c.heads[id] = remembered{one, known && before.head.lastSeq == h.before}
	}
}

// forgetAll is for when the database may be another than before: one that was restored, or took over, may have given
// the versions that are remembered to rows of other content.
func (c *headCache) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heads = nil
}

func (c *headCache) forget(channels []ids.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range channels {
		delete(c.heads, id)
	}
}

// lockPlacesSQL locks heads where they are remembered to stand. One that stands elsewhere now is not locked, or another
// channel's for nothing; expressSQL finds out.
const lockPlacesSQL = `SELECT FROM channels WHERE ctid = ANY ($1) ORDER BY channel_id FOR NO KEY UPDATE`

// expressSQL moves heads and is storeSQL, under the condition that the heads have the places, versions and ends expected, and that
// exceptionsSQL would return nothing. The heads are locked before, by a statement of its own, so that this one sees what was
// committed meanwhile. A version is the transaction that made it: it alone would do, but that transactions are counted anew
// in a database that was restored, and after four billion of them. Therefore the end counts too, and with each new connection
// all is forgotten.
const expressSQL = `WITH ok AS MATERIALIZED (
		SELECT cardinality($13::uuid[]) = (SELECT count(*) FROM unnest($13::uuid[], $15::tid[], $16::bigint[], $19::bigint[]) AS n (id, place, version, seq)
			JOIN channels c ON c.ctid = n.place AND c.channel_id = n.id AND c.xmin::text::bigint = n.version AND c.last_seq = n.seq)
		AND NOT EXISTS (SELECT FROM unnest($3::uuid[], $1::uuid[], $4::uuid[], $12::timestamptz[]) AS n (sender_id, channel_id, delivery_id, id_time)` + exceptionsFrom + `$17 AND $18` + exceptionsWhere + `) AS yes),
	m AS (
		INSERT INTO messages (` + messageColumnNames + `)
		SELECT n.* FROM ` + messageRows + ` AS n, ok WHERE ok.yes),
	d AS (
		INSERT INTO delivery_ids (` + deliveryColumnNames + `)
		SELECT n.* FROM ` + deliveryRows + ` AS n, ok WHERE ok.yes)
	UPDATE channels c SET last_seq = n.seq FROM unnest($13::uuid[], $14::bigint[], $15::tid[]) AS n (id, seq, place), ok
		WHERE c.ctid = n.place AND c.channel_id = n.id AND ok.yes RETURNING c.channel_id, c.xmin::text::bigint, c.ctid`

// express stores the batch if everything is as expected. False without an error: nothing was stored.
func (t *appendTx) express(ctx context.Context, s *Store) (bool, error) {
	if len(t.batch) > expressMost || s.pooling == PoolingTransaction { // A pooler does not say when it connects anew.
		return false, nil
	}
	channels := t.channels()
	var ok bool
	if t.heads, ok = s.heads.expect(channels); !ok {
		return false, nil
	}
	t.earlier = make(map[deliveryKey]*Append, len(t.batch))
	expires := make([]time.Time, len(t.batch))
	for i, a := range t.batch {
		expires[i] = a.Message.ExpiresAt
	}
	t.decide()
	if len(t.fresh) < len(t.batch) {
		t.withdraw(expires)
		return false, nil
	}
	stored, err := t.storeIf(ctx, s)
	if err == nil && !stored {
		s.heads.forget(channels)
		t.withdraw(expires)
	}
	return stored, err
}

// withdraw takes back what was decided, for the batch to be decided anew.
func (t *appendTx) withdraw(expires []time.Time) {
	for _, a := range t.fresh {
		if a.Withdraw != nil {
			a.Withdraw()
		}
	}
	for i, a := range t.batch {
		a.Message.Seq, a.Message.ExpiresAt = 0, expires[i]
	}
	t.fresh = nil
}

// storeIf is read and write in one.
func (t *appendTx) storeIf(ctx context.Context, s *Store) (bool, error) {
	var b pgx.Batch // One transaction without a BEGIN and a COMMIT, which would cost a fifth more.
	first, last := t.span()
	heads, ends := grown(t.heads)
	n := len(heads)
	places, versions, before := newColumn(pgtype.TIDOID, n, placeSize), newColumn(pgtype.Int8OID, n, bigSize), newColumn(pgtype.Int8OID, n, bigSize)
	for _, id := range heads {
		places.tid(t.heads[id].place)
		versions.int8(t.heads[id].version)
		before.int8(int64(t.heads[id].before)) //nolint:gosec // below 2^63.
	}
	b.Queue(lockPlacesSQL, places)
	b.Queue(expressSQL, append(t.columns(), heads, ends, places, versions, first, last, before)...)
	results := t.conn.SendBatch(ctx, &b)
	defer results.Close() //nolint:errcheck // the last read returned the error.
	if _, err := results.Exec(); err != nil {
		return false, err
	}
	stored, err := t.readMoved(results)
	if err != nil {
		return false, err
	}
	if err := results.Close(); err != nil || stored == 0 { // With its end the batch is committed.
		return false, err
	}
	s.heads.remember(t.heads)
	return true, nil
}

// readMoved notes what became of the rows of the heads that were moved, and returns how many that are.
func (t *appendTx) readMoved(results pgx.BatchResults) (n int, err error) {
	rows, err := results.Query()
	if err != nil {
		return 0, err
	}
	var id ids.ID
	var version int64
	var place pgtype.TID
	_, err = pgx.ForEachRow(rows, []any{&id, &version, &place}, func() error {
		t.heads[id].version, t.heads[id].place = version, place
		n++
		return nil
	})
	return n, err
}
