package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sealedColumn is where sealed values are. Every column that is named *_sealed must be in sealedColumns: a test looks.
type sealedColumn struct {
	place  string // What the value is bound to besides its row.
	table  string
	column string
	key    string // The table's primary key, as an SQL list.
	row    string // SQL for the bytes of the row that the value is bound to.
}

var sealedColumns = []sealedColumn{
	{"accounts.name", "accounts", "name_sealed", "account_id", "uuid_send(account_id)"},
	{"accounts.opaque_record", "accounts", "opaque_record_sealed", "account_id", "uuid_send(account_id)"},
	{"accounts.wrapped_root", "accounts", "wrapped_root_sealed", "account_id", "uuid_send(account_id)"},
	{"device_links.name", "device_links", "name_sealed", "link_id", "uuid_send(link_id)"},
	{"device_links.offer", "device_links", "offer_sealed", "link_id", "uuid_send(link_id)"},
	{departedPlace, "departed_senders", "account_sealed", "device_id", "uuid_send(device_id)"},
	{"devices.name", "devices", "name_sealed", "device_id", "uuid_send(device_id)"},
	{"groups.group_info", "groups", "group_info_sealed", "channel_id, generation", "uuid_send(channel_id) || int4send(generation)"},
	{"groups.state", "groups", "state_sealed", "channel_id, generation", "uuid_send(channel_id) || int4send(generation)"},
	{"recovery_codes.wrapped_root", "recovery_codes", "wrapped_root_sealed", "recovery_key", "recovery_key"},
	{subjectPlace, "audit_subjects", "key_sealed", "account_id", "uuid_send(account_id)"},
	{addressPlace, "audit_address_keys", "key_sealed", "period", "convert_to(period::text, 'UTF8')"},
}

// keyIDOf is SQL for the id of the key that a value is sealed under; NULL when it is too short to have one.
func keyIDOf(column string) string {
	return fmt.Sprintf(`CASE WHEN octet_length(%[1]s) >= 4 THEN
		get_byte(%[1]s, 0)::bigint << 24 | get_byte(%[1]s, 1) << 16 | get_byte(%[1]s, 2) << 8 | get_byte(%[1]s, 3) END`, column)
}

// SealedRows says, by key id, how many values are sealed under it. It reads the beginning of every sealed value. Key 0
// stands for what is too short to be sealed.
func (s *Store) SealedRows(ctx context.Context) (map[uint32]int64, error) {
	counts := map[uint32]int64{}
	for _, c := range sealedColumns {
		rows, err := s.pool.Query(ctx, fmt.Sprintf(`SELECT coalesce(%s, 0) AS id, count(*) FROM %s WHERE %s IS NOT NULL GROUP BY 1`, keyIDOf(c.column), c.table, c.column))
		if err != nil {
			return nil, classify(err)
		}
		var id, n int64
		if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			counts[uint32(id)] += n //nolint:gosec // Of four bytes.
			return nil
		}); err != nil {
			return nil, classify(err)
		}
	}
	return counts, nil
}
