package wire

import (
	"math"
	"time"
)

// millis is t on the wire, where 0 stands for no time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// moment reads what millis wrote.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// seconds is d on the wire; the receiver refuses what is beyond its bounds.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), math.MaxUint32)) //nolint:gosec // within the bounds.
}
