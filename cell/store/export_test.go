package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// exportAll gathers all pages of an export, as lines of JSON.
func exportAll(t *testing.T, s *Store, account ids.ID) (lines []map[string]any, text string) {
	t.Helper()
	var after []byte
	var all bytes.Buffer
	for pages := 0; ; pages++ {
		if pages > 10_000 {
			t.Fatal("it does not end")
		}
		some, next, err := s.Export(t.Context(), account, after, time.Now())
		must(t, err)
		for i, l := range some {
			b, err := json.Marshal(l.Value)
			must(t, err)
			all.Write(append(b, '\n'))
			var o map[string]any
			must(t, json.Unmarshal(b, &o))
			lines = append(lines, o)
			if len(l.Next) > 64 || len(l.Next) == 0 && i == 0 {
				t.Fatalf("a place of %d bytes", len(l.Next))
			}
		}
		if after = next; next == nil {
			return lines, all.String()
		}
	}
}

// inCopy says where a column's values are in an export: type and key. Rows are those of the account.
var inCopy = map[string]struct{ where, kind, key string }{
	"accounts.account_id":           {"account_id = $1", "account", "accountId"},
	"accounts.name_sealed":          {"", "account", "name"},
	"accounts.root_key":             {"account_id = $1", "account", "rootKey"},
	"accounts.created_at":           {"account_id = $1", "account", "createdAt"},
	"accounts.opaque_key_id":        {"account_id = $1", "account", "passwordKey"},
	"accounts.disabled_at":          {"account_id = $1", "account", "disabledAt"},
	"devices.device_id":             {"account_id = $1", "device", "deviceId"},
	"devices.account_id":            {"account_id = $1", "device", "accountId"},
	"devices.device_key":            {"account_id = $1", "device", "deviceKey"},
	"devices.certificate":           {"account_id = $1", "device", "certificate"},
	"devices.name_sealed":           {"", "device", "name"},
	"devices.created_at":            {"account_id = $1", "device", "addedAt"},
	"devices.revoked_at":            {"account_id = $1", "device", "revokedAt"},
	"devices.last_seen":             {"account_id = $1", "device", "lastSeen"},
	"sessions.session_id":           {"device_id = ANY ($2)", "session", "sessionId"},
	"sessions.device_id":            {"device_id = ANY ($2)", "session", "deviceId"},
	"sessions.created_at":           {"device_id = ANY ($2)", "session", "startedAt"},
	"sessions.expires_at":           {"device_id = ANY ($2)", "session", "expiresAt"},
	"sessions.revoked_at":           {"device_id = ANY ($2)", "session", "endedAt"},
	"recovery_codes.account_id":     {"account_id = $1", "recoveryCode", "accountId"},
	"recovery_codes.created_at":     {"account_id = $1 AND wrapped_root_sealed IS NOT NULL", "recoveryCode", "createdAt"},
	"recovery_codes.expires_at":     {"account_id = $1", "resetCode", "expiresAt"},
	"known_addresses.account_id":    {"", "account", "knownAddresses"},
	"device_links.link_id":          {"account_id = $1", "deviceLink", "linkId"},
	"device_links.created_at":       {"account_id = $1", "deviceLink", "createdAt"},
	"device_links.expires_at":       {"account_id = $1", "deviceLink", "expiresAt"},
	"device_links.account_id":       {"account_id = $1", "deviceLink", "accountId"},
	"device_links.certificate":      {"account_id = $1", "deviceLink", "certificate"},
	"device_links.name_sealed":      {"", "deviceLink", "deviceName"},
	"device_links.finished_at":      {"account_id = $1", "deviceLink", "finishedAt"},
	"key_packages.device_id":        {"device_id = ANY ($2)", "device", "deviceId"},
	"key_packages.last_resort":      {"", "device", "lastResortExpiresAt"},
	"key_packages.expires_at":       {"", "device", "keyPackagesExpireAt"},
	"key_package_claims.claimer_id": {"claimer_id = ANY ($2)", "keyPackagesClaimed", "deviceId"},
	"key_package_claims.account_id": {"claimer_id = ANY ($2) OR account_id = $1", "keyPackagesClaimed", "accountId"},
	"key_package_claims.claimed_at": {"claimer_id = ANY ($2) OR account_id = $1", "keyPackagesClaimed", "claimedAt"},
	"channels.channel_id":           {"channel_id = ANY ($3)", "channel", "channelId"},
	"channels.kind":                 {"channel_id = ANY ($3)", "channel", "kind"},
	"channels.generation":           {"channel_id = ANY ($3)", "channel", "generation"},
	"channels.last_seq":             {"channel_id = ANY ($3)", "channel", "lastSeq"},
	"channels.created_at":           {"channel_id = ANY ($3)", "channel", "createdAt"},
	"channels.closed_until":         {"channel_id = ANY ($3)", "channel", "closedUntil"},
	"channels.retention_sec":        {"channel_id = ANY ($3)", "channel", "retentionSec"},
	"channels.history":              {"channel_id = ANY ($3)", "channel", "history"},
	"channel_members.role":          {"account_id = $1", "channel", "role"},
	"channel_members.joined_at":     {"account_id = $1", "channel", "joinedAt"},
	"generation_votes.channel_id":   {"account_id = $1", "channel", "channelId"},
	"generation_votes.account_id":   {"", "channel", "votes"},
	"generation_votes.voted_at":     {"", "channel", "votes"},
	"contacts.account_low":          {"", "contact", "accountId"},
	"contacts.account_high":         {"", "contact", "accountId"},
	"contacts.state":                {"account_low = $1 OR account_high = $1", "contact", "state"},
	"contacts.asker":                {"account_low = $1 OR account_high = $1", "contact", "asker"},
	"contacts.low_blocks":           {"account_low = $1 OR account_high = $1", "contact", "blocked"},
	"contacts.high_blocks":          {"account_low = $1 OR account_high = $1", "contact", "blocked"},
	"contacts.since":                {"account_low = $1 OR account_high = $1", "contact", "since"},
	"cursors.until_seq":             {"", "channel", "cursors"},
	"direct_channels.account_low":   {"", "channel", "with"},
	"direct_channels.account_high":  {"", "channel", "with"},
	"direct_channels.channel_id":    {"account_low = $1 OR account_high = $1", "channel", "channelId"},
	"channel_members.channel_id":    {"account_id = $1", "channel", "channelId"},
	"channel_members.account_id":    {"", "channel", "with"},
	"groups.creator_id":             {"", "device", "groupsCreated"},
	"cursors.device_id":             {"", "channel", "cursors"},
	"cursors.channel_id":            {"device_id = ANY ($2) AND channel_id <> device_id", "channel", "channelId"},
	"cursors.acked_seq":             {"", "channel", "cursors"},
	"messages.channel_id":           {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "channelId"},
	"messages.seq":                  {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "seq"},
	"messages.expires_at":           {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "expiresAt"},
	"messages.accepted_at":          {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "acceptedAt"},
	"messages.sender_id":            {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "deviceId"},
	"messages.delivery_id":          {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "deliveryId"},
	"messages.about_channel":        {"channel_id = ANY ($2)", "inboxMessage", "aboutChannelId"},
	"messages.generation":           {"sender_id = ANY ($2) AND channel_id = ANY ($3)", "messageSent", "generation"},
	"messages.kind":                 {"channel_id = ANY ($2)", "inboxMessage", "kind"},
	"audit_subjects.account_id":     {"", "account", "auditPseudonym"},
	"audit_events.body":             {"", "auditEvent", "kind"},
}

// Each column of which docs/privacy.md says so is in the copy, with the values that the database has.
func TestACopyHasWhatIsSaid(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	l := live(t, s, "alice", peer, device, others)
	ctx := t.Context()
	must(t, s.WriteAudit(ctx, audit.LoginSucceeded(l.account.ID), audit.PackagesClaimed(peer.ID, device.ID, l.account.ID, 1, 0)))
	_, err := s.pool.Exec(ctx, `UPDATE accounts SET disabled_at = now() WHERE account_id = $1`, l.account.ID) // For the columns' sake.
	must(t, err)
	_, err = s.pool.Exec(ctx, `UPDATE device_links SET finished_at = now()`)
	must(t, err)
	_, err = s.pool.Exec(ctx, `UPDATE channels SET closed_until = now() WHERE channel_id = $1`, l.direct)
	must(t, err)
	lines, text := exportAll(t, s, l.account.ID)
	var devices, channels []ids.ID
	for _, d := range l.devices {
		devices = append(devices, d.ID)
	}
	rows, err := s.pool.Query(ctx, `SELECT channel_id FROM channel_members WHERE account_id = $1`, l.account.ID)
	must(t, err)
	channels, err = pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	must(t, err)

	has := func(kind, key, value string) bool {
		return slices.ContainsFunc(lines, func(o map[string]any) bool {
			v, ok := o[key]
			return o["type"] == kind && ok && (value == "" || written(v) == value)
		})
	}
	for column, f := range decided(t) {
		at, ok := inCopy[column]
		switch {
		case f.copy == "yes" && !ok:
			t.Errorf("%s should be in a copy; the test does not know where", column)
		case f.copy != "yes" && ok:
			t.Errorf("docs/privacy.md says of %s: %s", column, f.copy)
		case ok && !has(at.kind, at.key, ""):
			t.Errorf("%s: no line of type %s has %s", column, at.kind, at.key)
		case ok && at.where != "":
			table, name, _ := strings.Cut(column, ".")
			// Each argument has a place, used or not.
			rows, err := s.pool.Query(ctx, fmt.Sprintf(`SELECT %s FROM %s WHERE (%s) AND $1::uuid IS NOT NULL AND $2::uuid[] IS NOT NULL AND $3::uuid[] IS NOT NULL`, name, table, at.where),
				l.account.ID, devices, channels)
			must(t, err)
			n := 0
			for rows.Next() {
				values, err := rows.Values()
				must(t, err)
				if values[0] == nil {
					continue
				}
				n++
				if v := written(jsonOf(t, values[0])); !has(at.kind, at.key, v) {
					t.Errorf("%s: no line of type %s has %s %s", column, at.kind, at.key, v)
				}
			}
			must(t, rows.Err())
			if n == 0 {
				t.Errorf("%s: the test put nothing there", column)
			}
		}
	}
	if !has("account", "name", "alice") || !has("device", "name", "alice's device 1") || !has("deviceLink", "deviceName", "new phone") || !has("auditEvent", "kind", "auth.login") {
		t.Errorf("it lacks a name or an event:\n%s", text)
	}
	for what, secret := range map[string][]byte{"the OPAQUE record": l.account.OPAQUERecord, "the wrapped root key": l.account.WrappedRootKey,
		"a recovery code": l.account.RecoveryCodes[0].RecoveryKey, "a message": []byte("theirs 1"), "another": []byte("mine 1"), "the peer's name": []byte("the peer"),
		"an address": s.addressIndex("192.0.2.1"), "the name's index": s.sealer.Index("accounts.name", "alice")} {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret)} {
			if strings.Contains(text, form) {
				t.Errorf("it has %s", what)
			}
		}
	}
	for _, n := range l.needles {
		if n.what == "a refresh token's hash" && strings.Contains(text, base64.StdEncoding.EncodeToString(n.b)) {
			t.Errorf("it has %s", n.what)
		}
	}
}

// jsonOf is a value of the database as an export would write it.
func jsonOf(t *testing.T, v any) any {
	t.Helper()
	if id, ok := v.([16]byte); ok {
		v = ids.ID(id)
	}
	if at, ok := v.(time.Time); ok {
		v = at.UTC()
	}
	b, err := json.Marshal(v)
	must(t, err)
	var out any
	must(t, json.Unmarshal(b, &out))
	return out
}

// written makes values that mean the same equal.
func written(v any) string {
	if s, ok := v.(string); ok {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return at.UTC().Format(time.RFC3339Nano)
		}
	}
	return fmt.Sprint(v)
}

// However many rows there are, pages are bounded, and together they have each row once.
func TestACopyInPages(t *testing.T) {
	t.Parallel()
	s, peer, _, _ := world(t)
	a, d := person(t, s, "alice")
	ctx, now := t.Context(), time.Now()
	const sessions, channels, messages, events = 2*exportLines + 3, 120, 3*exportLines + 7, exportEvents + 500
	_, err := s.pool.Exec(ctx, `INSERT INTO sessions (session_id, device_id, refresh_hash, created_at, expires_at)
		SELECT gen_random_uuid(), $1, 'h', now(), now() + interval '1 day' FROM generate_series(1, $2)`, d.ID, sessions)
	must(t, err)
	_, err = s.pool.Exec(ctx, `WITH made AS (INSERT INTO channels (channel_id, kind, generation, created_at) SELECT gen_random_uuid(), 2, 1, now() FROM generate_series(1, $3) RETURNING channel_id),
		mine AS (INSERT INTO cursors (device_id, channel_id, acked_seq) SELECT $4, channel_id, 0 FROM made)
		INSERT INTO channel_members (channel_id, account_id) SELECT channel_id, unnest(ARRAY[$1::uuid, $2]) FROM made`, a.ID, peer.ID, channels, d.ID)
	must(t, err)
	rows, err := s.pool.Query(ctx, `SELECT channel_id FROM channel_members WHERE account_id = $1`, a.ID)
	must(t, err)
	rooms, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	must(t, err)
	var batch []*Append
	for i := range messages { // Most in one channel, some in others.
		room := rooms[0]
		if i%5 == 0 {
			room = rooms[i%len(rooms)]
		}
		batch = append(batch, message(room, d, "x"))
	}
	must(t, s.AppendBatch(ctx, batch))
	list := make([]audit.Event, 250)
	for i := range list {
		list[i] = audit.LoginSucceeded(a.ID)
		if i%2 == 1 {
			list[i] = audit.LoginSucceeded(peer.ID)
		}
	}
	for range events / len(list) {
		must(t, s.WriteAudit(ctx, list...))
	}
	lines, _ := exportAll(t, s, a.ID)
	count, seen := map[any]int{}, map[string]bool{}
	for _, o := range lines {
		count[o["type"]]++
		if o["type"] != "auditEvent" {
			key := fmt.Sprint(o["type"], o["sessionId"], o["channelId"], o["seq"])
			if o["type"] != "account" && o["type"] != "device" && seen[key] {
				t.Errorf("twice: %v", o)
			}
			seen[key] = true
		}
	}
	for kind, want := range map[string]int{"account": 1, "device": 1, "session": sessions + 1, "channel": channels, "messageSent": messages, "auditEvent": events / 2} {
		if count[kind] < want || kind != "auditEvent" && count[kind] != want {
			t.Errorf("%d lines of type %s, want %d", count[kind], kind, want)
		}
	}
	for _, bad := range [][]byte{{99}, {1, 2}, {1, 0, 0}, bytes.Repeat([]byte{1}, 64), append([]byte{7}, make([]byte, 25)...), append([]byte{8}, make([]byte, 15)...)} {
		if _, _, err := s.Export(ctx, a.ID, bad, now); !errors.Is(err, ErrCursor) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	full := append([]byte{8}, bytes.Repeat([]byte{0xff}, ids.Size)...)
	if some, next, err := s.Export(ctx, a.ID, full, now); err != nil || len(some) != 0 || next != nil {
		t.Errorf("behind the end: %d, %x, %v", len(some), next, err)
	}
}

// A place in one account's export shows nothing of it to another.
func TestACopyIsOfOneAccount(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	l := live(t, s, "alice", peer, device, others)
	stranger, _ := person(t, s, "stranger")
	var after []byte
	for {
		lines, next, err := s.Export(t.Context(), l.account.ID, after, time.Now())
		must(t, err)
		for _, l := range lines {
			strangers, _, err := s.Export(t.Context(), stranger.ID, l.Next, time.Now())
			must(t, err)
			for _, o := range strangers {
				b, err := json.Marshal(o.Value)
				must(t, err)
				if bytes.Contains(b, []byte("alice")) || bytes.Contains(b, []byte(peer.ID.String())) {
					t.Errorf("%s", b)
				}
			}
		}
		if after = next; next == nil {
			return
		}
	}
}
