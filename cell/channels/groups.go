package channels

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// VoteLife is for how long a vote for a new generation counts.
const VoteLife = 7 * 24 * time.Hour

// maxOpen is how many group channels without a group an account may have.
const maxOpen = 100

// channel is a channel as the wire has it.
func (s *Service) channel(c *store.Channel, peer *wire.Account) *wire.Channel {
	out := &wire.Channel{ChannelID: c.ID, Generation: c.Generation, LastSeq: c.LastSeq, Kind: wire.ChannelDirect, Epoch: c.Epoch,
		Role: wire.ChannelRole(c.Role), Retention: c.Retention, History: wire.History(c.History)} //nolint:gosec // the same numbers.
	if c.Kind == store.ChannelGroup {
		out.Kind = wire.ChannelGroup
		return out
	}
	if peer != nil {
		out.Peer = *peer
	}
	out.Contact = contactState(&c.Contact, s.policy())
	return out
}

// peers returns what others see of the other accounts of direct channels.
func (s *Service) peers(ctx context.Context, list []store.Channel) (map[ids.ID]*wire.Account, error) {
	var accounts []ids.ID
	for i := range list {
		if !list[i].Peer.IsZero() {
			accounts = append(accounts, list[i].Peer)
		}
	}
	return s.accounts(ctx, accounts)
}

func (s *Service) accounts(ctx context.Context, list []ids.ID) (map[ids.ID]*wire.Account, error) {
	found, err := s.store.PublicAccounts(ctx, list)
	if err != nil {
		return nil, err
	}
	out := make(map[ids.ID]*wire.Account, len(found))
	for id, a := range found {
		out[id] = &wire.Account{AccountID: id, Name: a.Name, RootKey: a.RootKey}
	}
	return out, nil
}

// OpenGroup makes a group channel of which the caller's account is the admin, and the only member so far.
func (s *Service) OpenGroup(ctx context.Context, p identity.Principal, r *wire.OpenGroupRequest) (*wire.Channel, error) {
	c, err := s.store.OpenGroup(ctx, r.ChannelID, p.AccountID, maxOpen, s.now(), audit.GroupOpened(p.AccountID, p.DeviceID, r.ChannelID).At(s.now()))
	switch {
	case errors.Is(err, store.ErrTooMany):
		return nil, wire.RetryAfterf(wire.CodeRateLimited, time.Minute, "the account has opened %d channels that have no group yet", maxOpen).With("limit", "channels")
	case errors.Is(err, store.ErrExists), err == nil && c.Kind != store.ChannelGroup:
		return nil, wire.Errorf(wire.CodeAlreadyExists, "that channel id is taken; draw another")
	case err != nil:
		return nil, err
	}
	return s.channel(&c, nil), nil
}

// GetChannel returns one of the caller's channels with its members.
func (s *Service) GetChannel(ctx context.Context, p identity.Principal, r *wire.GetChannelRequest) (*wire.ChannelDetails, error) {
	var out *wire.ChannelDetails
	err := again(func() error {
		h, err := s.head(ctx, p, r.ChannelID)
		if err != nil {
			return err
		}
		out, err = s.details(ctx, p, h)
		return err
	})
	return out, Refusal(err, s.policy(), r.ChannelID, ids.ID{})
}

func (s *Service) details(ctx context.Context, p identity.Principal, h *store.GroupHead) (*wire.ChannelDetails, error) {
	c, err := s.store.ChannelOf(ctx, p.AccountID, h.ID)
	if err != nil {
		return nil, err
	}
	peers, err := s.peers(ctx, []store.Channel{c})
	if err != nil {
		return nil, err
	}
	devices := map[ids.ID]uint16{}
	if h.Generation > 0 {
		st, err := s.state(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, m := range st.Members() {
			devices[m.AccountID]++
		}
	}
	out := &wire.ChannelDetails{Channel: *s.channel(&c, peers[c.Peer])}
	for account, role := range h.Members {
		out.Members = append(out.Members, wire.ChannelMember{AccountID: account, Role: wire.ChannelRole(role), Devices: devices[account]}) //nolint:gosec // the same numbers.
	}
	slices.SortFunc(out.Members, func(a, b wire.ChannelMember) int { return a.AccountID.Compare(b.AccountID) })
	return out, nil
}

// ListChannels returns one page of the caller's channels.
func (s *Service) ListChannels(ctx context.Context, p identity.Principal, r *wire.ListChannelsRequest) (*wire.ChannelList, error) {
	list, err := s.store.ChannelsOf(ctx, p.AccountID, r.After, wire.MaxListed+1)
	if err != nil {
		return nil, err
	}
	out := &wire.ChannelList{More: len(list) > wire.MaxListed}
	list = list[:min(len(list), wire.MaxListed)]
	peers, err := s.peers(ctx, list)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Kind == store.ChannelDirect && peers[list[i].Peer] == nil {
			continue // The other account is gone.
		}
		out.Channels = append(out.Channels, *s.channel(&list[i], peers[list[i].Peer]))
	}
	return out, nil
}

// SetRole gives a member of a group another role.
func (s *Service) SetRole(ctx context.Context, p identity.Principal, r *wire.SetRoleRequest) (*wire.Done, error) {
	h, err := s.head(ctx, p, r.ChannelID)
	if err != nil {
		return nil, err
	}
	if h.Kind != store.ChannelGroup {
		return nil, wire.Errorf(wire.CodeInvalidArgument, "a direct channel has no roles").With("field", "channelId")
	}
	err = s.store.SetRole(ctx, r.ChannelID, p.AccountID, r.AccountID, store.Role(r.Role), //nolint:gosec // the same numbers.
		audit.RoleChanged(audit.ByAccount(p.AccountID), r.AccountID, r.ChannelID, auditRoles[r.Role]).At(s.now()))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, wire.Errorf(wire.CodeNotFound, "account %s is not in that channel", r.AccountID)
	case errors.Is(err, store.ErrLastAdmin):
		return nil, errLastAdmin
	case errors.Is(err, store.ErrChanged):
		return nil, s.denied(ctx, p, r.ChannelID, "only an admin of the channel gives roles")
	case err != nil:
		return nil, err
	}
	return &wire.Done{}, nil
}

var auditRoles = map[wire.ChannelRole]audit.Role{wire.RoleMember: audit.RoleMember, wire.RoleModerator: audit.RoleModerator, wire.RoleAdmin: audit.RoleChannelAdmin}

func (s *Service) denied(ctx context.Context, p identity.Principal, channel ids.ID, why string) error {
	s.audit.Tally(ctx, audit.ChannelDenied(p.AccountID, p.DeviceID, channel, audit.ReasonNotAuthorized).At(s.now()))
	return wire.Errorf(wire.CodePermissionDenied, "%s", why)
}

// SetRetention says how a channel's messages are kept from now on.
func (s *Service) SetRetention(ctx context.Context, p identity.Principal, r *wire.SetRetentionRequest) (*wire.Done, error) {
	h, err := s.head(ctx, p, r.ChannelID)
	if err != nil {
		return nil, err
	}
	if h.Kind == store.ChannelGroup && !authz.AllowedIn(wire.ChannelRole(h.Members[p.AccountID]), authz.ChangeChannel) { //nolint:gosec // the same numbers.
		return nil, s.denied(ctx, p, r.ChannelID, "only an admin of the channel sets its retention")
	}
	kept := cmp.Or(r.Retention, time.Duration(s.policy().Retention.Messages))
	if r.Retention > 0 {
		// A message must never find no place: the partitions come first.
		if err := s.store.EnsurePartitions(ctx, s.now(), partitionsAhead, []time.Duration{r.Retention}, 0); err != nil {
			return nil, err
		}
	}
	err = s.store.SetRetention(ctx, r.ChannelID, p.AccountID, r.Retention, store.History(r.History), //nolint:gosec // the same numbers.
		audit.ChannelRetentionChanged(audit.ByAccount(p.AccountID), r.ChannelID, kept).At(s.now()))
	if errors.Is(err, store.ErrChanged) || errors.Is(err, store.ErrNotFound) {
		return nil, s.denied(ctx, p, r.ChannelID, "only an admin of the channel sets its retention")
	}
	if err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}

// partitionsAhead is for how long a channel's own retention is provided for until the cell's housekeeping does.
const partitionsAhead = 49 * time.Hour

// GetGroupInfo returns what a member account's device needs that joins the channel's group by an external Commit, or that
// is told by its Welcome to fetch the tree.
func (s *Service) GetGroupInfo(ctx context.Context, p identity.Principal, r *wire.GetGroupInfoRequest) (*wire.ChannelGroupInfo, error) {
	var out *wire.ChannelGroupInfo
	err := again(func() error {
		h, err := s.head(ctx, p, r.ChannelID)
		if err != nil {
			return err
		}
		if h.Generation == 0 {
			return wire.Errorf(wire.CodeNotFound, "channel %s has no group yet", r.ChannelID)
		}
		st, g, err := s.readState(ctx, h)
		if err != nil {
			return err
		}
		out = &wire.ChannelGroupInfo{Generation: h.Generation, Epoch: h.Epoch, GroupInfo: g.GroupInfo, Seq: h.EpochSeq}
		if !mlspolicy.HasTree(g.GroupInfo) {
			out.RatchetTree = st.RatchetTree()
		}
		return nil
	})
	return out, Refusal(err, s.policy(), r.ChannelID, ids.ID{})
}

// VoteGeneration votes for giving the channel's MLS group up for a new one.
func (s *Service) VoteGeneration(ctx context.Context, p identity.Principal, r *wire.VoteGenerationRequest) (*wire.GenerationVotes, error) {
	h, err := s.head(ctx, p, r.ChannelID)
	if err != nil {
		return nil, err
	}
	now := s.now()
	votes, members, err := s.store.VoteGeneration(ctx, r.ChannelID, r.Generation, p.AccountID, now, now.Add(-VoteLife),
		audit.GenerationVoted(p.AccountID, p.DeviceID, r.ChannelID, r.Generation).At(now))
	if err != nil {
		return nil, Refusal(err, s.policy(), r.ChannelID, ids.ID{})
	}
	return &wire.GenerationVotes{Votes: clamp(votes), Needed: clamp(store.Quorum(h.Kind, members))}, nil
}

func clamp(n int) uint16 { return uint16(min(max(n, 0), math.MaxUint16)) } //nolint:gosec // clamped.
