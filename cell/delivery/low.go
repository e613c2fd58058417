package delivery

import (
	"context"
	"math"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// findLow looks which of the subscribed devices run out of KeyPackages: whoever claimed them may have done so at another
// process.
func (h *Hub) findLow(ctx context.Context) {
	h.mu.Lock()
	var devices []ids.ID
	for d, s := range h.devices {
		if s.noted {
			devices = append(devices, d)
		}
	}
	h.mu.Unlock()
	if len(devices) == 0 {
		return
	}
	low, err := inParts(ctx, devices, h.store.LowKeyPackages)
	if err != nil {
		h.log.WarnContext(ctx, "looking for devices without KeyPackages failed", "error", err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range devices {
		if s, ok := h.devices[d]; ok {
			left, is := low[d]
			s.noteLow(left, is)
		}
	}
}

// noteLow has the device told once that it runs out of KeyPackages, until it has uploaded enough.
func (s *Subscription) noteLow(left store.KeyPackagesLeft, is bool) {
	s.mu.Lock()
	news := is && !s.lowTold
	s.lowTold = is
	if news {
		s.low = &wire.KeyPackagesLow{OneTime: uint16(min(left.OneTime, math.MaxUint16)), LastResortExpiresAt: left.LastResort} //nolint:gosec // bounded.
	}
	s.mu.Unlock()
	if news {
		s.signal()
	}
}

// tellLow pushes what noteLow noted.
func (s *Subscription) tellLow(ctx context.Context) error {
	s.mu.Lock()
	low := s.low
	s.low = nil
	s.mu.Unlock()
	if low == nil {
		return nil
	}
	return s.push.Push(ctx, low)
}
