package wire

import (
	"time"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/ids"
)

// ContactState is how two accounts stand to each other, as one of them sees it.
type ContactState = schema.ContactState

// The states, by the names of the schema.
const (
	ContactNone      = schema.ContactState_none
	ContactRequested = schema.ContactState_requested
	ContactAsked     = schema.ContactState_asked
	ContactAccepted  = schema.ContactState_accepted
	ContactBlocked   = schema.ContactState_blocked
)

// ListContactsRequest asks for one page of the caller's contacts, those after After. It is answered by a ContactList.
type ListContactsRequest struct{ After ids.ID }

// Method implements Request.
func (*ListContactsRequest) Method() string { return "listContacts" }
func (*ListContactsRequest) sizeHint() int  { return 0 }

func (r *ListContactsRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewListContacts, func(s schema.ListContactsRequest) error { return setOptionalID(s.SetAfter, r.After) })
}

func decodeListContactsRequest(s schema.ListContactsRequest) (*ListContactsRequest, error) {
	var d decoder
	return result(&d, &ListContactsRequest{d.optionalID("after")(s.After())})
}

// ContactList is a page of contacts, by account id.
type ContactList struct {
	Contacts []Contact
	More     bool
}

// Contact is another account, and how the caller stands to it.
type Contact struct {
	Account Account
	State   ContactState
	Since   time.Time
}

func (r *ContactList) sizeHint() int {
	n := 0
	for i := range r.Contacts {
		n += 64 + r.Contacts[i].Account.sizeHint()
	}
	return n
}

func (r *ContactList) encodeResponse(p schema.Response) error {
	return fill(p.NewContactList, func(s schema.ContactList) error {
		s.SetMore(r.More)
		l, err := s.NewContacts(int32(len(r.Contacts))) //nolint:gosec // at most 100.
		if err != nil {
			return err
		}
		for i, c := range r.Contacts {
			l.At(i).SetState(c.State)
			l.At(i).SetSince(millis(c.Since))
			if err := fill(l.At(i).NewAccount, c.Account.encode); err != nil {
				return err
			}
		}
		return nil
	})
}

func decodeContactList(s schema.ContactList) (*ContactList, error) {
	var d decoder
	list, err := s.Contacts()
	if err != nil {
		return nil, err
	}
	r := &ContactList{More: s.More()}
	for i := range d.count("contacts", list.Len(), MaxListed) {
		account, err := list.At(i).Account()
		if err != nil {
			return nil, err
		}
		a, err := decodeAccount(account)
		if err != nil {
			return nil, err
		}
		r.Contacts = append(r.Contacts, Contact{*a, list.At(i).State(), moment(list.At(i).Since())})
	}
	return result(&d, r)
}

// AcceptContactRequest lets another account write to the caller. It is answered by Done.
type AcceptContactRequest struct{ AccountID ids.ID }

// Method implements Request.
func (*AcceptContactRequest) Method() string { return "acceptContact" }
func (*AcceptContactRequest) sizeHint() int  { return 0 }

func (r *AcceptContactRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewAcceptContact, func(s schema.AcceptContactRequest) error { return s.SetAccountId(r.AccountID[:]) })
}

func decodeAcceptContactRequest(s schema.AcceptContactRequest) (*AcceptContactRequest, error) {
	var d decoder
	return result(&d, &AcceptContactRequest{d.id("accountId")(s.AccountId())})
}

// BlockAccountRequest keeps another account from writing to the caller, or no longer. It is answered by Done.
type BlockAccountRequest struct {
	AccountID ids.ID
	Blocked   bool
}

// Method implements Request.
func (*BlockAccountRequest) Method() string { return "blockAccount" }
func (*BlockAccountRequest) sizeHint() int  { return 0 }

func (r *BlockAccountRequest) encodeRequest(q schema.Request) error {
	return fill(q.NewBlockAccount, func(s schema.BlockAccountRequest) error {
		s.SetBlocked(r.Blocked)
		return s.SetAccountId(r.AccountID[:])
	})
}

func decodeBlockAccountRequest(s schema.BlockAccountRequest) (*BlockAccountRequest, error) {
	var d decoder
	return result(&d, &BlockAccountRequest{d.id("accountId")(s.AccountId()), s.Blocked()})
}
