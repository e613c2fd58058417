package session

import (
	"context"
	"errors"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

// replier returns the function that answers one request, once.
func (s *Session) replier(correlation uint64, start time.Time, done func()) func(string, wire.Response, error) {
	return func(method string, body wire.Response, err error) {
		defer done()
		e, code := wire.Envelope{CorrelationID: correlation, Body: body}, "ok"
		if err != nil {
			answer := s.errorOf(method, correlation, err)
			e.Body, code = answer, answer.Code.String()
		}
		s.Metrics.Requests.WithLabelValues(method, code).Observe(s.Now().Sub(start).Seconds())
		s.respond(e)
	}
}

// errorOf makes any error one of the taxonomy; what has no code is the cell's fault and goes to the log.
func (s *Session) errorOf(method string, correlation uint64, err error) *wire.Error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrUnavailable): // Once for all requests, the server's own check logs it.
		s.log.DebugContext(s.ctx, "database unavailable", "method", method, "correlation", correlation, "error", err)
		return wire.RetryAfterf(wire.CodeBusy, time.Second, "the cell's database is not available at the moment; try again")
	case errors.Is(err, store.ErrRevoked):
		return identity.ErrEnded(store.RevokedDevice)
	case errors.Is(err, store.ErrDisabled):
		return identity.ErrDisabled()
	case errors.Is(err, store.ErrNotFound):
		return wire.Errorf(wire.CodeNotFound, "there is no such thing, or none that you may see")
	}
	s.log.ErrorContext(s.ctx, "request failed", "method", method, "correlation", correlation, "error", err)
	return wire.Errorf(wire.CodeInternal, "the cell failed; its log has this under correlation id %d", correlation)
}

// respond puts an answer on its way. It waits for nothing, except for a large one's turn: only calls that run beside
// the reader have large answers, and keep their place among them until they are sent.
func (s *Session) respond(e wire.Envelope) {
	b, err := wire.Marshal(e)
	if err != nil {
		s.log.ErrorContext(s.ctx, "encoding an answer failed", "correlation", e.CorrelationID, "error", err)
		b, _ = wire.Marshal(wire.Envelope{CorrelationID: e.CorrelationID, Body: wire.Errorf(wire.CodeInternal, "the cell failed to encode its answer")})
	}
	if len(b) <= frame.ControlLimit {
		s.writer.respond(b)
		return
	}
	defer s.answered(1)
	if s.awaitLarge(s.ctx) == nil {
		s.sendLarge(s.ctx, b)
	}
}

// connectionError tells the client of an error that answers no request.
func (s *Session) connectionError(e *wire.Error) {
	if b, err := wire.Marshal(wire.Envelope{Body: e}); err == nil {
		_ = s.writer.push(s.ctx, b) // Fails only with the session.
	}
}

// push sends a push and waits for space. A large one goes on its way
// while the next may follow; if it does not get through, the session ends, for the client would wait for it.
func (s *Session) push(ctx context.Context, p wire.Push) error {
	b, err := wire.Marshal(wire.Envelope{Body: p})
	if err != nil {
		return err
	}
	if len(b) <= frame.ControlLimit {
		return s.writer.push(ctx, b)
	}
	if err := s.awaitLarge(ctx); err != nil {
		return err
	}
	s.goGuarded(func() { s.sendLarge(ctx, b) })
	return nil
}

// tryPush sends a push that is not large, if there is space.
func (s *Session) tryPush(p wire.Push) bool {
	b, err := wire.Marshal(wire.Envelope{Body: p})
	if err != nil || len(b) > frame.ControlLimit {
		return false
	}
	queued, _, _ := s.writer.tryPush(b)
	return queued
}

// awaitLarge waits for a large frame's turn; sendLarge gives it back.
func (s *Session) awaitLarge(ctx context.Context) error {
	select {
	case s.largeOut <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendLarge sends one frame on a stream of its own.
func (s *Session) sendLarge(ctx context.Context, b []byte) {
	defer func() { <-s.largeOut }()
	if err := s.writeAlone(ctx, b); err != nil && ctx.Err() == nil {
		s.end(CloseDone, "a large frame could not be sent")
	}
}

func (s *Session) writeAlone(ctx context.Context, b []byte) error {
	stream, err := s.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { stream.CancelWrite(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	if _, err := stream.Write(b); err != nil {
		return err
	}
	return stream.Close()
}
