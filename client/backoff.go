package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"quicproquo.dev/schema/wire"
)

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 15 * time.Second
)

// backoff says how long to wait before the next try: twice as long each time, with jitter, and never less than the
// cell asked for.
type backoff struct{ next time.Duration }

func (b *backoff) after(err error) time.Duration {
	b.next = min(max(2*b.next, firstBackoff), maxBackoff)
	wait := b.next/2 + rand.N(b.next) //nolint:gosec // jitter.
	var structured *wire.Error
	if errors.As(err, &structured) && structured.RetryAfter > wait {
		wait = structured.RetryAfter + rand.N(firstBackoff) //nolint:gosec // jitter.
	}
	return wait
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
