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
	ManageContacts               // List those who want to write, accept and block them.
	OpenChannel                  // Open a channel, make its group, or vote for a new one.
	ReadChannels                 // See one's channels, their members, and what joining takes.
	ManageChannel                // Ask for a change of a channel: what it takes there is ChangeChannel.
	Send                         // Send messages, Commits and proposals to a channel.
	Receive                      // Subscribe and acknowledge.
	ChangeChannel                // By the role in the channel: change it, and add members.
	RemoveMember                 // By the role in the channel: remove another member.
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
	"exporting the own account", "managing KeyPackages", "claiming KeyPackages", "managing contacts", "opening channels", "reading channels", "managing channels", "sending", "receiving", "changing channels",
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
	ManageContacts: members,
	OpenChannel:    members,
	ReadChannels:   members,
	ManageChannel:  members,
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

// inChannel are the roles that an account has in a channel.
var inChannel = map[wire.ChannelRole]Role{wire.RoleMember: Member, wire.RoleModerator: Moderator, wire.RoleAdmin: ChannelAdmin}

// AllowedIn reports whether the role that an account has in a channel allows an action there.
func AllowedIn(r wire.ChannelRole, a Action) bool {
	role, ok := inChannel[r]
	return ok && a < actions && allowed[a]&(1<<role) != 0
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
	"listContacts":       ManageContacts,
	"acceptContact":      ManageContacts,
	"blockAccount":       ManageContacts,
	"openDm":             OpenChannel,
	"openGroup":          OpenChannel,
	"createGroup":        OpenChannel,
	"voteGeneration":     OpenChannel,
	"getChannel":         ReadChannels,
	"listChannels":       ReadChannels,
	"getGroupInfo":       ReadChannels,
	"setRole":            ManageChannel,
	"setRetention":       ManageChannel,
	"commit":             Send,
	"propose":            Send,
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
	case *wire.VoteGenerationRequest:
		return Object{Channel: r.ChannelID}
	case *wire.GetChannelRequest:
		return Object{Channel: r.ChannelID}
	case *wire.GetGroupInfoRequest:
		return Object{Channel: r.ChannelID}
	case *wire.SetRoleRequest:
		return Object{Account: r.AccountID, Channel: r.ChannelID}
	case *wire.SetRetentionRequest:
		return Object{Channel: r.ChannelID}
	case *wire.CommitRequest:
		return Object{Channel: r.ChannelID}
	case *wire.ProposeRequest:
		return Object{Channel: r.ChannelID}
	case *wire.EnqueueRequest:
		return Object{Channel: r.ChannelID}
	case *wire.AcceptContactRequest:
		return Object{Account: r.AccountID}
	case *wire.BlockAccountRequest:
		return Object{Account: r.AccountID}
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
