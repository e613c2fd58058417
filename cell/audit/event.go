package audit

import (
	"context"
	"net/netip"
	"time"

	"quicproquo.dev/schema/ids"
)

// Event is something that happened, with ids in clear; it is made by the constructors of this package and becomes a
// Record before it leaves the process. The zero Event is none. Events are values; copies are independent.
type Event struct {
	kind    Kind
	outcome Outcome
	reason  Reason
	at      time.Time // Zero: when it is written.
	subject ids.ID    // Account, or zero.
	by      By
	device  ids.ID
	session ids.ID
	channel ids.ID
	address netip.Addr
	details [maxDetails]Detail
	n       int
}

// Detail is one fact about an event.
type Detail struct {
	Field Field
	Value uint64
}

// By says who acted.
type By struct {
	kind    ActorKind
	account ids.ID
	admin   string
}

// ByStranger is a connection that nobody has authenticated.
func ByStranger() By { return By{kind: ActorStranger} }

// ByAccount is an account, by one of its sessions.
func ByAccount(id ids.ID) By { return By{kind: ActorAccount, account: id} }

// ByAdmin is an admin, by what the credential says (a certificate's subject, a token's name). The name is hashed before it is stored.
func ByAdmin(name string) By { return By{kind: ActorAdmin, admin: name} }

// ByOperator is whoever runs the cell's own commands.
func ByOperator() By { return By{kind: ActorOperator} }

// ByCell is the cell itself.
func ByCell() By { return By{kind: ActorCell} }

// Kind returns what happened; 0 for the zero Event.
func (e *Event) Kind() Kind { return e.kind }

// At sets when it happened; without it, that is when it is written.
func (e Event) At(t time.Time) Event {
	e.at = t
	return e
}

// FromAddress sets the address that it came from.
func (e Event) FromAddress(a netip.Addr) Event {
	e.address = a
	return e
}

// From sets the address that ctx carries, unless the event has one.
func (e Event) From(ctx context.Context) Event {
	if !e.address.IsValid() {
		e.address = AddressOf(ctx)
	}
	return e
}

// build makes an event; details come in the order of their fields.
func build(k Kind, o Outcome, r Reason, by By, subject ids.ID, details ...Detail) Event {
	e := Event{kind: k, outcome: o, reason: r, by: by, subject: subject, n: len(details)}
	copy(e.details[:], details)
	return e
}

func (e Event) on(device, session ids.ID) Event {
	e.device, e.session = device, session
	return e
}

func (e Event) in(channel ids.ID) Event {
	e.channel = channel
	return e
}

type addressKey struct{}

// WithAddress says from where the requests under ctx come: the client's verified address.
func WithAddress(ctx context.Context, a netip.Addr) context.Context {
	return context.WithValue(ctx, addressKey{}, a)
}

// AddressOf returns what WithAddress set; the zero Addr when it was not.
func AddressOf(ctx context.Context) netip.Addr {
	a, _ := ctx.Value(addressKey{}).(netip.Addr)
	return a
}
