package mlspolicy

import (
	"testing"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Method by role: who may add, remove and extend, of his own accord and by somebody's Commit.
func TestRights(t *testing.T) {
	t.Parallel()
	admin, other, moderator, member, peer, stranger := ids.New(), ids.New(), ids.New(), ids.New(), ids.New(), ids.New()
	gone := Member{peer, ids.New()}
	group := &Rights{Members: map[ids.ID]wire.ChannelRole{admin: wire.RoleAdmin, other: wire.RoleAdmin, moderator: wire.RoleModerator, member: wire.RoleMember, peer: wire.RoleMember},
		Gone: map[ids.ID]bool{gone.DeviceID: true}}
	direct := &Rights{Direct: true, Members: map[ids.ID]wire.ChannelRole{member: wire.RoleMember, peer: wire.RoleMember}, Gone: group.Gone}
	device := func(account ids.ID) Member { return Member{account, ids.New()} }
	add := func(by, whose ids.ID) *Change {
		return &Change{Adds: []Act{{By: Member{AccountID: by}, Device: device(whose)}}}
	}
	remove := func(by, whose ids.ID) *Change {
		return &Change{Removes: []Act{{By: Member{AccountID: by}, Device: device(whose)}}}
	}
	byRef := func(c *Change) *Change {
		for _, list := range [][]Act{c.Adds, c.Removes, c.Extends} {
			for i := range list {
				list[i].ByRef = true
			}
		}
		return c
	}
	removeGone := func(by ids.ID) *Change { return &Change{Removes: []Act{{By: Member{AccountID: by}, Device: gone}}} }
	extend := func(by ids.ID) *Change { return &Change{Extends: []Act{{By: Member{AccountID: by}}}} }
	for _, x := range []struct {
		what      string
		rights    *Rights
		committer ids.ID
		change    *Change
		allowed   bool
	}{
		{"an update", group, member, &Change{}, true},
		{"a stranger's update", group, stranger, &Change{}, false},
		{"an admin adds a stranger", group, admin, add(admin, stranger), true},
		{"a moderator adds a stranger", group, moderator, add(moderator, stranger), false},
		{"a member adds a stranger", group, member, add(member, stranger), false},
		{"a member adds its own device", group, member, add(member, member), true},
		{"a member adds another's device", group, member, add(member, peer), false},
		{"an admin adds another's device", group, admin, add(admin, peer), true},
		{"a stranger adds itself", group, stranger, add(stranger, stranger), false},
		{"an admin removes a member", group, admin, remove(admin, member), true},
		{"an admin removes an admin", group, admin, remove(admin, other), true},
		{"an admin removes a moderator", group, admin, remove(admin, moderator), true},
		{"a moderator removes a member", group, moderator, remove(moderator, member), true},
		{"a moderator removes an admin", group, moderator, remove(moderator, admin), false},
		{"a moderator removes one who is no member any more", group, moderator, remove(moderator, stranger), true},
		{"a moderator removes its own device", group, moderator, remove(moderator, moderator), true},
		{"a member removes a member", group, member, remove(member, peer), false},
		{"a member removes its own device", group, member, remove(member, member), true},
		{"a member removes a revoked device", group, member, removeGone(member), true},
		{"a stranger removes a revoked device", group, stranger, removeGone(stranger), false},
		{"a member commits what an admin proposed", group, member, byRef(add(admin, stranger)), true},
		{"a member commits another's leaving", group, member, byRef(remove(peer, peer)), true},
		{"a member commits what a member proposed", group, member, byRef(remove(peer, admin)), false},
		{"an admin commits what a member proposed", group, admin, byRef(remove(member, peer)), true},
		{"an admin commits what one who has left proposed", group, member, byRef(add(stranger, stranger)), false},
		{"by value, the proposer is who commits", group, member, add(admin, stranger), true}, // Act.By is State's to fill in.
		{"an admin extends", group, admin, extend(admin), true},
		{"a moderator extends", group, moderator, extend(moderator), false},
		{"a member extends", group, member, extend(member), false},
		{"an external Commit replaces its own leaf", group, member, &Change{External: true, Adds: add(member, member).Adds, Removes: []Act{{By: Member{AccountID: member}, Device: device(member), Replace: true}}}, true},
		{"an external Commit of a stranger", group, stranger, &Change{External: true, Adds: add(stranger, stranger).Adds}, false},
		{"direct: its own device", direct, member, add(member, member), true},
		{"direct: the other's device", direct, member, add(member, peer), false},
		{"direct: a stranger", direct, member, add(member, stranger), false},
		{"direct: removes its own", direct, member, remove(member, member), true},
		{"direct: removes the other's", direct, member, remove(member, peer), false},
		{"direct: removes a revoked one", direct, member, removeGone(member), true},
		{"direct: extends", direct, member, extend(member), true},
	} {
		err := x.rights.Check(x.change, Member{AccountID: x.committer})
		if x.allowed != (err == nil) || err != nil && !wire.HasCode(err, wire.CodePermissionDenied) {
			t.Errorf("%s: %v", x.what, err)
		}
	}
}
