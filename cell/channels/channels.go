// Package channels decides who talks where: accounts as others see them, direct channels, and the creation of a
// channel's MLS group.
package channels

import (
	"context"
	"errors"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Announcer is told of stored deliveries and of devices that begin to read a channel.
type Announcer interface {
	// Follow says that the devices read channel from after.
	Follow(channel ids.ID, after uint64, devices []ids.ID)
	// Announce says that messages were stored.
	Announce(messages []*store.Message)
}

// Service answers the calls of schema/channels.capnp. It is safe for concurrent use.
type Service struct {
	store    *store.Store
	policy   func() *policy.Policy
	prepare  func(string) (string, error)
	announce Announcer
	now      func() time.Time
	audit    audit.Sink // audit.Discard until Audit.
	states   *stateCache
}

// New returns a Service; prepare is how account names are compared.
func New(s *store.Store, p func() *policy.Policy, prepare func(string) (string, error), a Announcer, now func() time.Time) *Service {
	return &Service{s, p, prepare, a, now, audit.Discard, newStateCache()}
}

// Audit has what is refused told to sink. Call it before the Service is used.
func (s *Service) Audit(sink audit.Sink) { s.audit = sink }

// GetAccount looks an account up.
func (s *Service) GetAccount(ctx context.Context, r *wire.GetAccountRequest) (*wire.Account, error) {
	find := func() (store.Account, error) { return s.store.AccountByID(ctx, r.AccountID) }
	if r.Name != "" {
		name, err := s.prepare(r.Name)
		if err != nil {
			return nil, err
		}
		find = func() (store.Account, error) { return s.store.AccountByName(ctx, name) }
	}
	a, err := find()
	if errors.Is(err, store.ErrNotFound) {
		return nil, wire.Errorf(wire.CodeNotFound, "there is no such account")
	}
	if err != nil {
		return nil, err
	}
	return &wire.Account{AccountID: a.ID, Name: a.Name, RootKey: a.RootKey}, nil
}

// OpenDM returns the one channel between the caller's account and another.
func (s *Service) OpenDM(ctx context.Context, p identity.Principal, r *wire.OpenDMRequest) (*wire.Channel, error) {
	if r.AccountID == p.AccountID {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "a direct channel needs two accounts").With("field", "accountId")
	}
	peer, err := s.GetAccount(ctx, &wire.GetAccountRequest{AccountID: r.AccountID})
	if err != nil {
		return nil, err
	}
	contact, err := s.ask(ctx, p, r.AccountID)
	if err != nil {
		return nil, err
	}
	c, err := s.store.DirectChannel(ctx, p.AccountID, r.AccountID, s.now(), func(channel ids.ID) audit.Event {
		return audit.DirectOpened(p.AccountID, p.DeviceID, r.AccountID, channel).At(s.now())
	})
	if err != nil {
		return nil, err
	}
	if c, err = s.store.ChannelOf(ctx, p.AccountID, c.ID); err != nil {
		return nil, err
	}
	c.Contact = contact
	return s.channel(&c, peer), nil
}
