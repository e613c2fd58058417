package client

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Sent says where a message stands. The cell has stored it durably.
type Sent struct {
	Channel    ids.ID
	Seq        uint64
	DeliveryID ids.ID
	Bytes      int // Size of the MLS message that the cell stored.
}

// SendDM sends a text to an account by name, and sets up the direct channel with it when there is none. The message is
// saved before it is sent. Errors: *PendingError when it is kept because the other account has not accepted yet to be
// written to; *QueuedError when it was saved and not sent, so that it must not be sent anew; else
// ErrNotUTF8, *TooLongError, ErrSelf, ErrNotInGroup, *RootKeyChangedError, *wire.Error (notFound, noKeyPackage, …), and
// nothing was or will be sent.
func (c *Client) SendDM(ctx context.Context, name, text string) (*Sent, error) {
	if !utf8.ValidString(text) {
		return nil, ErrNotUTF8
	}
	sent, err := c.sendDM(ctx, name, text)
	if wire.HasCode(err, wire.CodeEpochConflict, wire.CodeRemoveFirst) { // The group moved on meanwhile, or must; the message was not taken.
		sent, err = c.sendDM(ctx, name, text)
	}
	return sent, err
}

func (c *Client) sendDM(ctx context.Context, name, text string) (*Sent, error) {
	var ch *wire.Channel
	var content []byte
	var padded int
	m := outgoing{Text: text}
	err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
		if content, padded, err = plaintext(text, c.opts.Now(), int(s.Hello().MaxPayload)); err != nil {
			return err
		}
		m.DeliveryID = ids.NewDelivery(c.serverNow(s))
		ch, err = c.direct(ctx, s, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.ensureGroup(ctx, ch); pending(err) {
		return nil, c.wait(ctx, ch, text)
	} else if err != nil {
		return nil, err
	}
	if err := c.sendWaitingIn(ctx, ch.ChannelID); pending(err) {
		return nil, c.wait(ctx, ch, text)
	} else if err != nil {
		return nil, err
	}
	if err := c.encrypt(ctx, ch.ChannelID, &m, content, padded); err != nil {
		return nil, err
	}
	sent, err := c.transmit(ctx, ch.ChannelID, m)
	if wire.HasCode(err, wire.CodeRemoveFirst) {
		return nil, errors.Join(err, c.giveUpGroup(ctx, ch))
	}
	if pending(err) {
		return nil, &PendingError{ch.Peer.Name} // It is in the outbox.
	}
	if err != nil && !permanent(err) {
		err = &QueuedError{m.DeliveryID, err}
	}
	return sent, err
}

// direct finds the direct channel with an account.
func (c *Client) direct(ctx context.Context, s *session, name string) (*wire.Channel, error) {
	account, err := c.accountOf(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if c.own(account) {
		return nil, ErrSelf
	}
	ch, err := c.openDM(ctx, s, account)
	if wire.HasCode(err, wire.CodeNotFound) {
		return nil, c.gone(ctx, s, name, err)
	}
	return ch, err
}

// gone says what became of a contact whom the cell does not know any more: the account was deleted, and somebody else may have taken
// the name, who is not taken for them.
func (c *Client) gone(ctx context.Context, s *session, name string, err error) error {
	if _, lookup := c.lookup(ctx, s, name); lookup != nil && !wire.HasCode(lookup, wire.CodeNotFound) {
		return lookup
	}
	return fmt.Errorf("%w (%w)", ErrGone, err)
}

// encrypt fills in a message and puts it into the outbox, in one step with the ratchet that made it.
func (c *Client) encrypt(ctx context.Context, channel ids.ID, m *outgoing, content []byte, padded int) error {
	name := channelName(channel)
	return c.store.Update(ctx, func(tx *keystore.Tx) error {
		rec, _, err := load[channelRecord](tx, name)
		if err != nil {
			return err
		}
		if !m.waited.IsZero() && !rec.take(m.waited) {
			return errTaken
		}
		trust, err := c.rootsIn(tx, rec.Peer.AccountID)
		if err != nil {
			return err
		}
		groups := c.groupsOf(rec, trust)
		m.Generation = rec.newest()
		group, err := groups.open(m.Generation)
		if err != nil {
			return err
		}
		if m.Payload, err = group.Encrypt(content, m.DeliveryID[:], padded); err != nil {
			return fmt.Errorf("encrypting: %w", err)
		}
		rec.Outbox = append(rec.Outbox, *m)
		if err := groups.store(); err != nil {
			return err
		}
		return save(tx, name, rec)
	})
}

// groups are a channel's groups while its record is in hand.
type groups struct {
	c      *Client
	rec    *channelRecord
	trust  mls.CredentialValidator
	opened map[uint32]*mls.Group
}

var errNoGroup = errors.New("no group of that generation")

func (c *Client) groupsOf(rec *channelRecord, trust mls.CredentialValidator) *groups {
	return &groups{c: c, rec: rec, trust: trust, opened: make(map[uint32]*mls.Group)}
}

// open decodes the group of a generation. errNoGroup: there is none.
func (g *groups) open(generation uint32) (*mls.Group, error) {
	if group, ok := g.opened[generation]; ok {
		return group, nil
	}
	for _, r := range g.rec.Groups {
		if r.Generation == generation {
			group, err := mls.UnmarshalGroup(r.State, g.c.device, g.trust)
			if err != nil {
				return nil, fmt.Errorf("the saved state of channel %s: %w", g.rec.ChannelID, err)
			}
			g.opened[generation] = group
			return group, nil
		}
	}
	return nil, errNoGroup
}

// store encodes the groups that were opened back into the record.
func (g *groups) store() error {
	for i := range g.rec.Groups {
		r := &g.rec.Groups[i]
		group, ok := g.opened[r.Generation]
		if !ok {
			continue
		}
		state, err := group.MarshalBinary()
		if err != nil {
			return fmt.Errorf("saving the state of channel %s: %w", g.rec.ChannelID, err)
		}
		r.State = state
	}
	return nil
}

// keptGroups is how many generations' groups are kept: messages of the one before may still be under way.
const keptGroups = 2

// add makes a group the channel's newest.
func (rec *channelRecord) add(generation uint32, state []byte) {
	rec.Groups = append(rec.Groups, groupRecord{Generation: generation, State: state})
	if n := len(rec.Groups); n > keptGroups {
		rec.Groups = append(rec.Groups[:0], rec.Groups[n-keptGroups:]...)
	}
	if rec.Creation != nil && rec.Creation.Generation <= generation {
		rec.Creation = nil
	}
}

// newest is the generation of the newest group; 0 when there is none.
func (rec *channelRecord) newest() uint32 {
	if len(rec.Groups) == 0 {
		return 0
	}
	return rec.Groups[len(rec.Groups)-1].Generation
}
