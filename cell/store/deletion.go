package store

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// An account ends in two parts. BeginDeletion is one transaction, after which nobody can log in, refresh or be found
// under the name, which is free, what only the account's people could open is gone, and groups with a device of it take
// nothing but its removal. What is left are ids and what
// hangs on them, of any amount: ContinueDeletion removes it in transactions of bounded size, each of which leaves a state
// from which the next goes on, in this process or another. docs/privacy.md says for each table what becomes of its rows.

// ErrClosed says that a channel takes no messages any more: an account of it was deleted.
var ErrClosed = errors.New("the channel is closed: an account of it was deleted")

// ErrDisabled says that the account is disabled.
var ErrDisabled = errors.New("the account is disabled")

// Deletion is an account that is to be deleted.
type Deletion struct {
	Account ids.ID
	Proof   *Proof // By which it is allowed. Nil: an admin says so.
	At      time.Time
	// Attempts are the subjects (AttemptSubject) under which failed logins of the name, and of the devices, are counted.
	Attempts func(name string, devices []ids.ID) [][]byte
	// Event is stored before the account's pseudonym is erased.
	Event func(devices int) audit.Event
}

// BeginDeletion makes an account one that is being deleted. ErrNotFound: there is no such account; ErrChanged: the proof
// holds no more.
func (s *Store) BeginDeletion(ctx context.Context, d *Deletion) error {
	return settled(func() error { return s.beginDeletion(ctx, d) })
}

func (s *Store) beginDeletion(ctx context.Context, d *Deletion) error {
	return s.audited(ctx, func(tx pgx.Tx, r *recording) error {
		name, err := s.lockToDelete(ctx, tx, d)
		if err != nil {
			return err
		}
		devices, err := devicesOf(ctx, tx, d.Account)
		if err != nil {
			return err
		}
		if err := lockEnding(ctx, tx, devices); err != nil {
			return err
		}
		var b pgx.Batch
		queueRemoveFirst(&b, devices...) // From now on: who leaves its channels later would come late.
		if err := r.queue(ctx, &b, d.Event(len(devices))); err != nil {
			return err
		}
		r.eraseSubject(&b, d.Account)
		queueRevocation(&b, RevokedAccount, d.Account, d.At)
		b.Queue(`UPDATE devices SET revoked_at = $2 WHERE revoked_at IS NULL AND account_id = $1`, d.Account, utc(d.At)) // Before sessions, as everywhere.
		b.Queue(`UPDATE sessions SET revoked_at = $2 WHERE revoked_at IS NULL AND device_id = ANY ($1)`, devices, utc(d.At))
		for _, sql := range []string{`DELETE FROM recovery_codes WHERE account_id = $1`, `DELETE FROM known_addresses WHERE account_id = $1`,
			`DELETE FROM device_links WHERE account_id = $1`} {
			b.Queue(sql, d.Account)
		}
		b.Queue(`DELETE FROM login_attempts WHERE subject = ANY ($1)`, d.Attempts(name, devices))
		s.queueErasure(&b, d)
		if err := s.point("begun"); err != nil {
			return err
		}
		return r.send(ctx, &b)
	})
}

// lockToDelete locks an account that is whole still, and returns its name.
func (s *Store) lockToDelete(ctx context.Context, tx pgx.Tx, d *Deletion) (name string, err error) {
	var sealed []byte
	err = tx.QueryRow(ctx, `SELECT name_sealed FROM accounts WHERE account_id = $1 AND deleting_at IS NULL FOR NO KEY UPDATE`, d.Account).Scan(&sealed)
	if err == nil && d.Proof != nil {
		err = s.prove(ctx, tx, d.Account, *d.Proof, d.At)
	}
	if err != nil {
		return "", err
	}
	plain, err := s.sealer.open("accounts.name", d.Account[:], sealed)
	return string(plain), err
}

// queueErasure leaves nothing of an account but its id, and what says that it is being deleted.
func (s *Store) queueErasure(b *pgx.Batch, d *Deletion) {
	nobodys := make([]byte, 32)
	rand.Read(nobodys) //nolint:errcheck // crypto/rand.Read never fails.
	empty := func(place string) []byte { return s.sealer.seal(place, d.Account[:], nil) }
	b.Queue(`UPDATE accounts SET deleting_at = $2, name_index = $3, name_sealed = $4, opaque_record_sealed = $5, wrapped_root_sealed = $6,
		root_key = '', opaque_key_id = 0, skeleton_index = NULL, disabled_at = NULL WHERE account_id = $1`, d.Account, utc(d.At), nobodys,
		empty("accounts.name"), empty("accounts.opaque_record"), empty("accounts.wrapped_root"))
}

// lockEnabled locks an account that can be used, until the transaction ends. ErrDisabled, ErrNotFound: it cannot.
func lockEnabled(ctx context.Context, tx pgx.Tx, account ids.ID) error {
	var disabled bool
	err := tx.QueryRow(ctx, `SELECT disabled_at IS NOT NULL FROM accounts WHERE account_id = $1 AND deleting_at IS NULL FOR NO KEY UPDATE`, account).Scan(&disabled)
	if err == nil && disabled {
		err = ErrDisabled
	}
	return err
}

// point is where a test has the process die.
func (s *Store) point(name string) error {
	if s.crash == nil {
		return nil
	}
	return s.crash(name)
}

// Deletions lists accounts that are being deleted, the first that were begun.
func (s *Store) Deletions(ctx context.Context, most int) ([]ids.ID, error) {
	rows, err := s.pool.Query(ctx, `SELECT account_id FROM accounts WHERE deleting_at IS NOT NULL ORDER BY deleting_at, account_id LIMIT $1`, most)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	return list, classify(err)
}

const (
	deletionChannels = 64   // Channels that one transaction leaves.
	deletionRows     = 1000 // Rows of a table that one transaction removes.
)

// ContinueDeletion takes one further step of a deletion that was begun, and reports whether there may be more. Those
// who share a channel with the account are told of it by n; these notices are returned. While another process is at it,
// and when the account is gone, there is nothing more to do.
func (s *Store) ContinueDeletion(ctx context.Context, n *Notice) (told []*Message, more bool, err error) {
	err = s.tx(ctx, func(tx pgx.Tx) error {
		d := &deleting{s: s, tx: tx, account: n.Account, notice: n}
		mine, err := d.lock(ctx)
		if err != nil || !mine {
			return err
		}
		if err := s.point("step"); err != nil {
			return err
		}
		more, err = d.step(ctx)
		told = d.told
		if err == nil {
			err = s.point("stepped")
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return told, more, s.point("committed")
}

// deleting is one step of a deletion.
type deleting struct {
	s       *Store
	tx      pgx.Tx
	account ids.ID
	devices []ids.ID
	notice  *Notice
	told    []*Message
}

// lock keeps other processes out; mine is false when one is at it, or there is nothing to delete.
func (d *deleting) lock(ctx context.Context) (mine bool, err error) {
	tag, err := d.tx.Exec(ctx, `SELECT FROM accounts WHERE account_id = $1 AND deleting_at IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED`, d.account)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	d.devices, err = devicesOf(ctx, d.tx, d.account)
	return true, err
}

// step does what comes first of what is left. more is false after the last.
func (d *deleting) step(ctx context.Context) (more bool, err error) {
	if did, err := d.leaveChannels(ctx); err != nil || did {
		return true, err
	}
	for _, sql := range ofDevices {
		tag, err := d.tx.Exec(ctx, sql, d.devices, d.s.deletionRows)
		if err != nil || tag.RowsAffected() > 0 {
			return true, err
		}
	}
	for _, sql := range ofAccount {
		tag, err := d.tx.Exec(ctx, sql, d.account, d.s.deletionRows)
		if err != nil || tag.RowsAffected() > 0 {
			return true, err
		}
	}
	return d.removeRows(ctx)
}

// ofDevices removes rows that hang on devices, some at a time. What a KeyPackage was is forgotten with it: its device
// will upload none any more.
var ofDevices = []string{
	`WITH gone AS (DELETE FROM key_packages WHERE ref IN (SELECT ref FROM key_packages WHERE device_id = ANY ($1) LIMIT $2) RETURNING ref),
		seen AS (DELETE FROM key_packages_seen WHERE ref IN (SELECT ref FROM gone)) SELECT FROM gone`,
	`DELETE FROM key_package_claims WHERE (claimer_id, request_id) IN (SELECT claimer_id, request_id FROM key_package_claims WHERE claimer_id = ANY ($1) LIMIT $2)`,
	`DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions WHERE device_id = ANY ($1) LIMIT $2)`,
	`DELETE FROM messages WHERE (channel_id, seq, expires_at) IN (SELECT channel_id, seq, expires_at FROM messages WHERE channel_id = ANY ($1) LIMIT $2)`,
	`DELETE FROM delivery_ids WHERE (sender_id, delivery_id, id_time) IN (SELECT sender_id, delivery_id, id_time FROM delivery_ids WHERE sender_id = ANY ($1) LIMIT $2)`,
	`WITH mine AS (SELECT device_id, channel_id FROM cursors WHERE device_id = ANY ($1) ORDER BY device_id, channel_id LIMIT $2 FOR UPDATE)
		DELETE FROM cursors k USING mine WHERE k.device_id = mine.device_id AND k.channel_id = mine.channel_id`,
	`UPDATE groups SET creator_id = NULL WHERE (channel_id, generation) IN (SELECT channel_id, generation FROM groups WHERE creator_id = ANY ($1) LIMIT $2)`,
}

// ofAccount removes what others have claimed of the account's KeyPackages, since these name it, and how it stands to others.
var ofAccount = []string{
	`DELETE FROM key_package_claims WHERE (claimer_id, request_id) IN (SELECT claimer_id, request_id FROM key_package_claims WHERE account_id = $1 LIMIT $2)`,
	`WITH mine AS (SELECT account_low, account_high FROM contacts WHERE account_low = $1 OR account_high = $1 ORDER BY account_low, account_high LIMIT $2 FOR UPDATE)
		DELETE FROM contacts t USING mine WHERE t.account_low = mine.account_low AND t.account_high = mine.account_high`,
	`DELETE FROM generation_votes WHERE (channel_id, generation, account_id) IN (SELECT channel_id, generation, account_id FROM generation_votes WHERE account_id = $1 LIMIT $2)`,
}

// leaveChannels takes the account out of some of its channels, and tells the others. Of a channel between two, and where
// nobody else is left, nothing is left but the messages, for who may read them still.
func (d *deleting) leaveChannels(ctx context.Context) (did bool, err error) {
	rows, err := d.tx.Query(ctx, `SELECT channel_id FROM channel_members WHERE account_id = $1 ORDER BY channel_id LIMIT $2`, d.account, d.s.deletionChannels)
	if err != nil {
		return false, err
	}
	channels, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	if err != nil || len(channels) == 0 {
		return false, err
	}
	inboxes, err := d.othersInboxes(ctx, channels)
	if err != nil {
		return false, err
	}
	heads, err := lockHeads(ctx, d.tx, slices.Concat(channels, inboxes))
	if err != nil {
		return false, err
	}
	until, err := lastExpiry(ctx, d.tx, d.notice.At)
	if err != nil {
		return false, err
	}
	var b pgx.Batch
	if err := d.tell(&b, heads, inboxes); err != nil {
		return false, err
	}
	d.queueLeaving(&b, channels, until)
	return true, d.tx.SendBatch(ctx, &b).Close()
}

// othersInboxes are those of the other accounts in channels that were ever written in; of those with whom the account shares
// a further one, when that is left.
func (d *deleting) othersInboxes(ctx context.Context, channels []ids.ID) ([]ids.ID, error) {
	rows, err := d.tx.Query(ctx, `SELECT DISTINCT device_id FROM channel_members JOIN channels c USING (channel_id) JOIN devices USING (account_id)
		WHERE channel_id = ANY ($1) AND account_id <> $2 AND c.generation > 0 AND revoked_at IS NULL
		AND NOT EXISTS (SELECT FROM channel_members mine JOIN channel_members other USING (channel_id) JOIN channels further USING (channel_id)
			WHERE mine.account_id = $2 AND other.account_id = devices.account_id AND channel_id <> ALL ($1) AND further.generation > 0)`, channels, d.account)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[ids.ID])
}

func (d *deleting) tell(b *pgx.Batch, heads map[ids.ID]*head, inboxes []ids.ID) error {
	notices := make([]Message, len(inboxes))
	for i, inbox := range inboxes {
		notices[i] = d.notice.to(inbox)
	}
	told, err := queueInto(b, heads, notices)
	d.told = append(d.told, told...)
	return err
}

func (d *deleting) queueLeaving(b *pgx.Batch, channels []ids.ID, until time.Time) {
	b.Queue(`UPDATE channels c SET closed_until = CASE WHEN c.generation = 0 THEN $3 ELSE $4::timestamptz END, remove_first = NULL, muted = NULL WHERE c.channel_id = ANY ($1)
		AND (c.kind = $5 OR NOT EXISTS (SELECT FROM channel_members m WHERE m.channel_id = c.channel_id AND m.account_id <> $2))`,
		channels, d.account, utc(d.notice.At), until, ChannelDirect)
	queueRemoveFirstIn(b, channels, d.devices)
	b.Queue(`DELETE FROM direct_channels WHERE channel_id = ANY ($1)`, channels)
	b.Queue(`DELETE FROM groups g USING channels c WHERE g.channel_id = c.channel_id AND c.channel_id = ANY ($1) AND c.closed_until IS NOT NULL`, channels)
	b.Queue(`UPDATE groups SET creator_id = NULL WHERE channel_id = ANY ($1) AND creator_id = ANY ($2)`, channels, d.devices)
	b.Queue(`WITH mine AS (SELECT device_id, channel_id FROM cursors WHERE device_id = ANY ($2) AND channel_id = ANY ($1) ORDER BY device_id, channel_id FOR UPDATE)
		DELETE FROM cursors k USING mine WHERE k.device_id = mine.device_id AND k.channel_id = mine.channel_id`, channels, d.devices)
	b.Queue(`DELETE FROM channel_members WHERE channel_id = ANY ($1) AND account_id = $2`, channels, d.account)
	for _, channel := range channels {
		queueSuccessor(b, channel)
	}
	for _, device := range d.devices {
		b.Queue(`INSERT INTO departed_senders (device_id, account_sealed, until) SELECT $1, $2, $3
			WHERE EXISTS (SELECT FROM channels WHERE channel_id = ANY ($4) AND generation > 0) ON CONFLICT (device_id) DO NOTHING`,
			device, d.s.sealer.seal(departedPlace, device[:], d.account[:]), until, channels)
	}
}

// departedPlace is where the account of a device that is gone is sealed.
const departedPlace = "departed_senders.account"

// departed opens it.
func (s *Store) departed(device ids.ID, sealed []byte) (ids.ID, error) {
	plain, err := s.sealer.open(departedPlace, device[:], sealed)
	if err != nil {
		return ids.ID{}, err
	}
	return ids.FromBytes(plain)
}

// lastExpiry is a time by which every message that is stored now will have expired: the end of the last partition.
func lastExpiry(ctx context.Context, tx pgx.Tx, now time.Time) (time.Time, error) {
	var last *string
	if err := tx.QueryRow(ctx, `SELECT max(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'messages'::regclass`).Scan(&last); err != nil {
		return time.Time{}, err
	}
	if last == nil {
		return utc(now), nil
	}
	d, err := time.Parse("messages_20060102", *last)
	return d.Add(day), err
}

// removeRows removes the account's devices and, after the last of them, the account.
func (d *deleting) removeRows(ctx context.Context) (more bool, err error) {
	page := d.devices[:min(len(d.devices), d.s.deletionRows)]
	var b pgx.Batch
	b.Queue(`DELETE FROM channels WHERE channel_id = ANY ($1)`, page) // Their inboxes.
	b.Queue(`DELETE FROM devices WHERE device_id = ANY ($1)`, page)
	if more = len(page) < len(d.devices); !more {
		b.Queue(`DELETE FROM accounts WHERE account_id = $1`, d.account) // With what hangs on it by ON DELETE CASCADE.
	}
	return more, d.tx.SendBatch(ctx, &b).Close()
}

// SweepDeparted removes what was kept of deleted accounts for messages that have expired by now: closed channels, some
// at a time, and senders. It reports whether there are more.
func (s *Store) SweepDeparted(ctx context.Context, now time.Time) (more bool, err error) {
	err = s.tx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT channel_id FROM channels c WHERE closed_until < $1
			AND NOT EXISTS (SELECT FROM messages m WHERE m.channel_id = c.channel_id AND m.expires_at > $1)
			ORDER BY channel_id LIMIT $2 FOR UPDATE SKIP LOCKED`, utc(now), s.deletionChannels)
		if err != nil {
			return err
		}
		channels, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
		if err != nil {
			return err
		}
		more = len(channels) == s.deletionChannels
		var b pgx.Batch
		b.Queue(`DELETE FROM departed_senders WHERE until < $1`, utc(now))
		for _, sql := range []string{
			`WITH all_of AS (SELECT device_id, channel_id FROM cursors WHERE channel_id = ANY ($1) ORDER BY device_id, channel_id FOR UPDATE)
				DELETE FROM cursors k USING all_of WHERE k.device_id = all_of.device_id AND k.channel_id = all_of.channel_id`,
			`DELETE FROM channel_members WHERE channel_id = ANY ($1)`, `DELETE FROM groups WHERE channel_id = ANY ($1)`,
			`DELETE FROM direct_channels WHERE channel_id = ANY ($1)`, `DELETE FROM channels WHERE channel_id = ANY ($1)`} {
			b.Queue(sql, channels)
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	return more && err == nil, err
}
