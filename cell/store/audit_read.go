package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// AuditVisitor is shown an audit log in order. An error ends the visit and is returned by it; ErrStopAudit ends it well.
type AuditVisitor interface {
	// Pruned is shown first, if the log was pruned.
	Pruned(s *audit.Signed) error
	// File is shown a checkpoint, whose rows follow; it returns what is signed.
	File(f *audit.Filed) (*audit.Checkpoint, error)
	// Row is shown a row, valid after the call.
	Row(r *audit.Row) error
	// End follows the rows of a checkpoint.
	End() error
}

// AuditTail is an AuditVisitor that is also shown, at the end, what comes after the last checkpoint.
type AuditTail interface {
	AuditVisitor
	// Covered is where the last checkpoint that has the chain ends.
	Covered(writer ids.ID) (audit.Head, bool)
}

// ErrStopAudit ends a visit of the audit log before its end.
var ErrStopAudit = errors.New("stop")

const (
	auditPage = 20_000 // Rows that are asked for at once.
	filedPage = 64     // Checkpoints that are.
)

// VisitAudit shows a visitor the checkpoints after a number, 0 for all there are, each with its rows. All is as it is
// at one moment, however long it takes; nothing is held in memory but a page.
func (s *Store) VisitAudit(ctx context.Context, after uint64, v AuditVisitor) error {
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return visitAudit(ctx, tx, after, v)
	})
	if errors.Is(err, ErrStopAudit) {
		return nil
	}
	return classify(err)
}

func visitAudit(ctx context.Context, tx pgx.Tx, after uint64, v AuditVisitor) error {
	pruned, signed, err := lastPruning(ctx, tx)
	if err != nil {
		return err
	}
	if signed != nil && after <= pruned {
		if err := v.Pruned(signed); err != nil {
			return err
		}
		after = pruned
	}
	for {
		page, err := filedAfter(ctx, tx, after)
		if err != nil {
			return err
		}
		for i := range page {
			if err := visitCheckpoint(ctx, tx, &page[i], v); err != nil {
				return err
			}
			after = page[i].Number
		}
		if len(page) < filedPage {
			break
		}
	}
	tail, ok := v.(AuditTail)
	if !ok {
		return nil
	}
	if err := noCheckpointAfter(ctx, tx, after); err != nil {
		return err
	}
	return visitTail(ctx, tx, pruned, tail)
}

// noCheckpointAfter finds the traces of a last checkpoint that is gone.
func noCheckpointAfter(ctx context.Context, tx pgx.Tx, last uint64) error {
	var number uint64
	err := tx.QueryRow(ctx, `SELECT number FROM audit_checkpoint_heads WHERE number > $1 ORDER BY number LIMIT 1`, last).Scan(&number)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = &audit.Fault{Kind: audit.FaultMissingCheckpoint, Checkpoint: number, Detail: "it is not there, but audit_checkpoint_heads has it"}
	}
	return err
}

// lastPruning returns the checkpoint up to which the log was pruned, and the record of it; 0 and nil when it was not.
func lastPruning(ctx context.Context, q queryer) (uint64, *audit.Signed, error) {
	var number uint64
	var s audit.Signed
	err := q.QueryRow(ctx, `SELECT checkpoint, body, public_key, signature FROM audit_prunings ORDER BY checkpoint DESC LIMIT 1`).
		Scan(&number, &s.Body, &s.Key, &s.Signature)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, nil
	}
	return number, &s, err
}

func filedAfter(ctx context.Context, tx pgx.Tx, after uint64) ([]audit.Filed, error) {
	rows, err := tx.Query(ctx, `SELECT number, at, body, public_key, signature FROM audit_checkpoints WHERE number > $1 ORDER BY number LIMIT $2`, after, filedPage)
	if err != nil {
		return nil, err
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Filed, error) {
		var f audit.Filed
		err := row.Scan(&f.Number, &f.At, &f.Body, &f.Key, &f.Signature)
		return f, err
	})
	if err != nil || len(page) == 0 {
		return nil, err
	}
	return page, readHeads(ctx, tx, page)
}

// readHeads fills in what audit_checkpoint_heads says of the checkpoints.
func readHeads(ctx context.Context, tx pgx.Tx, page []audit.Filed) error {
	rows, err := tx.Query(ctx, `SELECT number, writer, seq, hash FROM audit_checkpoint_heads WHERE number BETWEEN $1 AND $2 ORDER BY number, writer, seq`,
		page[0].Number, page[len(page)-1].Number)
	if err != nil {
		return err
	}
	var number uint64
	var h audit.WriterHead
	var hash []byte
	i := 0
	_, err = pgx.ForEachRow(rows, []any{&number, &h.Writer, &h.Seq, &hash}, func() error {
		for page[i].Number < number {
			if i++; i == len(page) || page[i].Number > number {
				return &audit.Fault{Kind: audit.FaultMissingCheckpoint, Checkpoint: number, Detail: "it is not there, but audit_checkpoint_heads has it"}
			}
		}
		h.Hash = audit.Hash{}
		copy(h.Hash[:], hash)
		page[i].Heads = append(page[i].Heads, h)
		return nil
	})
	return err
}

func visitCheckpoint(ctx context.Context, tx pgx.Tx, f *audit.Filed, v AuditVisitor) error {
	c, err := v.File(f)
	if err != nil {
		return err
	}
	var pages pager
	for _, m := range c.Moves {
		for from := m.From.Seq; from < m.To.Seq; {
			to := min(m.To.Seq, from+auditPage-pages.rows)
			pages.add(m.Writer, from, to)
			if from = to; pages.rows == auditPage {
				if n, err := pages.read(ctx, tx, v); err != nil {
					return err
				} else if n == 0 { // What should be there is gone, or a forged checkpoint has no end.
					return v.End()
				}
			}
		}
	}
	if _, err := pages.read(ctx, tx, v); err != nil {
		return err
	}
	return v.End()
}

// pager gathers ranges of chains until they make a page.
type pager struct {
	writers  []ids.ID
	from, to []int64
	rows     uint64
}

func (p *pager) add(writer ids.ID, from, to uint64) {
	p.writers, p.from, p.to = append(p.writers, writer), append(p.from, int64(from)), append(p.to, int64(to)) //nolint:gosec // as stored.
	p.rows += to - from
}

// read shows the page's rows, says how many they are, and begins the next.
func (p *pager) read(ctx context.Context, tx pgx.Tx, v AuditVisitor) (n int, err error) {
	if len(p.writers) == 0 {
		return 0, nil
	}
	rows, err := tx.Query(ctx, `SELECT e.* FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS p (writer, after, upto, place)
		CROSS JOIN LATERAL (SELECT `+rowColumns+` FROM audit_events WHERE writer = p.writer AND seq > p.after AND seq <= p.upto) e ORDER BY p.place, e.seq`,
		p.writers, p.from, p.to)
	if err != nil {
		return 0, err
	}
	*p = pager{p.writers[:0], p.from[:0], p.to[:0], 0}
	return showRows(rows, v)
}

func showRows(rows pgx.Rows, v AuditVisitor) (n int, err error) {
	defer rows.Close()
	for ; rows.Next(); n++ {
		r, err := scanRow(rows)
		if err != nil {
			return n, err
		}
		if err := v.Row(&r); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

// visitTail shows the rows behind the last checkpoint, chain by chain. Of chains that a pruning ended, what it had no time to remove is
// passed over.
func visitTail(ctx context.Context, tx pgx.Tx, pruned uint64, v AuditTail) error {
	writer := ids.ID{}
	for {
		err := tx.QueryRow(ctx, `SELECT writer FROM audit_events WHERE writer > $1 ORDER BY writer LIMIT 1`, uuid(writer)).Scan(&writer)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		covered, known := v.Covered(writer)
		if !known && pruned > 0 {
			if err := tx.QueryRow(ctx, `SELECT coalesce(max(seq), 0) FROM audit_checkpoint_heads WHERE writer = $1 AND number <= $2`, writer, pruned).Scan(&covered.Seq); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, `SELECT `+rowColumns+` FROM audit_events WHERE writer = $1 AND seq > $2 ORDER BY seq`, writer, covered.Seq)
		if err != nil {
			return err
		}
		if _, err := showRows(rows, v); err != nil {
			return err
		}
	}
}

// uuid is an id that may be zero, where NULL would not do.
func uuid(id ids.ID) [16]byte { return id }

// AuditCheckpointBefore returns the number of the last checkpoint whose time is before t; 0 when there is none.
func (s *Store) AuditCheckpointBefore(ctx context.Context, t time.Time) (number uint64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(max(number), 0) FROM audit_checkpoints WHERE at < $1`, t).Scan(&number)
	return number, classify(err)
}
