package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// selectChannel reads channels as account $1 sees them: with its role, and how it stands to the other one of a direct channel.
const selectChannel = `SELECT c.channel_id, c.kind, c.generation, c.epoch, c.last_seq, coalesce(c.retention_sec, 0), c.history, m.role,
	CASE WHEN d.account_low = $1 THEN d.account_high ELSE d.account_low END, ` + contactColumns + `
	FROM channel_members m JOIN channels c USING (channel_id) LEFT JOIN direct_channels d USING (channel_id)
	LEFT JOIN contacts t ON t.account_low = d.account_low AND t.account_high = d.account_high WHERE m.account_id = $1`

func scanChannel(row pgx.CollectableRow) (Channel, error) {
	var c Channel
	var retention int64
	err := row.Scan(append([]any{&c.ID, &c.Kind, &c.Generation, &c.Epoch, &c.LastSeq, &retention, &c.History, &c.Role, &c.Peer}, c.Contact.columns()...)...)
	c.Retention = time.Duration(retention) * time.Second
	c.Contact.Other = c.Peer
	if c.Contact.State == ContactNone && c.Generation > 0 && c.Kind == ChannelDirect {
		c.Contact.State = ContactAccepted // Made while the policy asked for no request.
	}
	return c, err
}

// ChannelOf returns a channel of an account. ErrNotFound: there is none such, or the account is not in it.
func (s *Store) ChannelOf(ctx context.Context, account, channel ids.ID) (Channel, error) {
	rows, err := s.pool.Query(ctx, selectChannel+` AND c.channel_id = $2`, account, channel)
	if err != nil {
		return Channel{}, classify(err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanChannel)
	return c, classify(err)
}

// ChannelsOf returns up to limit of an account's channels after one, by id.
func (s *Store) ChannelsOf(ctx context.Context, account, after ids.ID, limit int) ([]Channel, error) {
	rows, err := s.pool.Query(ctx, selectChannel+` AND ($2::uuid IS NULL OR c.channel_id > $2) ORDER BY c.channel_id LIMIT $3`, account, after, limit)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(rows, scanChannel)
	return list, classify(err)
}

// PublicAccounts returns what others see of the accounts that are there: id, name, root key.
func (s *Store) PublicAccounts(ctx context.Context, accounts []ids.ID) (map[ids.ID]Account, error) {
	rows, err := s.pool.Query(ctx, `SELECT account_id, name_sealed, root_key FROM accounts WHERE account_id = ANY ($1)`, accounts)
	if err != nil {
		return nil, classify(err)
	}
	found := map[ids.ID]Account{}
	var a Account
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&a.ID, &sealed, &a.RootKey}, func() error {
		name, err := s.sealer.open("accounts.name", a.ID[:], sealed)
		a.Name = string(name)
		found[a.ID] = a
		a.RootKey = nil
		return err
	})
	return found, classify(err)
}

// OpenGroup makes a group channel with one member, its admin, and stores events. An account that is in the channel
// already is answered alike. ErrExists: the id is another channel's; ErrTooMany: the account has opened most that have no group yet.
func (s *Store) OpenGroup(ctx context.Context, channel, account ids.ID, most int, now time.Time, events ...audit.Event) (Channel, error) {
	c, err := s.ChannelOf(ctx, account, channel)
	if !errors.Is(err, ErrNotFound) {
		return c, err
	}
	err = s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if _, err := tx.Exec(ctx, `SELECT FROM accounts WHERE account_id = $1 FOR NO KEY UPDATE`, account); err != nil {
			return err
		}
		var open int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM channel_members JOIN channels USING (channel_id) WHERE account_id = $1 AND kind = $2 AND generation = 0`,
			account, ChannelGroup).Scan(&open); err != nil {
			return err
		}
		if open >= most {
			return ErrTooMany
		}
		var b pgx.Batch
		b.Queue(`INSERT INTO channels (channel_id, kind, created_at) VALUES ($1, $2, $3)`, channel, ChannelGroup, utc(now))
		b.Queue(`INSERT INTO channel_members (channel_id, account_id, role, joined_at) VALUES ($1, $2, $3, $4)`, channel, account, RoleAdmin, utc(now))
		return r.send(ctx, &b, events...)
	})
	if err != nil && !errors.Is(err, ErrExists) {
		return Channel{}, err
	}
	c, again := s.ChannelOf(ctx, account, channel) // Perhaps by the same request at another replica.
	if errors.Is(again, ErrNotFound) && err != nil {
		again = err
	}
	return c, again
}

// ErrLastAdmin says that a group would be left without an admin.
var ErrLastAdmin = errors.New("the group would have no admin")

// SetRole gives a member of a group channel a role, by another of its admins, and stores events. ErrNotFound: account is no
// member; ErrChanged: by is no admin (any more); ErrLastAdmin: nobody else would be.
func (s *Store) SetRole(ctx context.Context, channel, by, account ids.ID, role Role, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if _, err := lockHeads(ctx, tx, []ids.ID{channel}); err != nil {
			return err
		}
		h := &GroupHead{ID: channel}
		if err := h.read(ctx, tx); err != nil {
			return err
		}
		has, ok := h.Members[account]
		switch {
		case h.Members[by] != RoleAdmin:
			return ErrChanged
		case !ok:
			return ErrNotFound
		case has == role:
			return nil
		case has == RoleAdmin && h.admins() == 1:
			return ErrLastAdmin
		}
		var b pgx.Batch
		b.Queue(`UPDATE channel_members SET role = $3 WHERE channel_id = $1 AND account_id = $2`, channel, account, role)
		return r.send(ctx, &b, events...)
	})
}

func (h *GroupHead) admins() (n int) {
	for _, role := range h.Members {
		if role == RoleAdmin {
			n++
		}
	}
	return n
}

// SetRetention says how a channel's messages are kept from now on, and stores events. The partitions that the retention
// needs must be there. ErrChanged: by is not, or no longer, who may say so.
func (s *Store) SetRetention(ctx context.Context, channel, by ids.ID, retention time.Duration, history History, events ...audit.Event) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		if _, err := lockHeads(ctx, tx, []ids.ID{channel}); err != nil {
			return err
		}
		h := &GroupHead{ID: channel}
		if err := h.read(ctx, tx); err != nil {
			return err
		}
		if role, ok := h.Members[by]; !ok || h.Kind == ChannelGroup && role != RoleAdmin {
			return ErrChanged
		}
		var own *int64
		if retention > 0 {
			seconds := int64(retention / time.Second)
			own = &seconds
		}
		var b pgx.Batch
		b.Queue(`UPDATE channels SET retention_sec = $2, history = $3 WHERE channel_id = $1`, channel, own, history)
		return r.send(ctx, &b, events...)
	})
}

// Retentions returns the retentions that channels have of their own, each once.
func (s *Store) Retentions(ctx context.Context) ([]time.Duration, error) {
	rows, err := s.pool.Query(ctx, `WITH RECURSIVE r AS ((SELECT min(retention_sec) AS sec FROM channels)
		UNION ALL SELECT (SELECT min(retention_sec) FROM channels WHERE retention_sec > r.sec) FROM r WHERE r.sec IS NOT NULL) SELECT sec FROM r WHERE sec IS NOT NULL`)
	if err != nil {
		return nil, classify(err)
	}
	seconds, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	list := make([]time.Duration, len(seconds))
	for i, n := range seconds {
		list[i] = time.Duration(n) * time.Second
	}
	return list, classify(err)
}
