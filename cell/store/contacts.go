package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// ContactState is how two accounts stand to each other, blocks apart.
type ContactState int16

// The states, as stored.
const (
	ContactNone     ContactState = 0
	ContactAsked    ContactState = 1 // By Asker.
	ContactAccepted ContactState = 2
)

// Contact is how an account stands to another.
type Contact struct {
	Other    ids.ID
	State    ContactState
	Asker    ids.ID
	Blocks   bool // The account blocks the other,
	IsBlocks bool // and the other the account.
	Since    time.Time
}

// contactColumns are those of a row t of contacts, as account $1 sees it.
const contactColumns = `coalesce(t.state, 0), t.asker, coalesce(CASE WHEN t.account_low = $1 THEN t.low_blocks ELSE t.high_blocks END, false),
	coalesce(CASE WHEN t.account_low = $1 THEN t.high_blocks ELSE t.low_blocks END, false), coalesce(t.since, 'epoch')`

func (c *Contact) columns() []any {
	return []any{&c.State, &c.Asker, &c.Blocks, &c.IsBlocks, &c.Since}
}

// MayWrite reports whether the account may write to the other where contacts are asked for, or are not.
func (c *Contact) MayWrite(asked bool) bool {
	return !c.IsBlocks && (!asked || c.State == ContactAccepted)
}

// selectContacts reads contacts of account $1, with whom it wrote before contacts were asked for among them.
const selectContact = `SELECT CASE WHEN t.account_low = $1 THEN t.account_high ELSE t.account_low END, ` + contactColumns + ` FROM contacts t`

// ContactOf returns how an account stands to another. Those who have a direct channel with a group, and never asked, have
// accepted each other.
func (s *Store) ContactOf(ctx context.Context, account, other ids.ID) (Contact, error) {
	c := Contact{Other: other}
	var direct bool
	low, high := sortPair(account, other)
	err := s.pool.QueryRow(ctx, `SELECT `+contactColumns+`, coalesce(c.generation, 0) > 0 FROM (SELECT $2::uuid AS low, $3::uuid AS high) pair
		LEFT JOIN contacts t ON t.account_low = pair.low AND t.account_high = pair.high
		LEFT JOIN direct_channels d ON d.account_low = pair.low AND d.account_high = pair.high LEFT JOIN channels c USING (channel_id)`,
		account, low, high).Scan(append(c.columns(), &direct)...)
	if c.State == ContactNone && direct {
		c.State = ContactAccepted
	}
	return c, classify(err)
}

func sortPair(a, b ids.ID) (low, high ids.ID) {
	if a.Compare(b) > 0 {
		return b, a
	}
	return a, b
}

// ContactsOf returns up to limit of an account's contacts after one, by the other's id.
func (s *Store) ContactsOf(ctx context.Context, account, after ids.ID, limit int) ([]Contact, error) {
	rows, err := s.pool.Query(ctx, `SELECT * FROM (`+selectContact+` WHERE t.account_low = $1 UNION ALL `+selectContact+` WHERE t.account_high = $1) AS c (other, state, asker, blocks, is_blocked, since)
		WHERE ($2::uuid IS NULL OR other > $2) AND (state > 0 OR blocks) ORDER BY other LIMIT $3`, account, after, limit)
	if err != nil {
		return nil, classify(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Contact, err error) {
		return c, row.Scan(append([]any{&c.Other}, c.columns()...)...)
	})
	return list, classify(err)
}

// ShareGroup reports whether two accounts are members of one group channel.
func (s *Store) ShareGroup(ctx context.Context, a, b ids.ID) (bool, error) {
	var share bool
	err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM channel_members x JOIN channel_members y USING (channel_id) JOIN channels c USING (channel_id)
		WHERE x.account_id = $1 AND y.account_id = $2 AND c.kind = $3 AND c.generation > 0)`, a, b, ChannelGroup).Scan(&share)
	return share, classify(err)
}

// ErrAsksTooMuch says that the account has asked too often, or too many.
var ErrAsksTooMuch = errors.New("too many contact requests")

// ContactChange is what an account does about another.
type ContactChange struct {
	Account, Other ids.ID
	At             time.Time
	// Notice makes what the other's devices are told, if the change is one to tell; nil: nothing.
	Notice func(inbox ids.ID) Message
	Events func() []audit.Event // Stored with a change that is one.
}

// contactRow is a pair's row while it is locked.
type contactRow struct {
	Contact
	low, high ids.ID
	asks      int
	asksSince time.Time
}

// lockContact makes the pair's row, if there is none, and locks it.
func (c *ContactChange) lock(ctx context.Context, tx pgx.Tx) (*contactRow, error) {
	r := &contactRow{Contact: Contact{Other: c.Other}}
	r.low, r.high = sortPair(c.Account, c.Other)
	var direct bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM direct_channels d JOIN channels c USING (channel_id) WHERE d.account_low = $1 AND d.account_high = $2 AND c.generation > 0)`,
		r.low, r.high).Scan(&direct); err != nil {
		return nil, err
	}
	state := ContactNone
	if direct {
		state = ContactAccepted
	}
	// Not by the foreign keys alone: that an account was deleted a moment ago is no fault.
	_, err := tx.Exec(ctx, `INSERT INTO contacts (account_low, account_high, state, since, asks_since)
		SELECT $1, $2, $3, $4, $4 FROM (SELECT FROM accounts WHERE account_id IN ($1, $2) ORDER BY account_id FOR KEY SHARE) AS there HAVING count(*) = 2 ON CONFLICT DO NOTHING`,
		r.low, r.high, state, utc(c.At))
	if err != nil {
		return nil, err
	}
	err = tx.QueryRow(ctx, `SELECT `+contactColumns+`, t.asks, t.asks_since FROM contacts t WHERE t.account_low = $2 AND t.account_high = $3 FOR NO KEY UPDATE`,
		c.Account, r.low, r.high).Scan(append(r.columns(), &r.asks, &r.asksSince)...)
	return r, err
}

// AskContact asks another account to be written to. Who is asked already, by the other, has accepted by this. perDay is how
// often one may ask the same one in 24 hours, open how many requests may be without an answer: ErrAsksTooMuch. What it leads to
// is returned, with the notices that are stored; of a blocked asker's request nobody is told.
func (s *Store) AskContact(ctx context.Context, c *ContactChange, perDay, open int) (out Contact, told []*Message, err error) {
	err = s.changeContact(ctx, c, func(ctx context.Context, tx pgx.Tx, r *contactRow) (contactStep, error) {
		switch {
		case r.State == ContactAccepted, r.State == ContactAsked && r.Asker == c.Account:
			return contactStep{}, nil
		case r.Blocks:
			return contactStep{}, nil // It takes the block back first.
		case r.State == ContactAsked:
			return contactStep{state: ContactAccepted, changes: true, tell: !r.IsBlocks}, nil
		}
		if c.At.Sub(r.asksSince) >= 24*time.Hour {
			r.asks, r.asksSince = 0, c.At
		}
		var waiting int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM contacts WHERE asker = $1 AND state = 1`, c.Account).Scan(&waiting); err != nil {
			return contactStep{}, err
		}
		if r.asks >= perDay || waiting >= open {
			return contactStep{}, ErrAsksTooMuch
		}
		r.asks++
		return contactStep{state: ContactAsked, asker: c.Account, changes: true, tell: !r.IsBlocks}, nil
	}, &out, &told)
	return out, told, err
}

// AcceptContact lets another account that has asked write. ErrNotFound: it has not asked.
func (s *Store) AcceptContact(ctx context.Context, c *ContactChange) (told []*Message, err error) {
	var out Contact
	err = s.changeContact(ctx, c, func(_ context.Context, _ pgx.Tx, r *contactRow) (contactStep, error) {
		switch {
		case r.State == ContactAccepted && !r.Blocks:
			return contactStep{}, nil
		case r.Blocks, r.State != ContactAsked, r.Asker != c.Other:
			return contactStep{}, ErrNotFound
		}
		return contactStep{state: ContactAccepted, changes: true, tell: true}, nil
	}, &out, &told)
	return told, err
}

// BlockContact keeps another account from writing, or no longer. A request that was open is forgotten when the block is taken back.
func (s *Store) BlockContact(ctx context.Context, c *ContactChange, blocked bool) error {
	var out Contact
	var told []*Message
	return s.changeContact(ctx, c, func(_ context.Context, _ pgx.Tx, r *contactRow) (contactStep, error) {
		if r.Blocks == blocked {
			return contactStep{}, nil
		}
		r.Blocks = blocked
		step := contactStep{state: r.State, asker: r.Asker, changes: true, block: true}
		if !blocked && r.State == ContactAsked && r.Asker == c.Other {
			step.state, step.asker = ContactNone, ids.ID{} // It may ask again.
		}
		return step, nil
	}, &out, &told)
}

// contactStep is what becomes of a pair's row.
type contactStep struct {
	state                ContactState
	asker                ids.ID
	changes, tell, block bool
}

// changeContact runs decide on the locked row. Channels are locked before it, in the one order: the direct channel, and
// the inboxes of the other's devices.
func (s *Store) changeContact(ctx context.Context, c *ContactChange, decide func(context.Context, pgx.Tx, *contactRow) (contactStep, error), out *Contact, told *[]*Message) error {
	return s.audited(ctx, func(tx pgx.Tx, rec *recording) error {
		*told = nil
		low, high := sortPair(c.Account, c.Other)
		rows, err := tx.Query(ctx, `SELECT channel_id FROM direct_channels WHERE account_low = $2 AND account_high = $3
			UNION ALL SELECT device_id FROM devices WHERE account_id = $1 AND revoked_at IS NULL`, c.Other, low, high)
		if err != nil {
			return err
		}
		channels, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
		if err != nil {
			return err
		}
		heads, err := lockHeads(ctx, tx, channels)
		if err != nil {
			return err
		}
		r, err := c.lock(ctx, tx)
		if err != nil {
			return err
		}
		step, err := decide(ctx, tx, r)
		*out = r.Contact
		if err != nil || !step.changes {
			return err
		}
		out.State, out.Asker = step.state, step.asker
		var b pgx.Batch
		if err := c.queue(&b, r, step); err != nil {
			return err
		}
		if step.tell && c.Notice != nil {
			if *told, err = c.queueNotices(ctx, tx, &b, heads); err != nil {
				return err
			}
		}
		var events []audit.Event
		if c.Events != nil {
			events = c.Events()
		}
		return rec.send(ctx, &b, events...)
	})
}

func (c *ContactChange) queue(b *pgx.Batch, r *contactRow, step contactStep) error {
	lowBlocks, highBlocks := r.Blocks, r.IsBlocks
	if r.low != c.Account {
		lowBlocks, highBlocks = highBlocks, lowBlocks
	}
	b.Queue(`UPDATE contacts SET state = $3, asker = $4, low_blocks = $5, high_blocks = $6, since = $7, asks = $8, asks_since = $9 WHERE account_low = $1 AND account_high = $2`,
		r.low, r.high, step.state, step.asker, lowBlocks, highBlocks, utc(c.At), r.asks, utc(r.asksSince))
	if !step.block {
		return nil
	}
	change := `array_remove(muted, $3::uuid)`
	if r.Blocks {
		change = `array_append(array_remove(coalesce(muted, '{}'), $3::uuid), $3::uuid)`
	}
	b.Queue(`UPDATE channels c SET muted = nullif(`+change+`, '{}') FROM direct_channels d WHERE d.channel_id = c.channel_id AND d.account_low = $1 AND d.account_high = $2`,
		r.low, r.high, c.Other)
	return nil
}

// queueNotices tells the other's devices, whose inboxes are locked.
func (c *ContactChange) queueNotices(ctx context.Context, tx pgx.Tx, b *pgx.Batch, heads map[ids.ID]*head) ([]*Message, error) {
	rows, err := tx.Query(ctx, `SELECT device_id FROM devices WHERE account_id = $1 AND revoked_at IS NULL ORDER BY device_id`, c.Other)
	if err != nil {
		return nil, err
	}
	devices, err := pgx.CollectRows(rows, pgx.RowTo[ids.ID])
	if err != nil {
		return nil, err
	}
	var messages []Message
	for _, d := range devices {
		if _, locked := heads[d]; locked {
			messages = append(messages, c.Notice(d))
		}
	}
	return queueInto(b, heads, messages)
}
