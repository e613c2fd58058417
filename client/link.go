package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/wire"
)

const (
	// callTimeout is how long a cell may take over one attempt before its connection is given up.
	callTimeout = 30 * time.Second
	// tokenMargin is how long an access token must still hold for a connection to begin with it.
	tokenMargin = time.Minute
)

// session is an authenticated connection.
type session struct {
	*conn.Conn
	skew    time.Duration // The cell's clock minus ours.
	expires time.Time     // Of the access token, by the cell's clock.
}

// dial connects to the cell without authenticating.
func dial(ctx context.Context, o Options, cell cellRecord) (*session, error) {
	trust, err := cell.trust()
	if err != nil {
		return nil, err
	}
	cn, err := conn.Dial(ctx, conn.Options{Endpoint: cell.Endpoint, Trust: trust, Client: o.Program, Certificate: o.Certificate})
	if err != nil {
		return nil, err
	}
	if id := cn.Hello().CellID; !cell.ID.IsZero() && id != cell.ID {
		cn.Close()
		return nil, fmt.Errorf("%w (cell %s instead of %s)", ErrOtherCell, id, cell.ID)
	}
	return &session{Conn: cn, skew: cn.Hello().ServerTime.Sub(o.Now())}, nil
}

// connect makes an authenticated connection.
func (c *Client) connect(ctx context.Context) (*session, error) {
	cell, err := c.opts.cell(c.self.Cell)
	if err != nil {
		return nil, err
	}
	s, err := dial(ctx, c.opts, cell)
	if err != nil {
		return nil, err
	}
	if err := c.authenticate(ctx, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// do runs op on the shared connection, and again on a new one for what may pass by itself. op must be such that
// doing it twice does no harm.
func (c *Client) do(ctx context.Context, op func(context.Context, *session) error) error {
	deadline := time.Now().Add(c.opts.RetryFor)
	var b backoff
	for renewed := false; ; {
		err := c.attempt(ctx, op)
		switch {
		case err == nil:
			return nil
		case tokenRefused(err) && !renewed:
			renewed = true
			continue
		case !conn.Transient(err):
			return err
		}
		wait := b.after(err)
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		c.log.DebugContext(ctx, "trying again", "after", wait, "error", err)
		if pauseErr := pause(ctx, wait); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}

func tokenRefused(err error) bool {
	return wire.HasCode(err, wire.CodeUnauthenticated, wire.CodeExpiredToken, wire.CodeInvalidToken)
}

// attempt runs op once.
func (c *Client) attempt(ctx context.Context, op func(context.Context, *session) error) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := c.current(bounded)
	if err != nil {
		return timely(ctx, err)
	}
	if err = revoked(timely(ctx, op(bounded, s))); err == nil {
		return nil
	}
	var lost *conn.LostError
	if errors.As(err, &lost) || s.Err() != nil || tokenRefused(err) || wire.HasCode(err, wire.CodeDraining) {
		c.drop(s)
	}
	return err
}

// timely makes a cell that took too long a lost connection.
func timely(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &conn.LostError{Cause: err}
	}
	return err
}

// current returns the shared connection and makes it when there is none.
func (c *Client) current(ctx context.Context) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, conn.ErrClosed
	}
	if c.shared != nil && c.shared.Err() == nil && c.serverNow(c.shared).Before(c.shared.expires) {
		return c.shared, nil
	}
	if c.shared != nil {
		c.shared.Close()
		c.shared = nil
	}
	s, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.shared = s
	return s, nil
}

func (c *Client) drop(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared == s {
		c.shared = nil
	}
	s.Close()
}

// serverNow is the cell's time as the connection's hello told it, so that a wrong local clock harms neither lifetimes
// nor delivery ids.
func (c *Client) serverNow(s *session) time.Time { return c.opts.Now().Add(s.skew) }

// authenticate binds the connection to the device: by the access token, else by the refresh token, else by the
// password.
func (c *Client) authenticate(ctx context.Context, s *session) error {
	rec, ok, err := get[sessionRecord](ctx, c.store, sessionName)
	if err != nil {
		return err
	}
	if ok && c.serverNow(s).Add(tokenMargin).Before(rec.AccessExpiresAt) {
		if err := c.present(ctx, s, rec); !tokenRefused(err) {
			return err
		}
	}
	return c.renew(ctx, s, rec)
}

// present authenticates with an access token.
func (c *Client) present(ctx context.Context, s *session, rec *sessionRecord) error {
	proof, err := s.Prove(c.device)
	if err != nil {
		return err
	}
	who, err := conn.Call[*wire.AuthenticateResponse](ctx, s.Conn, &wire.AuthenticateRequest{AccessToken: rec.AccessToken, Proof: proof})
	if err != nil {
		return revoked(err)
	}
	if who.AccountID != c.self.AccountID || who.DeviceID != c.self.DeviceID {
		return fmt.Errorf("%w: it takes us for another device", conn.ErrProtocol)
	}
	s.expires = rec.AccessExpiresAt
	return nil
}

// renew gets new tokens. A refresh token serves once, so one process at a time does it; known is the record that did
// not do: when another process has renewed it meanwhile, its tokens are used.
func (c *Client) renew(ctx context.Context, s *session, known *sessionRecord) error {
	unlock, err := c.store.Lock(ctx, sessionName)
	if err != nil {
		return err
	}
	defer unlock()
	rec, ok, err := get[sessionRecord](ctx, c.store, sessionName)
	if err != nil {
		return err
	}
	if ok && string(rec.AccessToken) != string(known.AccessToken) {
		if err := c.present(ctx, s, rec); !tokenRefused(err) {
			return err
		}
	}
	if ok && c.serverNow(s).Before(rec.RefreshExpiresAt) {
		err := c.refresh(ctx, s, rec)
		if !tokenRefused(err) && !wire.HasCode(err, wire.CodeReusedToken, wire.CodeInvalidProof) {
			return err
		}
		c.log.WarnContext(ctx, "the session cannot be refreshed; logging in by password", "error", err)
	}
	self, _, err := get[accountRecord](ctx, c.store, accountName)
	switch {
	case err != nil:
		return err
	case self.LoggedOut: // By another process.
		return fmt.Errorf("%w as %s", ErrLoggedOut, c.self.Name)
	}
	return c.loginAgain(ctx, s)
}

func (c *Client) refresh(ctx context.Context, s *session, rec *sessionRecord) error {
	proof, err := s.Prove(c.device)
	if err != nil {
		return err
	}
	tokens, err := conn.Call[*wire.Session](ctx, s.Conn, &wire.RefreshSessionRequest{RefreshToken: rec.RefreshToken, DeviceID: c.self.DeviceID, Proof: proof})
	if err != nil {
		return revoked(err)
	}
	return keepTokens(ctx, c.store, s, tokens)
}

// loginAgain logs in by password; the passphrase is the account's.
func (c *Client) loginAgain(ctx context.Context, s *session) error {
	passphrase, err := c.passphrase()
	if err != nil {
		return err
	}
	defer clear(passphrase)
	finish, exportKey, err := login(ctx, s, c.self.Name, passphrase, c.self)
	if err != nil {
		return stale(revoked(err))
	}
	defer clear(exportKey)
	if err := c.self.checkLogin(finish); err != nil {
		return err
	}
	if err := c.store.SettleRekey(ctx); err != nil {
		return err
	}
	if err := renewRegistration(ctx, s, finish, exportKey, passphrase); err != nil {
		return err
	}
	return revoked(startSession(ctx, c.store, s, c.self, c.opts.DeviceName))
}

// startSession starts the device's session after a login on the same connection, and adds the device when the cell
// does not know it.
func startSession(ctx context.Context, store *keystore.Store, s *session, self *accountRecord, deviceName string) error {
	proof, err := s.Prove(self.deviceKey())
	if err != nil {
		return err
	}
	tokens, err := conn.Call[*wire.Session](ctx, s.Conn, &wire.StartSessionRequest{Certificate: self.Certificate, DeviceName: deviceName, Proof: proof})
	if err != nil {
		return err
	}
	return keepTokens(ctx, store, s, tokens)
}

// keepTokens saves what a connection was just given.
func keepTokens(ctx context.Context, store *keystore.Store, s *session, t *wire.Session) error {
	s.expires = t.AccessExpiresAt
	return update(context.WithoutCancel(ctx), store, sessionName, func(r *sessionRecord) (bool, error) {
		*r = sessionRecord{AccessToken: t.AccessToken, RefreshToken: t.RefreshToken,
			AccessExpiresAt: t.AccessExpiresAt, RefreshExpiresAt: t.RefreshExpiresAt}
		return true, nil
	})
}

func revoked(err error) error {
	if wire.HasCode(err, wire.CodeDeviceRevoked) && !errors.Is(err, ErrRevoked) {
		return fmt.Errorf("%w (%w)", ErrRevoked, err)
	}
	return err
}
