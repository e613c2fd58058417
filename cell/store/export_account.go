package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

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
