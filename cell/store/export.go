package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"quicproquo.dev/cell/audit"
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

// The lines. Times are the cell's.

type exportedAccount struct {
	Type           string     `json:"type"` // account
	AccountID      ids.ID     `json:"accountId"`
	Name           string     `json:"name"`
	RootKey        []byte     `json:"rootKey"`
	CreatedAt      time.Time  `json:"createdAt"`
	DisabledAt     *time.Time `json:"disabledAt,omitempty"`
	PasswordKey    uint32     `json:"passwordKey"`    // Of the cell's OPAQUE keys.
	KnownAddresses int        `json:"knownAddresses"` // From which its people have logged in; kept as hashes.
	AuditPseudonym string     `json:"auditPseudonym,omitempty"`
}

type exportedCode struct {
	Type      string     `json:"type"` // recoveryCode or resetCode
	AccountID ids.ID     `json:"accountId"`
	CreatedAt time.Time  `json:"createdAt"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

type exportedLink struct {
	Type        string     `json:"type"` // deviceLink
	AccountID   ids.ID     `json:"accountId"`
	LinkID      ids.ID     `json:"linkId"`
	DeviceName  string     `json:"deviceName"`
	Certificate []byte     `json:"certificate"`
	CreatedAt   time.Time  `json:"createdAt"`
	ExpiresAt   time.Time  `json:"expiresAt"`
	FinishedAt  *time.Time `json:"finishedAt,omitempty"`
}

// accountLines are few: they come at once.
func (x *exporting) accountLines(ctx context.Context, _ []byte) ([]ExportLine, error) {
	a, err := x.s.AccountByID(ctx, x.account)
	if err != nil {
		return nil, err
	}
	line := exportedAccount{Type: "account", AccountID: a.ID, Name: a.Name, RootKey: a.RootKey, CreatedAt: a.CreatedAt.UTC()}
	if err := x.s.pool.QueryRow(ctx, `SELECT disabled_at, opaque_key_id, (SELECT count(*) FROM known_addresses k WHERE k.account_id = a.account_id)
		FROM accounts a WHERE account_id = $1`, x.account).Scan(&line.DisabledAt, &line.PasswordKey, &line.KnownAddresses); err != nil {
		return nil, err
	}
	switch ref, err := x.s.AuditRef(ctx, x.account); {
	case err == nil:
		line.AuditPseudonym = ref.String()
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	codes, err := x.collect(ctx, 0, func(r pgx.CollectableRow) (any, []byte, error) {
		c := exportedCode{Type: "recoveryCode", AccountID: x.account}
		var reset bool
		err := r.Scan(&reset, &c.CreatedAt, &c.ExpiresAt)
		if reset {
			c.Type = "resetCode"
		}
		return c, nil, err
	}, `SELECT wrapped_root_sealed IS NULL, created_at, expires_at FROM recovery_codes WHERE account_id = $1 ORDER BY recovery_key`, x.account)
	if err != nil {
		return nil, err
	}
	links, err := x.collect(ctx, 0, x.link, `SELECT link_id, name_sealed, certificate, created_at, expires_at, finished_at FROM device_links WHERE account_id = $1 ORDER BY link_id`, x.account)
	return append(append([]ExportLine{{line, x.place(nil)}}, codes...), links...), err
}

func (x *exporting) link(r pgx.CollectableRow) (any, []byte, error) {
	l := exportedLink{Type: "deviceLink", AccountID: x.account}
	var name []byte
	if err := r.Scan(&l.LinkID, &name, &l.Certificate, &l.CreatedAt, &l.ExpiresAt, &l.FinishedAt); err != nil || name == nil {
		return l, nil, err
	}
	plain, err := x.s.sealer.open("device_links.name", l.LinkID[:], name)
	l.DeviceName = string(plain)
	return l, nil, err
}

type exportedDevice struct {
	Type              string      `json:"type"` // device
	DeviceID          ids.ID      `json:"deviceId"`
	AccountID         ids.ID      `json:"accountId"`
	Name              string      `json:"name"`
	DeviceKey         []byte      `json:"deviceKey"`
	Certificate       []byte      `json:"certificate"`
	AddedAt           time.Time   `json:"addedAt"`
	LastSeen          *time.Time  `json:"lastSeen,omitempty"` // To the day.
	RevokedAt         *time.Time  `json:"revokedAt,omitempty"`
	KeyPackages       []time.Time `json:"keyPackagesExpireAt"` // One-time ones, of which each is a time.
	LastResortExpires *time.Time  `json:"lastResortExpiresAt,omitempty"`
	GroupsCreated     int         `json:"groupsCreated"`
}

func (x *exporting) deviceLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	return x.collect(ctx, exportLines, func(r pgx.CollectableRow) (any, []byte, error) {
		d := exportedDevice{Type: "device", AccountID: x.account}
		var name []byte
		if err := r.Scan(&d.DeviceID, &name, &d.DeviceKey, &d.Certificate, &d.AddedAt, &d.LastSeen, &d.RevokedAt, &d.KeyPackages, &d.LastResortExpires, &d.GroupsCreated); err != nil {
			return nil, nil, err
		}
		plain, err := x.s.sealer.open("devices.name", d.DeviceID[:], name)
		d.Name = string(plain)
		return d, d.DeviceID[:], err
	}, `SELECT device_id, name_sealed, device_key, certificate, created_at, last_seen, revoked_at,
			ARRAY (SELECT expires_at FROM key_packages p WHERE p.device_id = d.device_id AND NOT last_resort ORDER BY expires_at),
			(SELECT max(expires_at) FROM key_packages p WHERE p.device_id = d.device_id AND last_resort),
			(SELECT count(*) FROM groups g WHERE g.creator_id = d.device_id)
		FROM devices d WHERE account_id = $1 AND device_id > $2 ORDER BY device_id LIMIT $3`, x.account, keyID(key), exportLines)
}

type exportedSession struct {
	Type      string     `json:"type"` // session
	SessionID ids.ID     `json:"sessionId"`
	DeviceID  ids.ID     `json:"deviceId"`
	StartedAt time.Time  `json:"startedAt"`
	ExpiresAt time.Time  `json:"expiresAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
}

func (x *exporting) sessionLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	return x.collect(ctx, exportLines, func(r pgx.CollectableRow) (any, []byte, error) {
		n := exportedSession{Type: "session"}
		err := r.Scan(&n.SessionID, &n.DeviceID, &n.StartedAt, &n.ExpiresAt, &n.EndedAt)
		return n, n.SessionID[:], err
	}, `SELECT session_id, device_id, created_at, expires_at, revoked_at FROM sessions
		WHERE device_id = ANY ($1) AND session_id > $2 ORDER BY session_id LIMIT $3`, x.devices, keyID(key), exportLines)
}

type exportedClaim struct {
	Type      string    `json:"type"`               // keyPackagesClaimed: by the account, or of its own by somebody
	DeviceID  *ids.ID   `json:"deviceId,omitempty"` // That claimed, if it is the account's.
	AccountID ids.ID    `json:"accountId"`          // Whose they are.
	ClaimedAt time.Time `json:"claimedAt"`
	Packages  int       `json:"packages"`
}

func (x *exporting) claimLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	return x.collect(ctx, exportLines, func(r pgx.CollectableRow) (any, []byte, error) {
		c := exportedClaim{Type: "keyPackagesClaimed"}
		var claimer, request ids.ID
		var own bool
		if err := r.Scan(&claimer, &request, &c.AccountID, &c.ClaimedAt, &c.Packages, &own); err != nil {
			return nil, nil, err
		}
		if own {
			c.DeviceID = &claimer
		}
		return c, append(claimer[:], request[:]...), nil
	}, `SELECT claimer_id, request_id, account_id, claimed_at, cardinality(packages), claimer_id = ANY ($1) FROM key_package_claims
		WHERE (claimer_id = ANY ($1) OR account_id = $2) AND (claimer_id, request_id) > ($3, $4) ORDER BY claimer_id, request_id LIMIT $5`,
		x.devices, x.account, keyID(key), keyID(key[ids.Size:]), exportLines)
}

type exportedCursor struct {
	DeviceID ids.ID  `json:"deviceId"`
	AckedSeq uint64  `json:"ackedSeq"`
	UntilSeq *uint64 `json:"untilSeq,omitempty"` // Of the Commit that removed the device.
}

type exportedChannel struct {
	Type        string           `json:"type"` // channel
	ChannelID   ids.ID           `json:"channelId"`
	Kind        ChannelKind      `json:"kind"` // 1 direct, 2 group.
	Generation  uint32           `json:"generation"`
	LastSeq     uint64           `json:"lastSeq"`
	CreatedAt   time.Time        `json:"createdAt"`
	ClosedUntil *time.Time       `json:"closedUntil,omitempty"`
	With        []ids.ID         `json:"with"` // Other accounts, at most 1000 of them.
	Others      int              `json:"others"`
	Cursors     []exportedCursor `json:"cursors"`
	Role        Role             `json:"role"` // 1 member, 2 moderator, 3 admin.
	JoinedAt    time.Time        `json:"joinedAt"`
	Retention   *int             `json:"retentionSec,omitempty"` // The channel's own.
	History     History          `json:"history"`                // 0 as the cell's policy says, 1 on, 2 off.
	Votes       []time.Time      `json:"votes"`                  // Of the account, for another generation.
}

func (x *exporting) channelLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	const most = 100
	lines, err := x.collect(ctx, most, func(r pgx.CollectableRow) (any, []byte, error) {
		c := exportedChannel{Type: "channel", With: []ids.ID{}, Cursors: []exportedCursor{}}
		var devices []ids.ID
		var acked []uint64
		var until []*uint64
		err := r.Scan(&c.ChannelID, &c.Kind, &c.Generation, &c.LastSeq, &c.CreatedAt, &c.ClosedUntil, &c.With, &c.Others, &devices, &acked, &until,
			&c.Role, &c.JoinedAt, &c.Retention, &c.History, &c.Votes)
		for i, d := range devices {
			c.Cursors = append(c.Cursors, exportedCursor{d, acked[i], until[i]})
		}
		return c, c.ChannelID[:], err
	}, `SELECT c.channel_id, c.kind, c.generation, c.last_seq, c.created_at, c.closed_until,
			ARRAY (SELECT account_id FROM channel_members o WHERE o.channel_id = c.channel_id AND o.account_id <> $1 ORDER BY account_id LIMIT $5),
			(SELECT count(*) FROM channel_members o WHERE o.channel_id = c.channel_id AND o.account_id <> $1),
			ARRAY (SELECT device_id FROM cursors k WHERE k.channel_id = c.channel_id AND k.device_id = ANY ($2) ORDER BY device_id),
			ARRAY (SELECT acked_seq FROM cursors k WHERE k.channel_id = c.channel_id AND k.device_id = ANY ($2) ORDER BY device_id),
			ARRAY (SELECT until_seq FROM cursors k WHERE k.channel_id = c.channel_id AND k.device_id = ANY ($2) ORDER BY device_id),
			m.role, m.joined_at, c.retention_sec, c.history, ARRAY (SELECT voted_at FROM generation_votes v WHERE v.channel_id = c.channel_id AND v.account_id = $1 ORDER BY generation)
		FROM channel_members m JOIN channels c USING (channel_id) WHERE m.account_id = $1 AND m.channel_id > $3 ORDER BY m.channel_id LIMIT $4`,
		x.account, x.devices, keyID(key), most, exportPeers)
	return lines, err
}

type exportedContact struct {
	Type      string       `json:"type"` // contact
	AccountID ids.ID       `json:"accountId"`
	State     ContactState `json:"state"`           // 0 nobody has asked, 1 Asker has asked, 2 accepted.
	Asker     *ids.ID      `json:"asker,omitempty"` // Which of the two.
	Blocked   bool         `json:"blocked"`         // By the account; whether the other has is the other's.
	Since     time.Time    `json:"since"`
}

func (x *exporting) contactLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	contacts, err := x.s.ContactsOf(ctx, x.account, ids.ID(key), exportLines)
	if err != nil {
		return nil, err
	}
	lines := make([]ExportLine, len(contacts))
	for i, c := range contacts {
		line := exportedContact{Type: "contact", AccountID: c.Other, State: c.State, Blocked: c.Blocks, Since: c.Since.UTC()}
		if !c.Asker.IsZero() {
			line.Asker = &c.Asker
		}
		lines[i] = ExportLine{line, x.place(c.Other[:])}
	}
	if len(lines) == exportLines {
		x.goOn = lines[len(lines)-1].Next[1:]
	}
	return lines, nil
}

type exportedMessage struct {
	Type       string      `json:"type"` // messageSent or inboxMessage
	ChannelID  ids.ID      `json:"channelId"`
	Seq        uint64      `json:"seq"`
	Kind       MessageKind `json:"kind"` // 1 application, 2 commit, 3 proposal, 4 Welcome, 5 notice.
	DeviceID   ids.ID      `json:"deviceId"`
	DeliveryID ids.ID      `json:"deliveryId"`
	About      *ids.ID     `json:"aboutChannelId,omitempty"`
	Generation uint32      `json:"generation"`
	AcceptedAt time.Time   `json:"acceptedAt"`
	ExpiresAt  time.Time   `json:"expiresAt"`
	Bytes      int         `json:"bytes"` // Of ciphertext, which its devices can read and the cell cannot.
}

const messageColumnsExported = `m.channel_id, m.seq, m.kind, m.sender_id, m.delivery_id, m.about_channel, m.generation, m.accepted_at, m.expires_at, octet_length(m.payload)`

func exportMessage(kind string) func(pgx.CollectableRow) (any, []byte, error) {
	return func(r pgx.CollectableRow) (any, []byte, error) {
		m := exportedMessage{Type: kind}
		err := r.Scan(&m.ChannelID, &m.Seq, &m.Kind, &m.DeviceID, &m.DeliveryID, &m.About, &m.Generation, &m.AcceptedAt, &m.ExpiresAt, &m.Bytes)
		return m, seqKey(m.ChannelID, m.Seq), err
	}
}

func seqKey(id ids.ID, seq uint64) []byte { return binary.BigEndian.AppendUint64(id[:], seq) }

// keyID is an id of a place to go on, which may be zero: the first of all, and not NULL as zero is elsewhere.
func keyID(key []byte) pgtype.UUID { return pgtype.UUID{Bytes: [16]byte(key[:ids.Size]), Valid: true} }

func readSeqKey(key []byte) (pgtype.UUID, int64) {
	return keyID(key), int64(binary.BigEndian.Uint64(key[ids.Size:]) & (1<<63 - 1)) //nolint:gosec // cut to fit.
}

// sentLines are the messages that the account's devices have sent into its channels, some channels at a time.
func (x *exporting) sentLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	const atOnce = 50
	channel, seq := readSeqKey(key)
	lines, err := x.collect(ctx, exportLines, exportMessage("messageSent"), `SELECT `+messageColumnsExported+`
		FROM (SELECT channel_id FROM channel_members WHERE account_id = $1 AND channel_id >= $2 ORDER BY channel_id LIMIT $3) c
		CROSS JOIN LATERAL (SELECT * FROM messages WHERE channel_id = c.channel_id AND (c.channel_id > $2 OR seq > $4) AND sender_id = ANY ($5) AND expires_at > $6
			ORDER BY seq LIMIT $7) m ORDER BY m.channel_id, m.seq LIMIT $7`,
		x.account, channel, atOnce, seq, x.devices, x.now, exportLines)
	if err != nil || x.goOn != nil {
		return lines, err
	}
	var last *ids.ID // Of the channels that were looked at, if there may be others behind it.
	err = x.s.pool.QueryRow(ctx, `SELECT channel_id FROM channel_members WHERE account_id = $1 AND channel_id >= $2 ORDER BY channel_id OFFSET $3 - 1 LIMIT 1`,
		x.account, channel, atOnce).Scan(&last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return lines, nil
	case err == nil:
		x.goOn = seqKey(*last, 1<<63-1)
	}
	return lines, err
}

// inboxLines are what waits for the account's devices themselves.
func (x *exporting) inboxLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	channel, seq := readSeqKey(key)
	return x.collect(ctx, exportLines, exportMessage("inboxMessage"), `SELECT `+messageColumnsExported+` FROM messages m
		WHERE channel_id = ANY ($1) AND (channel_id, seq) > ($2, $3) AND expires_at > $4 ORDER BY channel_id, seq LIMIT $5`,
		x.devices, channel, seq, x.now, exportLines)
}

type exportedEvent struct {
	Type      string            `json:"type"` // auditEvent
	At        time.Time         `json:"at"`
	Kind      string            `json:"kind"`
	Outcome   string            `json:"outcome"`
	Reason    string            `json:"reason,omitempty"`
	By        string            `json:"by"` // account: its own people; else another account, an admin, the cell, …
	DeviceID  *ids.ID           `json:"deviceId,omitempty"`
	Pseudonym map[string]string `json:"pseudonyms,omitempty"` // Of what else it names.
	Address   string            `json:"addressHash,omitempty"`
	Details   map[string]uint64 `json:"details,omitempty"`
}

// auditLines looks through a part of the audit log for what is about the account, or by it.
func (x *exporting) auditLines(ctx context.Context, key []byte) ([]ExportLine, error) {
	subject, err := x.s.subjectKey(ctx, x.s.pool, x.account)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // No event names it.
	}
	if err != nil {
		return nil, err
	}
	after, seq := readSeqKey(key)
	rows, err := x.s.pool.Query(ctx, `SELECT writer, seq, body FROM audit_events WHERE (writer, seq) > ($1, $2) ORDER BY writer, seq LIMIT $3`, after, seq, exportEvents)
	if err != nil {
		return nil, err
	}
	var lines []ExportLine
	var writer ids.ID
	var at uint64
	var body []byte
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&writer, &at, &body}, func() error {
		seen++
		if seen == exportEvents {
			x.goOn = seqKey(writer, at)
		}
		// One of a newer release, or that is damaged, is passed over: that is for the log's own verification.
		if r, err := audit.DecodeRecord(body); err == nil && isOf(r, subject) {
			lines = append(lines, ExportLine{x.event(r, subject), x.place(seqKey(writer, at))})
		}
		return nil
	})
	return lines, err
}

// isOf reports whether a record is about the account, or by it.
func isOf(r *audit.Record, subject *audit.SubjectKey) bool {
	own := subject.Account()
	return r.Subject == own || r.By == own
}

func (x *exporting) event(r *audit.Record, subject *audit.SubjectKey) exportedEvent {
	e := exportedEvent{Type: "auditEvent", At: r.At, Kind: r.Kind.String(), Outcome: r.Outcome.String(), By: r.Actor.String()}
	if r.Reason != audit.ReasonNone {
		e.Reason = r.Reason.String()
	}
	own := subject.Account()
	if r.Actor == audit.ActorAccount && r.By != own {
		e.By = "another account"
	}
	for _, d := range x.devices {
		if r.Device == subject.Device(d) {
			e.DeviceID = &d
		}
	}
	if r.By == own || r.Subject == own && r.Actor != audit.ActorAccount { // Its own pseudonyms, not another account's.
		for name, ref := range map[string]audit.Ref{"session": r.Session, "channel": r.Channel} {
			if !ref.IsZero() {
				if e.Pseudonym == nil {
					e.Pseudonym = map[string]string{}
				}
				e.Pseudonym[name] = ref.String()
			}
		}
		if r.Address != (audit.AddressRef{}) {
			e.Address = fmt.Sprintf("%x", r.Address[:])
		}
	}
	for _, d := range r.Details {
		if e.Details == nil {
			e.Details = map[string]uint64{}
		}
		e.Details[d.Field.String()] = d.Value
	}
	return e
}
