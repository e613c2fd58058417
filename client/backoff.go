package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/wire"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 15 * time.Second
	refusedPause = time.Second // At least, after a refused connection: places come free as others leave.
)

// backoff says how long to wait before the next try: twice as long each time, with jitter, and never less than the
// cell asked for.
type backoff struct{ next time.Duration }

func (b *backoff) after(err error) time.Duration {
	b.next = min(max(2*b.next, firstBackoff), maxBackoff)
	wait := b.next/2 + rand.N(b.next) //nolint:gosec // jitter.
	if least := asked(err); least > wait {
		wait = least + rand.N(max(firstBackoff, least/4)) //nolint:gosec // jitter: not all who were sent away come back at once.
	}
	return wait
}

// asked is how long err asks to wait.
func asked(err error) time.Duration {
	var structured *wire.Error
	var refused *conn.RefusedError
	switch {
	case errors.As(err, &structured):
		return structured.RetryAfter
	case errors.As(err, &refused):
		return refusedPause
	}
	return 0
}

func (b *backoff) reset() { b.next = 0 }

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
