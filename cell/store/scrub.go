package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quicproquo.dev/schema/ids"
)

const (
	scrubBlocks = 16  // Pages of a table per statement.
	maxTuples   = 300 // More than a page of 8 KiB holds.
)

// Damage is something that a scrub found. It never holds content.
type Damage struct {
	Table  string `json:"table"`            // Of the row; of a message, its partition.
	Row    string `json:"row,omitempty"`    // The row's key; empty when it cannot be told.
	Page   int64  `json:"page"`             // Of the table's file.
	Column string `json:"column,omitempty"` // Of a sealed value.
	// Channel and Seq are a message's.
	Channel string `json:"channel,omitempty"`
	Seq     uint64 `json:"seq,omitempty"`
	What    string `json:"what"`
}

// ScrubPosition is how far a scrub has come. Its zero value is the beginning.
type ScrubPosition struct {
	Table string `json:"table"` // Being read; those before it, in the order of their names, are done.
	Page  int64  `json:"page"`  // The next one.
}

// ScrubReport counts what a scrub has read.
type ScrubReport struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"` // Of messages' payload.
	Sealed   int64 `json:"sealed"`
	Pages    int64 `json:"pages"`
	Damaged  int64 `json:"damaged"`
}

// Scrub says how to scrub.
type Scrub struct {
	Rate  int           // Rows a second at most. 0: as fast as it goes.
	After ScrubPosition // Where an earlier one was cut off.
	// Found is called for each damage, Progress after each few pages, in the caller's goroutine.
	Found    func(Damage)
	Progress func(ScrubPosition, ScrubReport)
}

// Scrub reads every stored message and every sealed value, in the order in which they lie on disk, and checks them: the
// checksums of messages inside the database, which sends nothing but what is wrong; sealed values here. What can
// be read of a damaged page is checked too. An error means that it could not go on, and the last Progress says where.
func (s *Store) Scrub(ctx context.Context, o Scrub) (ScrubReport, error) {
	r := &scrubber{s: s, o: o, pace: newPace(o.Rate)}
	tables, err := r.tables(ctx)
	if err != nil {
		return r.report, err
	}
	for _, t := range tables {
		if t.name < o.After.Table {
			continue
		}
		from := int64(0)
		if t.name == o.After.Table {
			from = o.After.Page
		}
		if err := r.table(ctx, t, from); err != nil {
			return r.report, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return r.report, nil
}

type scrubber struct {
	s      *Store
	o      Scrub
	pace   *pace
	report ScrubReport
	fresh  []Damage // Of rows.
}

// scrubTable is a table and its sealed columns; without any it holds messages.
type scrubTable struct {
	name   string
	sealed []sealedColumn
}

func (r *scrubber) tables(ctx context.Context) ([]scrubTable, error) {
	rows, err := r.s.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'messages'::regclass AND NOT i.inhdetachpending`)
	if err != nil {
		return nil, classify(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, classify(err)
	}
	byName := map[string]*scrubTable{}
	for _, n := range names {
		byName[n] = &scrubTable{name: n}
	}
	for _, c := range sealedColumns {
		if byName[c.table] == nil {
			byName[c.table] = &scrubTable{name: c.table}
		}
		byName[c.table].sealed = append(byName[c.table].sealed, c)
	}
	list := make([]scrubTable, 0, len(byName))
	for _, t := range byName {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b scrubTable) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

func (r *scrubber) table(ctx context.Context, t scrubTable, from int64) error {
	blocks, err := r.s.blocks(ctx, pgx.Identifier{t.name}.Sanitize())
	if err != nil {
		return err
	}
	for at := from; at < blocks; at += scrubBlocks {
		to := min(at+scrubBlocks, blocks)
		n, err := r.pages(ctx, t, at, to)
		if isGone(err) {
			return nil // Removed, because it has expired.
		}
		if err != nil {
			return err
		}
		r.report.Pages += to - at
		if r.o.Progress != nil {
			r.o.Progress(ScrubPosition{t.name, to}, r.report)
		}
		if err := r.pace.wait(ctx, n); err != nil {
			return classify(err)
		}
	}
	return nil
}

func isGone(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42P01"
}

// pages checks some pages, and returns how many rows it read. Where the database itself cannot read one it looks closer.
func (r *scrubber) pages(ctx context.Context, t scrubTable, from, to int64) (int, error) {
	n, err := r.rows(ctx, t, tid(from), tid(to))
	if !isDamage(err) {
		return n, err
	}
	if to-from > 1 {
		middle := (from + to) / 2
		a, err := r.pages(ctx, t, from, middle)
		if err != nil {
			return a, err
		}
		b, err := r.pages(ctx, t, middle, to)
		return a + b, err
	}
	return r.tuples(ctx, t, from, err)
}

// isDamage reports whether the database cannot read something, whatever else it can: data_corrupted, index_corrupted,
// internal_error (such as a missing chunk, or compressed data that does not unpack), and a value that is longer than
// can be.
func isDamage(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code[:2] == "XX" || pg.Code == "54000" || pg.Code == "22003" || pg.Code == "58P01" || pg.Code == "58030")
}

// tuples checks a damaged page row by row.
func (r *scrubber) tuples(ctx context.Context, t scrubTable, page int64, whole error) (n int, err error) {
	readable, damaged := 0, 0
	for i := 1; i <= maxTuples; i++ {
		at, next := fmt.Sprintf("(%d,%d)", page, i), fmt.Sprintf("(%d,%d)", page, i+1)
		m, err := r.rows(ctx, t, at, next)
		if isDamage(err) {
			damaged++
			if r.key(ctx, t, at, page, err) {
				continue
			}
			break // Not even that: the page as a whole cannot be read.
		}
		if err != nil {
			return n, err
		}
		readable, n = readable+m, n+m
	}
	if readable == 0 && damaged <= 1 {
		r.found(Damage{Table: t.name, Page: page, What: "the page cannot be read: " + reason(whole)})
	}
	return n, nil
}

// key reports a row that cannot be read whole by its key, if that can be.
func (r *scrubber) key(ctx context.Context, t scrubTable, at string, page int64, why error) bool {
	d := Damage{Table: t.name, Page: page, What: "cannot be read: " + reason(why)}
	name := pgx.Identifier{t.name}.Sanitize()
	if len(t.sealed) > 0 {
		err := r.s.pool.QueryRow(ctx, fmt.Sprintf(`SELECT row_to_json(k)::text FROM (SELECT %s FROM %s WHERE ctid = $1::text::tid) k`, t.sealed[0].key, name), at).Scan(&d.Row)
		if err != nil {
			return false
		}
		r.found(d)
		return true
	}
	var channel ids.ID
	if err := r.s.pool.QueryRow(ctx, fmt.Sprintf(`SELECT channel_id, seq FROM %s WHERE ctid = $1::text::tid`, name), at).Scan(&channel, &d.Seq); err != nil {
		return false
	}
	d.Channel = channel.String()
	r.found(d)
	return true
}

// reason is what the database says, without data: its errors about damage name numbers and files.
func reason(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message + " (SQLSTATE " + pg.Code + ")"
	}
	return "unknown"
}

// note keeps what was found until the rows around it have been read too.
func (r *scrubber) note(d Damage) {
	r.report.Damaged++
	r.fresh = append(r.fresh, d)
}

func (r *scrubber) found(d Damage) {
	r.report.Damaged++
	if r.o.Found != nil {
		r.o.Found(d)
	}
}

// rows checks the rows in [from, to). When it fails, nothing of them has been counted or reported.
func (r *scrubber) rows(ctx context.Context, t scrubTable, from, to string) (int, error) {
	before := r.report
	n, err := r.allRows(ctx, t, from, to)
	if err != nil {
		r.report = before
	} else if r.o.Found != nil {
		for _, d := range r.fresh {
			r.o.Found(d)
		}
	}
	r.fresh = nil
	return n, err
}

func (r *scrubber) allRows(ctx context.Context, t scrubTable, from, to string) (int, error) {
	if len(t.sealed) == 0 {
		return r.messages(ctx, t, from, to)
	}
	n := 0
	for _, c := range t.sealed {
		m, err := r.sealedRows(ctx, c, from, to)
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// messagesSQL has the database compute what Message.Fingerprint computes. Two sums tell of all rows, and only those that
// differ are sent.
const messagesSQL = `WITH m AS MATERIALIZED (SELECT channel_id, seq, octet_length(payload)::bigint AS size, 
		substr(sha256(uuid_send(channel_id) || int4send(generation) || int2send(kind) || payload), 1, %[2]d) = checksum AS sound
		FROM %[1]s WHERE ctid >= $1::text::tid AND ctid < $2::text::tid)
	SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(json_agg(json_build_object('channel', replace(channel_id::text, '-', ''), 'seq', seq)) FILTER (WHERE sound IS NOT TRUE), '[]') FROM m`

func (r *scrubber) messages(ctx context.Context, t scrubTable, from, to string) (int, error) {
	var n, size int64
	var bad []byte
	if err := r.s.pool.QueryRow(ctx, fmt.Sprintf(messagesSQL, pgx.Identifier{t.name}.Sanitize(), fingerprintSize), from, to).Scan(&n, &size, &bad); err != nil {
		return 0, err
	}
	r.report.Messages += n
	r.report.Bytes += size
	var list []Damage
	if err := json.Unmarshal(bad, &list); err != nil {
		return 0, err
	}
	for _, d := range list {
		d.Table, d.Page, d.What = t.name, page(from), "the checksum does not fit"
		r.note(d)
	}
	return int(n), nil
}

// page is the number in a tuple's place: of several pages, the first.
func page(at string) (n int64) {
	_, _ = fmt.Sscanf(at, "(%d,", &n)
	return n
}

func (r *scrubber) sealedRows(ctx context.Context, c sealedColumn, from, to string) (int, error) {
	rows, err := r.s.pool.Query(ctx, fmt.Sprintf(`SELECT ctid::text, %s, %s, (SELECT row_to_json(k)::text FROM (SELECT %s) k) FROM %s
		WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND %[2]s IS NOT NULL`, c.row, c.column, c.key, c.table), from, to)
	if err != nil {
		return 0, err
	}
	var v sealedValue
	var key string
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&v.At, &v.Row, &v.Sealed, &key}, func() error {
		n++
		if _, err := r.s.sealer.open(c.place, v.Row, v.Sealed); err != nil {
			r.note(Damage{Table: c.table, Column: c.column, Row: key, Page: page(v.At), What: "cannot be opened: " + whyNot(err)})
		}
		return nil
	})
	r.report.Sealed += int64(n)
	return n, err
}

// whyNot tells damage from a key that is missing.
func whyNot(err error) string {
	if errors.Is(err, ErrCorrupt) {
		return "damaged, or sealed under another key of the same id"
	}
	return err.Error()
}
