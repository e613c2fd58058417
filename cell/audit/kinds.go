package audit

import (
	"fmt"
	"maps"
	"slices"
)

// Kind is what happened. Numbers and names are stored and exported: they are added to, never changed.
type Kind uint16

// The kinds.
const (
	KindAccountCreated   Kind = 100
	KindSignupRefused    Kind = 101
	KindAccountDeleted   Kind = 102
	KindAccountDisabled  Kind = 103
	KindAccountEnabled   Kind = 104
	KindPasswordChanged  Kind = 105
	KindRecoveryCodesSet Kind = 106
	KindRecovery         Kind = 107
	KindRootKeyReset     Kind = 108
	KindOPAQUERenewed    Kind = 109
	KindAccountExported  Kind = 110
	KindLogin            Kind = 200
	KindLoginAbandoned   Kind = 201
	KindLockout          Kind = 202
	KindSessionStarted   Kind = 210
	KindSessionRefreshed Kind = 211
	KindSessionRevoked   Kind = 212
	KindSessionEnded     Kind = 213
	KindAuthenticated    Kind = 214
	KindDeviceAdded      Kind = 300
	KindDeviceRenamed    Kind = 301
	KindDeviceRevoked    Kind = 302
	KindPackagesUploaded Kind = 400
	KindPackagesClaimed  Kind = 401
	KindServerKeyRotated Kind = 410
	KindDirectOpened     Kind = 500
	KindGroupCreated     Kind = 501
	KindMemberAdded      Kind = 502
	KindMemberRemoved    Kind = 503
	KindRoleChanged      Kind = 504
	KindChannelRetention Kind = 505
	KindChannelAccess    Kind = 506
	KindAccountBlocked   Kind = 507
	KindAccountUnblocked Kind = 508
	KindGroupOpened      Kind = 509
	KindGenerationVoted  Kind = 510
	KindAdminLogin       Kind = 600
	KindAdminAccess      Kind = 601
	KindInviteMinted     Kind = 602
	KindInviteUsed       Kind = 603
	KindInviteRevoked    Kind = 604
	KindPolicyReplaced   Kind = 605
	KindAuditExported    Kind = 606
	KindAuditPruned      Kind = 607
	KindSubjectResolved  Kind = 608
	KindResetCodeMinted  Kind = 609
	KindLimitReached     Kind = 700
	KindChainStarted     Kind = 900
	KindChainEnded       Kind = 901
	KindChainLost        Kind = 902
	KindLogRolledBack    Kind = 903
	KindFaultFound       Kind = 904
	KindEventsSuppressed Kind = 905
	kindNone             Kind = 0
	maxDetails                = 8
)

var kindNames = map[Kind]string{
	KindAccountCreated: "account.created", KindSignupRefused: "account.signup_refused", KindAccountDeleted: "account.deleted",
	KindAccountDisabled: "account.disabled", KindAccountEnabled: "account.enabled", KindPasswordChanged: "account.password_changed",
	KindRecoveryCodesSet: "account.recovery_codes_set", KindRecovery: "account.recovery", KindRootKeyReset: "account.root_key_reset",
	KindOPAQUERenewed: "account.opaque_renewed", KindAccountExported: "account.exported",
	KindLogin: "auth.login", KindLoginAbandoned: "auth.login_abandoned", KindLockout: "auth.lockout",
	KindSessionStarted: "auth.session_started", KindSessionRefreshed: "auth.session_refreshed", KindSessionRevoked: "auth.session_revoked",
	KindSessionEnded: "auth.session_ended", KindAuthenticated: "auth.connection",
	KindDeviceAdded: "device.added", KindDeviceRenamed: "device.renamed", KindDeviceRevoked: "device.revoked",
	KindPackagesUploaded: "key.packages_uploaded", KindPackagesClaimed: "key.packages_claimed", KindServerKeyRotated: "key.server_rotated",
	KindDirectOpened: "channel.direct_opened", KindGroupCreated: "channel.group_created", KindMemberAdded: "channel.member_added",
	KindMemberRemoved: "channel.member_removed", KindRoleChanged: "channel.role_changed", KindChannelRetention: "channel.retention_changed",
	KindChannelAccess: "channel.access", KindAccountBlocked: "channel.account_blocked", KindAccountUnblocked: "channel.account_unblocked",
	KindGroupOpened: "channel.group_opened", KindGenerationVoted: "channel.generation_voted",
	KindAdminLogin: "admin.login", KindAdminAccess: "admin.access", KindInviteMinted: "admin.invite_minted", KindInviteUsed: "admin.invite_used",
	KindInviteRevoked: "admin.invite_revoked", KindPolicyReplaced: "admin.policy_replaced", KindAuditExported: "admin.audit_exported",
	KindAuditPruned: "admin.audit_pruned", KindSubjectResolved: "admin.subject_resolved", KindResetCodeMinted: "admin.reset_code_minted",
	KindLimitReached: "limit.reached",
	KindChainStarted: "audit.chain_started", KindChainEnded: "audit.chain_ended", KindChainLost: "audit.chain_lost",
	KindLogRolledBack: "audit.log_rolled_back", KindFaultFound: "audit.fault_found", KindEventsSuppressed: "audit.events_suppressed",
}

// Outcome is how it went.
type Outcome uint8

// The outcomes.
const (
	Success Outcome = 1
	Failure Outcome = 2 // Tried, and not right: a wrong password.
	Denied  Outcome = 3 // Not let, whatever was tried: a limit, a lockout, a missing right.
)

var outcomeNames = map[Outcome]string{Success: "success", Failure: "failure", Denied: "denied"}

// Reason is why, where that is not plain from kind and outcome.
type Reason uint16

// The reasons.
const (
	ReasonNone               Reason = 0
	ReasonWrongPassword      Reason = 1
	ReasonUnknownName        Reason = 2
	ReasonInvalidProof       Reason = 3
	ReasonInvalidToken       Reason = 4
	ReasonExpiredToken       Reason = 5
	ReasonReusedToken        Reason = 6
	ReasonDeviceRevoked      Reason = 7
	ReasonTooMany            Reason = 8 // Devices, KeyPackages, invitations.
	ReasonNameTaken          Reason = 9
	ReasonIDTaken            Reason = 10
	ReasonForeignCertificate Reason = 11 // Not signed by the account's root key.
	ReasonInvalidPackage     Reason = 12
	ReasonReusedPackage      Reason = 13
	ReasonNoPackage          Reason = 14
	ReasonNotFound           Reason = 15
	ReasonNotMember          Reason = 16
	ReasonConflict           Reason = 17
	ReasonInvalidGroup       Reason = 18
	ReasonNotAuthorized      Reason = 19
	ReasonLockedOut          Reason = 20
	ReasonRateLimited        Reason = 21
	ReasonTooManyConnections Reason = 22
	ReasonHandshakeLimit     Reason = 23
	ReasonInvalidInvite      Reason = 24
	ReasonSignupClosed       Reason = 25
	ReasonAbandoned          Reason = 26
	ReasonLogout             Reason = 27
	ReasonReplaced           Reason = 28 // By a newer session of the same device.
	ReasonExpired            Reason = 29
	ReasonAccountDeleted     Reason = 30
	ReasonAccountDisabled    Reason = 31
	ReasonByAdmin            Reason = 32
	ReasonByPassword         Reason = 33
	ReasonByDevice           Reason = 34 // Approved by another device of the account.
	ReasonByRecoveryCode     Reason = 35
	ReasonByInvite           Reason = 36
	ReasonQueueFull          Reason = 37
	ReasonPasswordChanged    Reason = 38
	ReasonOther              Reason = 39
)

var reasonNames = map[Reason]string{
	ReasonNone: "", ReasonWrongPassword: "wrong_password", ReasonUnknownName: "unknown_name", ReasonInvalidProof: "invalid_proof",
	ReasonInvalidToken: "invalid_token", ReasonExpiredToken: "expired_token", ReasonReusedToken: "reused_token",
	ReasonDeviceRevoked: "device_revoked", ReasonTooMany: "too_many", ReasonNameTaken: "name_taken", ReasonIDTaken: "id_taken",
	ReasonForeignCertificate: "foreign_certificate", ReasonInvalidPackage: "invalid_package", ReasonReusedPackage: "reused_package",
	ReasonNoPackage: "no_package", ReasonNotFound: "not_found", ReasonNotMember: "not_member", ReasonConflict: "conflict",
	ReasonInvalidGroup: "invalid_group", ReasonNotAuthorized: "not_authorized", ReasonLockedOut: "locked_out",
	ReasonRateLimited: "rate_limited", ReasonTooManyConnections: "too_many_connections", ReasonHandshakeLimit: "handshake_limit",
	ReasonInvalidInvite: "invalid_invite", ReasonSignupClosed: "signup_closed", ReasonAbandoned: "abandoned", ReasonLogout: "logout",
	ReasonReplaced: "replaced", ReasonExpired: "expired", ReasonAccountDeleted: "account_deleted", ReasonAccountDisabled: "account_disabled",
	ReasonByAdmin: "by_admin", ReasonByPassword: "by_password", ReasonByDevice: "by_device", ReasonByRecoveryCode: "by_recovery_code",
	ReasonByInvite: "by_invite", ReasonQueueFull: "queue_full", ReasonPasswordChanged: "password_changed", ReasonOther: "other",
}

// ActorKind is who acted.
type ActorKind uint8

// The kinds of actor.
const (
	ActorStranger ActorKind = 1 // A connection that nobody has authenticated.
	ActorAccount  ActorKind = 2
	ActorAdmin    ActorKind = 3 // A person with an admin's credential.
	ActorOperator ActorKind = 4 // Whoever runs the cell's own commands.
	ActorCell     ActorKind = 5 // The cell by itself.
)

var actorNames = map[ActorKind]string{ActorStranger: "stranger", ActorAccount: "account", ActorAdmin: "admin", ActorOperator: "operator", ActorCell: "cell"}

// Field is a detail that an event may have. There are no others.
type Field uint8

// The fields. All values are integers without sign.
const (
	FieldCount      Field = 1
	FieldDevices    Field = 2
	FieldOneTime    Field = 3
	FieldLastResort Field = 4 // How many.
	FieldGeneration Field = 5
	FieldMembers    Field = 6
	FieldRole       Field = 7 // A number of type Role.
	FieldSeconds    Field = 8
	FieldUntil      Field = 9  // Seconds since 1970 UTC.
	FieldKeySet     Field = 10 // A number of type KeySet.
	FieldKeyID      Field = 11
	FieldPolicyHash Field = 12 // Its first 8 bytes, big-endian.
	FieldCheckpoint Field = 13
	FieldExpected   Field = 14
	FieldSeq        Field = 15
	FieldLane       Field = 16
)

var fieldNames = map[Field]string{
	FieldCount: "count", FieldDevices: "devices", FieldOneTime: "oneTime", FieldLastResort: "lastResort", FieldGeneration: "generation",
	FieldMembers: "members", FieldRole: "role", FieldSeconds: "seconds", FieldUntil: "until", FieldKeySet: "keySet", FieldKeyID: "keyId",
	FieldPolicyHash: "policyHash", FieldCheckpoint: "checkpoint", FieldExpected: "expected", FieldSeq: "seq", FieldLane: "lane",
}

// Role is an account's part in a channel, as FieldRole has it.
type Role uint8

// The roles.
const (
	RoleMember       Role = 1
	RoleChannelAdmin Role = 2
	RoleModerator    Role = 3
	RoleCellAdmin    Role = 4
	RoleAuditor      Role = 5
)

// KeySet is which of the cell's own keys, as FieldKeySet has it.
type KeySet uint8

// The key sets.
const (
	KeySetTokens  KeySet = 1
	KeySetSealing KeySet = 2
	KeySetOPAQUE  KeySet = 3
	KeySetAudit   KeySet = 4
	KeySetTLS     KeySet = 5

	KeySets = 5 // How many there are.
)

// known and String show what a number means; one of a newer release is shown as a number.

func (k Kind) String() string      { return name(kindNames, k, "kind") }
func (o Outcome) String() string   { return name(outcomeNames, o, "outcome") }
func (r Reason) String() string    { return name(reasonNames, r, "reason") }
func (a ActorKind) String() string { return name(actorNames, a, "actor") }
func (f Field) String() string     { return name(fieldNames, f, "field") }

func name[T ~uint8 | ~uint16](names map[T]string, v T, what string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%s-%d", what, v)
}

// ParseKind reads the name of a kind.
func ParseKind(s string) (Kind, error) {
	for k, n := range kindNames {
		if n == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("there is no kind of event %q; the kinds are %v", s, KindNames())
}

// KindNames lists the names of all kinds, sorted.
func KindNames() []string { return slices.Sorted(maps.Values(kindNames)) }
