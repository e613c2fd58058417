package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

const (
	checkpointLock  = 0x71707161756469 // Advisory lock: one process makes a checkpoint at a time.
	checkpointMoves = 4096             // Chains that one checkpoint has at most; the next has the others.
	checkpointRows  = 100_000          // Rows of one chain that it has at most.
)

// CheckpointAudit signs the rows that have come since the last checkpoint. Each is read and verified first: the signature
// says that the cell wrote it. A chain that does not verify is signed as far as it does, and reported. It returns nil
// when another process is at it, and a *audit.Fault when the last checkpoint itself is not the cell's.
func (s *Store) CheckpointAudit(ctx context.Context, now time.Time) (*audit.Progress, error) {
	return s.CheckpointAuditWhenDue(ctx, now, 0)
}

// CheckpointAuditWhenDue is CheckpointAudit if the last checkpoint is older than least. Else it only says which that is:
// of many processes that call it now and then, one makes a checkpoint at a time.
func (s *Store) CheckpointAuditWhenDue(ctx context.Context, now time.Time, least time.Duration) (*audit.Progress, error) {
	if s.audit == nil {
		return nil, nil //nolint:nilnil // There is no log.
	}
	p := &audit.Progress{}
	err := s.tx(ctx, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(checkpointLock)).Scan(&locked); err != nil || !locked {
			p = nil
			return err
		}
		return s.checkpoint(ctx, tx, now, least, p)
	})
	if errors.Is(err, ErrExists) { // Another process was at it when this transaction began.
		return nil, nil //nolint:nilnil // as documented.
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (s *Store) checkpoint(ctx context.Context, tx pgx.Tx, now time.Time, least time.Duration, p *audit.Progress) error {
	next := &audit.Checkpoint{Cell: s.audit.cell.ID, RestoreEpoch: s.audit.cell.RestoreEpoch, Number: 1, At: utc(now)}
	last, at, err := s.lastCheckpoint(ctx, tx)
	if err != nil {
		return err
	}
	if last != nil {
		next.Number, next.Prev = last.Number+1, last.Hash
		p.Before = *last
		if age := now.Sub(at); age >= 0 && age < least { // One of the future is by a clock that is wrong, and holds up nobody.
			return nil
		}
	}
	moves, err := movedChains(ctx, tx)
	if err != nil {
		return err
	}
	for _, m := range moves {
		if m.To.Seq < m.From.Seq {
			p.Faults = append(p.Faults, &audit.Fault{Kind: audit.FaultMissing, Writer: m.Writer, Seq: m.To.Seq + 1,
				Detail: fmt.Sprintf("it is not there, but audit_checkpoint_heads has the chain up to row %d", m.From.Seq)})
			continue
		}
		rows, fault, err := s.verifyMove(ctx, tx, &m)
		if err != nil {
			return err
		}
		if fault != nil {
			p.Faults = append(p.Faults, fault)
		}
		if rows > 0 {
			p.Rows += rows
			next.Moves = append(next.Moves, m)
		}
	}
	if len(next.Moves) == 0 {
		return nil
	}
	signed := s.audit.keys.Sign(next)
	p.Made = audit.Anchor{Number: next.Number, Hash: signed.Hash()}
	return storeCheckpoint(ctx, tx, next, &signed)
}

// lastCheckpoint returns the last checkpoint and its time; nil when there is none.
func (s *Store) lastCheckpoint(ctx context.Context, tx pgx.Tx) (*audit.Anchor, time.Time, error) {
	trust := s.audit.keys.Trust()
	var number uint64
	var last audit.Signed
	err := tx.QueryRow(ctx, `SELECT number, body, public_key, signature FROM audit_checkpoints ORDER BY number DESC LIMIT 1`).
		Scan(&number, &last.Body, &last.Key, &last.Signature)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	c, err := last.Checkpoint(trust)
	if err != nil || c.Number != number || c.Cell != s.audit.cell.ID {
		return nil, time.Time{}, &audit.Fault{Kind: audit.FaultForgedCheckpoint, Checkpoint: number, Detail: fmt.Sprintf("the log cannot go on from it, and nothing is signed any more: %v", err)}
	}
	return &audit.Anchor{Number: number, Hash: last.Hash()}, c.At, nil
}

// movedChains finds the chains that do not end where the checkpoints say: they go on, or, by a fault, end before. It
// visits each chain once, by its first row.
func movedChains(ctx context.Context, tx pgx.Tx) ([]audit.Move, error) {
	rows, err := tx.Query(ctx, `WITH RECURSIVE chains AS (
			(SELECT writer FROM audit_events ORDER BY writer LIMIT 1)
			UNION ALL SELECT (SELECT e.writer FROM audit_events e WHERE e.writer > c.writer ORDER BY e.writer LIMIT 1) FROM chains c WHERE c.writer IS NOT NULL
		)
		SELECT c.writer, e.seq, coalesce(h.seq, 0), coalesce(h.hash, ''::bytea)
		FROM chains c CROSS JOIN LATERAL (SELECT seq FROM audit_events WHERE writer = c.writer ORDER BY seq DESC LIMIT 1) e
		LEFT JOIN LATERAL (SELECT seq, hash FROM audit_checkpoint_heads WHERE writer = c.writer ORDER BY seq DESC LIMIT 1) h ON true
		WHERE c.writer IS NOT NULL AND e.seq <> coalesce(h.seq, 0) ORDER BY c.writer LIMIT $1`, checkpointMoves)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Move, error) {
		var m audit.Move
		var hash []byte
		err := row.Scan(&m.Writer, &m.To.Seq, &m.From.Seq, &hash)
		copy(m.From.Hash[:], hash)
		return m, err
	})
}

const rowColumns = `writer, seq, prev_hash, body, hash, mac`

func scanRow(row pgx.CollectableRow) (audit.Row, error) {
	var r audit.Row
	var prev, hash, mac []byte
	err := row.Scan(&r.Writer, &r.Seq, &prev, &r.Body, &hash, &mac)
	if err == nil && (len(prev) != len(r.Prev) || len(hash) != len(r.Hash) || len(mac) != len(r.MAC)) {
		err = &audit.Fault{Kind: audit.FaultEdited, Writer: r.Writer, Seq: r.Seq, Detail: "a hash or the MAC in it has another length"}
		return r, err
	}
	copy(r.Prev[:], prev)
	copy(r.Hash[:], hash)
	copy(r.MAC[:], mac)
	return r, err
}

// verifyMove reads a chain's new rows and sets m.To to the last that verifies and that follows all before. It returns how many rows that
// are, and why not all.
func (s *Store) verifyMove(ctx context.Context, tx pgx.Tx, m *audit.Move) (n uint64, fault *audit.Fault, err error) {
	rows, err := tx.Query(ctx, `SELECT `+rowColumns+` FROM audit_events WHERE writer = $1 AND seq > $2 ORDER BY seq LIMIT $3`, m.Writer, m.From.Seq, checkpointRows)
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	v := &audit.Verifier{Keys: s.audit.keys, Cell: s.audit.cell.ID}
	if m.From.Seq > 0 {
		v.Continue(audit.WriterHead{Writer: m.Writer, Head: m.From})
	}
	m.To = m.From
	for rows.Next() {
		r, err := scanRow(rows)
		if err == nil {
			err = v.Row(&r)
		}
		if errors.As(err, &fault) {
			return n, fault, nil
		}
		if err != nil {
			return 0, nil, err
		}
		n, m.To = n+1, audit.Head{Seq: r.Seq, Hash: r.Hash}
	}
	return n, nil, rows.Err()
}

func storeCheckpoint(ctx context.Context, tx pgx.Tx, c *audit.Checkpoint, signed *audit.Signed) error {
	writers, seqs, hashes := make([]ids.ID, len(c.Moves)), make([]int64, len(c.Moves)), make([][]byte, len(c.Moves))
	for i := range c.Moves {
		m := &c.Moves[i]
		writers[i], seqs[i], hashes[i] = m.Writer, int64(m.To.Seq), m.To.Hash[:] //nolint:gosec // far below 2⁶³.
	}
	var b pgx.Batch
	b.Queue(`INSERT INTO audit_checkpoints (number, at, body, public_key, signature) VALUES ($1, $2, $3, $4, $5)`,
		c.Number, c.At, signed.Body, []byte(signed.Key), signed.Signature)
	b.Queue(`INSERT INTO audit_checkpoint_heads (number, writer, seq, hash) SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::bytea[])`,
		c.Number, writers, seqs, hashes)
	return tx.SendBatch(ctx, &b).Close()
}
