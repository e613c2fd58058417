package server_test

import (
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Values that no caller means: each is refused with the field that is wrong, or by what it asks for, and nothing changes.
func TestBadInputOfGroupCalls(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	chats := celltest.Group(t, alice, bob)
	a := chats[0]
	commit, _ := a.Change(mls.CommitOptions{})
	propose := chats[1].Propose(mls.ProposeOptions{Update: true})
	invalid, huge := wire.CodeInvalidArgument, ids.ID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for what, x := range map[string]struct {
		r     wire.Request
		code  wire.Code
		field string
	}{
		"openGroup without an id":              {&wire.OpenGroupRequest{}, invalid, "channelId"},
		"getChannel without an id":             {&wire.GetChannelRequest{}, invalid, "channelId"},
		"getChannel of an inbox":               {&wire.GetChannelRequest{ChannelID: alice.ID()}, wire.CodeNotFound, ""},
		"getGroupInfo without an id":           {&wire.GetGroupInfoRequest{}, invalid, "channelId"},
		"getGroupInfo of nothing":              {&wire.GetGroupInfoRequest{ChannelID: huge}, wire.CodeNotFound, ""},
		"setRole without a role":               {&wire.SetRoleRequest{ChannelID: a.Channel, AccountID: bob.Account()}, invalid, "role"},
		"setRole of an unknown role":           {&wire.SetRoleRequest{ChannelID: a.Channel, AccountID: bob.Account(), Role: 77}, invalid, "role"},
		"setRole of nobody":                    {&wire.SetRoleRequest{ChannelID: a.Channel, Role: wire.RoleMember}, invalid, "accountId"},
		"setRole of a stranger":                {&wire.SetRoleRequest{ChannelID: a.Channel, AccountID: huge, Role: wire.RoleMember}, wire.CodeNotFound, ""},
		"setRetention of a second":             {&wire.SetRetentionRequest{ChannelID: a.Channel, Retention: time.Second}, invalid, "retentionSec"},
		"setRetention of centuries":            {&wire.SetRetentionRequest{ChannelID: a.Channel, Retention: 1<<32*time.Second - time.Second}, invalid, "retentionSec"},
		"setRetention of an unknown history":   {&wire.SetRetentionRequest{ChannelID: a.Channel, History: 9}, invalid, "history"},
		"setRetention of an inbox":             {&wire.SetRetentionRequest{ChannelID: alice.ID(), Retention: time.Hour}, wire.CodeNotFound, ""},
		"voteGeneration 0":                     {&wire.VoteGenerationRequest{ChannelID: a.Channel}, invalid, "generation"},
		"voteGeneration far ahead":             {&wire.VoteGenerationRequest{ChannelID: a.Channel, Generation: 1<<32 - 1}, wire.CodeEpochConflict, ""},
		"createGroup 0":                        {&wire.CreateGroupRequest{ChannelID: a.Channel, GroupInfo: commit.GroupInfo}, invalid, "generation"},
		"createGroup far ahead":                {alice.Start(a.Channel, 1<<32-1, bob).Request, wire.CodeGenerationConflict, ""},
		"createGroup of a generation there is": {bob.Start(a.Channel, 1, alice).Request, wire.CodeGenerationConflict, ""},
		"commit without a channel":             {&wire.CommitRequest{Generation: 1, Epoch: 1, DeliveryID: commit.DeliveryID, Commit: commit.Commit, GroupInfo: commit.GroupInfo}, invalid, "channelId"},
		"commit of generation 0":               {&wire.CommitRequest{ChannelID: a.Channel, Epoch: 1, DeliveryID: commit.DeliveryID, Commit: commit.Commit, GroupInfo: commit.GroupInfo}, invalid, "generation"},
		"commit of nothing":                    {&wire.CommitRequest{ChannelID: a.Channel, Generation: 1, Epoch: 1, DeliveryID: commit.DeliveryID, GroupInfo: commit.GroupInfo}, invalid, "commit"},
		"commit without a GroupInfo":           {&wire.CommitRequest{ChannelID: a.Channel, Generation: 1, Epoch: 1, DeliveryID: commit.DeliveryID, Commit: commit.Commit}, invalid, "groupInfo"},
		"propose of nothing":                   {&wire.ProposeRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: propose.DeliveryID}, invalid, "proposal"},
		"propose of a Commit":                  {&wire.ProposeRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: commit.DeliveryID, Proposal: commit.Commit}, wire.CodeInvalidMessage, ""},
		"propose another's":                    {propose, wire.CodePermissionDenied, ""},
		"propose to another channel":           {&wire.ProposeRequest{ChannelID: huge, Generation: 1, DeliveryID: propose.DeliveryID, Proposal: propose.Proposal}, wire.CodeInvalidMessage, ""},
		"propose with another id":              {&wire.ProposeRequest{ChannelID: a.Channel, Generation: 1, DeliveryID: commit.DeliveryID, Proposal: propose.Proposal}, wire.CodeInvalidMessage, ""},
		"acceptContact of nobody":              {&wire.AcceptContactRequest{}, invalid, "accountId"},
		"acceptContact of a stranger":          {&wire.AcceptContactRequest{AccountID: huge}, wire.CodeNotFound, ""},
		"acceptContact of who has not asked":   {&wire.AcceptContactRequest{AccountID: bob.Account()}, wire.CodeNotFound, ""},
		"blockAccount of nobody":               {&wire.BlockAccountRequest{Blocked: true}, invalid, "accountId"},
		"blockAccount of a device":             {&wire.BlockAccountRequest{AccountID: bob.ID(), Blocked: true}, wire.CodeNotFound, ""},
	} {
		_, err := alice.Conn.Call(x.r)
		if !wire.HasCode(err, x.code) {
			t.Errorf("%s: %v, want %v", what, err, x.code)
			continue
		}
		if e := err.(*wire.Error); x.field != "" && detail(e, "field") != x.field { //nolint:errorlint // HasCode saw it.
			t.Errorf("%s: %+v, want the field %s", what, e.Details, x.field)
		}
	}
	for _, r := range []wire.Request{&wire.ListChannelsRequest{After: huge}, &wire.ListContactsRequest{After: huge}} {
		if body, err := alice.Conn.Call(r); err != nil {
			t.Errorf("%s after the end: %v, %v", r.Method(), body, err)
		}
	}
	if x := details(t, alice, a); x.Channel.Epoch != 1 || x.Channel.Generation != 1 || x.Channel.LastSeq != 0 || x.Channel.Retention != 0 {
		t.Errorf("something was taken: %+v", x.Channel)
	}
	celltest.Must[*wire.CommitResponse](alice.Conn, commit)
}
