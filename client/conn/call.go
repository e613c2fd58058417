package conn

import (
	"context"
	"fmt"
	"sync"

	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/wire"
)

// calls are the requests that wait for an answer.
type calls struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]chan<- answer
	err  error // Set once the connection has ended.
}

type answer struct {
	body wire.Response
	err  error
}

// add registers a call. The channel gets exactly one answer, unless remove comes first.
func (c *calls) add() (uint64, <-chan answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	if c.open == nil {
		c.open = make(map[uint64]chan<- answer)
	}
	c.last++
	ch := make(chan answer, 1)
	c.open[c.last] = ch
	return c.last, ch, nil
}

func (c *calls) remove(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, id)
}

// settle answers a call. An answer to a call that was given up, or to none, is dropped.
func (c *calls) settle(id uint64, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.open[id]; ok {
		delete(c.open, id)
		ch <- a
	}
}

func (c *calls) failAll(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for id, ch := range c.open {
		delete(c.open, id)
		ch <- answer{err: err}
	}
}

// Call sends a request and waits for its answer until ctx ends; the request may have been carried out even when Call
// fails. Errors: *wire.Error from the cell, *LostError, *RefusedError, ErrProtocol, ErrClosed, ctx's.
func (c *Conn) Call(ctx context.Context, req wire.Request) (wire.Response, error) {
	id, ch, err := c.calls.add()
	if err != nil {
		return nil, err
	}
	defer c.calls.remove(id)
	b, err := wire.Marshal(wire.Envelope{CorrelationID: id, Body: req})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.Method(), err)
	}
	if err := c.send(ctx, b); err != nil {
		return nil, err
	}
	select {
	case a := <-ch:
		return a.body, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the cell's answer to %s: %w", req.Method(), ctx.Err())
	}
}

// Call is Conn.Call for a caller who knows the answer's type. Another type is ErrProtocol.
func Call[R wire.Response](ctx context.Context, c *Conn, req wire.Request) (R, error) {
	var none R
	body, err := c.Call(ctx, req)
	if err != nil {
		return none, err
	}
	r, ok := body.(R)
	if !ok {
		return none, fmt.Errorf("%w: %s was answered with a %T", ErrProtocol, req.Method(), body)
	}
	return r, nil
}

func (c *Conn) send(ctx context.Context, b []byte) error {
	if len(b) > frame.ControlLimit {
		return c.sendAlone(ctx, b)
	}
	select {
	case c.writes <- b:
		return nil
	case <-c.ctx.Done():
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendAlone sends a large frame on a stream of its own.
func (c *Conn) sendAlone(ctx context.Context, b []byte) error {
	s, err := c.quic.OpenUniStreamSync(ctx)
	if err != nil {
		return c.sendError(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { s.CancelWrite(0) })
	defer stop()
	if _, err = s.Write(b); err == nil {
		err = s.Close()
	}
	return c.sendError(ctx, err)
}

// sendError prefers the caller's reason, then the connection's.
func (c *Conn) sendError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.Err() != nil:
		return c.Err()
	}
	return c.remote.broken(err)
}

// write is the only writer of the control stream. It sends together what has queued up meanwhile.
func (c *Conn) write() {
	var buf []byte
	for {
		select {
		case b := <-c.writes:
			buf = c.gather(append(buf[:0], b...))
		case <-c.ctx.Done():
			return
		}
		if _, err := c.control.Write(buf); err != nil {
			c.lost(err)
			return
		}
	}
}

func (c *Conn) gather(buf []byte) []byte {
	for len(buf) < frame.ControlLimit {
		select {
		case b := <-c.writes:
			buf = append(buf, b...)
		default:
			return buf
		}
	}
	return buf
}
