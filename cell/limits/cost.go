package limits

import "quicproquo.dev/schema/wire"

// cost is what a request takes of each kind of bucket, in tokens.
type cost struct {
	requests, logins, lookups float64
	deferred                  bool // The account's share is charged later, by Quota.
}

const (
	ackCost         = 0.1       // No more than a note in memory; a quick reader sends many.
	keyPackageCost  = 0.25      // Two signatures to verify.
	createGroupCost = 5         // A GroupInfo to verify as a joiner would, and rows for every member. A Commit is much the same.
	tellingCost     = 5         // Rows for every device of everybody who is told.
	inviteCost      = 0.25      // A row, and an event.
	exportCost      = 5         // A quarter of a megabyte to read, and more to look at.
	bytesPerToken   = 256 << 10 // Of a message.
)

// costOf is the table of docs/protocol.md.
func costOf(r wire.Request) cost {
	switch r := r.(type) {
	case *wire.SignupStartRequest:
		return cost{requests: 1, logins: 1}
	case *wire.SignupFinishRequest:
		return cost{requests: 2}
	case *wire.LoginStartRequest:
		return cost{requests: 1, logins: 1}
	case *wire.RecoverRequest, *wire.StartDeviceLinkRequest, *wire.AdminAuthenticateRequest:
		return cost{requests: 1, logins: 1}
	case *wire.StartSessionRequest, *wire.RefreshSessionRequest, *wire.SetPasswordStartRequest, *wire.SetPasswordFinishRequest,
		*wire.SetRecoveryCodesRequest, *wire.ResetAccountRequest, *wire.ClaimKeyPackagesRequest, *wire.ApproveDeviceLinkRequest,
		*wire.OpenGroupRequest, *wire.ProposeRequest, *wire.GetGroupInfoRequest:
		return cost{requests: 2}
	case *wire.FinishDeviceLinkRequest, *wire.RevokeDeviceRequest:
		return cost{requests: tellingCost}
	case *wire.AdminInviteRequest:
		return cost{requests: 1 + inviteCost*float64(r.Count)}
	case *wire.AdminExportAuditRequest, *wire.ExportAccountRequest:
		return cost{requests: exportCost}
	case *wire.AdminDeleteAccountRequest, *wire.DeleteAccountRequest:
		return cost{requests: tellingCost}
	case *wire.GetAccountRequest:
		return cost{requests: 1, lookups: 1}
	case *wire.UploadKeyPackagesRequest:
		return cost{requests: 1 + keyPackageCost*float64(len(r.OneTime))}
	case *wire.CreateGroupRequest, *wire.CommitRequest:
		return cost{requests: createGroupCost}
	case *wire.EnqueueRequest:
		return cost{requests: 1 + float64(len(r.Payload)/bytesPerToken), deferred: true}
	case *wire.AckRequest:
		return cost{requests: ackCost}
	}
	return cost{requests: 1}
}
