package channels

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// CreateGroup makes the MLS group of a channel's next generation. The GroupInfo shows who is in it: devices of the
// channel's accounts and nobody else, one Welcome for each but the creator.
func (s *Service) CreateGroup(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error) {
	var made *wire.CreateGroupResponse
	err := again(func() (err error) {
		made, err = s.createGroup(ctx, p, r)
		return err
	})
	if errors.Is(err, store.ErrMoved) {
		err = Refusal(err, s.policy(), r.ChannelID, ids.ID{})
	}
	return made, err
}

func (s *Service) createGroup(ctx context.Context, p identity.Principal, r *wire.CreateGroupRequest) (*wire.CreateGroupResponse, error) {
	h, err := s.head(ctx, p, r.ChannelID)
	if err != nil {
		return nil, err
	}
	group, err := mlspolicy.GroupInfo(r.GroupInfo, r.ChannelID, r.Generation, len(r.Welcomes)+1)
	if err == nil {
		err = s.checkCreation(ctx, p, h, group, r)
	}
	if err != nil {
		return nil, s.refused(ctx, p, r, err)
	}
	g := s.group(p, r, h, group)
	start, err := s.store.CreateGroup(ctx, g, audit.GroupCreated(p.AccountID, p.DeviceID, r.ChannelID, r.Generation, len(group.Members)).At(g.At))
	if errors.Is(err, store.ErrConflict) {
		s.audit.Tally(ctx, audit.GroupRefused(p.AccountID, p.DeviceID, r.ChannelID, r.Generation, audit.ReasonConflict).At(s.now()))
		return nil, wire.Errorf(wire.CodeGenerationConflict, "another device created a generation of this channel first; discard this group and wait for the Welcome")
	}
	var quorum *store.QuorumError
	switch {
	case errors.As(err, &quorum):
		return nil, s.refused(ctx, p, r, wire.Errorf(wire.CodePermissionDenied, "a new generation takes the votes of %d accounts, %d have voted", quorum.Needed, quorum.Votes).
			With("votes", strconv.Itoa(quorum.Votes)).With("needed", strconv.Itoa(quorum.Needed)))
	case errors.Is(err, store.ErrRevoked): // Meanwhile.
		return nil, s.refused(ctx, p, r, wire.Errorf(wire.CodePermissionDenied, "a device of the group was revoked; make the group without it"))
	case err != nil:
		return nil, Refusal(err, s.policy(), r.ChannelID, ids.ID{})
	}
	s.tell(g, start)
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

// checkCreation holds the group's leaves against the channel's accounts, their root keys, their devices, and the Welcomes.
func (s *Service) checkCreation(ctx context.Context, p identity.Principal, h *store.GroupHead, g *mlspolicy.Group, r *wire.CreateGroupRequest) error {
	if r.Generation <= h.Generation { // A retry, or somebody who lost: the store tells them apart.
		return nil
	}
	present := map[ids.ID]bool{}
	var adds []mlspolicy.Act
	var others []ids.ID // Devices but the creator's.
	creator := false
	for _, m := range g.Members {
		present[m.AccountID] = true
		adds = append(adds, mlspolicy.Act{Device: m, Root: g.Roots[m.AccountID]})
		if m.DeviceID == p.DeviceID && m.AccountID == p.AccountID {
			creator = true
			continue
		}
		others = append(others, m.DeviceID)
	}
	if !creator {
		return wire.Errorf(wire.CodePermissionDenied, "the creating device is not in its own group")
	}
	if err := s.checkAccounts(ctx, p, h, present, r.Generation); err != nil {
		return err
	}
	if err := s.checkAdded(ctx, adds); err != nil {
		return err
	}
	return checkWelcomes(others, r.Welcomes)
}

// checkAccounts says who is to be in the group. Of a direct channel, both. Of a group channel, whom its admin wants at
// first; later, everybody who is in it, but for those who have no device left and those whom an admin leaves out.
func (s *Service) checkAccounts(ctx context.Context, p identity.Principal, h *store.GroupHead, present map[ids.ID]bool, generation uint32) error {
	if h.Kind == store.ChannelGroup && generation == 1 {
		return s.checkInvited(ctx, p, h, present)
	}
	for a := range present {
		if _, member := h.Members[a]; !member {
			return wire.Errorf(wire.CodePermissionDenied, "account %s is in the group but not in the channel", a)
		}
	}
	var missing []ids.ID
	for a := range h.Members {
		if !present[a] {
			missing = append(missing, a)
		}
		if h.Kind == store.ChannelDirect {
			if err := s.wanted(ctx, p.AccountID, a); err != nil {
				return err
			}
		}
	}
	if len(missing) == 0 || h.Kind == store.ChannelGroup && h.Members[p.AccountID] == store.RoleAdmin {
		return nil
	}
	live, err := s.store.LiveAccounts(ctx, missing)
	if err != nil {
		return err
	}
	for _, a := range missing {
		if h.Kind == store.ChannelDirect || live[a] {
			return wire.Errorf(wire.CodeInvalidMessage, "account %s is in the channel but not in the group", a)
		}
	}
	return nil
}

func (s *Service) checkInvited(ctx context.Context, p identity.Principal, h *store.GroupHead, present map[ids.ID]bool) error {
	if h.Members[p.AccountID] != store.RoleAdmin {
		return wire.Errorf(wire.CodePermissionDenied, "an admin of the channel makes its first group")
	}
	if len(present) > wire.MaxMembers {
		return wire.Errorf(wire.CodePermissionDenied, "a group has at most %d accounts", wire.MaxMembers)
	}
	for a := range present {
		if err := s.wanted(ctx, p.AccountID, a); err != nil {
			return err
		}
	}
	return nil
}

// checkWelcomes checks that there is one Welcome for each of the devices, and no other.
func checkWelcomes(devices []ids.ID, welcomes []wire.DeviceWelcome) error {
	missing := map[ids.ID]bool{}
	for _, d := range devices {
		missing[d] = true
	}
	for _, w := range welcomes {
		if !missing[w.DeviceID] {
			return wire.Errorf(wire.CodeInvalidArgument, "device %s is not added, or has two Welcomes", w.DeviceID).With("field", "welcomes")
		}
		delete(missing, w.DeviceID)
		if err := mlspolicy.Welcome(w.Welcome); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return wire.Errorf(wire.CodeInvalidArgument, "%d added devices have no Welcome", len(missing)).With("field", "welcomes")
	}
	return nil
}

func (s *Service) group(p identity.Principal, r *wire.CreateGroupRequest, h *store.GroupHead, group *mlspolicy.Group) *store.Group {
	now := s.now()
	g := &store.Group{ChannelID: r.ChannelID, Generation: r.Generation, Epoch: group.Epoch, GroupInfo: r.GroupInfo, State: group.State,
		Creator: p.DeviceID, CreatorAccount: p.AccountID, At: now, Base: h, VotesSince: now.Add(-VoteLife)}
	for _, m := range group.Members {
		if !slices.Contains(g.Accounts, m.AccountID) {
			g.Accounts = append(g.Accounts, m.AccountID)
		}
	}
	g.Welcomes = s.welcomes(p, r.ChannelID, r.Generation, r.Welcomes, now)
	return g
}

// welcomes are the Welcomes of a request as messages for the inboxes of their devices.
func (s *Service) welcomes(p identity.Principal, channel ids.ID, generation uint32, list []wire.DeviceWelcome, now time.Time) []store.Message {
	var out []store.Message
	for _, w := range list {
		out = append(out, store.Message{ChannelID: w.DeviceID, Kind: store.MessageWelcome, Generation: generation,
			SenderAccount: p.AccountID, SenderID: p.DeviceID, DeliveryID: ids.NewDelivery(now), AboutChannel: channel,
			AcceptedAt: now, ExpiresAt: now.Add(time.Duration(s.policy().Retention.Inbox)), Payload: w.Welcome})
	}
	return out
}

// tell lets the devices that are online follow the channel, then hands them their Welcomes. Of a repeated creation
// the Welcomes were stored before; whether anybody was told then is not known, and to follow twice does no harm.
func (s *Service) tell(g *store.Group, start uint64) {
	devices, messages := []ids.ID{g.Creator}, make([]*store.Message, 0, len(g.Welcomes))
	for i := range g.Welcomes {
		devices = append(devices, g.Welcomes[i].ChannelID)
		if g.Welcomes[i].Seq > 0 {
			messages = append(messages, &g.Welcomes[i])
		}
	}
	s.announce.Follow(g.ChannelID, start, devices)
	s.announce.Announce(messages)
}
