package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

const (
	auditPruneMargin = 2 * laneIdle // A chain that has rested this long does not move again.
	prunePage        = 50           // Checkpoints whose rows one transaction removes.
)

// ErrNotOwner says that the audit log is pruned by the role that owns its tables, and by no other.
var ErrNotOwner = errors.New("the audit log is pruned by the database role that owns its tables")

// PruneAudit removes what checkpoints before a time have, but never the last checkpoint. It verifies that part first, and leaves it alone with a *audit.Fault when it
// does not verify; then it signs how far it goes, so that the rest can be verified, and removes. It returns the
// checkpoint up to which the log is pruned now, and how many rows it has removed. What it was kept from removing, the next call removes.
func (s *Store) PruneAudit(ctx context.Context, before, now time.Time) (upTo, removed uint64, err error) {
	if s.audit == nil {
		return 0, 0, errAuditIsOff
	}
	pruned, _, err := lastPruning(ctx, s.pool)
	if err != nil {
		return 0, 0, classify(err)
	}
	upTo, err = s.pruneUpTo(ctx, before)
	if err != nil {
		return 0, 0, err
	}
	if upTo > pruned {
		if err := s.recordPruning(ctx, upTo, now); err != nil {
			return pruned, 0, err
		}
	}
	upTo = max(upTo, pruned)
	removed, err = s.removePruned(ctx, upTo)
	return upTo, removed, err
}

// pruneUpTo finds the last checkpoint before a time that is not the last of all; 0 when there is none.
func (s *Store) pruneUpTo(ctx context.Context, before time.Time) (number uint64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT coalesce(max(number), 0) FROM audit_checkpoints
		WHERE at < $1 AND number < (SELECT max(number) FROM audit_checkpoints)`, utc(before)).Scan(&number)
	return number, classify(err)
}

// pruneVisitor verifies a log up to a checkpoint and remembers when its chains last moved.
type pruneVisitor struct {
	audit.Verifier
	upTo  uint64
	moved map[ids.ID]time.Time
	at    time.Time
}

func (v *pruneVisitor) File(f *audit.Filed) (*audit.Checkpoint, error) {
	if f.Number > v.upTo {
		return nil, ErrStopAudit
	}
	c, err := v.Verifier.File(f)
	if err == nil {
		v.at = c.At
	}
	return c, err
}

func (v *pruneVisitor) Row(r *audit.Row) error {
	if record, err := audit.DecodeRecord(r.Body); err == nil {
		v.moved[r.Writer] = record.At
	}
	return v.Verifier.Row(r)
}

func (s *Store) recordPruning(ctx context.Context, upTo uint64, now time.Time) error {
	v := &pruneVisitor{Verifier: audit.Verifier{Trust: s.audit.keys.Trust(), Keys: s.audit.keys, Cell: s.audit.cell.ID}, upTo: upTo, moved: map[ids.ID]time.Time{}}
	if err := s.VisitAudit(ctx, 0, v); err != nil {
		return err
	}
	report, err := v.Finish()
	if err != nil {
		return err
	}
	if report.Last.Number != upTo {
		return fmt.Errorf("checkpoint %d is gone since it was found; try again", upTo)
	}
	p := &audit.Pruned{Cell: s.audit.cell.ID, Checkpoint: upTo, Hash: report.Last.Hash, At: utc(now)}
	for _, h := range v.Heads() {
		var goesOn bool
		if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM audit_events WHERE writer = $1 AND seq > $2)`, h.Writer, h.Seq).Scan(&goesOn); err != nil {
			return classify(err)
		}
		if goesOn || v.moved[h.Writer].After(v.at.Add(-auditPruneMargin)) {
			p.Heads = append(p.Heads, h)
		}
	}
	slices.SortFunc(p.Heads, func(a, b audit.WriterHead) int { return a.Writer.Compare(b.Writer) })
	signed := s.audit.keys.SignPruned(p)
	_, err = s.pool.Exec(ctx, `INSERT INTO audit_prunings (checkpoint, at, body, public_key, signature) VALUES ($1, $2, $3, $4, $5)`,
		upTo, p.At, signed.Body, []byte(signed.Key), signed.Signature)
	return owner(err)
}

func owner(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: %w", ErrNotOwner, err)
	}
	return classify(err)
}

// removePruned removes what the last pruning covers, some checkpoints at a time. The heads of chains that may go on stay: they say where.
func (s *Store) removePruned(ctx context.Context, upTo uint64) (removed uint64, err error) {
	_, signed, err := lastPruning(ctx, s.pool)
	if err != nil || signed == nil {
		return 0, classify(err)
	}
	p, err := signed.Pruned(s.audit.keys.Trust())
	if err != nil {
		return 0, fmt.Errorf("the record of the last pruning: %w", err)
	}
	writers, seqs := make([]ids.ID, len(p.Heads)), make([]int64, len(p.Heads))
	for i, h := range p.Heads {
		writers[i], seqs[i] = h.Writer, int64(h.Seq) //nolint:gosec // as stored.
	}
	for {
		n, more, err := s.removePage(ctx, upTo, writers, seqs)
		if removed += n; err != nil || !more {
			return removed, err
		}
	}
}

func (s *Store) removePage(ctx context.Context, upTo uint64, writers []ids.ID, seqs []int64) (removed uint64, more bool, err error) {
	err = owner(pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{BeginQuery: begin}, func(tx pgx.Tx) error {
		var page *int64
		if err := tx.QueryRow(ctx, `SELECT max(number) FROM (SELECT number FROM audit_checkpoints WHERE number <= $1 ORDER BY number LIMIT $2) p`, upTo, prunePage).Scan(&page); err != nil {
			return err
		}
		if more = page != nil; !more {
			return nil
		}
		tag, err := tx.Exec(ctx, `DELETE FROM audit_events e USING audit_checkpoint_heads h WHERE h.number <= $1 AND e.writer = h.writer AND e.seq <= h.seq`, *page)
		if err != nil {
			return err
		}
		removed = uint64(tag.RowsAffected()) //nolint:gosec // not negative.
		var b pgx.Batch
		b.Queue(`DELETE FROM audit_checkpoint_heads h WHERE number <= $1
			AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::bigint[]) k (writer, seq) WHERE k.writer = h.writer AND k.seq = h.seq)`, *page, writers, seqs)
		b.Queue(`DELETE FROM audit_checkpoints WHERE number <= $1`, *page)
		return tx.SendBatch(ctx, &b).Close()
	}))
	return removed, more, err
}
