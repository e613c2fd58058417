package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// DefaultRecoveryCodes is how many recovery codes people get who ask for some.
const DefaultRecoveryCodes = 8

// codeSet are fresh recovery codes: what people keep, and what the cell keeps.
type codeSet struct {
	texts []string
	kept  []wire.RecoveryCode
}

// newCodes makes n recovery codes of an account.
func newCodes(n int, root ed25519.PrivateKey, account ids.ID) (codeSet, error) {
	var set codeSet
	for range min(n, wire.MaxRecoveryCodes) {
		code := codes.New()
		keys := code.Derive(codes.Recovery)
		wrapped, err := wrapRoot(root, keys.Wrap, account)
		public := bytes.Clone(keys.Public())
		keys.Clear()
		if err != nil {
			return codeSet{}, err
		}
		set.texts = append(set.texts, code.Format(codes.Recovery))
		clear(code[:])
		set.kept = append(set.kept, wire.RecoveryCode{RecoveryKey: public, WrappedRootKey: wrapped})
	}
	return set, nil
}

// set has the cell keep these codes, and no others, after a login on the same connection.
func (c codeSet) set(ctx context.Context, s *session) error {
	_, err := conn.Call[*wire.Done](ctx, s.Conn, &wire.SetRecoveryCodesRequest{RecoveryCodes: c.kept})
	return err
}

// RecoveryCodes are those that the Signup or Reset made that returned this Client. Nobody can tell them again.
func (c *Client) RecoveryCodes() []string { return c.codes }

// NewRecoveryCodes makes n recovery codes, at most 16, and makes all earlier ones void. Each sets a new password once,
// with Recover. Errors: *wire.Error (invalidCredentials: the passphrase is not the account's), and the usual ones.
func (c *Client) NewRecoveryCodes(ctx context.Context, n int) ([]string, error) {
	var set codeSet
	err := c.do(ctx, func(ctx context.Context, s *session) error {
		root, err := c.proveOwn(ctx, s)
		if err != nil {
			return err
		}
		defer clear(root)
		if set, err = newCodes(n, root, c.self.AccountID); err != nil {
			return err
		}
		return set.set(ctx, s)
	})
	if err != nil {
		return nil, err
	}
	return set.texts, nil
}

// resumeCodes replaces the codes of a signup whose answer was lost.
func (e *entry) resumeCodes(ctx context.Context, s *session, finish *wire.LoginFinishResponse, exportKey []byte) error {
	root, err := unwrapLogin(finish, exportKey)
	if err != nil {
		return err
	}
	defer clear(root)
	if e.codes, err = newCodes(e.opts.RecoveryCodes, root, finish.AccountID); err != nil {
		return err
	}
	return e.codes.set(ctx, s)
}

// invitation reads what people typed.
func (o Options) invitation() ([]byte, error) {
	if o.Invitation == "" {
		return nil, nil
	}
	c, err := codes.Parse(codes.Invitation, o.Invitation)
	if err != nil {
		return nil, fmt.Errorf("the invitation: %w", err)
	}
	return c[:], nil
}

// Recover sets a new password by a recovery code and adds this device, whose profile must hold no other account. The
// account keeps its root key: its contacts see nothing. With endOthers, the sessions of its other devices end. A Recover
// that was cut short is taken up again by the same call. Errors: codes.ErrNone, ErrAccountExists, *wire.Error
// (invalidCredentials: unknown name, or the code is none of it or was used), and those of Login.
func Recover(ctx context.Context, o Options, name, code string, endOthers bool) (*Client, error) {
	parsed, err := codes.Parse(codes.Recovery, code)
	if err != nil {
		return nil, fmt.Errorf("the recovery code: %w", err)
	}
	return enter(ctx, o, func(ctx context.Context, e *entry) error {
		return e.byCode(ctx, name, parsed.Derive(codes.Recovery), func(s *session, r *wire.RecoverResponse, wrap []byte) error {
			return e.recover(ctx, s, name, r, wrap, endOthers)
		})
	})
}

// Reset starts an account over by a reset code of the cell's admin, when password, devices and recovery codes are all
// lost: another root key, and this as the only device. Every contact is warned until they accept the new key
// (TrustNewKey). Errors: as Recover's.
func Reset(ctx context.Context, o Options, name, code string) (*Client, error) {
	parsed, err := codes.Parse(codes.Reset, code)
	if err != nil {
		return nil, fmt.Errorf("the reset code: %w", err)
	}
	return enter(ctx, o, func(ctx context.Context, e *entry) error {
		return e.byCode(ctx, name, parsed.Derive(codes.Reset), func(s *session, r *wire.RecoverResponse, _ []byte) error {
			return e.reset(ctx, s, name, r)
		})
	})
}

// byCode proves a code on a connection, and goes on with what it opens. A code that was spent by a try whose answer was
// lost is of no use, but the new password is then the account's.
func (e *entry) byCode(ctx context.Context, name string, keys codes.Keys, then func(*session, *wire.RecoverResponse, []byte) error) error {
	defer keys.Clear()
	if err := e.vacant(); err != nil {
		return err
	}
	s, err := e.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	exporter, err := s.Exporter()
	if err != nil {
		return err
	}
	opened, err := conn.Call[*wire.RecoverResponse](ctx, s.Conn, &wire.RecoverRequest{Name: name, RecoveryKey: keys.Public(), Proof: keys.Prove(exporter)})
	if e.self != nil && e.self.Name == name && wire.HasCode(err, wire.CodeInvalidCredentials) {
		if err := e.resume(ctx, s, name); err == nil || !wire.HasCode(err, wire.CodeInvalidCredentials) {
			return err
		}
	}
	if err != nil {
		return err
	}
	return then(s, opened, keys.Wrap)
}

func (e *entry) recover(ctx context.Context, s *session, name string, r *wire.RecoverResponse, wrap []byte, endOthers bool) error {
	root, err := unwrapLogin(&wire.LoginFinishResponse{AccountID: r.AccountID, RootKey: r.RootKey, WrappedRootKey: r.WrappedRootKey}, wrap)
	if err != nil {
		return err
	}
	defer clear(root)
	if err := e.newDevice(ctx, name, r.AccountID, root); err != nil {
		return err
	}
	if err := setPassword(ctx, s, r.AccountID, root, e.opts.Passphrase, endOthers, nil); err != nil {
		return e.unsettled(err)
	}
	e.made = false // The code is spent: what is saved is needed, whatever comes.
	return e.begin(ctx, s)
}

func (e *entry) reset(ctx context.Context, s *session, name string, r *wire.RecoverResponse) error {
	if len(r.WrappedRootKey) > 0 {
		return fmt.Errorf("%w: it answered a reset code with a root key", conn.ErrProtocol)
	}
	password, err := register(ctx, s.Conn, e.opts.Passphrase, setPasswordStart)
	if err != nil {
		return err
	}
	defer clear(password.exportKey)
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("making the root key: %w", err)
	}
	defer clear(root)
	wrapped, err := wrapRoot(root, password.exportKey, r.AccountID)
	if err != nil {
		return err
	}
	if e.codes, err = newCodes(e.opts.RecoveryCodes, root, r.AccountID); err != nil {
		return err
	}
	if err := e.newDevice(ctx, name, r.AccountID, root); err != nil {
		return err
	}
	e.self.StartedOver = true
	proof, err := s.Prove(e.self.deviceKey())
	if err != nil {
		return err
	}
	tokens, err := conn.Call[*wire.Session](ctx, s.Conn, &wire.ResetAccountRequest{RegistrationRecord: password.record, OpaqueKey: password.opaqueKey,
		WrappedRootKey: wrapped, Certificate: e.self.Certificate, DeviceName: e.opts.DeviceName, Proof: proof, RecoveryCodes: e.codes.kept})
	if err != nil {
		return e.unsettled(err)
	}
	return e.settle(ctx, s, tokens)
}
