package audit

import (
	"encoding/binary"
	"time"

	"quicproquo.dev/schema/ids"
)

// The constructors. They take ids, numbers and enumerations: what cannot be passed cannot be leaked. An account of zero
// is one that is not known.

// AccountCreated is a signup that succeeded. Reason is ReasonByInvite where an invitation was used.
func AccountCreated(account, device, session ids.ID, r Reason) Event {
	return build(KindAccountCreated, Success, r, ByAccount(account), account).on(device, session)
}

// SignupRefused is a signup that was not let.
func SignupRefused(r Reason) Event {
	return build(KindSignupRefused, Denied, r, ByStranger(), ids.ID{})
}

// AccountDeleted is the end of an account with its devices. It is written before the account's pseudonym is erased.
func AccountDeleted(by By, account ids.ID, devices int) Event {
	return build(KindAccountDeleted, Success, ReasonNone, by, account, number(FieldDevices, devices))
}

// AccountExported is a copy of an account's data, handed out.
func AccountExported(by By, account ids.ID) Event {
	return build(KindAccountExported, Success, ReasonNone, by, account)
}

// AccountDisabled keeps an account from being used.
func AccountDisabled(by By, account ids.ID) Event {
	return build(KindAccountDisabled, Success, ReasonNone, by, account)
}

// AccountEnabled ends AccountDisabled.
func AccountEnabled(by By, account ids.ID) Event {
	return build(KindAccountEnabled, Success, ReasonNone, by, account)
}

// PasswordChanged is a new OPAQUE record under a new password.
func PasswordChanged(account, device ids.ID, r Reason) Event {
	return build(KindPasswordChanged, Success, r, ByAccount(account), account).on(device, ids.ID{})
}

// PasswordChangeFailed is a password change that was refused.
func PasswordChangeFailed(account, device ids.ID, r Reason) Event {
	return build(KindPasswordChanged, Failure, r, ByAccount(account), account).on(device, ids.ID{})
}

// RecoveryCodesSet is a fresh set of recovery codes.
func RecoveryCodesSet(account, device ids.ID, count int) Event {
	return build(KindRecoveryCodesSet, Success, ReasonNone, ByAccount(account), account, number(FieldCount, count)).on(device, ids.ID{})
}

// Recovered is the use of a recovery code.
func Recovered(account ids.ID) Event {
	return build(KindRecovery, Success, ReasonByRecoveryCode, ByStranger(), account)
}

// RecoveryFailed is a recovery with a code that is not one.
func RecoveryFailed(account ids.ID, r Reason) Event {
	return build(KindRecovery, Failure, r, ByStranger(), account)
}

// RootKeyReset is a new root key for an account: a new identity for its contacts.
func RootKeyReset(account, device ids.ID, r Reason) Event {
	return build(KindRootKeyReset, Success, r, ByAccount(account), account).on(device, ids.ID{})
}

// OPAQUERenewed is a registration made anew under the server's present keys.
func OPAQUERenewed(account ids.ID) Event {
	return build(KindOPAQUERenewed, Success, ReasonNone, ByAccount(account), account)
}

// LoginSucceeded is a password that was proven.
func LoginSucceeded(account ids.ID) Event {
	return build(KindLogin, Success, ReasonNone, ByStranger(), account)
}

// LoginFailed is a KE3 that was wrong.
func LoginFailed(account ids.ID, r Reason) Event {
	return build(KindLogin, Failure, r, ByStranger(), account)
}

// LoginDenied is a login that was not looked at: a lockout, a limit, a disabled account.
func LoginDenied(account ids.ID, r Reason) Event {
	return build(KindLogin, Denied, r, ByStranger(), account)
}

// LoginAbandoned is a KE1 that no KE3 followed.
func LoginAbandoned(account ids.ID) Event {
	return build(KindLoginAbandoned, Failure, ReasonAbandoned, ByStranger(), account)
}

// LockoutBegan is a lockout of an account, or of an address when account is zero.
func LockoutBegan(account ids.ID, failures int, until time.Time) Event {
	return build(KindLockout, Denied, ReasonLockedOut, ByCell(), account, number(FieldCount, failures), moment(until))
}

// SessionStarted is a session of a device, with fresh tokens. It ends the device's earlier ones.
func SessionStarted(account, device, session ids.ID) Event {
	return build(KindSessionStarted, Success, ReasonNone, ByAccount(account), account).on(device, session)
}

// SessionRefused is a session that was not started after a proven login.
func SessionRefused(account, device ids.ID, r Reason) Event {
	return build(KindSessionStarted, Denied, r, ByAccount(account), account).on(device, ids.ID{})
}

// SessionRefreshed is a refresh token that was exchanged.
func SessionRefreshed(account, device, session ids.ID) Event {
	return build(KindSessionRefreshed, Success, ReasonNone, ByAccount(account), account).on(device, session)
}

// RefreshRefused is a refresh token that was not taken.
func RefreshRefused(account, device ids.ID, r Reason) Event {
	return build(KindSessionRefreshed, Failure, r, ByStranger(), account).on(device, ids.ID{})
}

// SessionRevoked is a session with its tokens made void: for the reuse of a spent token, or on purpose.
func SessionRevoked(by By, account, device, session ids.ID, r Reason) Event {
	return build(KindSessionRevoked, Success, r, by, account).on(device, session)
}

// SessionEnded is a logout, or, with ReasonExpired, a session that ran out.
func SessionEnded(account, device, session ids.ID, r Reason) Event {
	by := ByAccount(account)
	if r == ReasonExpired {
		by = ByCell()
	}
	return build(KindSessionEnded, Success, r, by, account).on(device, session)
}

// ConnectionAuthenticated is an access token that was taken on a connection.
func ConnectionAuthenticated(account, device, session ids.ID) Event {
	return build(KindAuthenticated, Success, ReasonNone, ByAccount(account), account).on(device, session)
}

// TokenRefused is an access token that was not taken.
func TokenRefused(account, device ids.ID, r Reason) Event {
	return build(KindAuthenticated, Failure, r, ByStranger(), account).on(device, ids.ID{})
}

// DeviceAdded is a further device; r is ReasonByPassword, ReasonByDevice or ReasonByRecoveryCode.
func DeviceAdded(account, device ids.ID, r Reason) Event {
	return build(KindDeviceAdded, Success, r, ByAccount(account), account).on(device, ids.ID{})
}

// DeviceRefused is a device that was not added.
func DeviceRefused(account, device ids.ID, r Reason) Event {
	return build(KindDeviceAdded, Denied, r, ByAccount(account), account).on(device, ids.ID{})
}

// DeviceRenamed is a device's new name, which is not recorded.
func DeviceRenamed(account, device ids.ID) Event {
	return build(KindDeviceRenamed, Success, ReasonNone, ByAccount(account), account).on(device, ids.ID{})
}

// DeviceRevoked is the end of a device.
func DeviceRevoked(by By, account, device ids.ID, r Reason) Event {
	return build(KindDeviceRevoked, Success, r, by, account).on(device, ids.ID{})
}

// PackagesUploaded are KeyPackages of a device, stored.
func PackagesUploaded(account, device ids.ID, oneTime int, lastResort bool) Event {
	return build(KindPackagesUploaded, Success, ReasonNone, ByAccount(account), account, number(FieldOneTime, oneTime), number(FieldLastResort, one(lastResort))).on(device, ids.ID{})
}

// PackagesRefused are KeyPackages that were not stored.
func PackagesRefused(account, device ids.ID, r Reason) Event {
	return build(KindPackagesUploaded, Failure, r, ByAccount(account), account).on(device, ids.ID{})
}

// PackagesClaimed are KeyPackages of account target, handed to a device of another.
func PackagesClaimed(account, device, target ids.ID, oneTime, lastResort int) Event {
	return build(KindPackagesClaimed, Success, ReasonNone, ByAccount(account), target, number(FieldOneTime, oneTime), number(FieldLastResort, lastResort)).on(device, ids.ID{})
}

// ClaimRefused are KeyPackages that were not handed out.
func ClaimRefused(account, device, target ids.ID, r Reason) Event {
	return build(KindPackagesClaimed, Denied, r, ByAccount(account), target).on(device, ids.ID{})
}

// ServerKeyRotated is a new first key in one of the cell's key sets.
func ServerKeyRotated(set KeySet, id uint32) Event {
	return build(KindServerKeyRotated, Success, ReasonNone, ByOperator(), ids.ID{}, Detail{FieldKeySet, uint64(set)}, Detail{FieldKeyID, uint64(id)})
}

// DirectOpened is the direct channel between two accounts, made.
func DirectOpened(account, device, peer, channel ids.ID) Event {
	return build(KindDirectOpened, Success, ReasonNone, ByAccount(account), peer).on(device, ids.ID{}).in(channel)
}

// GroupCreated is the MLS group of a channel's next generation.
func GroupCreated(account, device, channel ids.ID, generation uint32, members int) Event {
	return build(KindGroupCreated, Success, ReasonNone, ByAccount(account), account, Detail{FieldGeneration, uint64(generation)}, number(FieldMembers, members)).on(device, ids.ID{}).in(channel)
}

// GroupRefused is a group that was not made.
func GroupRefused(account, device, channel ids.ID, generation uint32, r Reason) Event {
	return build(KindGroupCreated, Denied, r, ByAccount(account), account, Detail{FieldGeneration, uint64(generation)}).on(device, ids.ID{}).in(channel)
}

// GroupOpened is a channel of any number of accounts, made.
func GroupOpened(account, device, channel ids.ID) Event {
	return build(KindGroupOpened, Success, ReasonNone, ByAccount(account), account).on(device, ids.ID{}).in(channel)
}

// GenerationVoted is an account's vote for a channel's next generation.
func GenerationVoted(account, device, channel ids.ID, generation uint32) Event {
	return build(KindGenerationVoted, Success, ReasonNone, ByAccount(account), account, Detail{FieldGeneration, uint64(generation)}).on(device, ids.ID{}).in(channel)
}

// MemberAdded is an account that came into a channel.
func MemberAdded(by By, member, channel ids.ID) Event {
	return build(KindMemberAdded, Success, ReasonNone, by, member).in(channel)
}

// MemberRemoved is an account that left a channel, or was removed by another.
func MemberRemoved(by By, member, channel ids.ID, r Reason) Event {
	return build(KindMemberRemoved, Success, r, by, member).in(channel)
}

// RoleChanged is a member's new role in a channel; in the cell as a whole when channel is zero.
func RoleChanged(by By, member, channel ids.ID, role Role) Event {
	return build(KindRoleChanged, Success, ReasonNone, by, member, Detail{FieldRole, uint64(role)}).in(channel)
}

// ChannelRetentionChanged is how long a channel's messages are kept from now on.
func ChannelRetentionChanged(by By, channel ids.ID, kept time.Duration) Event {
	return build(KindChannelRetention, Success, ReasonNone, by, by.account, number(FieldSeconds, int(kept/time.Second))).in(channel)
}

// ChannelDenied is a request about a channel that the account may not make.
func ChannelDenied(account, device, channel ids.ID, r Reason) Event {
	return build(KindChannelAccess, Denied, r, ByAccount(account), account).on(device, ids.ID{}).in(channel)
}

// AccountBlocked is an account that another does not want to hear from.
func AccountBlocked(account, device, target ids.ID) Event {
	return build(KindAccountBlocked, Success, ReasonNone, ByAccount(account), target).on(device, ids.ID{})
}

// AccountUnblocked ends AccountBlocked.
func AccountUnblocked(account, device, target ids.ID) Event {
	return build(KindAccountUnblocked, Success, ReasonNone, ByAccount(account), target).on(device, ids.ID{})
}

// AdminAuthenticated is an admin's credential that was taken.
func AdminAuthenticated(by By) Event {
	return build(KindAdminLogin, Success, ReasonNone, by, ids.ID{})
}

// AdminRefused is an admin's credential that was not taken.
func AdminRefused(r Reason) Event {
	return build(KindAdminLogin, Failure, r, ByStranger(), ids.ID{})
}

// AdminDenied is an admin call that the caller's role does not allow; about an account, or nobody.
func AdminDenied(by By, account ids.ID, r Reason) Event {
	return build(KindAdminAccess, Denied, r, by, account)
}

// InviteMinted are fresh invitations.
func InviteMinted(by By, count int, until time.Time) Event {
	return build(KindInviteMinted, Success, ReasonNone, by, ids.ID{}, number(FieldCount, count), moment(until))
}

// ResetCodeMinted is a code by which an account can start over under another root key.
func ResetCodeMinted(by By, account ids.ID, until time.Time) Event {
	return build(KindResetCodeMinted, Success, ReasonNone, by, account, moment(until))
}

// InviteUsed is an invitation that made an account.
func InviteUsed(account ids.ID) Event {
	return build(KindInviteUsed, Success, ReasonNone, ByAccount(account), account)
}

// InviteRefused is an invitation that is none, has expired, or was used before.
func InviteRefused(r Reason) Event {
	return build(KindInviteUsed, Denied, r, ByStranger(), ids.ID{})
}

// InviteRevoked are invitations made void.
func InviteRevoked(by By, count int) Event {
	return build(KindInviteRevoked, Success, ReasonNone, by, ids.ID{}, number(FieldCount, count))
}

// PolicyReplaced is another policy in use; hash is the policy's.
func PolicyReplaced(hash [8]byte) Event {
	return build(KindPolicyReplaced, Success, ReasonNone, ByOperator(), ids.ID{}, Detail{FieldPolicyHash, binary.BigEndian.Uint64(hash[:])})
}

// AuditExported is the audit log, read after the checkpoint.
func AuditExported(by By, after uint64) Event {
	return build(KindAuditExported, Success, ReasonNone, by, ids.ID{}, Detail{FieldCheckpoint, after})
}

// AuditPruned is the audit log, removed up to the checkpoint.
func AuditPruned(by By, upTo uint64) Event {
	return build(KindAuditPruned, Success, ReasonNone, by, ids.ID{}, Detail{FieldCheckpoint, upTo})
}

// SubjectResolved is a pseudonym whose account somebody asked for, or the reverse.
func SubjectResolved(by By, account ids.ID) Event {
	return build(KindSubjectResolved, Success, ReasonNone, by, account)
}

// LimitReached is a refusal by a limit, for Recorder.Tally: of an account, or of an address when account is zero.
func LimitReached(account ids.ID, r Reason) Event {
	by := ByStranger()
	if !account.IsZero() {
		by = ByAccount(account)
	}
	return build(KindLimitReached, Denied, r, by, account)
}

// ChainStarted is the first row of each chain.
func ChainStarted(lane uint32) Event {
	return build(KindChainStarted, Success, ReasonNone, ByCell(), ids.ID{}, Detail{FieldLane, uint64(lane)})
}

// ChainEnded is the last row of the chain of a process that stopped in order.
func ChainEnded() Event {
	return build(KindChainEnded, Success, ReasonNone, ByCell(), ids.ID{})
}

// ChainLost says that this process had stored a row with that sequence in its chain, which the database no longer has.
func ChainLost(lane uint32, seq uint64) Event {
	return build(KindChainLost, Failure, ReasonNone, ByCell(), ids.ID{}, Detail{FieldSeq, seq}, Detail{FieldLane, uint64(lane)})
}

// LogRolledBack says that this process had seen a checkpoint that the database no longer has: it has another, or ends before.
func LogRolledBack(expected, has uint64) Event {
	return build(KindLogRolledBack, Failure, ReasonNone, ByCell(), ids.ID{}, Detail{FieldCheckpoint, has}, Detail{FieldExpected, expected})
}

// FaultFound says that a chain does not verify from that row on, and is not signed any further.
func FaultFound(seq uint64) Event {
	return build(KindFaultFound, Failure, ReasonNone, ByCell(), ids.ID{}, Detail{FieldSeq, seq})
}

// EventsSuppressed says how many events were not written since the queue was full.
func EventsSuppressed(count uint64) Event {
	return build(KindEventsSuppressed, Failure, ReasonQueueFull, ByCell(), ids.ID{}, Detail{FieldCount, count})
}

func number(f Field, n int) Detail {
	return Detail{f, uint64(max(n, 0))} //nolint:gosec // not negative.
}

func moment(t time.Time) Detail { return number(FieldUntil, int(t.Unix())) }

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
