package mlspolicy

import (
	"quicproquo.dev/cell/authz"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Rights are who may do what to the group of a channel.
type Rights struct {
	Direct  bool
	Members map[ids.ID]wire.ChannelRole // The channel's accounts.
	Gone    map[ids.ID]bool             // Devices that are revoked or unknown.
}

// Check judges every part of a change. What was proposed by one member and is committed by another is allowed if either
// may do it.
func (r *Rights) Check(c *Change, committer Member) error {
	if _, ok := r.Members[committer.AccountID]; !ok {
		return wire.Errorf(wire.CodePermissionDenied, "only devices of the channel's accounts change its group")
	}
	for _, a := range c.Adds {
		if !r.either(a, committer, r.mayAdd) {
			return wire.Errorf(wire.CodePermissionDenied, "account %s may not add device %s", a.By.AccountID, a.Device)
		}
	}
	for _, a := range c.Removes {
		if !a.Replace && !r.either(a, committer, r.mayRemove) {
			return wire.Errorf(wire.CodePermissionDenied, "account %s may not remove device %s", a.By.AccountID, a.Device)
		}
	}
	for _, a := range c.Extends {
		if !r.either(a, committer, r.mayExtend) {
			return wire.Errorf(wire.CodePermissionDenied, "account %s may not change the group's extensions", a.By.AccountID)
		}
	}
	return nil
}

func (r *Rights) either(a Act, committer Member, may func(by ids.ID, device Member) bool) bool {
	return may(a.By.AccountID, a.Device) || a.ByRef && may(committer.AccountID, a.Device)
}

// mayAdd: everybody their own devices; in a group, an admin anybody's; to a direct channel, nobody else's.
func (r *Rights) mayAdd(by ids.ID, device Member) bool {
	role, member := r.Members[by]
	return member && (by == device.AccountID || !r.Direct && authz.AllowedIn(role, authz.ChangeChannel))
}

// mayRemove: everybody their own devices and those that are revoked; in a group, an admin anybody's and a moderator
// members'.
func (r *Rights) mayRemove(by ids.ID, device Member) bool {
	role, member := r.Members[by]
	switch {
	case !member:
		return false
	case by == device.AccountID, r.Gone[device.DeviceID]:
		return true
	case r.Direct:
		return false
	case !authz.AllowedIn(role, authz.RemoveMember):
		return false
	}
	return role == wire.RoleAdmin || r.Members[device.AccountID] <= wire.RoleMember
}

func (r *Rights) mayExtend(by ids.ID, _ Member) bool {
	role, member := r.Members[by]
	return member && (r.Direct || authz.AllowedIn(role, authz.ChangeChannel))
}
