package load

import (
	"context"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// refills of the device whose KeyPackages everybody wants: too few at times.
const (
	refill      = 12
	refillPause = 300 * time.Millisecond
	claimPause  = 20 * time.Millisecond
	claimsAgain = 4 // An answered claim is repeated, as one in so many.
	// A cell lets an account claim another's KeyPackages 60 times in an hour.
	claimsOfOne = 55
)

// refill uploads KeyPackages of a target until the world stops.
func (w *World) refill(ctx context.Context, target *peer.Device) {
	a := w.actor(target)
	defer a.hangUp()
	for !w.stopped() && a.upload(ctx, 1+a.IntN(refill), a.IntN(10) == 0) {
		sleep(ctx, time.Duration(a.Int64N(int64(refillPause))))
	}
}

// claims claims KeyPackages of the targets until the world stops, or the cell would have to refuse.
func (w *World) claims(ctx context.Context, by *peer.Device) {
	a := w.actor(by)
	defer a.hangUp()
	for range claimsOfOne * len(w.targets) {
		if w.stopped() || ctx.Err() != nil {
			return
		}
		t := a.IntN(len(w.targets))
		for i := 0; a.asked[t] == claimsOfOne && i < len(w.targets); i++ {
			t = (t + 1) % len(w.targets)
		}
		a.asked[t]++
		target := w.targets[t : t+1]
		request := ids.New()
		again := a.IntN(claimsAgain) == 0
		for ctx.Err() == nil {
			_, outcome := a.claimOnce(ctx, request, target)
			if outcome == record.Unknown {
				continue
			}
			if !again {
				break
			}
			again = false
			a.hangUp() // Anywhere.
		}
		sleep(ctx, time.Duration(a.Int64N(int64(claimPause))))
	}
}
