package conn

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

// readControl takes frames off the control stream until the connection ends.
func (c *Conn) readControl() {
	r := bufio.NewReaderSize(c.control, frame.ControlLimit)
	for {
		b, err := frame.Read(r, frame.ControlLimit)
		if err == nil {
			err = c.dispatch(b)
		}
		if err != nil {
			c.lost(frameError(err))
			return
		}
	}
}

// acceptAlone takes the streams that carry one large frame each.
func (c *Conn) acceptAlone() {
	for {
		s, err := c.quic.AcceptUniStream(c.ctx)
		if err != nil {
			c.lost(err)
			return
		}
		c.wg.Go(func() {
			if err := c.readAlone(s); err != nil {
				c.lost(frameError(err))
			}
		})
	}
}

func (c *Conn) readAlone(s *quic.ReceiveStream) error {
	b, err := frame.Read(s, wire.MaxFrame)
	if err != nil {
		return err
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes behind a large frame", ErrProtocol)
	}
	return c.dispatch(b)
}

// frameError makes a frame that breaks the rules a breach of the protocol; what else fails is a lost connection.
func frameError(err error) error {
	var large *frame.TooLargeError
	if errors.Is(err, frame.ErrMalformed) || errors.As(err, &large) {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return err
}

// dispatch hands a frame on. An error ends the connection.
func (c *Conn) dispatch(b []byte) error {
	env, err := wire.Unmarshal(b)
	if err != nil {
		return c.undecodable(env, err)
	}
	switch body := env.Body.(type) {
	case wire.Response:
		c.calls.settle(env.CorrelationID, answer{body: body})
	case *wire.Error:
		if env.CorrelationID == 0 {
			c.stop(body) // It concerns the connection: the cell is about to close it.
			return body
		}
		c.calls.settle(env.CorrelationID, answer{err: body})
	case wire.Push:
		return c.queue(body)
	default:
		return fmt.Errorf("%w: it sent a %T", ErrProtocol, body)
	}
	return nil
}

// undecodable fails the call that a bad answer belongs to. A push of a kind that this client does not know yet is
// skipped; any other bad frame ends the connection.
func (c *Conn) undecodable(env wire.Envelope, err error) error {
	if env.CorrelationID != 0 {
		c.calls.settle(env.CorrelationID, answer{err: fmt.Errorf("%w: %w", ErrProtocol, err)})
		return nil
	}
	if wire.HasCode(err, wire.CodeUnknownMethod) {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrProtocol, err)
}

// queue never waits: whoever reads pushes may be waiting for an answer that comes behind this one.
func (c *Conn) queue(p wire.Push) error {
	select {
	case c.pushes <- p:
		return nil
	default:
		return fmt.Errorf("%w: it pushed beyond the credit", ErrProtocol)
	}
}
