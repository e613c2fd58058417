package delivery

import (
	"context"
	"errors"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

// A device has one subscription, the latest, over all processes. The store numbers a device's subscriptions; whoever begins one tells
// the other processes its number, and an earlier one there ends. What is not heard is found by polling.

// begin takes the subscription's number, and has others told. A database that cannot be written to keeps nobody from reading: then
// the number is taken later, and of two that wait for theirs, who gets it last wins.
func (s *Subscription) begin(ctx context.Context) {
	err := withPatience(ctx, s.take)
	if err != nil && ctx.Err() == nil {
		s.hub.log.WarnContext(ctx, "an earlier subscription of the device at another replica is not ended yet", "device", s.device, "error", err)
	}
}

// take takes the subscription's number, unless it has one. It is one at a time: of two numbers, the later would end it.
func (s *Subscription) take(ctx context.Context) error {
	if !s.taking.TryLock() {
		return nil
	}
	defer s.taking.Unlock()
	if s.numbered() {
		return nil
	}
	number, err := s.hub.store.BeginSubscription(ctx, s.device)
	if errors.Is(err, store.ErrNotFound) {
		return nil // It is revoked: its connection ends, and there is nothing that it could read.
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.number = number
	s.mu.Unlock()
	if s.hub.wakeups != nil {
		s.hub.wakeups.Tell(WakeupDevice, s.device, number)
	}
	return nil
}

// replaced ends a device's subscription here if it is older than one that another process tells of, or the store knows.
func (h *Hub) replaced(device ids.ID, latest uint64) {
	h.mu.Lock()
	s, ok := h.devices[device]
	h.mu.Unlock()
	if ok && s.older(latest) {
		s.cancel(ErrReplaced)
	}
}

func (s *Subscription) older(latest uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number > 0 && s.number < latest
}

func (s *Subscription) numbered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number > 0
}

// findReplaced looks which of the subscribed devices have a later subscription at another process.
func (h *Hub) findReplaced(ctx context.Context) {
	devices := h.numberAll(ctx)
	latest, err := inParts(ctx, devices, h.store.Subscriptions)
	if err != nil {
		h.log.WarnContext(ctx, "looking for devices that are subscribed elsewhere failed", "error", err)
	}
	for d, number := range latest {
		h.replaced(d, number)
	}
}

// numberAll takes numbers for subscriptions that could not when they began, until that fails again, and returns all devices.
func (h *Hub) numberAll(ctx context.Context) (devices []ids.ID) {
	h.mu.Lock()
	var without []*Subscription
	for d, s := range h.devices {
		devices = append(devices, d)
		if !s.numbered() {
			without = append(without, s)
		}
	}
	h.mu.Unlock()
	for _, s := range without {
		if withPatience(ctx, s.take) != nil {
			break
		}
	}
	return devices
}
