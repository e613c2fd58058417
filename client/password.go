package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// passwordLock keeps two processes from changing the password at once.
const passwordLock = "password"

// setPassword registers a password for the account that the connection has proven, with the root key under it.
func setPassword(ctx context.Context, s *session, account ids.ID, root ed25519.PrivateKey, password []byte, endOthers bool, before func() error) error {
	r, err := register(ctx, s.Conn, password, setPasswordStart)
	if err != nil {
		return err
	}
	defer clear(r.exportKey)
	wrapped, err := wrapRoot(root, r.exportKey, account)
	if err != nil {
		return err
	}
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	_, err = conn.Call[*wire.Done](ctx, s.Conn, &wire.SetPasswordFinishRequest{RegistrationRecord: r.record, OpaqueKey: r.opaqueKey,
		WrappedRootKey: wrapped, EndOtherSessions: endOthers})
	return err
}

// renewRegistration registers the same password anew when the cell asks for it, since it is giving up the keys that the
// password is registered under.
func renewRegistration(ctx context.Context, s *session, finish *wire.LoginFinishResponse, exportKey, password []byte) error {
	if !finish.SetPassword {
		return nil
	}
	root, err := unwrapLogin(finish, exportKey)
	if err != nil {
		return err
	}
	defer clear(root)
	return setPassword(ctx, s, finish.AccountID, root, password, false, nil)
}

// prove logs in on a connection and returns the account's root key, which the caller clears.
func (c *Client) prove(ctx context.Context, s *session, password []byte) (ed25519.PrivateKey, error) {
	finish, exportKey, err := login(ctx, s, c.self.Name, password, c.self)
	if err != nil {
		return nil, stale(revoked(err))
	}
	defer clear(exportKey)
	if err := c.self.checkLogin(finish); err != nil {
		return nil, err
	}
	return unwrapLogin(finish, exportKey)
}

// proveOwn is prove with the Client's passphrase.
func (c *Client) proveOwn(ctx context.Context, s *session) (ed25519.PrivateKey, error) {
	passphrase, err := c.passphrase()
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	return c.prove(ctx, s, passphrase)
}

// stale says what it means when the passphrase that opens the profile is not the account's.
func stale(err error) error {
	if wire.HasCode(err, wire.CodeInvalidCredentials) {
		return fmt.Errorf("%w (%w)", ErrPasswordChanged, err)
	}
	return err
}

// ChangePassword makes another passphrase the account's password and this profile's passphrase. With endOthers, the
// sessions of the account's other devices end: there the new passphrase is needed to log in again. Whenever this is cut
// short, one of the two passphrases opens the profile and the account, and ChangePassword may be called again. Other
// profiles of the account keep their own passphrase until they log in with Options.Password. Errors:
// keystore.ErrEmptyPassphrase, *wire.Error (invalidCredentials: the present passphrase is not the account's), and the
// usual ones.
func (c *Client) ChangePassword(ctx context.Context, passphrase []byte, endOthers bool) error {
	if len(passphrase) == 0 {
		return keystore.ErrEmptyPassphrase
	}
	unlock, err := c.store.Lock(ctx, passwordLock)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := c.passphrase()
	if err != nil {
		return err
	}
	defer clear(old)
	change := &passwordChange{c: c, old: old, to: passphrase, endOthers: endOthers}
	if err := c.do(ctx, change.once); err != nil {
		return change.unsettled(context.WithoutCancel(ctx), err)
	}
	c.setPassphrase(passphrase)
	return nil
}

// passwordChange is a change under way. Once it was asked for and no answer came, either password may be the account's.
type passwordChange struct {
	c         *Client
	old, to   []byte
	endOthers bool
	asked     bool
}

func (p *passwordChange) once(ctx context.Context, s *session) error {
	root, err := p.c.prove(ctx, s, p.old)
	if p.asked && wire.HasCode(err, wire.CodeInvalidCredentials) {
		if root, err = p.c.prove(ctx, s, p.to); err == nil { // It was done, and the answer lost.
			clear(root)
			return p.c.store.CommitRekey(ctx)
		}
	}
	if err != nil {
		return err
	}
	defer clear(root)
	err = setPassword(ctx, s, p.c.self.AccountID, root, p.to, p.endOthers, func() error {
		p.asked = true
		return p.c.store.PrepareRekey(ctx, p.to)
	})
	if err != nil {
		return err
	}
	return p.c.store.CommitRekey(context.WithoutCancel(ctx))
}

// unsettled takes the second passphrase back when the cell has surely not taken it.
func (p *passwordChange) unsettled(ctx context.Context, err error) error {
	var refused *wire.Error
	switch {
	case !p.asked:
		return err
	case errors.As(err, &refused) && !refused.Retryable && refused.Code != wire.CodeInternal:
		return errors.Join(err, p.c.store.AbandonRekey(ctx))
	}
	return fmt.Errorf("whether the passphrase was changed is not known; both open this profile until you log in with the one that is right: %w", err)
}

// Logout ends this device's session with the cell. The profile stays, with its conversations; Login takes it up again.
// Until then Open fails with ErrLoggedOut.
func (c *Client) Logout(ctx context.Context) error {
	err := c.do(ctx, func(ctx context.Context, s *session) error {
		_, err := conn.Call[*wire.Done](ctx, s.Conn, &wire.EndSessionRequest{})
		return err
	})
	if err != nil && !errors.Is(err, ErrRevoked) {
		return err
	}
	c.Close()
	err = update(ctx, c.store, accountName, func(r *accountRecord) (bool, error) {
		r.LoggedOut = true
		return true, nil
	})
	if err != nil {
		return err
	}
	return c.store.Update(ctx, func(tx *keystore.Tx) error { return tx.Delete(sessionName) })
}
