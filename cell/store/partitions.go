package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	day            = 24 * time.Hour
	partitionLock  = 0x7170712d70617274 // Advisory lock: one replica changes partitions at a time.
	detachPatience = 5 * time.Second    // How long a removal waits for readers, such as a backup, before it tries again later.
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
	return s.tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
			return err
		}
		for _, p := range wanted {
			if err := p.create(ctx, tx); err != nil {
				return fmt.Errorf("partition %s: %w", p.name(), err)
			}
		}
		return nil
	})
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
		if _, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (LIKE %s INCLUDING ALL)`, name, p.table)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
		p.table, name, p.day.Format(time.RFC3339), p.day.Add(day).Format(time.RFC3339)))
	return err
}

// DropExpiredPartitions removes the partitions whose whole day ended an hour or more before now, and delivery ids
// before the dedup window, and returns their names. A partition that somebody reads is left for the next call, and
// so are those after it.
func (s *Store) DropExpiredPartitions(ctx context.Context, now time.Time, dedup time.Duration) ([]string, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, classify(err)
	}
	defer conn.Release()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(partitionLock)).Scan(&locked); err != nil || !locked {
		return nil, classify(err)
	}
	defer unlockPartitions(ctx, conn.Conn())
	if _, err := conn.Exec(ctx, fmt.Sprintf(`SET lock_timeout = %d`, s.detachPatience.Milliseconds())); err != nil {
		return nil, classify(err)
	}
	var dropped []string
	var errs []error
	for table, before := range map[string]time.Time{"messages": now, "delivery_ids": now.Add(-dedup)} {
		names, err := dropBefore(ctx, conn.Conn(), table, before.Add(-dropSlack))
		dropped = append(dropped, names...)
		if !isLockTimeout(err) {
			errs = append(errs, classify(err))
		}
	}
	return dropped, errors.Join(errs...)
}

// unlockPartitions makes a connection fit for others again; one that cannot be is closed, and its lock ends with it.
func unlockPartitions(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	_, unlock := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, int64(partitionLock))
	_, reset := conn.Exec(ctx, `RESET lock_timeout`)
	if unlock != nil || reset != nil {
		_ = conn.Close(ctx)
	}
}

func isLockTimeout(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
}

// stored is a partition as pg_class has it.
type stored struct {
	Name     string
	Attached bool // False: an earlier removal was cut off before its DROP.
	Pending  bool // An earlier DETACH CONCURRENTLY was cut off.
}

func dropBefore(ctx context.Context, conn *pgx.Conn, table string, before time.Time) ([]string, error) {
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
		if err := drop(ctx, conn, table, p); err != nil {
			return dropped, err
		}
		dropped = append(dropped, p.Name)
	}
	return dropped, nil
}

func drop(ctx context.Context, conn *pgx.Conn, table string, p stored) error {
	name, how := pgx.Identifier{p.Name}.Sanitize(), "CONCURRENTLY"
	if p.Pending {
		how = "FINALIZE"
	}
	if p.Attached {
		if _, err := conn.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s %s`, table, name, how)); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, `DROP TABLE `+name)
	return err
}
