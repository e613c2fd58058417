package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// FailKeyChanged is the code of a warning that Read hands out each time, until TrustNewKey: a contact's account appears
// under another root key.
const FailKeyChanged = "rootKeyChanged"

const (
	checkEvery = time.Hour // How often the cell is asked for each contact's root key.
	checksOnce = 16        // How many contacts are asked for in one Read.
)

// KeyChange is a contact whose account appears under another root key than the one that is trusted. Either its people
// lost everything and started over, or somebody stands in between.
type KeyChange struct {
	Name     string
	Account  ids.ID
	Old, New []byte // Ed25519 public keys.
}

// KeyChanges returns the contacts whose root key changed and was not accepted yet, as far as this profile has noticed.
func (c *Client) KeyChanges(ctx context.Context) ([]KeyChange, error) {
	known, _, err := get[contactsRecord](ctx, c.store, contactsName)
	if err != nil {
		return nil, err
	}
	var list []KeyChange
	for id, k := range known.Accounts {
		if k.NewRootKey != nil {
			list = append(list, KeyChange{k.Name, id, k.RootKey, k.NewRootKey})
		}
	}
	slices.SortFunc(list, func(a, b KeyChange) int { return a.Account.Compare(b.Account) })
	return list, nil
}

// warnings are the root keys that one Read has warned of, by account.
type warnings map[ids.ID]string

// warnOfKeys asks for some contacts' root keys and hands out a warning for each that changed, once in a Read.
func (c *Client) warnOfKeys(ctx context.Context, show Handler, given warnings) error {
	if show == nil {
		return nil
	}
	c.checkContacts(ctx)
	changes, err := c.KeyChanges(ctx)
	if err != nil {
		return err
	}
	for _, k := range changes {
		if given[k.Account] == string(k.New) {
			continue
		}
		given[k.Account] = string(k.New)
		err := show(Message{From: k.Name, Account: k.Account, AcceptedAt: c.opts.Now(),
			Failure: &Failure{FailKeyChanged, (&RootKeyChangedError{k.Name, k.Account}).Error()}})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkContacts asks the cell for contacts that it was not asked for lately. What fails is tried again another time.
func (c *Client) checkContacts(ctx context.Context) {
	due, err := c.dueContacts(ctx)
	if err != nil || len(due) == 0 {
		return
	}
	var checked []ids.ID
	err = c.do(ctx, func(ctx context.Context, s *session) error {
		for _, id := range due[len(checked):] {
			a, err := ask[*wire.Account](ctx, s, &wire.GetAccountRequest{AccountID: id})
			if err != nil && !wire.HasCode(err, wire.CodeNotFound) {
				return nil //nolint:nilerr // Another time.
			}
			if err == nil {
				if err := c.remember(ctx, a); err != nil && !isRootKeyChange(err) {
					return err
				}
			}
			checked = append(checked, id)
		}
		return nil
	})
	if err == nil {
		err = update(ctx, c.store, contactsName, func(r *contactsRecord) (bool, error) {
			for _, id := range checked {
				k := r.Accounts[id]
				k.CheckedAt = c.opts.Now()
				r.Accounts[id] = k
			}
			return len(checked) > 0, nil
		})
	}
	if err != nil {
		c.log.WarnContext(ctx, "contacts were not checked", "error", err)
	}
}

func isRootKeyChange(err error) bool { return as[*RootKeyChangedError]()(err) }

func (c *Client) dueContacts(ctx context.Context) ([]ids.ID, error) {
	known, _, err := get[contactsRecord](ctx, c.store, contactsName)
	if err != nil {
		return nil, err
	}
	var due []ids.ID
	for id, k := range known.Accounts {
		if c.opts.Now().Sub(k.CheckedAt).Abs() >= checkEvery {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b ids.ID) int { return known.Accounts[a].CheckedAt.Compare(known.Accounts[b].CheckedAt) })
	return due[:min(len(due), checksOnce)], nil
}

// TrustNewKey accepts the root key under which a contact appears now. Compare it with them by another way first. The
// direct channel with them begins anew with the next message: what was written under the old key before is read first, and
// what comes under it afterwards is not. It returns nil when the key is the one that is trusted already. Errors: *wire.Error
// (notFound), and the usual ones.
func (c *Client) TrustNewKey(ctx context.Context, name string) (*KeyChange, error) {
	var a *wire.Account
	err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
		a, err = ask[*wire.Account](ctx, s, &wire.GetAccountRequest{Name: name})
		return err
	})
	if err != nil {
		return nil, err
	}
	known, _, err := get[contactsRecord](ctx, c.store, contactsName)
	if err != nil {
		return nil, err
	}
	old, ok := known.Accounts[a.AccountID]
	before, taken := known.called(a.Name)
	switch {
	case taken && before != a.AccountID:
		return c.trustNextOwner(ctx, a, before, known.Accounts[before])
	case !ok || old.Name != a.Name:
		return nil, c.remember(ctx, a)
	case bytes.Equal(old.RootKey, a.RootKey):
		return nil, c.accept(ctx, a)
	}
	if err := c.supersede(ctx, a); err != nil {
		return nil, err
	}
	return &KeyChange{a.Name, a.AccountID, old.RootKey, a.RootKey}, c.accept(ctx, a)
}

// trustNextOwner takes an account for the one that goes by a name, in the place of another that did, and was deleted. What the
// other one has written can still be read. It stays as it is while the cell still knows the other one: no cell has one
// name for two.
func (c *Client) trustNextOwner(ctx context.Context, a *wire.Account, former ids.ID, before contact) (*KeyChange, error) {
	err := c.do(ctx, func(ctx context.Context, s *session) error {
		_, err := ask[*wire.Account](ctx, s, &wire.GetAccountRequest{AccountID: former})
		return err
	})
	switch {
	case err == nil:
		return nil, &RootKeyChangedError{a.Name, a.AccountID}
	case !wire.HasCode(err, wire.CodeNotFound):
		return nil, err
	}
	err = update(ctx, c.store, contactsName, func(r *contactsRecord) (bool, error) {
		before.Former = true
		r.Accounts[former] = before
		r.Accounts[a.AccountID] = contact{Name: a.Name, RootKey: bytes.Clone(a.RootKey), CheckedAt: c.opts.Now()}
		return true, nil
	})
	return &KeyChange{a.Name, a.AccountID, before.RootKey, a.RootKey}, err
}

func (c *Client) accept(ctx context.Context, a *wire.Account) error {
	return update(ctx, c.store, contactsName, func(r *contactsRecord) (bool, error) {
		r.Accounts[a.AccountID] = contact{Name: a.Name, RootKey: bytes.Clone(a.RootKey), CheckedAt: c.opts.Now()}
		return true, nil
	})
}

// supersede drops the groups of the direct channel with a contact, if the profile has that channel, so that the next
// message begins another one.
func (c *Client) supersede(ctx context.Context, a *wire.Account) error {
	channel, err := c.channelWith(ctx, a.AccountID)
	if err != nil || channel.IsZero() {
		return err
	}
	if _, err := c.catchUp(ctx); err != nil {
		c.log.WarnContext(ctx, "what was written under the old key is not read", "error", err)
	}
	var ch *wire.Channel
	err = c.do(ctx, func(ctx context.Context, s *session) (err error) {
		ch, err = ask[*wire.Channel](ctx, s, &wire.OpenDMRequest{AccountID: a.AccountID})
		return err
	})
	if err != nil {
		return fmt.Errorf("looking at the direct channel: %w", err)
	}
	return update(ctx, c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		rec.Groups, rec.Creation, rec.Superseded = nil, nil, ch.Generation
		return true, nil
	})
}

// channelWith finds the direct channel with an account in the profile; zero: there is none.
func (c *Client) channelWith(ctx context.Context, account ids.ID) (ids.ID, error) {
	list, err := c.channels(ctx)
	if err != nil {
		return ids.ID{}, err
	}
	var found ids.ID
	err = c.store.View(ctx, func(tx *keystore.Tx) error {
		for _, id := range list {
			rec, ok, err := load[channelRecord](tx, channelName(id))
			if err != nil {
				return err
			}
			if ok && rec.Peer.AccountID == account {
				found = id
			}
		}
		return nil
	})
	return found, err
}
