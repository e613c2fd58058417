package delivery

import (
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// maxAhead is how far a delivery id's time may lie in the future.
const maxAhead = 10 * time.Minute

// CheckDeliveryID returns the time inside a delivery id, which must be a UUIDv7 of [now − window, now + 10 min]: only
// inside the window is a repetition recognized.
func CheckDeliveryID(id ids.ID, now time.Time, window time.Duration) (time.Time, error) {
	t, ok := id.DeliveryTime()
	if !ok {
		return time.Time{}, wire.Errorf(wire.CodeInvalidArgument, "a delivery id is a UUIDv7").With("field", "deliveryId")
	}
	if t.Before(now.Add(-window)) || t.After(now.Add(maxAhead)) {
		return time.Time{}, wire.Errorf(wire.CodeDeliveryIDOutOfWindow,
			"the delivery id's time %s lies outside the window of %s back and %s ahead; mint a new id if this one was never sent, and check the clock",
			t.UTC().Format(time.RFC3339), window, maxAhead)
	}
	return t, nil
}
