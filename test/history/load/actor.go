package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

const (
	callPatience = 2500 * time.Millisecond
	dialPause    = 50 * time.Millisecond
	busyPause    = 150 * time.Millisecond
)

// actor is a client: a device's connection to some replica, which it changes when a call is not answered. One goroutine
// uses it.
type actor struct {
	*World
	*rand.Rand
	client int
	device *peer.Device
	conn   *peer.Conn
	asked  map[int]int // Of which target so many claims were made.
}

func (w *World) actor(d *peer.Device) *actor {
	w.mu.Lock()
	w.clients++
	n := w.clients
	w.mu.Unlock()
	return &actor{World: w, Rand: w.dice(n), client: n, device: d, asked: map[int]int{}}
}

// connect makes sure of a connection, to any replica. It fails when ctx ends.
func (a *actor) connect(ctx context.Context) error {
	if a.conn != nil {
		select {
		case <-a.conn.Done():
			a.hangUp()
		default:
			return nil
		}
	}
	for ctx.Err() == nil {
		conn, err := peer.Dial(ctx, a.addrs[a.IntN(len(a.addrs))], a.ca)
		if err == nil {
			if err = a.authenticate(ctx, conn); err == nil {
				a.conn = conn
				return nil
			}
			conn.Close()
		}
		sleep(ctx, dialPause)
	}
	return ctx.Err()
}

func (a *actor) authenticate(ctx context.Context, conn *peer.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	err := a.device.Authenticate(ctx, conn)
	var e *wire.Error
	if errors.As(err, &e) && !e.Retryable && e.Code != wire.CodeInternal {
		a.problem("a device is not let in: %v", err)
	}
	return err
}

func (a *actor) hangUp() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// call makes a call and notes it. An error of connect means that there was none.
func (a *actor) call(ctx context.Context, op record.Op, r wire.Request, learn func(*record.Op, wire.Response)) (record.Op, error) {
	if err := a.connect(ctx); err != nil {
		return op, err
	}
	op.Client, op.Call = a.client, a.rec.Now()
	body, outcome, code := a.raw(ctx, r)
	op.Outcome, op.Code = outcome, code
	if outcome == record.OK {
		learn(&op, body)
	}
	a.rec.Done(op)
	return op, nil
}

// raw makes a call on the connection there is.
func (a *actor) raw(ctx context.Context, r wire.Request) (wire.Response, record.Outcome, string) {
	waiting, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	body, err := a.conn.Call(waiting, r)
	var e *wire.Error
	switch {
	case err == nil:
		return body, record.OK, ""
	case !errors.As(err, &e):
		a.hangUp()
		return nil, record.Unknown, "noAnswer"
	}
	code := fmt.Sprint(e.Code)
	a.mu.Lock()
	a.codes[r.Method()+" "+code]++
	a.mu.Unlock()
	if e.Code == wire.CodeRateLimited {
		return nil, record.Refused, code // Before anything was done.
	}
	if e.Code == wire.CodeInternal || e.Retryable || e.Code == wire.CodeDraining || e.Code == wire.CodeUnauthenticated {
		if e.Code == wire.CodeDraining || e.Code == wire.CodeUnauthenticated {
			a.hangUp()
		}
		sleep(ctx, min(e.RetryAfter, busyPause)+time.Duration(a.Int64N(int64(dialPause))))
		return nil, record.Unknown, code
	}
	return nil, record.Refused, code
}

// until repeats a call until its outcome is known; false when ctx ends first.
func (a *actor) until(ctx context.Context, op record.Op, r wire.Request, learn func(*record.Op, wire.Response)) (record.Op, bool) {
	for ctx.Err() == nil {
		done, err := a.call(ctx, op, r, learn)
		if err == nil && done.Outcome != record.Unknown {
			return done, true
		}
		if a.IntN(3) == 0 {
			a.hangUp() // Another replica, perhaps.
		}
	}
	return op, false
}

// answered repeats a call that no model looks at until it is answered.
func answered[R wire.Response](ctx context.Context, a *actor, r wire.Request) (answer R, ok bool) {
	for ctx.Err() == nil {
		if a.connect(ctx) != nil {
			break
		}
		body, outcome, code := a.raw(ctx, r)
		switch outcome { //nolint:exhaustive // unknown: again.
		case record.OK:
			answer, ok = body.(R)
			return answer, ok
		case record.Refused:
			a.problem("%s is refused: %s", r.Method(), code)
			return answer, false
		}
	}
	return answer, false
}
