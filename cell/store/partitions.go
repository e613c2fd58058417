package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	day            = 24 * time.Hour
	partitionLock  = 0x7170712d70617274 // Advisory lock: one replica changes partitions at a time.
	detachPatience = 5 * time.Second    // How long a removal waits for readers, such as a backup, before it tries again later.
	attachPatience = 20 * time.Second   // How long the making of a partition waits for others who change the table.
	dropSlack      = time.Hour          // A partition outlives its day by this: clocks differ, and requests are under way.
)

// EnsurePartitions makes the partitions that messages living for each of the retentions, and delivery ids inside the
// dedup window, need from now until ahead from now. New partitions are made beside their table and then attached, so
// that readers and writers go on.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time, ahead time.Duration, retentions []time.Duration, dedup time.Duration) error {
	var wanted []partition
	for _, r := range retentions {
		wanted = append(wanted, days("messages", now.Add(r), now.Add(r+ahead))...)
	}
	wanted = append(wanted, days("delivery_ids", now.Add(-dedup), now.Add(ahead))...)
	missing, err := s.missing(ctx, wanted)
	if err != nil || len(missing) == 0 {
		return err
	}
	unlock, err := s.waitLock(ctx, partitionLock)
	if err != nil {
		return err
	}
	defer unlock()
	return s.tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d`, attachPatience.Milliseconds())); err != nil {
			return err
		}
		for _, p := range missing {
			if err := p.create(ctx, tx); err != nil {
				return fmt.Errorf("partition %s: %w", p.name(), err)
			}
		}
		return nil
	})
}

// missing are those of the partitions that are not attached; mostly none, which is seen without a lock.
func (s *Store) missing(ctx context.Context, wanted []partition) ([]partition, error) {
	rows, err := s.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent IN ('messages'::regclass, 'delivery_ids'::regclass)`)
	if err != nil {
		return nil, classify(err)
	}
	attached, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, classify(err)
	}
	there := make(map[string]bool, len(attached))
	for _, name := range attached {
		there[name] = true
	}
	return slices.DeleteFunc(wanted, func(p partition) bool {
		twice := there[p.name()]
		there[p.name()] = true
		return twice
	}), nil
}

// partition is one UTC day of a table.
type partition struct {
	table string
	day   time.Time
}

// days lists the partitions of table that cover from to until.
func days(table string, from, until time.Time) []partition {
	var ps []partition
	for d := from.UTC().Truncate(day); !d.After(until); d = d.Add(day) {
		ps = append(ps, partition{table, d})
	}
	return ps
}

func (p partition) name() string { return p.table + p.day.Format("_20060102") }

// create makes and attaches the partition, or attaches again what a removal that was cut off had detached.
func (p partition) create(ctx context.Context, tx pgx.Tx) error {
	var exists, attached bool
	if err := tx.QueryRow(ctx, `SELECT t.id IS NOT NULL, i.inhrelid IS NOT NULL FROM (SELECT to_regclass($1) AS id) t
		LEFT JOIN pg_inherits i ON i.inhrelid = t.id`, p.name()).Scan(&exists, &attached); err != nil || attached {
		return err
	}
	name := pgx.Identifier{p.name()}.Sanitize()
	if !exists {
		// Rows come, and go with their table: to vacuum what was only inserted would write every page once more, and
		// the log with it. Deleted rows are vacuumed as ever.
		if _, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (LIKE %s INCLUDING ALL) WITH (autovacuum_vacuum_insert_threshold = -1)`, name, p.table)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
		p.table, name, p.day.Format(time.RFC3339), p.day.Add(day).Format(time.RFC3339)))
	return err
}

// DropExpiredPartitions removes the partitions whose whole day ended an hour or more before now, and delivery ids
// before the dedup window, and returns their names. What somebody reads, such as a backup, is left for the next call, and so
// are those after it; ErrRemovalWaits says so. Readers, writers and the making of partitions go on meanwhile, but for the
// making by the few seconds that a removal waits. One process at a time removes: for others there is nothing to do.
func (s *Store) DropExpiredPartitions(ctx context.Context, now time.Time, dedup time.Duration) ([]string, error) {
	unlock, locked, err := s.tryLock(ctx, partitionLock)
	if err != nil || !locked {
		return nil, err
	}
	defer unlock()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, classify(err)
	}
	defer conn.Release()
	reset, err := s.lockTimeout(ctx, conn, s.detachPatience)
	if err != nil {
		return nil, classify(err)
	}
	defer reset()
	var dropped []string
	var waits, failures []error
	for _, t := range []struct {
		table  string
		before time.Time
	}{{"messages", now}, {"delivery_ids", now.Add(-dedup)}} {
		names, err := s.dropBefore(ctx, conn.Conn(), t.table, t.before.Add(-dropSlack))
		dropped = append(dropped, names...)
		if errors.Is(err, ErrRemovalWaits) {
			waits = append(waits, err)
		} else {
			failures = append(failures, classify(err))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return dropped, err
	}
	return dropped, errors.Join(waits...)
}

// ErrRemovalWaits says that a partition is not removed yet because somebody reads it, or is removing it too: the
// statement of a process that was killed goes on in the database.
var ErrRemovalWaits = errors.New("the removal of a partition waits for somebody who uses it")

// alter runs a statement that takes locks, for at most detachPatience.
func (s *Store) alter(ctx context.Context, conn *pgx.Conn, sql string) error {
	patience := s.detachPatience
	if s.pooling != PoolingTransaction {
		patience *= 2 // The server itself gives up before; it waits for more than one lock.
	}
	if s.beforeAlter != nil {
		s.beforeAlter()
	}
	bound, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := conn.Exec(bound, sql)
	if inTheWay(err) || err != nil && bound.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrRemovalWaits, err)
	}
	return err
}

// inTheWay reports whether a statement failed because of what others do: lock_not_available; undefined_table and
// object_not_in_prerequisite_state when the other was quicker.
func inTheWay(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains([]string{"55P03", "42P01", "55000"}, pg.Code)
}

// stored is a partition as pg_class has it.
type stored struct {
	Name     string
	Attached bool // False: an earlier removal was cut off before its DROP.
	Pending  bool // An earlier DETACH CONCURRENTLY was cut off.
}

func (s *Store) dropBefore(ctx context.Context, conn *pgx.Conn, table string, before time.Time) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT c.relname, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1))
		AND c.relname ~ ('^' || $1 || '_[0-9]{8}$') ORDER BY c.relname`, table)
	if err != nil {
		return nil, err
	}
	parts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	if err != nil {
		return nil, err
	}
	var dropped []string
	for _, p := range parts {
		d, err := time.Parse(table+"_20060102", p.Name)
		if err != nil || d.Add(day).After(before) && !p.Pending {
			continue // One that is half removed takes no rows any more: finish it, and let it be made anew.
		}
		if err := s.drop(ctx, conn, table, p); err != nil {
			return dropped, err
		}
		dropped = append(dropped, p.Name)
	}
	return dropped, nil
}

func (s *Store) drop(ctx context.Context, conn *pgx.Conn, table string, p stored) error {
	name, how := pgx.Identifier{p.Name}.Sanitize(), "CONCURRENTLY"
	if p.Pending {
		how = "FINALIZE"
	}
	if p.Attached {
		if err := s.alter(ctx, conn, fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s %s`, table, name, how)); err != nil {
			return err
		}
	}
	return s.alter(ctx, conn, `DROP TABLE IF EXISTS `+name)
}
