package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Signup makes an account with this as its first device, and the profile to go with it. A signup that a crash or a
// lost connection cut short is taken up again by the same call. Errors: ErrAccountExists, keystore errors, conn's
// errors, *wire.Error (alreadyExists: the name is taken).
func Signup(ctx context.Context, o Options, name string) (*Client, error) {
	return enter(ctx, o, func(ctx context.Context, e *entry) error { return e.signup(ctx, name) })
}

// Login adds this device to an account, or, with the account's own profile, renews its session. Errors:
// ErrOtherAccount, *RootKeyChangedError, ErrRevoked, keystore errors, conn's errors, *wire.Error
// (invalidCredentials: unknown name or wrong password).
func Login(ctx context.Context, o Options, name string) (*Client, error) {
	return enter(ctx, o, func(ctx context.Context, e *entry) error { return e.login(ctx, name) })
}

// entry is a signup or login under way.
type entry struct {
	opts  Options
	cell  cellRecord
	store *keystore.Store // Nil until something must be saved in a new profile.
	made  bool            // This call made the profile.
	self  *accountRecord  // Nil: the profile has none.
	codes codeSet         // That this call makes.
}

func enter(ctx context.Context, o Options, op func(context.Context, *entry) error) (*Client, error) {
	e := &entry{opts: o.withDefaults()}
	if err := e.prepare(ctx); err != nil {
		e.opts.forget()
		return nil, err
	}
	c, err := e.finish(ctx, op)
	if err != nil {
		e.opts.forget()
	}
	return c, err
}

// finish does what makes this device one of an account, and what every new one needs.
func (e *entry) finish(ctx context.Context, op func(context.Context, *entry) error) (*Client, error) {
	if err := e.retry(ctx, op); err != nil {
		return nil, errors.Join(err, e.abandon())
	}
	c, err := newClient(e.opts, e.store, e.self)
	if err != nil {
		return nil, err
	}
	c.codes = e.codes.texts
	if err := c.do(ctx, c.learnName); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.do(ctx, c.fillKeyPackages); err != nil {
		c.Close()
		return nil, fmt.Errorf("the account is there, but its KeyPackages could not be uploaded, so nobody can write to it yet; log in to try again: %w", err)
	}
	return c, nil
}

// prepare opens the profile if there is one, and settles which cell is meant.
func (e *entry) prepare(ctx context.Context) error {
	if len(e.opts.Passphrase) == 0 {
		return keystore.ErrEmptyPassphrase
	}
	exists, err := keystore.Exists(e.opts.Profile)
	if err != nil {
		return err
	}
	var known cellRecord
	if exists {
		if e.store, err = keystore.Open(e.opts.Profile, e.opts.Passphrase); err != nil {
			return err
		}
		self, ok, err := get[accountRecord](ctx, e.store, accountName)
		if err != nil {
			return err
		}
		if ok {
			e.self, known = self, self.Cell
		}
	}
	e.cell, err = e.opts.cell(known)
	return err
}

// retry repeats op for what may pass by itself.
func (e *entry) retry(ctx context.Context, op func(context.Context, *entry) error) error {
	deadline := time.Now().Add(e.opts.RetryFor)
	var b backoff
	for {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		err := timely(ctx, op(bounded, e))
		cancel()
		if err == nil || !conn.Transient(err) {
			return err
		}
		wait := b.after(err)
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		if pauseErr := pause(ctx, wait); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}

// abandon takes back a profile that this call made, when nothing in it is known to the cell.
func (e *entry) abandon() error {
	if !e.made {
		return nil
	}
	return e.store.Destroy()
}

// vacant refuses a profile that has an account.
func (e *entry) vacant() error {
	if e.self != nil && !e.self.Pending {
		return fmt.Errorf("%w (%s)", ErrAccountExists, e.self.Name)
	}
	return nil
}

// dial connects to the cell, and notes which one it is.
func (e *entry) dial(ctx context.Context) (*session, error) {
	s, err := dial(ctx, e.opts, e.cell)
	if err != nil {
		return nil, err
	}
	e.cell.ID = s.Hello().CellID
	return s, nil
}

func (e *entry) signup(ctx context.Context, name string) error {
	if err := e.vacant(); err != nil {
		return err
	}
	s, err := e.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if e.self != nil && e.self.Name == name {
		err := e.resume(ctx, s, name)
		if err == nil || !wire.HasCode(err, wire.CodeInvalidCredentials) {
			return err
		}
	}
	return e.register(ctx, s, name)
}

// resume finishes a signup whose answer was lost: if the cell knows the account, the password opens it.
func (e *entry) resume(ctx context.Context, s *session, name string) error {
	finish, exportKey, err := login(ctx, s, name, e.opts.Passphrase, e.self)
	if err != nil {
		return err
	}
	defer clear(exportKey)
	if finish.AccountID != e.self.AccountID {
		return wire.Errorf(wire.CodeAlreadyExists, "that name is taken, by an account with your password; log in if it is yours").With("field", "name")
	}
	if e.opts.RecoveryCodes > 0 { // Those of the first try were never told.
		if err := e.resumeCodes(ctx, s, finish, exportKey); err != nil {
			return err
		}
	}
	return e.begin(ctx, s)
}

// register makes a new account.
func (e *entry) register(ctx context.Context, s *session, name string) error {
	invitation, err := e.opts.invitation()
	if err != nil {
		return err
	}
	password, err := register(ctx, s.Conn, e.opts.Passphrase, func(message []byte) wire.Request {
		return &wire.SignupStartRequest{Name: name, RegistrationRequest: message, Invitation: invitation}
	})
	if err != nil {
		return err
	}
	defer clear(password.exportKey)
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("making the root key: %w", err)
	}
	defer clear(root)
	account := ids.New()
	wrapped, err := wrapRoot(root, password.exportKey, account)
	if err != nil {
		return err
	}
	if e.codes, err = newCodes(e.opts.RecoveryCodes, root, account); err != nil {
		return err
	}
	if err := e.newDevice(ctx, name, account, root); err != nil {
		return err
	}
	proof, err := s.Prove(e.self.deviceKey())
	if err != nil {
		return err
	}
	tokens, err := conn.Call[*wire.Session](ctx, s.Conn, &wire.SignupFinishRequest{Name: name, RegistrationRecord: password.record, OpaqueKey: password.opaqueKey,
		WrappedRootKey: wrapped, Certificate: e.self.Certificate, DeviceName: e.opts.DeviceName, Proof: proof,
		Invitation: invitation, RecoveryCodes: e.codes.kept})
	if err != nil {
		return e.unsettled(err)
	}
	return e.settle(ctx, s, tokens)
}

// unsettled keeps the profile when the cell may have taken what it holds.
func (e *entry) unsettled(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) || refused.Code == wire.CodeInternal {
		e.made = false
	}
	return err
}

// newDevice draws a device, certifies it and saves it, before the cell hears of it.
func (e *entry) newDevice(ctx context.Context, name string, account ids.ID, root ed25519.PrivateKey) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("making the device key: %w", err)
	}
	defer clear(private) // The seed is kept.
	device := ids.New()
	e.self = &accountRecord{Name: name, AccountID: account, DeviceID: device, DeviceSeed: private.Seed(),
		Certificate: devicecert.Issue(root, account, device, public, e.opts.Now()).Marshal(),
		RootKey:     root.Public().(ed25519.PublicKey), Cell: e.cell, Pending: true}
	return e.save(ctx)
}

func (e *entry) save(ctx context.Context) error {
	if e.store == nil {
		store, err := keystore.Create(e.opts.Profile, e.opts.password(), e.opts.KDF)
		if err != nil {
			return err
		}
		e.store, e.made = store, true
	}
	return update(context.WithoutCancel(ctx), e.store, accountName, func(r *accountRecord) (bool, error) {
		*r = *e.self
		return true, nil
	})
}

// settle saves the tokens, and that the cell knows the device.
func (e *entry) settle(ctx context.Context, s *session, tokens *wire.Session) error {
	e.made = false
	if err := keepTokens(ctx, e.store, s, tokens); err != nil {
		return err
	}
	return e.settled(ctx)
}

func (e *entry) settled(ctx context.Context) error {
	e.self.Pending, e.self.LoggedOut, e.self.Cell = false, false, e.cell
	return e.save(ctx)
}

func (e *entry) login(ctx context.Context, name string) error {
	s, err := e.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	finish, exportKey, err := login(ctx, s, name, e.opts.password(), e.self)
	if err != nil {
		return err
	}
	defer clear(exportKey)
	switch {
	case e.self != nil && e.self.AccountID == finish.AccountID:
		if err := e.self.checkLogin(finish); err != nil {
			return err
		}
	case e.self != nil && !e.self.Pending:
		return fmt.Errorf("%w (%s)", ErrOtherAccount, e.self.Name)
	default:
		root, err := unwrapLogin(finish, exportKey)
		if err != nil {
			return err
		}
		defer clear(root)
		if err := e.newDevice(ctx, name, finish.AccountID, root); err != nil {
			return err
		}
	}
	if err := e.adoptPassword(ctx); err != nil {
		return err
	}
	if err := renewRegistration(ctx, s, finish, exportKey, e.opts.password()); err != nil {
		return err
	}
	return e.begin(ctx, s)
}

// adoptPassword has a profile protected by the account's password, which has just been proven.
func (e *entry) adoptPassword(ctx context.Context) error {
	if err := e.store.SettleRekey(ctx); err != nil || len(e.opts.Password) == 0 || bytes.Equal(e.opts.Password, e.opts.Passphrase) {
		return err
	}
	if err := e.store.PrepareRekey(ctx, e.opts.Password); err != nil {
		return err
	}
	if err := e.store.CommitRekey(ctx); err != nil {
		return err
	}
	clear(e.opts.Passphrase)
	e.opts.Passphrase = e.opts.Password
	return nil
}

// begin starts the session after a login.
func (e *entry) begin(ctx context.Context, s *session) error {
	if err := startSession(ctx, e.store, s, e.self, e.opts.DeviceName); err != nil {
		return revoked(e.unsettled(err))
	}
	e.made = false
	return e.settled(ctx)
}

// checkLogin compares what a login found with what the profile remembers.
func (a *accountRecord) checkLogin(finish *wire.LoginFinishResponse) error {
	switch {
	case finish.AccountID != a.AccountID:
		return fmt.Errorf("%w: the name %s is another account's now", ErrOtherAccount, a.Name)
	case !bytes.Equal(finish.RootKey, a.RootKey):
		return &RootKeyChangedError{a.Name, a.AccountID}
	}
	return nil
}

// DefaultDeviceName is what a device is called when its people do not say: the machine's name.
func DefaultDeviceName() string {
	name, err := os.Hostname()
	if err != nil || len(name) > maxDeviceName {
		return "device"
	}
	return name
}
