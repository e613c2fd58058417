package server_test

import (
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/wire"
)

// What becomes of a group, of its members and of contacts is in the audit log, by whom and about whom.
func TestChannelsAreRecorded(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, carol := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol")
	chats := celltest.Group(t, alice, bob)
	channel := chats[0].Channel
	add, _ := chats[0].Commit(mls.CommitOptions{}, carol)
	chats[1].Take(add.Commit)
	chats[0].Commit(chats[0].Removing(carol))
	celltest.Must[*wire.Done](alice.Conn, &wire.SetRoleRequest{ChannelID: channel, AccountID: bob.Account(), Role: wire.RoleModerator})
	celltest.Must[*wire.Done](alice.Conn, &wire.SetRetentionRequest{ChannelID: channel, Retention: 24 * time.Hour})
	celltest.Must[*wire.GenerationVotes](bob.Conn, &wire.VoteGenerationRequest{ChannelID: channel, Generation: 2})
	for _, blocked := range []bool{true, false} {
		celltest.Must[*wire.Done](carol.Conn, &wire.BlockAccountRequest{AccountID: alice.Account(), Blocked: blocked})
	}
	bob.Conn.Refused(&wire.SetRetentionRequest{ChannelID: channel, Retention: 48 * time.Hour}, wire.CodePermissionDenied)
	c.Stop(t) // The refusal is tallied.
	log := c.Audit(t)
	created := log.Find(audit.KindAccountCreated)
	if len(created) != 3 {
		t.Fatalf("%d accounts", len(created))
	}
	ref := map[string]string{"alice": created[0].Subject, "bob": created[1].Subject, "carol": created[2].Subject}
	for _, x := range []struct {
		kind        audit.Kind
		n           int
		by, subject string
		details     map[string]uint64
	}{
		{audit.KindGroupOpened, 1, "alice", "", nil},
		{audit.KindGroupCreated, 1, "alice", "", nil},
		{audit.KindMemberAdded, 1, "alice", "carol", nil},
		{audit.KindMemberRemoved, 1, "alice", "carol", nil},
		{audit.KindRoleChanged, 1, "alice", "bob", map[string]uint64{"role": uint64(audit.RoleModerator)}},
		{audit.KindChannelRetention, 1, "alice", "", map[string]uint64{"seconds": 86400}},
		{audit.KindGenerationVoted, 1, "bob", "", map[string]uint64{"generation": 2}},
		{audit.KindAccountBlocked, 1, "carol", "alice", nil},
		{audit.KindAccountUnblocked, 1, "carol", "alice", nil},
		{audit.KindChannelAccess, 1, "bob", "", nil},
	} {
		found := log.Find(x.kind)
		if len(found) != x.n {
			t.Errorf("%s: %d events, want %d", x.kind, len(found), x.n)
			continue
		}
		e := found[0]
		if e.By != ref[x.by] || x.subject != "" && e.Subject != ref[x.subject] {
			t.Errorf("%s: by %s about %s; %v", x.kind, e.By, e.Subject, ref)
		}
		for key, want := range x.details {
			if e.Details[key] != want {
				t.Errorf("%s: %s is %d, want %d", x.kind, key, e.Details[key], want)
			}
		}
	}
}
