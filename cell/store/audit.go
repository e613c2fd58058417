package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// auditLog is this process's part in the audit log: the chains that it writes. A transaction takes a chain for itself
// until it has ended, so that no event waits for another's commit; there are as many chains as there ever were
// transactions at once.
type auditLog struct {
	keys *audit.Keys
	cell Cell

	mu      sync.Mutex
	process [12]byte // Random: the first part of each chain's writer id.
	lanes   uint32   // That were ever made: the second part.
	free    []*lane  // The last that was used is the first that is taken.

	subjects  keyCache[ids.ID, *audit.SubjectKey]
	addresses keyCache[int64, *audit.AddressKey]
}

// lane is one chain and how far it goes.
type lane struct {
	number uint32
	writer ids.ID
	head   audit.Head
	used   time.Time
}

// laneIdle is how long a chain may rest and still be gone on with. A chain that has rested for longer than
// auditPruneMargin can then never move again, which is what pruning relies on.
const laneIdle = 24 * time.Hour

var (
	errChainLost  = errors.New("the audit log no longer has the last row of this process's chain")
	errAuditIsOff = errors.New("this store keeps no audit log: EnableAudit was not called")
)

// EnableAudit begins to store events; until then they are dropped. Call it once, before anything else uses the store, and after Migrate.
func (s *Store) EnableAudit(ctx context.Context, keys *audit.Keys) error {
	cell, err := s.Cell(ctx)
	if err != nil {
		return err
	}
	l := &auditLog{keys: keys, cell: cell}
	rand.Read(l.process[:]) //nolint:errcheck // crypto/rand.Read never fails.
	s.audit = l
	return nil
}

// take returns a chain that nobody else writes.
func (l *auditLog) take(now time.Time) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		c := l.free[n-1]
		l.free = l.free[:n-1]
		if now.Sub(c.used) < laneIdle {
			return c
		}
		l.free = nil // Those below have rested longer.
	}
	l.lanes++
	c := &lane{number: l.lanes}
	copy(c.writer[:], l.process[:])
	binary.BigEndian.PutUint32(c.writer[len(l.process):], c.number)
	return c
}

func (l *auditLog) give(c *lane, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.used = now
	l.free = append(l.free, c)
}

// recording is the part of one transaction in the audit log.
type recording struct {
	s    *Store
	tx   pgx.Tx
	lane *lane
	head audit.Head // Of the lane once the transaction has committed.
	// Keys that the transaction stores, for the caches once it has.
	subjects  map[ids.ID]*audit.SubjectKey
	addresses map[int64]*audit.AddressKey
	lost      *audit.Event // What is told of the lane that was lost before this one.
}

// audited runs f in a transaction whose events f hands to the recording. When the audit log turns out to have lost
// the end of the chain, f is run once more, in a fresh chain that begins by saying so.
func (s *Store) audited(ctx context.Context, f func(tx pgx.Tx, r *recording) error) error {
	r := &recording{s: s}
	err := s.auditedOnce(ctx, r, f)
	if errors.Is(err, errChainLost) {
		event := audit.ChainLost(r.lane.number, r.lane.head.Seq)
		err = s.auditedOnce(ctx, &recording{s: s, lost: &event}, f)
	}
	return err
}

func (s *Store) auditedOnce(ctx context.Context, r *recording, f func(tx pgx.Tx, r *recording) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return classify(err)
	}
	defer conn.Release()
	stored := false // f has succeeded: what fails then is the commit.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: begin}, func(tx pgx.Tx) error {
		r.tx = tx
		err := f(tx, r)
		stored = err == nil
		return err
	})
	r.end(err, err != nil && (stored || conn.Conn().IsClosed())) // Asked while the connection is still this call's.
	return classify(err)
}

// end gives the chain back. One of which nobody knows whether the transaction reached it is left where it is, and so is one whose end was lost.
func (r *recording) end(err error, unknown bool) {
	if r.lane == nil || unknown || errors.Is(err, errChainLost) {
		return
	}
	if err == nil {
		r.lane.head = r.head
		for id, k := range r.subjects {
			r.s.audit.subjects.put(id, k)
		}
		for p, k := range r.addresses {
			r.s.audit.addresses.put(p, k)
		}
	}
	r.s.audit.give(r.lane, time.Now())
}

// queue adds the storing of events to a batch of r's transaction. Zero events are left out; without an audit log all are.
func (r *recording) queue(ctx context.Context, b *pgx.Batch, events ...audit.Event) error {
	l := r.s.audit
	if l == nil {
		return nil
	}
	var bodies [][]byte
	for i := range events {
		if events[i].Kind() == 0 {
			continue
		}
		e := events[i].From(ctx)
		body, err := r.body(ctx, b, &e)
		if err != nil {
			return err
		}
		bodies = append(bodies, body)
	}
	if len(bodies) == 0 {
		return nil
	}
	if err := r.begin(ctx, b, &bodies); err != nil {
		return err
	}
	r.insert(b, bodies)
	return nil
}

// begin takes a chain; a fresh one begins with rows of its own.
func (r *recording) begin(ctx context.Context, b *pgx.Batch, bodies *[][]byte) error {
	if r.lane != nil {
		return nil
	}
	r.lane = r.s.audit.take(time.Now())
	r.head = r.lane.head
	if r.head.Seq > 0 {
		return nil
	}
	first := []audit.Event{audit.ChainStarted(r.lane.number)}
	if r.lost != nil {
		first = append(first, *r.lost)
	}
	var all [][]byte
	for i := range first {
		body, err := r.body(ctx, b, &first[i])
		if err != nil {
			return err
		}
		all = append(all, body)
	}
	*bodies = append(all, *bodies...)
	return nil
}

// insertEvents adds rows only behind the row that this process believes to be the last, $1 and $2 − 1 with hash $3.
// PostgreSQL's own key keeps a chain from having two rows with one sequence.
const insertEvents = `INSERT INTO audit_events (writer, seq, prev_hash, body, hash, mac)
	SELECT $1, r.* FROM unnest($4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[]) r
	WHERE $2::bigint = 1 OR EXISTS (SELECT FROM audit_events WHERE writer = $1 AND seq = $2 - 1 AND hash = $3)`

func (r *recording) insert(b *pgx.Batch, bodies [][]byte) {
	l := r.s.audit
	n := len(bodies)
	seqs, prevs, hashes, macs := make([]int64, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	before := r.head
	for i, body := range bodies {
		row := l.keys.Next(l.cell.ID, r.lane.writer, r.head, body)
		seqs[i], prevs[i], hashes[i], macs[i] = int64(row.Seq), row.Prev[:], row.Hash[:], row.MAC[:] //nolint:gosec // far below 2⁶³.
		r.head = audit.Head{Seq: row.Seq, Hash: row.Hash}
	}
	q := b.Queue(insertEvents, r.lane.writer, seqs[0], before.Hash[:], seqs, prevs, bodies, hashes, macs)
	q.Exec(func(tag pgconn.CommandTag) error {
		if tag.RowsAffected() != int64(n) {
			return errChainLost
		}
		return nil
	})
}

// body makes the event's record, with what it needs of keys.
func (r *recording) body(ctx context.Context, b *pgx.Batch, e *audit.Event) ([]byte, error) {
	record, err := e.Record(time.Now(), &resolver{ctx: ctx, r: r, b: b})
	if err != nil {
		return nil, err
	}
	return record.Encode()
}

// send runs a batch of r's transaction with the storing of events at its end.
func (r *recording) send(ctx context.Context, b *pgx.Batch, events ...audit.Event) error {
	if err := r.queue(ctx, b, events...); err != nil || b.Len() == 0 {
		return err
	}
	return r.tx.SendBatch(ctx, b).Close()
}

// WriteAudit stores events that belong to no other transaction, in one of their own.
func (s *Store) WriteAudit(ctx context.Context, events ...audit.Event) error {
	if s.audit == nil {
		return nil
	}
	write := func(_ pgx.Tx, r *recording) error { return r.send(ctx, &pgx.Batch{}, events...) }
	switch lost, err := s.writeAtOnce(ctx, events); {
	case errors.Is(err, errNotCached):
		return s.audited(ctx, write)
	case lost != nil:
		return s.auditedOnce(ctx, &recording{s: s, lost: lost}, write)
	default:
		return err
	}
}

// errNotCached says that events need keys which only a transaction of several statements can find.
var errNotCached = errors.New("a key is not cached")

// writeAtOnce stores events by a single statement, which is its own transaction: one round trip instead of three. It
// returns the loss of the chain, if that was found.
func (s *Store) writeAtOnce(ctx context.Context, events []audit.Event) (lost *audit.Event, err error) {
	r := &recording{s: s}
	var b pgx.Batch
	if err = r.queue(ctx, &b, events...); err != nil || b.Len() == 0 {
		r.end(err, false)
		return nil, err
	}
	err = s.pool.SendBatch(ctx, &b).Close()
	var refused *pgconn.PgError
	r.end(err, err != nil && !errors.As(err, &refused)) // What PostgreSQL itself says has failed is not stored.
	if errors.Is(err, errChainLost) {
		e := audit.ChainLost(r.lane.number, r.lane.head.Seq)
		return &e, nil
	}
	return nil, classify(err)
}

// EndAuditChains writes the last row of each of this process's chains. Nothing may write events meanwhile.
func (s *Store) EndAuditChains(ctx context.Context) error {
	l := s.audit
	if l == nil {
		return nil
	}
	l.mu.Lock()
	free := l.free
	l.free = nil
	l.mu.Unlock()
	var errs []error
	for _, c := range free {
		if c.head.Seq == 0 {
			continue
		}
		err := s.tx(ctx, func(tx pgx.Tx) error {
			r := &recording{s: s, tx: tx, lane: c, head: c.head}
			return r.send(ctx, &pgx.Batch{}, audit.ChainEnded())
		})
		if !errors.Is(err, errChainLost) { // The next process's checkpoint finds that, if it was signed.
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
