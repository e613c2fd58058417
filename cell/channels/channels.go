// Package channels decides who talks where: accounts as others see them, direct channels, and the creation of a
// channel's MLS group.
package channels

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Announcer is told of stored deliveries and of devices that begin to read a channel.
type Announcer interface {
	// Follow says that the devices read channel from where their cursors stand.
	Follow(channel ids.ID, devices []ids.ID)
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
}

// New returns a Service; prepare is how account names are compared.
func New(s *store.Store, p func() *policy.Policy, prepare func(string) (string, error), a Announcer, now func() time.Time) *Service {
	return &Service{s, p, prepare, a, now, audit.Discard}
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
	c, err := s.store.DirectChannel(ctx, p.AccountID, r.AccountID, s.now(), func(channel ids.ID) audit.Event {
		return audit.DirectOpened(p.AccountID, p.DeviceID, r.AccountID, channel).At(s.now())
	})
	if err != nil {
		return nil, err
	}
	return &wire.Channel{ChannelID: c.ID, Generation: c.Generation, Peer: *peer, LastSeq: c.LastSeq}, nil
}

// CreateGroup makes the MLS group of a channel's next generation. The GroupInfo shows who is in it: devices of the
// channel's accounts and nobody else, one Welcome for each but the creator.
func (s *Service) CreateGroup(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error) {
	accounts, err := s.store.ChannelMembers(ctx, r.ChannelID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if !slices.Contains(accounts, p.AccountID) {
		s.audit.Tally(ctx, audit.ChannelDenied(p.AccountID, p.DeviceID, r.ChannelID, audit.ReasonNotMember).At(s.now()))
		return nil, wire.Errorf(wire.CodeNotFound, "there is no channel %s that you are in", r.ChannelID)
	}
	group, err := mlspolicy.GroupInfo(r.GroupInfo, r.ChannelID, r.Generation, len(r.Welcomes)+1)
	if err == nil {
		err = s.checkMembers(ctx, p, accounts, group, r.Welcomes)
	}
	if err != nil {
		return nil, s.refused(ctx, p, r, err)
	}
	g := s.group(p, r, group.Epoch)
	start, err := s.store.CreateGroup(ctx, g, audit.GroupCreated(p.AccountID, p.DeviceID, r.ChannelID, r.Generation, len(group.Members)).At(g.At))
	if errors.Is(err, store.ErrConflict) {
		s.audit.Tally(ctx, audit.GroupRefused(p.AccountID, p.DeviceID, r.ChannelID, r.Generation, audit.ReasonConflict).At(s.now()))
		return nil, wire.Errorf(wire.CodeGenerationConflict, "another device created a generation of this channel first; discard this group and wait for the Welcome")
	}
	if errors.Is(err, store.ErrRevoked) { // Meanwhile.
		return nil, s.refused(ctx, p, r, wire.Errorf(wire.CodePermissionDenied, "a device of the group was revoked; make the group without it"))
	}
	if errors.Is(err, store.ErrClosed) {
		return nil, wire.Errorf(wire.CodeNotFound, "channel %s takes no messages any more: the account at its other end was deleted", r.ChannelID).With("reason", "accountDeleted")
	}
	if err != nil {
		return nil, err
	}
	s.tell(g)
	return &wire.CreateGroupResponse{StartSeq: start}, nil
}

// refused tells of a group that was not made for what is in it, and returns why.
func (s *Service) refused(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest, err error) error {
	var e *wire.Error
	if errors.As(err, &e) {
		reason := audit.ReasonInvalidGroup
		if e.Code == wire.CodePermissionDenied {
			reason = audit.ReasonNotAuthorized
		}
		s.audit.Tally(ctx, audit.GroupRefused(p.AccountID, p.DeviceID, r.ChannelID, r.Generation, reason).At(s.now()))
	}
	return err
}

// checkMembers holds the group's leaves against the channel's accounts, their root keys, their devices, and the
// Welcomes.
func (s *Service) checkMembers(ctx context.Context, p identity.Principal, accounts []ids.ID, g *mlspolicy.Group, welcomes []wire.DeviceWelcome) error {
	present := map[ids.ID]bool{}
	devices := make([]ids.ID, len(g.Members))
	for i, m := range g.Members {
		if !slices.Contains(accounts, m.AccountID) {
			return wire.Errorf(wire.CodePermissionDenied, "account %s is in the group but not in the channel", m.AccountID)
		}
		devices[i], present[m.AccountID] = m.DeviceID, true
	}
	for _, a := range accounts {
		if !present[a] {
			return wire.Errorf(wire.CodeInvalidMessage, "account %s is in the channel but not in the group", a)
		}
		if err := s.checkRoot(ctx, a, g.Roots[a]); err != nil {
			return err
		}
	}
	owners, err := s.store.DeviceAccounts(ctx, devices)
	if err != nil {
		return err
	}
	for _, m := range g.Members {
		if owners[m.DeviceID] != m.AccountID {
			return wire.Errorf(wire.CodePermissionDenied, "%s is no device that is known here, or it was revoked", m)
		}
	}
	return checkWelcomes(p, devices, welcomes)
}

func (s *Service) checkRoot(ctx context.Context, account ids.ID, root ed25519.PublicKey) error {
	a, err := s.store.AccountByID(ctx, account)
	if err != nil {
		return err
	}
	if !a.RootKey.Equal(root) {
		return wire.Errorf(wire.CodePermissionDenied, "account %s is in the group under a root key that is not its own", account)
	}
	return nil
}

func checkWelcomes(p identity.Principal, devices []ids.ID, welcomes []wire.DeviceWelcome) error {
	missing := map[ids.ID]bool{}
	for _, d := range devices {
		missing[d] = true
	}
	if !missing[p.DeviceID] {
		return wire.Errorf(wire.CodePermissionDenied, "the creating device is not in its own group")
	}
	delete(missing, p.DeviceID)
	for _, w := range welcomes {
		if !missing[w.DeviceID] {
			return wire.Errorf(wire.CodeInvalidArgument, "device %s is not in the group, or has two Welcomes", w.DeviceID).With("field", "welcomes")
		}
		delete(missing, w.DeviceID)
		if err := mlspolicy.Welcome(w.Welcome); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return wire.Errorf(wire.CodeInvalidArgument, "%d devices of the group have no Welcome", len(missing)).With("field", "welcomes")
	}
	return nil
}

func (s *Service) group(p identity.Principal, r *wire.CreateGroupRequest, epoch uint64) *store.Group {
	now := s.now()
	g := &store.Group{ChannelID: r.ChannelID, Generation: r.Generation, Epoch: epoch, GroupInfo: r.GroupInfo, Creator: p.DeviceID, At: now}
	for _, w := range r.Welcomes {
		g.Welcomes = append(g.Welcomes, store.Message{ChannelID: w.DeviceID, Kind: store.MessageWelcome, Generation: r.Generation,
			SenderAccount: p.AccountID, SenderID: p.DeviceID, DeliveryID: ids.NewDelivery(now), AboutChannel: r.ChannelID,
			AcceptedAt: now, ExpiresAt: now.Add(time.Duration(s.policy().Retention.Inbox)), Payload: w.Welcome})
	}
	return g
}

// tell lets the devices that are online follow the channel, then hands them their Welcomes. Of a repeated creation
// the Welcomes were stored before; whether anybody was told then is not known, and to follow twice does no harm.
func (s *Service) tell(g *store.Group) {
	devices, messages := []ids.ID{g.Creator}, make([]*store.Message, 0, len(g.Welcomes))
	for i := range g.Welcomes {
		devices = append(devices, g.Welcomes[i].ChannelID)
		if g.Welcomes[i].Seq > 0 {
			messages = append(messages, &g.Welcomes[i])
		}
	}
	s.announce.Follow(g.ChannelID, devices)
	s.announce.Announce(messages)
}
