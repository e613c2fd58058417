package channels

import (
	"context"
	"slices"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/delivery"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	maxDevices   = 4096 // In a group.
	maxProposals = 64   // In an epoch.
	busyRetry    = 200 * time.Millisecond
	proposeRetry = time.Second // A Commit takes the proposals with it.
)

// handshake is a Commit or a proposal on its way into a channel.
type handshake struct {
	s       *Service
	p       identity.Principal
	h       mlspolicy.Handshake
	message *mls.PublicMessage
	change  *store.Change
}

// newHandshake checks what needs no look at the channel.
func (s *Service) newHandshake(p identity.Principal, channel ids.ID, generation uint32, id ids.ID, payload []byte, kind store.MessageKind) (*handshake, error) {
	rules, now := s.policy(), s.now()
	if limit := rules.Limits.MaxPayloadBytes; len(payload) > limit {
		return nil, wire.PayloadTooLarge(len(payload), limit)
	}
	idTime, err := delivery.CheckDeliveryID(id, now, time.Duration(rules.Retention.DedupWindow))
	if err != nil {
		return nil, err
	}
	k := &handshake{s: s, p: p, h: mlspolicy.Handshake{Channel: channel, Generation: generation, Delivery: id, Sender: mlspolicy.Member{AccountID: p.AccountID, DeviceID: p.DeviceID}}}
	want := mls.ContentCommit
	if kind == store.MessageProposal {
		want = mls.ContentProposal
	}
	if k.message, err = k.h.Public(payload, want); err != nil {
		return nil, err
	}
	k.change = &store.Change{IDTime: idTime, Message: store.Message{ChannelID: channel, Kind: kind, Generation: generation, Epoch: k.message.Epoch(),
		SenderAccount: p.AccountID, SenderID: p.DeviceID, DeliveryID: id, AcceptedAt: now,
		ExpiresAt: now.Add(time.Duration(rules.Retention.Messages)), Payload: payload}}
	return k, nil
}

// Commit takes a Commit with its Welcomes and the GroupInfo of the epoch that it begins. The first of an epoch wins.
func (s *Service) Commit(ctx context.Context, p identity.Principal, r *wire.CommitRequest) (*wire.CommitResponse, error) {
	k, err := s.newHandshake(p, r.ChannelID, r.Generation, r.DeliveryID, r.Commit, store.MessageCommit)
	if err != nil {
		return nil, err
	}
	if k.message.Epoch() != r.Epoch {
		return nil, wire.Errorf(wire.CodeInvalidMessage, "the Commit ends epoch %d, the request says %d", k.message.Epoch(), r.Epoch)
	}
	if err := k.run(ctx, func(h *store.GroupHead, st *mlspolicy.State) error { return k.commit(ctx, h, st, r) }); err != nil {
		return nil, err
	}
	m := &k.change.Message
	return &wire.CommitResponse{Seq: m.Seq, Epoch: m.Epoch + 1, AcceptedAt: m.AcceptedAt, Duplicate: k.change.Duplicate}, nil
}

// Propose takes a proposal by reference.
func (s *Service) Propose(ctx context.Context, p identity.Principal, r *wire.ProposeRequest) (*wire.EnqueueResponse, error) {
	k, err := s.newHandshake(p, r.ChannelID, r.Generation, r.DeliveryID, r.Proposal, store.MessageProposal)
	if err != nil {
		return nil, err
	}
	if err := k.run(ctx, func(h *store.GroupHead, st *mlspolicy.State) error { return k.propose(ctx, h, st) }); err != nil {
		return nil, err
	}
	m := &k.change.Message
	return &wire.EnqueueResponse{Seq: m.Seq, AcceptedAt: m.AcceptedAt, Duplicate: k.change.Duplicate}, nil
}

// run looks for an earlier answer first, then has the change judged and stored, again if the channel changes meanwhile.
func (k *handshake) run(ctx context.Context, apply func(*store.GroupHead, *mlspolicy.State) error) error {
	m := &k.change.Message
	duplicate, err := k.s.store.EarlierChange(ctx, k.change)
	if err != nil || duplicate {
		return Refusal(err, k.s.policy(), m.ChannelID, m.DeliveryID)
	}
	err = again(func() error {
		h, err := k.s.head(ctx, k.p, m.ChannelID)
		if err != nil {
			return err
		}
		st, err := k.before(ctx, h)
		if err != nil {
			return err
		}
		return apply(h, st)
	})
	return k.refused(ctx, Refusal(err, k.s.policy(), m.ChannelID, m.DeliveryID))
}

// before returns the state that the handshake starts from.
func (k *handshake) before(ctx context.Context, h *store.GroupHead) (*mlspolicy.State, error) {
	m := &k.change.Message
	switch {
	case h.Generation == 0:
		return nil, wire.Errorf(wire.CodeNotFound, "channel %s has no group yet", h.ID)
	case m.Generation != h.Generation, m.Epoch != h.Epoch:
		return nil, h.EpochError()
	case slices.Contains(h.Muted, k.p.AccountID):
		return nil, store.ErrMuted
	}
	return k.s.state(ctx, h)
}

// refused tells the audit log of what was not allowed.
func (k *handshake) refused(ctx context.Context, err error) error {
	if wire.HasCode(err, wire.CodePermissionDenied) {
		k.s.audit.Tally(ctx, audit.ChannelDenied(k.p.AccountID, k.p.DeviceID, k.change.Message.ChannelID, audit.ReasonNotAuthorized).At(k.s.now()))
	}
	return err
}

func (k *handshake) commit(ctx context.Context, h *store.GroupHead, st *mlspolicy.State, r *wire.CommitRequest) error {
	m := &k.change.Message
	c, err := st.Commit(&k.h, k.message, r.GroupInfo, m.AcceptedAt)
	if err != nil {
		return err
	}
	gone, err := k.check(ctx, h, c)
	if err != nil {
		return err
	}
	if err := checkWelcomes(addedDevices(c), r.Welcomes); err != nil {
		return err
	}
	e := &effects{h: h, st: st, c: c, gone: gone}
	if err := e.judge(ctx, k.s); err != nil {
		return err
	}
	if err := k.wanted(ctx, e); err != nil {
		return err
	}
	k.fill(e, r)
	return k.store(ctx, c.Next, k.events(e)...)
}

// check holds the parts of a change against who may do them, and added devices against what the cell knows of them. It
// returns which of the removed ones are revoked.
func (k *handshake) check(ctx context.Context, h *store.GroupHead, c *mlspolicy.Change) (gone map[ids.ID]bool, err error) {
	var removed []ids.ID
	for _, a := range c.Removes {
		removed = append(removed, a.Device.DeviceID)
	}
	if gone, err = k.s.store.GoneDevices(ctx, removed); err != nil {
		return nil, err
	}
	if err := rights(h, gone).Check(c, k.h.Sender); err != nil {
		return nil, err
	}
	return gone, k.s.checkAdded(ctx, c.Adds)
}

// checkAdded checks that devices are live ones of their accounts, certified by those accounts' own root keys.
func (s *Service) checkAdded(ctx context.Context, adds []mlspolicy.Act) error {
	if len(adds) == 0 {
		return nil
	}
	var devices, accounts []ids.ID
	for _, a := range adds {
		devices, accounts = append(devices, a.Device.DeviceID), append(accounts, a.Device.AccountID)
	}
	owners, err := s.store.DeviceAccounts(ctx, devices)
	if err != nil {
		return err
	}
	known, err := s.store.PublicAccounts(ctx, accounts)
	if err != nil {
		return err
	}
	for _, a := range adds {
		if owners[a.Device.DeviceID] != a.Device.AccountID {
			return wire.Errorf(wire.CodePermissionDenied, "%s is no device that is known here, or it was revoked", a.Device)
		}
		if account, ok := known[a.Device.AccountID]; !ok || !account.RootKey.Equal(a.Root) {
			return wire.Errorf(wire.CodePermissionDenied, "%s is certified by a root key that is not its account's own", a.Device)
		}
	}
	return nil
}

// addedDevices are those that get a Welcome.
func addedDevices(c *mlspolicy.Change) (list []ids.ID) {
	if c.External {
		return nil
	}
	for _, a := range c.Adds {
		list = append(list, a.Device.DeviceID)
	}
	return list
}

// fill writes down what follows from a Commit.
func (k *handshake) fill(e *effects, r *wire.CommitRequest) {
	out := k.change
	out.Base, out.GroupInfo = e.h, r.GroupInfo
	out.Adds, out.Removes, out.Joins, out.Leaves = nil, nil, nil, nil
	for _, a := range e.c.Adds {
		out.Adds = append(out.Adds, a.Device.DeviceID)
	}
	for _, a := range e.c.Removes {
		out.Removes = append(out.Removes, a.Device.DeviceID)
	}
	out.Removes = append(out.Removes, e.absent...)
	for account := range e.joins {
		out.Joins = append(out.Joins, account)
	}
	for account := range e.leaves {
		out.Leaves = append(out.Leaves, account)
	}
	out.Welcomes = k.s.welcomes(k.p, out.Message.ChannelID, out.Message.Generation, r.Welcomes, out.Message.AcceptedAt)
}

func (k *handshake) events(e *effects) (list []audit.Event) {
	m := &k.change.Message
	for account := range e.joins {
		list = append(list, audit.MemberAdded(audit.ByAccount(k.p.AccountID), account, m.ChannelID).At(m.AcceptedAt))
	}
	for account := range e.leaves {
		list = append(list, audit.MemberRemoved(audit.ByAccount(k.p.AccountID), account, m.ChannelID, audit.ReasonNone).At(m.AcceptedAt))
	}
	return list
}

// store stores the change and lets everybody know.
func (k *handshake) store(ctx context.Context, next *mlspolicy.State, events ...audit.Event) error {
	c := k.change
	var err error
	if c.State, err = next.Encode(); err != nil {
		return err
	}
	if err := k.s.store.StoreChange(ctx, c, events...); err != nil || c.Duplicate {
		return err
	}
	k.s.states.put(c.Message.ChannelID, c.Message.Generation, next, len(c.State))
	stored := []*store.Message{&c.Message}
	for i := range c.Welcomes {
		stored = append(stored, &c.Welcomes[i])
	}
	k.s.announce.Follow(c.Message.ChannelID, c.Message.Seq, c.Adds)
	k.s.announce.Announce(stored)
	return nil
}

func (k *handshake) propose(ctx context.Context, h *store.GroupHead, st *mlspolicy.State) error {
	if len(h.RemoveFirst) > 0 {
		return &store.RemoveFirstError{Device: h.RemoveFirst[0]}
	}
	if h.Proposals >= maxProposals {
		return wire.RetryAfterf(wire.CodeRateLimited, proposeRetry, "%d proposals wait in this epoch; commit them first", h.Proposals).With("limit", "proposals")
	}
	c, err := st.Propose(&k.h, k.message, k.change.Message.AcceptedAt)
	if err != nil {
		return err
	}
	if _, err := k.check(ctx, h, c); err != nil {
		return err
	}
	k.change.Base = h
	return k.store(ctx, c.Next)
}

// effects are what a Commit means for the channel's accounts.
type effects struct {
	h      *store.GroupHead
	st     *mlspolicy.State
	c      *mlspolicy.Change
	gone   map[ids.ID]bool
	joins  map[ids.ID]bool
	leaves map[ids.ID]bool
	absent []ids.ID // Revoked devices that should be removed and are in the group no more.
}

// judge finds out who comes and goes, and checks the bounds of a group.
func (e *effects) judge(ctx context.Context, s *Service) error {
	members := e.c.Next.Members()
	after := map[ids.ID]bool{}
	for _, m := range members {
		after[m.AccountID] = true
	}
	e.joins, e.leaves = map[ids.ID]bool{}, map[ids.ID]bool{}
	for _, a := range e.c.Adds {
		if _, member := e.h.Members[a.Device.AccountID]; !member {
			e.joins[a.Device.AccountID] = true
		}
	}
	if len(members) > maxDevices || len(e.h.Members)+len(e.joins) > wire.MaxMembers {
		return wire.Errorf(wire.CodePermissionDenied, "a group has at most %d devices of %d accounts", maxDevices, wire.MaxMembers)
	}
	e.findAbsent()
	if e.h.Kind == store.ChannelGroup {
		return e.judgeLeaving(ctx, s, after)
	}
	return nil
}

func (e *effects) findAbsent() {
	if len(e.h.RemoveFirst) == 0 {
		return
	}
	present := map[ids.ID]bool{}
	for _, m := range e.st.Members() {
		present[m.DeviceID] = true
	}
	for _, d := range e.h.RemoveFirst {
		if !present[d] {
			e.absent = append(e.absent, d)
		}
	}
}

// judgeLeaving finds the accounts whose last device is removed. Those that lose only revoked ones, and have others, stay
// members: their other devices come back by external Commits. The last admin does not leave by its own will.
func (e *effects) judgeLeaving(ctx context.Context, s *Service, after map[ids.ID]bool) error {
	var lost []ids.ID
	willing := map[ids.ID]bool{}
	for _, a := range e.c.Removes {
		account := a.Device.AccountID
		if _, member := e.h.Members[account]; !member || after[account] {
			continue
		}
		lost = append(lost, account)
		willing[account] = willing[account] || !e.gone[a.Device.DeviceID]
	}
	if len(lost) == 0 {
		return nil
	}
	live, err := s.store.LiveAccounts(ctx, lost)
	if err != nil {
		return err
	}
	for _, account := range lost {
		e.leaves[account] = willing[account] || !live[account]
		if !e.leaves[account] {
			delete(e.leaves, account)
		}
	}
	return e.keepAdmin(willing)
}

func (e *effects) keepAdmin(willing map[ids.ID]bool) error {
	leaving, stay := false, 0
	for account, role := range e.h.Members {
		switch {
		case !e.leaves[account] && role == store.RoleAdmin:
			return nil
		case !e.leaves[account]:
			stay++
		case role == store.RoleAdmin && willing[account]:
			leaving = true
		}
	}
	if leaving && stay+len(e.joins) > 0 {
		return errLastAdmin
	}
	return nil
}

var errLastAdmin = wire.Errorf(wire.CodePermissionDenied, "the group would have no admin; make another member one first")

// wanted checks that who brings an account into the group may write to it: who proposed that, or who commits it.
func (k *handshake) wanted(ctx context.Context, e *effects) error {
	for _, a := range e.c.Adds {
		if !e.joins[a.Device.AccountID] {
			continue
		}
		err := k.s.wanted(ctx, a.By.AccountID, a.Device.AccountID)
		if err != nil && a.ByRef {
			err = k.s.wanted(ctx, k.p.AccountID, a.Device.AccountID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wanted checks that an account may write to another, or bring it into a group.
func (s *Service) wanted(ctx context.Context, account, other ids.ID) error {
	if account == other {
		return nil
	}
	c, err := s.store.ContactOf(ctx, account, other)
	if err != nil {
		return err
	}
	if p := s.policy(); !c.MayWrite(asksContacts(p)) {
		return unwanted(p)
	}
	return nil
}
