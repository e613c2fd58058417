package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"quicproquo.dev/client/conn"
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

	codes []string // The recovery codes of a signup or reset.

	secretMu sync.Mutex
	secret   []byte // The passphrase, the Client's own copy; nil once it is closed.

	mu     sync.Mutex
	shared *session // For calls; subscriptions have connections of their own.
	closed bool

	accepted chan struct{} // Holds one once somebody has accepted to be written to.
}

// Identity is who a profile is, and where.
type Identity struct {
	Name      string
	AccountID ids.ID
	DeviceID  ids.ID
	Endpoint  string
}

// Open opens a profile that Signup or Login made. It does not connect yet. Errors: keystore.ErrNoProfile,
// keystore.ErrWrongPassphrase, *keystore.CorruptError, ErrNoAccount,
// ErrLoggedOut.
func Open(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	c, err := open(ctx, o)
	if err != nil {
		o.forget()
	}
	return c, err
}

func open(ctx context.Context, o Options) (*Client, error) {
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
	case self.Deleted:
		return nil, fmt.Errorf("%w: %s", ErrDeleted, self.Name)
	case self.LoggedOut:
		return nil, fmt.Errorf("%w as %s", ErrLoggedOut, self.Name)
	}
	return newClient(o, store, self)
}

func newClient(o Options, store *keystore.Store, self *accountRecord) (*Client, error) {
	if len(self.DeviceSeed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the profile's account record has a device key of %d bytes", len(self.DeviceSeed))
	}
	c := &Client{opts: o, store: store, self: self, device: self.deviceKey(), log: o.Log.With("device", self.DeviceID), secret: bytes.Clone(o.Passphrase), accepted: make(chan struct{}, 1)}
	o.forget()
	c.opts.Passphrase, c.opts.Password = nil, nil
	return c, nil
}

// passphrase is the profile's and the account's, which ChangePassword changes: a copy, which the caller clears. It fails
// once the Client is closed.
func (c *Client) passphrase() ([]byte, error) {
	c.secretMu.Lock()
	defer c.secretMu.Unlock()
	if c.secret == nil {
		return nil, conn.ErrClosed
	}
	return bytes.Clone(c.secret), nil
}

// setPassphrase replaces the passphrase by a copy; nil forgets it.
func (c *Client) setPassphrase(b []byte) {
	c.secretMu.Lock()
	defer c.secretMu.Unlock()
	clear(c.secret)
	c.secret = bytes.Clone(b)
}

// Whoami returns who this profile is. It does not ask the cell.
func (c *Client) Whoami() Identity {
	cell, _ := c.opts.cell(c.self.Cell) // Without one, the endpoint is empty.
	return Identity{c.self.Name, c.self.AccountID, c.self.DeviceID, cell.Endpoint}
}

// Close ends the connection and forgets the passphrase. Operations under way fail, and later ones too. A Read ends with its
// context.
func (c *Client) Close() {
	c.setPassphrase(nil)
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
