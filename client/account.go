package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/wire"
)

// DeleteAccount deletes the account of a profile at its cell, and then the profile, with all conversations in it. There is
// no way back. name is the account's own, as a person has typed it. A DeleteAccount that was cut short is taken up
// again by the same call, also where the cell has done its part and the answer was lost. A profile that is logged out, or whose device was
// revoked, serves as well: what counts is the passphrase. Errors: ErrNotName, ErrNoAccount, ErrPasswordChanged,
// *RootKeyChangedError, keystore errors, conn's errors, *wire.Error (accountDisabled, rateLimited, …).
func DeleteAccount(ctx context.Context, o Options, name string) error {
	e := &entry{opts: o.withDefaults()}
	defer e.opts.forget()
	if exists, err := keystore.Exists(o.Profile); err != nil || !exists {
		return errors.Join(err, fmt.Errorf("%s: %w", o.Profile, keystore.ErrNoProfile))
	}
	if err := e.prepare(ctx); err != nil {
		return err
	}
	switch {
	case e.self == nil:
		return e.removeLeftover(ctx)
	case e.self.Pending:
		return ErrNoAccount
	case name != e.self.Name:
		return ErrNotName
	}
	if !e.self.Deleted {
		d := &deletion{e: e}
		if err := e.retry(ctx, d.once); err != nil {
			return err
		}
		if err := e.mark(ctx, func(r *accountRecord) { r.Deleted = true }); err != nil {
			return err
		}
	}
	return e.removeProfile(ctx)
}

// mark changes the account's record.
func (e *entry) mark(ctx context.Context, change func(*accountRecord)) error {
	return update(context.WithoutCancel(ctx), e.store, accountName, func(r *accountRecord) (bool, error) {
		change(r)
		*e.self = *r
		return true, nil
	})
}

// deletion is a deletion under way.
type deletion struct {
	e     *entry
	asked bool // In this call: whether it was done is not known unless the cell has answered.
}

// once logs in, on a connection that speaks for no device, and asks.
func (d *deletion) once(ctx context.Context, e *entry) error {
	s, err := dial(ctx, e.opts, e.cell)
	if err != nil {
		return err
	}
	defer s.Close()
	finish, exportKey, err := login(ctx, s, e.self.Name, e.opts.Passphrase, e.self)
	clear(exportKey)
	switch {
	case wire.HasCode(err, wire.CodeInvalidCredentials):
		return d.unknown(ctx, s, err)
	case err != nil:
		return err
	}
	if err := e.self.checkLogin(finish); err != nil {
		return d.anothers(err)
	}
	if err := e.mark(ctx, func(r *accountRecord) { r.Deleting = true }); err != nil {
		return err
	}
	d.asked = true
	_, err = conn.Call[*wire.Done](ctx, s.Conn, &wire.DeleteAccountRequest{Name: e.self.Name})
	return err
}

// unknown judges a name and passphrase that the cell does not know. After a request whose answer was lost that means that
// the account is gone. Where that request was another call's, the passphrase may have been changed since: then this device
// still has its session.
func (d *deletion) unknown(ctx context.Context, s *session, err error) error {
	switch {
	case d.asked:
		return nil
	case !d.e.self.Deleting:
		return stale(err)
	}
	tokens, ok, readErr := get[sessionRecord](ctx, d.e.store, sessionName)
	if readErr != nil {
		return readErr
	}
	if ok {
		proof, proveErr := s.Prove(d.e.self.deviceKey())
		if proveErr != nil {
			return proveErr
		}
		fresh, refused := conn.Call[*wire.Session](ctx, s.Conn, &wire.RefreshSessionRequest{RefreshToken: tokens.RefreshToken, DeviceID: d.e.self.DeviceID, Proof: proof})
		if refused == nil {
			return errors.Join(stale(err), keepTokens(ctx, d.e.store, s, fresh))
		}
		if !wire.HasCode(refused, wire.CodeInvalidToken, wire.CodeDeviceRevoked) {
			return refused
		}
	}
	return nil
}

// anothers is the verdict on a name and passphrase that are another account's: somebody has taken the name since.
func (d *deletion) anothers(err error) error {
	if errors.Is(err, ErrOtherAccount) && (d.asked || d.e.self.Deleting) {
		return nil
	}
	return err
}

// removeProfile removes the profile, what says whose it was last: cut short, it is taken up again.
func (e *entry) removeProfile(ctx context.Context) error {
	err := e.store.Update(ctx, func(tx *keystore.Tx) error {
		names, err := tx.List("")
		for _, n := range names {
			if n != accountName {
				err = errors.Join(err, tx.Delete(n))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return e.store.Destroy()
}

// removeLeftover removes a profile in which nothing is left: the last step of its removal was cut off.
func (e *entry) removeLeftover(ctx context.Context) error {
	empty := false
	err := e.store.View(ctx, func(tx *keystore.Tx) error {
		names, err := tx.List("")
		empty = len(names) == 0
		return err
	})
	switch {
	case err != nil:
		return err
	case !empty:
		return ErrNoAccount
	}
	return e.store.Destroy()
}

// ExportAccount writes what the cell has about the account to w, one JSON object a line, each with its type. docs/privacy.md
// says what that is. It returns how many lines it wrote; after an error, what was written is not all.
func (c *Client) ExportAccount(ctx context.Context, w io.Writer) (lines int, err error) {
	var after []byte
	for {
		var page *wire.ExportPage
		err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
			page, err = ask[*wire.ExportPage](ctx, s, &wire.ExportAccountRequest{After: after})
			return err
		})
		if err != nil {
			return lines, err
		}
		if n := len(page.Lines); n > 0 && page.Lines[n-1] != '\n' || len(page.Next) > 0 && bytes.Equal(page.Next, after) {
			return lines, fmt.Errorf("%w: its export does not go on", conn.ErrProtocol)
		}
		if _, err := w.Write(page.Lines); err != nil {
			return lines, fmt.Errorf("writing the export: %w", err)
		}
		lines += bytes.Count(page.Lines, []byte("\n"))
		if after = page.Next; len(after) == 0 {
			return lines, nil
		}
	}
}
