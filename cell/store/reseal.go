package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	resealLock   = 0x7170717265736561 // Advisory lock: one process at a time seals anew.
	resealBlocks = 32                 // Pages per transaction: some hundred rows.
)

// Resealed is what a call of Reseal did.
type Resealed struct {
	Rows    int64    // Sealed anew.
	Retired []uint32 // Keys that nothing is under any more: they may be dropped from the file.
}

// Reseal seals what is under other keys anew under the key that seals now, at most rate values a second (0: as fast as
// it goes), and returns when there is no more. It reads every sealed value's beginning; but only while other keys are in
// use. It may be cut off at any moment and goes on where it was: what is done is done. One process at a time does it; for others
// there is nothing to do.
func (s *Store) Reseal(ctx context.Context, rate int) (Resealed, error) {
	var done Resealed
	begun, others, err := s.otherKeys(ctx)
	if err != nil || len(others) == 0 {
		return done, err
	}
	unlock, locked, err := s.tryLock(ctx, resealLock)
	if err != nil || !locked {
		return done, err
	}
	defer unlock()
	pace := newPace(rate)
	for _, c := range sealedColumns {
		n, err := s.resealColumn(ctx, c, pace)
		done.Rows += n
		if err != nil {
			return done, fmt.Errorf("%s: %w", c.place, err)
		}
	}
	done.Retired, err = s.retireKeys(ctx, begun, others)
	return done, err
}

// otherKeys are those in use besides the one that seals, and the database's time.
func (s *Store) otherKeys(ctx context.Context) (now time.Time, others []int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT clock_timestamp(), coalesce(array_agg(key_id), '{}') FROM sealing_keys WHERE key_id <> $1`, int64(s.sealer.current.Load())).Scan(&now, &others)
	return now, others, classify(err)
}

// resealColumn goes through a table's pages as they lie on disk. A row that others move to where this has been is missed:
// the count at the end finds it, and the next call seals it.
func (s *Store) resealColumn(ctx context.Context, c sealedColumn, pace *pace) (n int64, err error) {
	blocks, err := s.blocks(ctx, c.table)
	for at := int64(0); at < blocks && err == nil; at += resealBlocks {
		var rows int64
		if rows, err = s.resealBlocks(ctx, c, at); err == nil {
			n += rows
			err = classify(pace.wait(ctx, int(rows)))
		}
	}
	return n, err
}

// blocks is how many pages a table has.
func (s *Store) blocks(ctx context.Context, table string) (n int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint`, table).Scan(&n)
	return n, classify(err)
}

// sealedValue is a sealed value, where it lies, and the bytes of its row.
type sealedValue struct {
	At          string
	Row, Sealed []byte
}

// resealBlocks seals anew what is in some pages. A row that somebody else writes at this moment is passed over.
func (s *Store) resealBlocks(ctx context.Context, c sealedColumn, from int64) (n int64, err error) {
	err = s.tx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT ctid::text, %s, %s FROM %s WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND %s <> $3 FOR NO KEY UPDATE SKIP LOCKED`,
			c.row, c.column, c.table, keyIDOf(c.column)), tid(from), tid(from+resealBlocks), int64(s.sealer.current.Load()))
		if err != nil {
			return err
		}
		values, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sealedValue])
		if err != nil {
			return err
		}
		var b pgx.Batch
		for _, v := range values {
			plain, err := s.sealer.open(c.place, v.Row, v.Sealed)
			if errors.Is(err, ErrCorrupt) {
				continue // A scrub reports it. It stays as it is, and its key in use.
			}
			if err != nil {
				return err
			}
			b.Queue(fmt.Sprintf(`UPDATE %s SET %s = $2 WHERE ctid = $1::text::tid AND %[2]s = $3`, c.table, c.column), v.At, s.sealer.seal(c.place, v.Row, plain), v.Sealed)
		}
		if n = int64(b.Len()); n == 0 {
			return nil
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	return n, err
}

// tid is the place of a page's first row and before.
func tid(block int64) string { return fmt.Sprintf("(%d,0)", block) }

// retireKeys forgets keys that sealed nothing since well before a look at every row began, and that this look leaves
// nothing under.
func (s *Store) retireKeys(ctx context.Context, begun time.Time, others []int64) ([]uint32, error) {
	left, err := s.SealedRows(ctx)
	if err != nil {
		return nil, err
	}
	empty := slices.DeleteFunc(others, func(k int64) bool { return left[uint32(k)] > 0 }) //nolint:gosec // Of four bytes.
	rows, err := s.pool.Query(ctx, `DELETE FROM sealing_keys WHERE key_id = ANY ($1) AND sealed_at < $2 RETURNING key_id`, empty, begun.Add(-s.keyQuiet))
	if err != nil {
		return nil, classify(err)
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	retired := make([]uint32, len(gone))
	for i, k := range gone {
		retired[i] = uint32(k) //nolint:gosec // Of four bytes.
	}
	return retired, classify(err)
}

// pace bounds a rate.
type pace struct {
	each time.Duration
	next time.Time
}

func newPace(rate int) *pace {
	if rate <= 0 {
		return &pace{}
	}
	return &pace{each: time.Second / time.Duration(rate), next: time.Now()}
}

// wait returns when n more are in time.
func (p *pace) wait(ctx context.Context, n int) error {
	p.next = p.next.Add(time.Duration(n) * p.each)
	left := time.Until(p.next)
	if p.each == 0 || left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
