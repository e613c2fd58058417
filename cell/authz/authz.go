// Package authz decides who may do what. Every call of the protocol is an action; a table says which roles may do it; and
// Authorizer is where another decision can be put in the table's place.
//
// It is about roles: whether an account is a member of a channel, or a device the account's own, is for the call itself to
// find out, in the transaction that relies on it.
package authz

import (
	"context"
	"fmt"

	"quicproquo.dev/schema/ids"
)

// Role is what somebody is to a cell, or to a channel.
type Role uint8

// The roles. A connection's is one of the others; ChannelAdmin and Moderator are what an account is in a channel.
const (
	Stranger     Role = iota // A connection that nobody has authenticated.
	Member                   // An account, by one of its devices.
	ChannelAdmin             // A member who may change a channel and its members.
	Moderator                // A member who may remove members from a channel.
	CellAdmin                // Somebody who runs the cell.
	Auditor                  // Somebody who looks at what those do.
	roles
)

var roleNames = [roles]string{"stranger", "member", "channelAdmin", "moderator", "cellAdmin", "auditor"}

// String returns the role's name.
func (r Role) String() string {
	if r < roles {
		return roleNames[r]
	}
	return fmt.Sprintf("role-%d", r)
}

// IsAdmin reports whether it is a role of those who run the cell, who have no account.
func (r Role) IsAdmin() bool { return r == CellAdmin || r == Auditor }

// Subject is who wants something.
type Subject struct {
	Role    Role
	Account ids.ID // Of a member, else zero.
	Device  ids.ID // Of a member, else zero.
	Admin   string // Of an admin, else empty.
}

// Object is what it is wanted of. Zero ids are nothing in particular, or the subject's own.
type Object struct{ Account, Channel, Device ids.ID }

// Authorizer decides. It must be safe for concurrent use, and quick: every request waits for it.
type Authorizer interface {
	// Authorize returns nil, *DeniedError, or another error when it cannot decide, which is as good as denied.
	Authorize(ctx context.Context, s Subject, a Action, o Object) error
}

// DeniedError says that the subject's role does not allow the action.
type DeniedError struct {
	Role   Role
	Action Action
}

// Error implements error.
func (e *DeniedError) Error() string { return fmt.Sprintf("%s is not for %s", e.Action, e.Role) }

// Table is the Authorizer of the cell: roles and actions, whatever the object.
type Table struct{}

// Authorize implements Authorizer.
func (Table) Authorize(_ context.Context, s Subject, a Action, _ Object) error {
	if s.Role < roles && a < actions && allowed[a]&(1<<s.Role) != 0 {
		return nil
	}
	return &DeniedError{s.Role, a}
}
