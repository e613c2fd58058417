package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
)

// Client is an account's device. It is safe for concurrent use; Close it when done.
type Client struct {
	opts   Options
	store  *keystore.Store
	self   *accountRecord
	device ed25519.PrivateKey
	log    *slog.Logger

	mu     sync.Mutex
	shared *session // For calls; subscriptions have connections of their own.
	closed bool
}

// Identity is who a profile is, and where.
type Identity struct {
	Name      string
	AccountID ids.ID
	DeviceID  ids.ID
	Endpoint  string
}

// Open opens a profile that Signup or Login made. It does not connect yet. Errors: keystore.ErrNoProfile,
// keystore.ErrWrongPassphrase, *keystore.CorruptError, ErrNoAccount.
func Open(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	store, err := keystore.Open(o.Profile, o.Passphrase)
	if err != nil {
		return nil, err
	}
	self, ok, err := get[accountRecord](ctx, store, accountName)
	switch {
	case err != nil:
		return nil, err
	case !ok || self.Pending:
		return nil, ErrNoAccount
	}
	return newClient(o, store, self)
}

func newClient(o Options, store *keystore.Store, self *accountRecord) (*Client, error) {
	if len(self.DeviceSeed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the profile's account record has a device key of %d bytes", len(self.DeviceSeed))
	}
	return &Client{opts: o, store: store, self: self, device: self.deviceKey(), log: o.Log.With("device", self.DeviceID)}, nil
}

// Whoami returns who this profile is. It does not ask the cell.
func (c *Client) Whoami() Identity {
	cell, _ := c.opts.cell(c.self.Cell) // Without one, the endpoint is empty.
	return Identity{c.self.Name, c.self.AccountID, c.self.DeviceID, cell.Endpoint}
}

// Close ends the connection. Operations under way fail, and later ones too. A Read ends with its context.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.shared != nil {
		c.shared.Close()
		c.shared = nil
	}
}

// own reports whether an account is this one.
func (c *Client) own(account ids.ID) bool { return account == c.self.AccountID }

// channels returns the ids of all channels in the profile, the inbox among them.
func (c *Client) channels(ctx context.Context) ([]ids.ID, error) {
	var list []ids.ID
	err := c.store.View(ctx, func(tx *keystore.Tx) error {
		names, err := tx.List(channelPrefix)
		for _, n := range names {
			id, parseErr := ids.Parse(n[len(channelPrefix):])
			list, err = append(list, id), errors.Join(err, parseErr)
		}
		return err
	})
	return slices.Clip(list), err
}
