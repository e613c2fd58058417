package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/internal/version"
	"quicproquo.dev/schema/wire"
)

const (
	callPatience  = 15 * time.Second
	retryPatience = 2 * time.Minute // For a cell that asks to come again.
)

// session is a connection to a cell that takes it for an admin's.
type session struct {
	*conn.Conn
	t *target
}

// open connects and shows the credential.
func (f *flags) open(ctx context.Context) (*session, error) {
	t, err := f.resolve(ctx)
	if err != nil {
		return nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	c, err := conn.Dial(dialing, conn.Options{Endpoint: t.endpoint, Trust: t.trust, Client: "kubectl-qpq " + version.String(), Certificate: t.certificate})
	if err != nil {
		return nil, explain(err, t)
	}
	s := &session{c, t}
	if _, err := call[*wire.AdminSession](ctx, s, &wire.AdminAuthenticateRequest{Token: t.token}); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// call asks for something, again when the cell says so: what is answered with an error was not done.
func call[R wire.Response](ctx context.Context, s *session, request wire.Request) (R, error) {
	for end := time.Now().Add(retryPatience); ; {
		asking, cancel := context.WithTimeout(ctx, callPatience)
		out, err := conn.Call[R](asking, s.Conn, request)
		cancel()
		var e *wire.Error
		if !errors.As(err, &e) || !e.Retryable || time.Now().After(end) {
			return out, explain(err, s.t)
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(max(e.RetryAfter, 100*time.Millisecond)):
		}
	}
}

// explain says what to do about what a cell, or the way to it, answered.
func explain(err error, t *target) error {
	var certificate *conn.CertificateError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &certificate) && !certificate.Shown:
		return fmt.Errorf("%w with --client-cert FILE --client-key FILE", err)
	case errors.Is(err, conn.ErrWrongHost):
		return fmt.Errorf("%w; the cell's certificate has the names of spec.endpoint.host and of its Service, and the addresses of its nodes", err)
	case t.token != nil && wire.HasCode(err, wire.CodeExpiredToken):
		return fmt.Errorf("the admin token of %s has expired: whoever renews it, the operator or kubectl-qpq dev, has not run for hours", t.where)
	case t.token != nil && wire.HasCode(err, wire.CodeInvalidToken):
		return fmt.Errorf("the cell at %s does not take the admin token of %s: it is another cell's, or signed with a key that its servers do not have (yet), or a clock is wrong (%w)", t.endpoint, t.where, err)
	case wire.HasCode(err, wire.CodeUnknownMethod):
		return fmt.Errorf("the cell is of an older release, which has no such call: update it (%w)", err)
	}
	var e *wire.Error
	if errors.As(err, &e) {
		return errors.New(e.Message) // It is written for people.
	}
	return err
}
