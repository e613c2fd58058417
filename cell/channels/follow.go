package channels

import (
	"context"
	"errors"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// tries is how often a change is judged anew because the channel has changed meanwhile.
const tries = 5

// head reads a channel's head for one of its members; nobody else learns that there is such a channel.
func (s *Service) head(ctx context.Context, p identity.Principal, channel ids.ID) (*store.GroupHead, error) {
	h, err := s.store.GroupHead(ctx, channel)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if _, member := h.Members[p.AccountID]; err != nil || !member {
		s.audit.Tally(ctx, audit.ChannelDenied(p.AccountID, p.DeviceID, channel, audit.ReasonNotMember).At(s.now()))
		return nil, wire.Errorf(wire.CodeNotFound, "there is no channel %s that you are in", channel)
	}
	return h, nil
}

// state returns the public state that a head speaks of, and the GroupInfo stored with it if it had to be read.
// store.ErrMoved: the channel is past it.
func (s *Service) state(ctx context.Context, h *store.GroupHead) (*mlspolicy.State, error) {
	if st := s.states.get(h.ID, h.Generation, h.Epoch, h.Proposals); st != nil {
		return st, nil
	}
	st, g, err := s.readState(ctx, h)
	if err != nil {
		return nil, err
	}
	s.states.put(h.ID, h.Generation, st, len(g.State)+len(g.GroupInfo))
	return st, nil
}

func (s *Service) readState(ctx context.Context, h *store.GroupHead) (*mlspolicy.State, *store.GroupState, error) {
	g, err := s.store.GroupState(ctx, h.ID, h.Generation)
	if err != nil {
		return nil, nil, err
	}
	if g.Epoch != h.Epoch || g.Proposals != h.Proposals {
		return nil, nil, store.ErrMoved
	}
	st, err := mlspolicy.OpenState(g.State, g.GroupInfo)
	return st, g, err
}

// rights are who may do what in a channel.
func rights(h *store.GroupHead, gone map[ids.ID]bool) *mlspolicy.Rights {
	r := &mlspolicy.Rights{Direct: h.Kind == store.ChannelDirect, Members: map[ids.ID]wire.ChannelRole{}, Gone: gone}
	for account, role := range h.Members {
		r.Members[account] = wire.ChannelRole(role) //nolint:gosec // the same numbers.
	}
	return r
}

// again repeats f while the channel changes under it.
func again(f func() error) error {
	var err error
	for range tries {
		if err = f(); !errors.Is(err, store.ErrMoved) {
			return err
		}
	}
	return err
}
