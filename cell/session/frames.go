package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	r := &prompt{Stream: stream}
	for s.readOne(r) {
	}
}

// prompt is a control stream whose frames may take their time to begin, but not to end.
type prompt struct {
	*quic.Stream
	patience time.Duration
	begun    bool
}

// Read implements io.Reader.
func (p *prompt) Read(b []byte) (int, error) {
	n, err := p.Stream.Read(b)
	if n > 0 && !p.begun {
		p.begun = true
		_ = p.SetReadDeadline(time.Now().Add(p.patience))
	}
	return n, err
}

// next makes ready for the next frame, whose rest may then take patience.
func (p *prompt) next(patience time.Duration) {
	if p.begun {
		_ = p.SetReadDeadline(time.Time{})
	}
	p.begun, p.patience = false, patience
}

// readOne takes one frame; false when the session ends.
func (s *Session) readOne(stream *prompt) bool {
	limit, patience := strangerLimit, cmp.Or(s.FramePatience, framePatience)
	if s.isAuthenticated() {
		limit, patience = frame.ControlLimit, 3*patience
	}
	stream.next(patience)
	b, err := frame.Read(stream, limit)
	var tooLarge *frame.TooLargeError
	switch {
	case err == nil:
		s.greeted.Store(true)
		return s.take(b, nothing)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.tooSlow(CloseSlow, "frame", "a frame that had begun did not end in time")
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
func (s *Session) skip(stream *prompt, e *frame.TooLargeError) bool {
	_ = s.limit(nil) // It is told what is wrong all the same, at the limit's pace.
	s.connectionError(wire.Errorf(wire.CodeFrameTooLarge, "%v; larger frames travel on a stream of their own", e).With("limit", fmt.Sprint(e.Limit)))
	if e.Size > skipLimit || !s.isAuthenticated() {
		s.end(CloseProtocol, e.Error())
		return false
	}
	_ = stream.SetReadDeadline(time.Now().Add(cmp.Or(s.OversizePatience, largePatience)))
	_, err := io.CopyN(io.Discard, stream, int64(e.Size)-int64(e.TableSize)) //nolint:gosec // at most skipLimit.
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.tooSlow(CloseSlow, "frame", "a frame that had begun did not end in time")
	}
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
	_ = s.limit(nil)
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

// take waits until there is a place for one more request, charges it to its limits and dispatches it. done is called
// when the request is answered. False, and done is not called, when the session ends.
func (s *Session) take(b []byte, done func()) bool {
	if !s.awaitPlace() {
		return false
	}
	start := s.Now()
	e, err := wire.Unmarshal(b)
	request, ok := e.Body.(wire.Request)
	method := "unknown"
	switch {
	case err != nil:
	case ok:
		method = request.Method()
	default:
		err = wire.Errorf(wire.CodeMalformed, "a client sends requests only")
	}
	reply := s.replier(e.CorrelationID, start, done)
	if refusal := s.limit(request); refusal != nil {
		err = refusal
	}
	if err != nil {
		reply(method, nil, err)
		return true
	}
	s.dispatch(request, func(body wire.Response, err error) { reply(method, body, err) })
	return true
}

// limit charges a request, or a frame that is none, before any work is done for it. A client that asks on, whatever it
// is answered, is not read for a while.
func (s *Session) limit(request wire.Request) error {
	v := s.limits.Take(request)
	if v.By == "" {
		return nil
	}
	s.Metrics.Limited.WithLabelValues(v.By).Inc()
	s.pause(v.Pause)
	return v.Err()
}

// pause lets time pass, unless the session ends.
func (s *Session) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	defer s.held("limits")()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// held counts the connection as one that is not read, until the returned function is called.
func (s *Session) held(by string) func() {
	g := s.Metrics.Held.WithLabelValues(by)
	g.Inc()
	return g.Dec
}

// awaitPlace waits for a place among the requests in flight, and for the client to read what was answered. False when
// the session ends.
func (s *Session) awaitPlace() bool {
	if room, _, err := s.writer.room(); err != nil || !room && !s.awaitReader() {
		return false
	}
	select {
	case s.tokens <- struct{}{}:
		return true
	default:
	}
	defer s.held("requests")()
	select {
	case s.tokens <- struct{}{}:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Session) awaitReader() bool {
	defer s.held("answers")()
	return s.writer.awaitRoom(s.ctx) == nil
}
