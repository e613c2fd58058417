package client

import (
	"context"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// ContactState is how the own account and another stand to each other.
type ContactState string

// The states.
const (
	ContactRequested ContactState = "requested" // The own account has asked to write, and waits.
	ContactAsked     ContactState = "asked"     // The other has asked: AcceptContact or BlockContact.
	ContactAccepted  ContactState = "accepted"  // Both may write.
	ContactBlocked   ContactState = "blocked"   // By the own account.
)

var contactStates = map[wire.ContactState]ContactState{wire.ContactRequested: ContactRequested, wire.ContactAsked: ContactAsked,
	wire.ContactAccepted: ContactAccepted, wire.ContactBlocked: ContactBlocked}

// Contact is another account, and how the own one stands to it.
type Contact struct {
	Name    string
	Account ids.ID
	State   ContactState // Empty: one that this version does not know.
	Since   time.Time
}

// Contacts asks the cell with whom the account may write, who has asked to, and whom it blocks.
func (c *Client) Contacts(ctx context.Context) ([]Contact, error) {
	var list []Contact
	for after := (ids.ID{}); ; {
		var page *wire.ContactList
		err := c.do(ctx, func(ctx context.Context, s *session) (err error) {
			page, err = ask[*wire.ContactList](ctx, s, &wire.ListContactsRequest{After: after})
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, x := range page.Contacts {
			list = append(list, Contact{x.Account.Name, x.Account.AccountID, contactStates[x.State], x.Since})
			after = x.Account.AccountID
		}
		if !page.More || len(page.Contacts) == 0 {
			return list, nil
		}
	}
}

// AcceptContact lets an account write that has asked to. Errors: *wire.Error (notFound: there is no such account, or it
// has not asked), *RootKeyChangedError.
func (c *Client) AcceptContact(ctx context.Context, name string) error {
	return c.aboutContact(ctx, name, func(account ids.ID) wire.Request { return &wire.AcceptContactRequest{AccountID: account} })
}

// BlockContact keeps an account from writing to the own one, or no longer. Nobody is told. Errors: as AcceptContact's.
func (c *Client) BlockContact(ctx context.Context, name string, blocked bool) error {
	return c.aboutContact(ctx, name, func(account ids.ID) wire.Request {
		return &wire.BlockAccountRequest{AccountID: account, Blocked: blocked}
	})
}

func (c *Client) aboutContact(ctx context.Context, name string, request func(ids.ID) wire.Request) error {
	return c.do(ctx, func(ctx context.Context, s *session) error {
		account, err := c.accountOf(ctx, s, name)
		if err != nil {
			return err
		}
		if c.own(account) {
			return ErrSelf
		}
		_, err = ask[*wire.Done](ctx, s, request(account))
		return err
	})
}
