package store

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// fate is what docs/privacy.md says of a column.
type fate struct{ deletion, copy string }

// decided reads docs/privacy.md.
func decided(t *testing.T) map[string]fate {
	t.Helper()
	text, err := os.ReadFile("../../docs/privacy.md")
	must(t, err)
	fates := map[string]fate{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+\\.[a-z_]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := fates[m[1]]; twice {
			t.Errorf("docs/privacy.md decides %s twice", m[1])
		}
		fates[m[1]] = fate{strings.TrimSpace(m[3]), strings.TrimSpace(m[4])}
	}
	return fates
}

// columns lists what the database has, partitions by their table.
func columns(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'`)
	must(t, err)
	found := map[string]bool{}
	var table, column string
	_, err = pgx.ForEachRow(rows, []any{&table, &column}, func() error {
		found[parent(table)+"."+column] = true
		return nil
	})
	must(t, err)
	return found
}

var partitionName = regexp.MustCompile(`_[0-9]{8}$`)

func parent(table string) string { return partitionName.ReplaceAllString(table, "") }

// Nobody adds a column without saying what becomes of it, and whether its people can have a copy.
func TestEveryColumnIsDecided(t *testing.T) {
	t.Parallel()
	fates, has := decided(t), columns(t, fresh(t))
	for column := range has {
		f, ok := fates[column]
		if !ok {
			t.Errorf("docs/privacy.md does not say what becomes of %s when an account is deleted, nor whether it is in an export", column)
			continue
		}
		if !regexp.MustCompile(`^(goes|later: .+|nobody's)$`).MatchString(f.deletion) {
			t.Errorf("%s: %q is no decision", column, f.deletion)
		}
		if !regexp.MustCompile(`^(yes|no: .+)$`).MatchString(f.copy) {
			t.Errorf("%s: %q is no decision", column, f.copy)
		}
		if f.deletion == "nobody's" && f.copy != "no: nobody's" {
			t.Errorf("%s is nobody's, and in a copy?", column)
		}
	}
	for column := range fates {
		if !has[column] {
			t.Errorf("docs/privacy.md speaks of %s, which is not there", column)
		}
	}
	if len(has) < 100 {
		t.Errorf("only %d columns were found", len(has))
	}
}

// needle is something of an account that is looked for.
type needle struct {
	what string
	b    []byte
}

func idNeedle(what string, id ids.ID) needle { return needle{what, id[:]} }

// forms are how a needle may stand in a text.
func (n needle) forms() [][]byte {
	forms := [][]byte{n.b, []byte(hex.EncodeToString(n.b))}
	if len(n.b) == ids.Size {
		h := hex.EncodeToString(n.b)
		forms = append(forms, []byte(h[:8]+"-"+h[8:12]+"-"+h[12:16]+"-"+h[16:20]+"-"+h[20:]))
	}
	return forms
}

// hits looks for needles in every column of every table: "table.column" to what was found there.
func hits(t *testing.T, s *Store, needles []needle) map[string][]string {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY 1`)
	must(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	found := map[string][]string{}
	for _, table := range tables {
		rows, err := s.pool.Query(t.Context(), `SELECT * FROM `+pgx.Identifier{table}.Sanitize())
		must(t, err)
		for rows.Next() {
			values, err := rows.Values()
			must(t, err)
			for i, f := range rows.FieldDescriptions() {
				flat := flatten(values[i])
				for _, n := range needles {
					if slices.ContainsFunc(n.forms(), func(form []byte) bool { return bytes.Contains(flat, form) }) {
						column := parent(table) + "." + f.Name
						if !slices.Contains(found[column], n.what) {
							found[column] = append(found[column], n.what)
						}
					}
				}
			}
		}
		must(t, rows.Err())
	}
	return found
}

// flatten makes bytes of whatever a column holds.
func flatten(v any) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case []byte:
		return v
	case [16]byte:
		return v[:]
	case string:
		return []byte(v)
	case []any:
		var all []byte
		for _, e := range v {
			all = append(append(all, flatten(e)...), 0)
		}
		return all
	}
	return fmt.Append(nil, v)
}

// life is an account that has left something in every table.
type life struct {
	account Account
	devices []Device
	peer    Device
	direct  ids.ID // Channel with the peer.
	group   ids.ID
	needles []needle
}

func (l *life) add(what string, b []byte) { l.needles = append(l.needles, needle{what, b}) }

// live makes an account that has done everything there is to do, with the peer and in a group.
func live(t *testing.T, s *Store, name string, peer Account, peerDevice Device, others []Account) *life {
	t.Helper()
	ctx, now := t.Context(), time.Now()
	bytes32 := func(string) []byte { return append(random16(), random16()...)[:32:32] }
	l := &life{peer: peerDevice}
	l.account = Account{ID: ids.New(), Name: name, RootKey: bytes32("root"), OPAQUERecord: bytes32("record"), OPAQUEKey: 1, WrappedRootKey: bytes32("wrapped"),
		CreatedAt: now, Skeleton: name, RecoveryCodes: []RecoveryCode{{bytes32("code"), bytes32("wrapped")}, {bytes32("code"), bytes32("wrapped")}}}
	for i := range 3 {
		l.devices = append(l.devices, Device{ID: ids.New(), AccountID: l.account.ID, Key: bytes32("device"), Certificate: bytes.Repeat(bytes32("certificate"), 3), Name: fmt.Sprint(name, "'s device ", i), CreatedAt: now})
	}
	session := func(d Device) Session {
		n := Session{ID: ids.New(), DeviceID: d.ID, RefreshHash: bytes32("refresh"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		l.needles = append(l.needles, idNeedle("a session", n.ID), needle{"a refresh token's hash", n.RefreshHash})
		return n
	}
	must(t, s.CreateAccount(ctx, l.account, l.devices[0], session(l.devices[0])))
	for _, d := range l.devices[1:] {
		n := Notice{Account: d.AccountID, Device: d.ID, Payload: []byte("a device was added"), At: now, Until: now.Add(week)}
		_, err := s.AddDevice(ctx, d, session(d), 64, &n)
		must(t, err)
	}
	must(t, s.CreateSession(ctx, session(l.devices[0])))
	must(t, s.AddResetCode(ctx, l.account.ID, bytes32("reset"), now, now.Add(time.Hour)))

	// What identifies it.
	l.add("its name", []byte(name))
	l.needles = append(l.needles, idNeedle("its id", l.account.ID))
	for what, b := range map[string][]byte{"its root key": l.account.RootKey, "its name's index": s.sealer.Index("accounts.name", name), "its skeleton": s.skeletonIndex(name),
		"a recovery code": l.account.RecoveryCodes[0].RecoveryKey, "attempts": s.AttemptSubject("name", name)} {
		l.add(what, b)
	}
	for _, d := range l.devices {
		l.needles = append(l.needles, idNeedle("a device", d.ID), needle{"a device's key", d.Key}, needle{"a certificate", d.Certificate[:32]})
		l.add("a device's attempts", s.AttemptSubject("device", string(d.ID[:])))
	}
	if ref, err := s.AuditRef(ctx, l.account.ID); err == nil {
		l.add("its pseudonym's index", s.sealer.Index(refPlace, ref.String()))
	}

	// Logins.
	attempts := [][]byte{s.AttemptSubject("name", name), s.AttemptSubject("device", string(l.devices[0].ID[:]))}
	must(t, s.ChangeAttempts(ctx, attempts, func(list []Attempts) error {
		for i := range list {
			list[i] = Attempts{Failures: 2, LastAt: now, ForgetAt: now.Add(time.Hour)}
		}
		return nil
	}))
	must(t, s.ForgiveAttempt(ctx, Forgiven{}, l.account.ID, "192.0.2.1", now.Add(time.Hour)))

	// KeyPackages: some left, some claimed, some claimed of others.
	for _, d := range l.devices {
		var list []KeyPackage
		for i := range 3 {
			p := KeyPackage{DeviceID: d.ID, Ref: bytes32("ref"), InitKey: bytes32("init"), LastResort: i == 0, ExpiresAt: now.Add(week), Package: append(bytes32("package"), d.Certificate...)}
			list = append(list, p)
			l.needles = append(l.needles, needle{"a KeyPackage's ref", p.Ref}, needle{"a KeyPackage's key", p.InitKey})
		}
		must(t, s.AddKeyPackages(ctx, d.ID, list, 10, now))
	}
	claimed, err := s.ClaimKeyPackages(ctx, &Claim{Claimer: peerDevice.ID, Request: ids.New(), Account: l.account.ID, At: now})
	must(t, err)
	if len(claimed) != 3 {
		t.Fatalf("%d were claimed", len(claimed))
	}
	must(t, s.AddKeyPackages(ctx, peerDevice.ID, []KeyPackage{{DeviceID: peerDevice.ID, Ref: bytes32("ref"), InitKey: bytes32("init"), ExpiresAt: now.Add(week), Package: []byte("p")}}, 100, now))
	if _, err = s.ClaimKeyPackages(ctx, &Claim{Claimer: l.devices[0].ID, Request: ids.New(), Account: peer.ID, At: now}); err != nil {
		t.Fatal(err)
	}

	// A device that is revoked already; conversations; a link that waits.
	n := Notice{Account: l.account.ID, Device: l.devices[2].ID, Payload: []byte("a device was revoked"), At: now, Until: now.Add(week)}
	_, err = s.RevokeDevice(ctx, &n, nil)
	must(t, err)
	l.direct = l.converse(t, s, peer)
	for _, other := range others {
		_, err := s.DirectChannel(ctx, l.account.ID, other.ID, now) // Opened, and never written in.
		must(t, err)
	}
	l.group = l.joinGroup(t, s, peer)
	l.relate(t, s, peer, others[0], others[len(others)-1])
	link := &Link{ID: ids.New(), Offer: bytes32("offer"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	l.needles = append(l.needles, idNeedle("a link", link.ID))
	must(t, s.StartLink(ctx, link, "192.0.2.1", LinkBounds{1000, 1000, 1000}))
	link.Account, link.Certificate, link.Name, link.Approval = l.account.ID, l.devices[0].Certificate, "new phone", bytes32("approval")
	must(t, s.ApproveLink(ctx, link, l.devices[0].ID, Proof{OPAQUERecord: l.account.OPAQUERecord}, LinkBounds{1000, 1000, 1000}, now))
	return l
}

func random16() []byte {
	id := ids.New()
	return id[:]
}

// converse opens the direct channel with the peer and writes in it, both ways.
func (l *life) converse(t *testing.T, s *Store, peer Account) ids.ID {
	t.Helper()
	now := time.Now()
	c, err := s.DirectChannel(t.Context(), l.account.ID, peer.ID, now)
	must(t, err)
	welcome := func(to ids.ID) Message {
		return Message{ChannelID: to, Kind: MessageWelcome, Generation: 1, SenderID: l.devices[0].ID, DeliveryID: ids.NewDelivery(now), AboutChannel: c.ID,
			AcceptedAt: now, ExpiresAt: now.Add(week), Payload: []byte("welcome")}
	}
	_, err = s.CreateGroup(t.Context(), &Group{ChannelID: c.ID, Generation: 1, GroupInfo: l.account.RootKey, Creator: l.devices[0].ID, CreatorAccount: l.account.ID,
		Welcomes: []Message{welcome(l.peer.ID), welcome(l.devices[1].ID)}, At: now})
	must(t, err)
	for i := range 3 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(c.ID, l.devices[0], fmt.Sprint("mine ", i)), message(c.ID, l.devices[1], fmt.Sprint("mine too ", i)), message(c.ID, l.peer, fmt.Sprint("theirs ", i))}))
	}
	must(t, s.Acknowledge(t.Context(), []Ack{{l.devices[0].ID, c.ID, 2}}))
	return c.ID
}

// relate has the account accepted by one, ask another and block a third, vote, and choose how a channel is kept.
func (l *life) relate(t *testing.T, s *Store, accepted, blocked, asked Account) {
	t.Helper()
	now := time.Now()
	for _, other := range []Account{accepted, asked} { // Who is asked may be who is blocked then.
		_, _, err := s.AskContact(t.Context(), &ContactChange{Account: l.account.ID, Other: other.ID, At: now}, 10, 10)
		must(t, err)
	}
	_, err := s.AcceptContact(t.Context(), &ContactChange{Account: accepted.ID, Other: l.account.ID, At: now})
	must(t, err)
	must(t, s.BlockContact(t.Context(), &ContactChange{Account: l.account.ID, Other: blocked.ID, At: now}, true))
	_, _, err = s.VoteGeneration(t.Context(), l.group, 2, l.account.ID, now, now.Add(-week))
	must(t, err)
	must(t, s.SetRetention(t.Context(), l.direct, l.account.ID, day, HistoryOff))
}

// joinGroup puts the account into a group with the peer, as its admin.
func (l *life) joinGroup(t *testing.T, s *Store, peer Account) ids.ID {
	t.Helper()
	id := ids.New()
	for _, x := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO channels (channel_id, kind, generation, created_at) VALUES ($1, 2, 1, now())`, []any{id}},
		{`INSERT INTO channel_members (channel_id, account_id, role) VALUES ($1, $2, 3), ($1, $3, 1)`, []any{id, l.account.ID, peer.ID}},
		{`INSERT INTO cursors (device_id, channel_id, acked_seq) VALUES ($2, $1, 0), ($3, $1, 0)`, []any{id, l.devices[0].ID, l.peer.ID}},
		{`INSERT INTO groups (channel_id, generation, epoch, start_seq, group_info_sealed, creator_id, created_at) VALUES ($1, 1, 0, 0, $2, $3, now())`,
			[]any{id, s.sealer.seal("groups.group_info", ids.GroupID(id, 1), []byte("info")), l.devices[0].ID}},
	} {
		_, err := s.pool.Exec(t.Context(), x.sql, x.args...)
		must(t, err)
	}
	must(t, s.AppendBatch(t.Context(), []*Append{message(id, l.devices[0], "to all")}))
	return id
}

// checkLeft compares what was found with what docs/privacy.md lets stay.
func checkLeft(t *testing.T, found map[string][]string) {
	t.Helper()
	fates := decided(t)
	for _, column := range slices.Sorted(maps.Keys(found)) {
		if !strings.HasPrefix(fates[column].deletion, "later: ") {
			t.Errorf("%s still holds %q, and docs/privacy.md says: %s", column, found[column], fates[column].deletion)
		}
	}
}
