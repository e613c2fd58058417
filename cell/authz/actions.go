package authz

import (
	"fmt"

	"quicproquo.dev/schema/wire"
)

// Action is something that a role may do or not.
type Action uint8

// The actions.
const (
	Unknown        Action = iota // Nobody's.
	Greet                        // Say hello.
	Enter                        // Sign up, log in, recover, link as a new device, and renew or resume a session.
	ChangeAccount                // Set password and recovery codes, or delete the account, on a connection with a proven login.
	ReadAccounts                 // Look up others.
	ManageDevices                // List, name, revoke, approve, and log out one's own.
	ReadOwnData                  // Export one's own account.
	ManageKeys                   // Upload and count one's own KeyPackages.
	ClaimKeys                    // Take others' KeyPackages.
	OpenChannel                  // Open a direct channel, and make its group.
	Send                         // Send to a channel.
	Receive                      // Subscribe and acknowledge.
	ChangeChannel                // Change a channel, and add members. No call does so yet.
	RemoveMember                 // Remove another member from a channel. No call does so yet.
	EnterAsAdmin                 // Show an admin's credential.
	InviteAccounts               // Mint invitations.
	ResetAccounts                // Mint codes by which an account starts over.
	InspectAccount               // See an account and its devices.
	DisableAccount               // Shut an account out, or let it in again.
	RevokeDevice                 // End another's device.
	EndSessions                  // End another's sessions.
	DeleteAccount                // Delete another's account.
	ExportAudit                  // Read the audit log.
	actions
)

var actionNames = [actions]string{"an unknown action", "greeting", "logging in", "changing the own account", "looking up accounts", "managing devices",
	"exporting the own account", "managing KeyPackages", "claiming KeyPackages", "opening channels", "sending", "receiving", "changing channels",
	"removing members", "logging in as an admin", "inviting", "resetting accounts", "inspecting accounts", "disabling accounts", "revoking devices of others",
	"ending sessions of others", "deleting accounts of others", "exporting the audit log"}

// String says it in a word or some.
func (a Action) String() string {
	if a < actions {
		return actionNames[a]
	}
	return fmt.Sprintf("action %d", a)
}

const (
	anybody = 1<<roles - 1
	people  = 1<<Stranger | 1<<Member | 1<<ChannelAdmin | 1<<Moderator // Who is an account, or about to be.
	members = 1<<Member | 1<<ChannelAdmin | 1<<Moderator
	admins  = 1<<CellAdmin | 1<<Auditor
)

// allowed is the table: the roles that may do each action. An admin is no member: a connection speaks for either.
var allowed = [actions]uint16{
	Greet:          anybody,
	Enter:          people,
	ChangeAccount:  people,
	ReadAccounts:   members,
	ManageDevices:  members,
	ReadOwnData:    members,
	ManageKeys:     members,
	ClaimKeys:      members,
	OpenChannel:    members,
	Send:           members,
	Receive:        members,
	ChangeChannel:  1 << ChannelAdmin,
	RemoveMember:   1<<ChannelAdmin | 1<<Moderator,
	EnterAsAdmin:   1<<Stranger | admins,
	InviteAccounts: 1 << CellAdmin,
	ResetAccounts:  1 << CellAdmin,
	InspectAccount: admins,
	DisableAccount: 1 << CellAdmin,
	RevokeDevice:   1 << CellAdmin,
	EndSessions:    1 << CellAdmin,
	DeleteAccount:  1 << CellAdmin,
	ExportAudit:    admins,
}

// byMethod says what each call of the protocol is. One that is missing here is nobody's.
var byMethod = map[string]Action{
	"hello":              Greet,
	"signupStart":        Enter,
	"signupFinish":       Enter,
	"loginStart":         Enter,
	"loginFinish":        Enter,
	"startSession":       Enter,
	"refreshSession":     Enter,
	"authenticate":       Enter,
	"recover":            Enter,
	"resetAccount":       Enter,
	"startDeviceLink":    Enter,
	"finishDeviceLink":   Enter,
	"getDeviceLink":      Enter, // Either side's.
	"setPasswordStart":   ChangeAccount,
	"setPasswordFinish":  ChangeAccount,
	"setRecoveryCodes":   ChangeAccount,
	"getAccount":         ReadAccounts,
	"listDevices":        ManageDevices,
	"renameDevice":       ManageDevices,
	"revokeDevice":       ManageDevices,
	"approveDeviceLink":  ManageDevices,
	"endSession":         ManageDevices,
	"deleteAccount":      ChangeAccount,
	"exportAccount":      ReadOwnData,
	"uploadKeyPackages":  ManageKeys,
	"keyPackageStatus":   ManageKeys,
	"claimKeyPackages":   ClaimKeys,
	"openDm":             OpenChannel,
	"createGroup":        OpenChannel,
	"enqueue":            Send,
	"subscribe":          Receive,
	"ack":                Receive,
	"adminAuthenticate":  EnterAsAdmin,
	"adminInvite":        InviteAccounts,
	"adminResetCode":     ResetAccounts,
	"adminGetAccount":    InspectAccount,
	"adminSetDisabled":   DisableAccount,
	"adminRevokeDevice":  RevokeDevice,
	"adminEndSessions":   EndSessions,
	"adminDeleteAccount": DeleteAccount,
	"adminExportAudit":   ExportAudit,
}

// ActionOf says what a request wants to do.
func ActionOf(r wire.Request) Action { return byMethod[r.Method()] }

// IsAdmin reports whether an action is for admins alone.
func (a Action) IsAdmin() bool { return a >= EnterAsAdmin && a < actions }

// ObjectOf says what a request wants to do it to, as far as the request names it.
func ObjectOf(r wire.Request) Object {
	switch r := r.(type) {
	case *wire.GetAccountRequest:
		return Object{Account: r.AccountID}
	case *wire.ClaimKeyPackagesRequest:
		return Object{Account: r.AccountID}
	case *wire.OpenDMRequest:
		return Object{Account: r.AccountID}
	case *wire.CreateGroupRequest:
		return Object{Channel: r.ChannelID}
	case *wire.EnqueueRequest:
		return Object{Channel: r.ChannelID}
	case *wire.RenameDeviceRequest:
		return Object{Device: r.DeviceID}
	case *wire.RevokeDeviceRequest:
		return Object{Device: r.DeviceID}
	case *wire.AdminGetAccountRequest:
		return Object{Account: r.AccountID}
	case *wire.AdminSetDisabledRequest:
		return Object{Account: r.AccountID}
	case *wire.AdminRevokeDeviceRequest:
		return Object{Account: r.AccountID, Device: r.DeviceID}
	case *wire.AdminEndSessionsRequest:
		return Object{Account: r.AccountID}
	case *wire.AdminDeleteAccountRequest:
		return Object{Account: r.AccountID}
	}
	return Object{}
}
