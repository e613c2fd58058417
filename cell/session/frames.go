package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

const (
	largeIn       = 8                 // Large frames under way from the client: being read, or not yet answered.
	largeOut      = 4                 // Large frames under way to the client.
	largePatience = 60 * time.Second  // For a large frame to arrive.
	strangerLimit = 16 << 10          // Bytes of a frame before authentication.
	skipLimit     = 2 * wire.MaxFrame // Bytes of an oversize frame that are read over; beyond it the connection ends.
)

// read dispatches the control stream's frames until it ends.
func (s *Session) read(stream *quic.Stream) {
	stop := context.AfterFunc(s.ctx, func() { stream.CancelRead(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	for s.readOne(stream) {
	}
}

// readOne takes one frame; false when the session ends.
func (s *Session) readOne(stream io.Reader) bool {
	limit := strangerLimit
	if s.isAuthenticated() {
		limit = frame.ControlLimit
	}
	b, err := frame.Read(stream, limit)
	var tooLarge *frame.TooLargeError
	switch {
	case err == nil:
		return s.take(b, nothing)
	case errors.As(err, &tooLarge):
		return s.skip(stream, tooLarge)
	case errors.Is(err, frame.ErrMalformed):
		s.connectionError(wire.Errorf(wire.CodeMalformed, "%v", err))
		s.end(CloseProtocol, err.Error())
	}
	return false // The client has closed its side, or the session ends.
}

func nothing() {}

// skip reads over an oversize frame of tolerable size, so that the connection survives it.
func (s *Session) skip(stream io.Reader, e *frame.TooLargeError) bool {
	s.connectionError(wire.Errorf(wire.CodeFrameTooLarge, "%v; larger frames travel on a stream of their own", e).With("limit", fmt.Sprint(e.Limit)))
	if e.Size > skipLimit || !s.isAuthenticated() {
		s.end(CloseProtocol, e.Error())
		return false
	}
	_, err := io.CopyN(io.Discard, stream, int64(e.Size)-int64(e.TableSize)) //nolint:gosec // at most skipLimit.
	return err == nil
}

// acceptLarge takes frames that travel alone, once the connection is authenticated. A stream's place is the client's
// again when the request is answered: it can pile up large requests neither here nor, unread, in the connection's
// flow control, where they would block the control stream.
func (s *Session) acceptLarge() {
	select {
	case <-s.ctx.Done():
		return
	case <-s.authed:
	}
	for {
		stream, err := s.conn.AcceptUniStream(s.ctx)
		if err != nil {
			return
		}
		s.goGuarded(func() { s.readLarge(stream) })
	}
}

func (s *Session) readLarge(stream *quic.ReceiveStream) {
	stop := context.AfterFunc(s.ctx, func() { stream.CancelRead(quic.StreamErrorCode(CloseDone)) })
	defer stop()
	_ = stream.SetReadDeadline(time.Now().Add(largePatience))
	b, err := readAlone(stream)
	if err == nil {
		s.take(b, stream.ReleaseStreamCredit)
		return
	}
	defer stream.ReleaseStreamCredit()
	stream.CancelRead(quic.StreamErrorCode(CloseProtocol))
	var tooLarge *frame.TooLargeError
	switch {
	case s.ctx.Err() != nil:
	case errors.As(err, &tooLarge):
		s.connectionError(wire.Errorf(wire.CodeFrameTooLarge, "%v", err).With("limit", fmt.Sprint(tooLarge.Limit)))
	default:
		s.connectionError(wire.Errorf(wire.CodeMalformed, "a frame on a stream of its own: %v", err))
	}
}

// readAlone reads the only frame of a stream, to the stream's end: QUIC counts a stream as open until then.
func readAlone(r io.Reader) ([]byte, error) {
	b, err := frame.Read(r, wire.MaxFrame) // Room for a group's GroupInfo and Welcomes, and for any payload.
	if err != nil {
		return nil, err
	}
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return nil, fmt.Errorf("%w: there is more after it", frame.ErrMalformed)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return b, nil
}

// take waits for a place among the requests in flight, and for the client to read what was answered, and dispatches
// one frame. done is called when the request is answered. False, and done is not called, when the session ends.
func (s *Session) take(b []byte, done func()) bool {
	if s.writer.awaitRoom(s.ctx) != nil {
		return false
	}
	select {
	case s.tokens <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	start := s.Now()
	e, err := wire.Unmarshal(b)
	reply := s.replier(e.CorrelationID, start, done)
	if err != nil {
		reply("unknown", nil, err)
		return true
	}
	request, ok := e.Body.(wire.Request)
	if !ok {
		reply("unknown", nil, wire.Errorf(wire.CodeMalformed, "a client sends requests only"))
		return true
	}
	s.dispatch(request, func(body wire.Response, err error) { reply(request.Method(), body, err) })
	return true
}
