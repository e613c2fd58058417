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

const (
	asksPerDay = 3   // How often an account may ask the same other in 24 hours.
	openAsks   = 100 // Requests of an account that are without an answer.
	askRetry   = time.Hour
)

func asksContacts(p *policy.Policy) bool { return p.Contacts == policy.ContactsRequest }

// contactState is how an account stands to another, as it may know: not whether the other blocks it.
func contactState(c *store.Contact, p *policy.Policy) wire.ContactState {
	switch {
	case c.Blocks:
		return wire.ContactBlocked
	case c.State == store.ContactAccepted && c.IsBlocks:
		return wire.ContactRequested
	case c.State == store.ContactAccepted:
		return wire.ContactAccepted
	case c.State == store.ContactAsked && c.Asker == c.Other:
		return wire.ContactAsked
	case c.State == store.ContactAsked:
		return wire.ContactRequested
	case !asksContacts(p):
		return wire.ContactAccepted // Nobody has to ask.
	}
	return wire.ContactNone
}

// ask asks another account to be written to, where the policy wants that, and returns how the caller stands to it then.
func (s *Service) ask(ctx context.Context, p identity.Principal, other ids.ID) (store.Contact, error) {
	c, err := s.store.ContactOf(ctx, p.AccountID, other)
	rules := s.policy()
	switch {
	case err != nil:
		return c, err
	case c.Blocks:
		return c, wire.Errorf(wire.CodePermissionDenied, "you block that account; take the block back first")
	case !asksContacts(rules) && c.IsBlocks:
		return c, unwanted(rules)
	case !asksContacts(rules), c.State == store.ContactAccepted, c.State == store.ContactAsked && c.Asker == p.AccountID:
		return c, nil
	}
	kind := wire.NoticeContactRequested
	if c.State == store.ContactAsked { // Both have asked.
		kind = wire.NoticeContactAccepted
	}
	change, err := s.contactChange(p, other, kind)
	if err != nil {
		return c, err
	}
	c, told, err := s.store.AskContact(ctx, change, asksPerDay, openAsks)
	if errors.Is(err, store.ErrAsksTooMuch) {
		return c, wire.RetryAfterf(wire.CodeRateLimited, askRetry, "an account asks another at most %d times a day, and at most %d at a time that have not answered", asksPerDay, openAsks).With("limit", "contacts")
	}
	s.announce.Announce(told)
	return c, err
}

// contactChange is a change of how two accounts stand, of which the other's devices are told.
func (s *Service) contactChange(p identity.Principal, other ids.ID, kind wire.NoticeKind) (*store.ContactChange, error) {
	now := s.now()
	payload, err := wire.MarshalNotice(wire.Notice{Kind: kind, AccountID: p.AccountID})
	if err != nil {
		return nil, err
	}
	until := now.Add(time.Duration(s.policy().Retention.Inbox))
	return &store.ContactChange{Account: p.AccountID, Other: other, At: now, Notice: func(inbox ids.ID) store.Message {
		return store.Message{ChannelID: inbox, Kind: store.MessageNotice, SenderAccount: p.AccountID, SenderID: p.DeviceID,
			DeliveryID: ids.NewDelivery(now), AcceptedAt: now, ExpiresAt: until, Payload: payload}
	}}, nil
}

// ListContacts returns one page of the caller's contacts.
func (s *Service) ListContacts(ctx context.Context, p identity.Principal, r *wire.ListContactsRequest) (*wire.ContactList, error) {
	list, err := s.store.ContactsOf(ctx, p.AccountID, r.After, wire.MaxListed+1)
	if err != nil {
		return nil, err
	}
	out := &wire.ContactList{More: len(list) > wire.MaxListed}
	list = list[:min(len(list), wire.MaxListed)]
	others := make([]ids.ID, len(list))
	for i := range list {
		others[i] = list[i].Other
	}
	known, err := s.accounts(ctx, others)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if a := known[list[i].Other]; a != nil {
			out.Contacts = append(out.Contacts, wire.Contact{Account: *a, State: contactState(&list[i], s.policy()), Since: list[i].Since})
		}
	}
	return out, nil
}

// AcceptContact lets an account write that has asked to.
func (s *Service) AcceptContact(ctx context.Context, p identity.Principal, r *wire.AcceptContactRequest) (*wire.Done, error) {
	if err := s.other(ctx, p, r.AccountID); err != nil {
		return nil, err
	}
	change, err := s.contactChange(p, r.AccountID, wire.NoticeContactAccepted)
	if err != nil {
		return nil, err
	}
	told, err := s.store.AcceptContact(ctx, change)
	if errors.Is(err, store.ErrNotFound) {
		return nil, wire.Errorf(wire.CodeNotFound, "account %s has not asked", r.AccountID)
	}
	if err != nil {
		return nil, err
	}
	s.announce.Announce(told)
	return &wire.Done{}, nil
}

// BlockAccount keeps an account from opening a channel with the caller's and from writing to it, or no longer. Nobody is told.
func (s *Service) BlockAccount(ctx context.Context, p identity.Principal, r *wire.BlockAccountRequest) (*wire.Done, error) {
	if err := s.other(ctx, p, r.AccountID); err != nil {
		return nil, err
	}
	event := audit.AccountUnblocked
	if r.Blocked {
		event = audit.AccountBlocked
	}
	now := s.now()
	change := &store.ContactChange{Account: p.AccountID, Other: r.AccountID, At: now,
		Events: func() []audit.Event { return []audit.Event{event(p.AccountID, p.DeviceID, r.AccountID).At(now)} }}
	if err := s.store.BlockContact(ctx, change, r.Blocked); err != nil {
		return nil, err
	}
	return &wire.Done{}, nil
}

// other checks that an account is there, and not the caller's own.
func (s *Service) other(ctx context.Context, p identity.Principal, account ids.ID) error {
	if account == p.AccountID {
		return wire.Errorf(wire.CodeInvalidArgument, "that is your own account").With("field", "accountId")
	}
	_, err := s.GetAccount(ctx, &wire.GetAccountRequest{AccountID: account})
	return err
}
