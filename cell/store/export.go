package store

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/schema/ids"
)

// ErrCursor says that a place to go on with an export is none.
var ErrCursor = errors.New("not a place where an export goes on")

// ExportLine is one thing that the cell has about an account, and where the export goes on behind it.
type ExportLine struct {
	Value any // For JSON.
	Next  []byte
}

const (
	exportLines  = 500  // Read at once, at most.
	exportEvents = 5000 // Events of the audit log that are looked at for one page.
	exportPeers  = 1000 // Members of one channel that are listed.
)

// A place to go on is the number of a section and the key of the last row that was exported; all keys are of ids and
// sequences, of the lengths that their section has.
type section struct {
	key  int // Its length in bytes.
	read func(x *exporting, ctx context.Context, key []byte) ([]ExportLine, error)
}

var sections = []section{
	{0, (*exporting).accountLines},
	{ids.Size, (*exporting).deviceLines},
	{ids.Size, (*exporting).sessionLines},
	{2 * ids.Size, (*exporting).claimLines},
	{ids.Size, (*exporting).channelLines},
	{ids.Size + 8, (*exporting).sentLines},
	{ids.Size + 8, (*exporting).inboxLines},
	{ids.Size + 8, (*exporting).auditLines},
	{ids.Size, (*exporting).contactLines},
}

// Export reads some of what the cell has about an account, from after on, which is nil or a line's Next. The place to go on
// is next; nil: there is no more. There may be no line although there is more. ErrCursor: after is no such place; ErrNotFound:
// there is no such account.
func (s *Store) Export(ctx context.Context, account ids.ID, after []byte, now time.Time) (lines []ExportLine, next []byte, err error) {
	x := &exporting{s: s, account: account, now: utc(now)}
	if err := x.begin(ctx); err != nil {
		return nil, nil, classify(err)
	}
	at, key := 0, []byte(nil)
	if len(after) > 0 {
		at, key = int(after[0]), after[1:]
		if at >= len(sections) || len(key) != 0 && len(key) != sections[at].key {
			return nil, nil, ErrCursor
		}
	}
	if len(key) == 0 {
		key = make([]byte, sections[at].key)
	}
	x.section = byte(at) //nolint:gosec // few.
	if lines, err = sections[at].read(x, ctx, key); err != nil {
		return nil, nil, classify(err)
	}
	switch {
	case x.goOn != nil:
		next = x.place(x.goOn)
	case at+1 < len(sections):
		next = []byte{byte(at + 1)} //nolint:gosec // few.
	}
	return lines, next, nil
}

// exporting is one page.
type exporting struct {
	s       *Store
	account ids.ID
	devices []ids.ID
	now     time.Time
	section byte
	goOn    []byte // The key to go on from in this section; nil: it is done.
}

func (x *exporting) begin(ctx context.Context) error {
	var id ids.ID
	if err := x.s.pool.QueryRow(ctx, `SELECT account_id FROM accounts WHERE account_id = $1 AND deleting_at IS NULL`, x.account).Scan(&id); err != nil {
		return err
	}
	rows, err := x.s.pool.Query(ctx, `SELECT device_id FROM devices WHERE account_id = $1`, x.account)
	if err != nil {
		return err
	}
	x.devices, err = pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	return err
}

func (x *exporting) place(key []byte) []byte { return append([]byte{x.section}, key...) }

// collect makes a line of each row. When there are as many as were asked for, there may be more behind the last.
func (x *exporting) collect(ctx context.Context, most int, row func(pgx.CollectableRow) (value any, key []byte, err error), sql string, args ...any) ([]ExportLine, error) {
	rows, err := x.s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (ExportLine, error) {
		value, key, err := row(r)
		return ExportLine{value, x.place(key)}, err
	})
	if len(lines) == most && most > 0 {
		x.goOn = lines[len(lines)-1].Next[1:]
	}
	return lines, err
}

func seqKey(id ids.ID, seq uint64) []byte { return binary.BigEndian.AppendUint64(id[:], seq) }

// keyID is an id of a place to go on, which may be zero: the first of all, and not NULL as zero is elsewhere.
func keyID(key []byte) pgtype.UUID { return pgtype.UUID{Bytes: [16]byte(key[:ids.Size]), Valid: true} }

func readSeqKey(key []byte) (pgtype.UUID, int64) {
	return keyID(key), int64(binary.BigEndian.Uint64(key[ids.Size:]) & (1<<63 - 1)) //nolint:gosec // cut to fit.
}
