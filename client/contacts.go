package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// caller asks the cell.
type caller interface {
	Call(ctx context.Context, req wire.Request) (wire.Response, error)
}

// ask is conn.Call for any caller.
func ask[R wire.Response](ctx context.Context, via caller, req wire.Request) (R, error) {
	var none R
	body, err := via.Call(ctx, req)
	if err != nil {
		return none, err
	}
	r, ok := body.(R)
	if !ok {
		return none, fmt.Errorf("%w: %s was answered with a %T", conn.ErrProtocol, req.Method(), body)
	}
	return r, nil
}

// accountOf finds an account by name. The cell is asked only for one that is not known yet, or is written otherwise: a
// known name stays its account's, and cells limit lookups.
func (c *Client) accountOf(ctx context.Context, via caller, name string) (ids.ID, error) {
	known, _, err := get[contactsRecord](ctx, c.store, contactsName)
	if err != nil {
		return ids.ID{}, err
	}
	if id, ok := known.called(name); ok {
		return id, nil
	}
	a, err := c.lookup(ctx, via, name)
	if err != nil {
		return ids.ID{}, err
	}
	return a.AccountID, nil
}

// lookup finds an account by name, and checks it against what was seen of it before.
func (c *Client) lookup(ctx context.Context, via caller, name string) (*wire.Account, error) {
	a, err := ask[*wire.Account](ctx, via, &wire.GetAccountRequest{Name: name})
	if err != nil {
		return nil, err
	}
	return a, c.remember(ctx, a)
}

// openDM returns the channel with an account, and checks the account against what was seen of it before.
func (c *Client) openDM(ctx context.Context, via caller, account ids.ID) (*wire.Channel, error) {
	ch, err := ask[*wire.Channel](ctx, via, &wire.OpenDMRequest{AccountID: account})
	if err != nil {
		return nil, err
	}
	if ch.Peer.AccountID != account {
		return nil, fmt.Errorf("%w: it opened a channel with another account than was asked for", conn.ErrProtocol)
	}
	return ch, c.remember(ctx, &ch.Peer)
}

// remember trusts an account's root key on first sight, and no other before TrustNewKey; a name stays its account's likewise.
func (c *Client) remember(ctx context.Context, a *wire.Account) error {
	if c.own(a.AccountID) {
		if !bytes.Equal(a.RootKey, c.self.RootKey) {
			return &RootKeyChangedError{a.Name, a.AccountID}
		}
		return nil
	}
	var verdict error
	err := update(ctx, c.store, contactsName, func(r *contactsRecord) (changed bool, err error) {
		changed, verdict = r.see(a, c.opts.Now())
		return changed, nil
	})
	return errors.Join(err, verdict)
}

// see notes an account. What is not as it was is an error; another root key is kept beside the one that is trusted.
func (r *contactsRecord) see(a *wire.Account, now time.Time) (changed bool, err error) {
	known, ok := r.Accounts[a.AccountID]
	switch {
	case ok && known.Name != a.Name && !known.Former, !ok && r.has(a.Name):
		return false, &RootKeyChangedError{a.Name, a.AccountID}
	case ok && !bytes.Equal(known.RootKey, a.RootKey):
		changed = !bytes.Equal(known.NewRootKey, a.RootKey)
		known.NewRootKey = bytes.Clone(a.RootKey)
		r.Accounts[a.AccountID] = known
		return changed, &RootKeyChangedError{a.Name, a.AccountID}
	case ok:
		return false, nil
	case r.Accounts == nil:
		r.Accounts = make(map[ids.ID]contact)
	}
	r.Accounts[a.AccountID] = contact{Name: a.Name, RootKey: bytes.Clone(a.RootKey), CheckedAt: now}
	return true, nil
}

func (r *contactsRecord) has(name string) bool {
	_, ok := r.called(name)
	return ok
}

// called returns the account that is trusted under a name.
func (r *contactsRecord) called(name string) (ids.ID, bool) {
	for id, known := range r.Accounts {
		if known.Name == name && !known.Former {
			return id, true
		}
	}
	return ids.ID{}, false
}

// roots is a mls.CredentialValidator that takes devices of these accounts only, each certified by its account's root.
type roots map[ids.ID]ed25519.PublicKey

// ValidateCredential implements mls.CredentialValidator.
func (r roots) ValidateCredential(cred mls.Credential, key ed25519.PublicKey) error {
	cert, err := certificate(cred, key)
	if err != nil {
		return err
	}
	root, ok := r[cert.AccountID]
	switch {
	case !ok:
		return fmt.Errorf("%w: account %s does not belong here", ErrUntrusted, cert.AccountID)
	case !root.Equal(cert.RootKey):
		return &RootKeyChangedError{"account", cert.AccountID}
	}
	return nil
}

// maxKeyPackageLifetime is the most that a KeyPackage may claim to live: what a cell's policy can allow, a year, and a
// day for clocks. All clients have the same, so that none refuses a Commit that the others take (RFC 9420 §7.2).
const maxKeyPackageLifetime = 366 * 24 * time.Hour

// ValidateLifetime implements mls.LifetimeValidator.
func (roots) ValidateLifetime(notBefore, notAfter time.Time) error {
	if life := notAfter.Sub(notBefore); life > maxKeyPackageLifetime {
		return fmt.Errorf("%w: a key package for %s, longer than %s", ErrUntrusted, life, maxKeyPackageLifetime)
	}
	return nil
}

// certificate reads a leaf's certificate and checks that it certifies the leaf's key.
func certificate(cred mls.Credential, key ed25519.PublicKey) (*devicecert.Certificate, error) {
	cert, err := devicecert.Parse(cred.Identity)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if !cert.DeviceKey.Equal(key) {
		return nil, fmt.Errorf("%w: a leaf's key is not its certificate's", ErrUntrusted)
	}
	return cert, nil
}

// anyRoot is a mls.CredentialValidator that only checks that certificates are whole. What it let in is compared with
// the roots known before it is used.
type anyRoot struct{}

// ValidateCredential implements mls.CredentialValidator.
func (anyRoot) ValidateCredential(cred mls.Credential, key ed25519.PublicKey) error {
	_, err := certificate(cred, key)
	return err
}

// rootsIn returns the roots of a direct channel: the own one and the peer's as it was first seen.
func (c *Client) rootsIn(tx *keystore.Tx, account ids.ID) (roots, error) {
	known, _, err := load[contactsRecord](tx, contactsName)
	if err != nil {
		return nil, err
	}
	contact, ok := known.Accounts[account]
	if !ok {
		return nil, fmt.Errorf("%w: account %s was never looked up", ErrUntrusted, account)
	}
	return roots{c.self.AccountID: c.self.RootKey, account: contact.RootKey}, nil
}

// rootsOf is rootsIn for any account, the own one included.
func (c *Client) rootsOf(tx *keystore.Tx, account ids.ID) (roots, error) {
	if c.own(account) {
		return roots{account: c.self.RootKey}, nil
	}
	return c.rootsIn(tx, account)
}

// credential is this device's.
func (c *Client) credential() mls.Credential { return mls.BasicCredential(c.self.Certificate) }

// learnName replaces the name as it was typed with the name as the cell writes it.
func (c *Client) learnName(ctx context.Context, s *session) error {
	a, err := ask[*wire.Account](ctx, s, &wire.GetAccountRequest{AccountID: c.self.AccountID})
	if err != nil {
		return err
	}
	if err := c.remember(ctx, a); err != nil || a.Name == c.self.Name {
		return err
	}
	c.self.Name = a.Name
	return update(ctx, c.store, accountName, func(r *accountRecord) (bool, error) {
		r.Name = a.Name
		return true, nil
	})
}
