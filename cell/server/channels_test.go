package server_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// One channel for a pair, whoever opens it first, or at the same time, from two replicas.
func TestADirectChannelIsOneForThePair(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	for round := range 6 {
		a, b := one.Signup(t, fmt.Sprint("a", round)), one.Signup(t, fmt.Sprint("b", round))
		conns := []*celltest.Conn{a.Conn, b.Conn}
		for _, p := range []*celltest.Person{a, b} {
			elsewhere := two.Dial(t)
			celltest.Must[*wire.AuthenticateResponse](elsewhere, &wire.AuthenticateRequest{AccessToken: p.Session.AccessToken, Proof: p.Proof(elsewhere)})
			conns = append(conns, elsewhere)
		}
		var mu sync.Mutex
		seen := map[ids.ID]int{}
		var all sync.WaitGroup
		for i, conn := range conns {
			other := []*celltest.Person{b, a}[i%2]
			var open []uint64
			for range 3 {
				open = append(open, conn.Send(&wire.OpenDMRequest{AccountID: other.Account()}))
			}
			all.Go(func() {
				for _, id := range open {
					body, err := conn.Answer(id)
					if err != nil {
						t.Error(err)
						continue
					}
					mu.Lock()
					seen[body.(*wire.Channel).ChannelID]++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(seen) != 1 {
			t.Fatalf("round %d: the pair has %v", round, slices.Collect(maps.Keys(seen)))
		}
	}
}

func TestGroupChannelsAreOpenedOnce(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	alice, eve := one.Signup(t, "alice"), one.Signup(t, "eve")
	elsewhere := two.Dial(t)
	celltest.Must[*wire.AuthenticateResponse](elsewhere, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(elsewhere)})
	r := &wire.OpenGroupRequest{ChannelID: ids.New()}
	x, y := alice.Conn.Send(r), elsewhere.Send(r)
	first, err1 := alice.Conn.Answer(x)
	second, err2 := elsewhere.Answer(y)
	if err1 != nil || err2 != nil || first.(*wire.Channel).ChannelID != second.(*wire.Channel).ChannelID {
		t.Fatalf("%+v %v, %+v %v", first, err1, second, err2)
	}
	if c := first.(*wire.Channel); c.Kind != wire.ChannelGroup || c.Role != wire.RoleAdmin || c.Generation != 0 {
		t.Errorf("%+v", c)
	}
	eve.Conn.Refused(r, wire.CodeAlreadyExists)
	eve.Conn.Refused(&wire.OpenGroupRequest{ChannelID: alice.ID()}, wire.CodeAlreadyExists)
	dm := celltest.Must[*wire.Channel](alice.Conn, &wire.OpenDMRequest{AccountID: eve.Account()})
	alice.Conn.Refused(&wire.OpenGroupRequest{ChannelID: dm.ChannelID}, wire.CodeAlreadyExists)
	for range 99 {
		alice.OpenGroup()
	}
	alice.Conn.Refused(&wire.OpenGroupRequest{ChannelID: ids.New()}, wire.CodeRateLimited)
}

func TestChannelsAreListedByPages(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	want := map[ids.ID]bool{celltest.Must[*wire.Channel](alice.Conn, &wire.OpenDMRequest{AccountID: bob.Account()}).ChannelID: true}
	for range 100 {
		want[alice.OpenGroup()] = true
	}
	var got []ids.ID
	pages := 0
	for after := (ids.ID{}); ; pages++ {
		page := celltest.Must[*wire.ChannelList](alice.Conn, &wire.ListChannelsRequest{After: after})
		for _, c := range page.Channels {
			if !want[c.ChannelID] || (c.Kind == wire.ChannelDirect) != (c.Peer.Name == "bob") {
				t.Fatalf("%+v", c)
			}
			got = append(got, c.ChannelID)
		}
		if !page.More {
			break
		}
		after = got[len(got)-1]
	}
	if len(got) != len(want) || pages != 1 || !slices.IsSortedFunc(got, ids.ID.Compare) {
		t.Errorf("%d channels on %d further pages, want %d", len(got), pages, len(want))
	}
	if page := celltest.Must[*wire.ChannelList](bob.Conn, &wire.ListChannelsRequest{}); len(page.Channels) != 1 || page.Channels[0].Peer.Name != "alice" {
		t.Errorf("%+v", page)
	}
}

// Every call about a channel, by everybody who is not in it (any more).
func TestAuthorizationOfEveryCall(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	chats := celltest.Group(t, alice, bob)
	a := chats[0]
	commit, _ := chats[1].Change(mls.CommitOptions{})
	propose := chats[1].Propose(mls.ProposeOptions{Update: true})
	text := chats[1].Text("x")
	a.Commit(a.Removing(bob))
	revoked := alice.Further(c)
	join, r := revoked.External(a.Channel, false)
	celltest.Must[*wire.CommitResponse](revoked.Conn, join)
	a.Take(join.Commit)
	afterwards := r.Text("x")
	revoked.Revoke(c)
	calls := map[string]wire.Request{
		"getChannel":     &wire.GetChannelRequest{ChannelID: a.Channel},
		"setRole":        &wire.SetRoleRequest{ChannelID: a.Channel, AccountID: alice.Account(), Role: wire.RoleMember},
		"setRetention":   &wire.SetRetentionRequest{ChannelID: a.Channel, Retention: time.Hour},
		"getGroupInfo":   &wire.GetGroupInfoRequest{ChannelID: a.Channel},
		"voteGeneration": &wire.VoteGenerationRequest{ChannelID: a.Channel, Generation: 2},
		"createGroup":    &wire.CreateGroupRequest{ChannelID: a.Channel, Generation: 2, GroupInfo: []byte{1}},
		"commit":         commit,
		"propose":        propose,
		"enqueue":        text,
	}
	for name, r := range calls {
		for who, p := range map[string]*celltest.Person{"a stranger": eve, "who was removed": bob} {
			if _, err := p.Conn.Call(r); !wire.HasCode(err, wire.CodeNotFound) {
				t.Errorf("%s by %s: %v", name, who, err)
			}
		}
		fresh := c.Dial(t)
		if _, err := fresh.Call(r); !wire.HasCode(err, wire.CodeUnauthenticated) {
			t.Errorf("%s by nobody: %v", name, err)
		}
		fresh.Close()
	}
	// A device that is revoked while its connection lives on changes nothing; that the connection ends is identity's.
	revoked.Conn.Refused(afterwards, wire.CodeNotFound)
	again, _ := r.Change(mls.CommitOptions{})
	if _, err := revoked.Conn.Call(again); err == nil {
		t.Error("a revoked device commits")
	}
	for _, p := range []*celltest.Person{eve, bob} {
		if page := celltest.Must[*wire.ChannelList](p.Conn, &wire.ListChannelsRequest{}); len(page.Channels) != 0 {
			t.Errorf("%+v", page)
		}
	}
	if x := details(t, alice, a); x.Channel.Generation != 1 || x.Channel.Role != wire.RoleAdmin {
		t.Errorf("%+v", x)
	}
}

// In a direct channel each account has a say over its own devices only.
func TestRightsInADirectChannel(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	tablet, watch := bob.Further(c), alice.Further(c)
	channel := celltest.Must[*wire.Channel](alice.Conn, &wire.OpenDMRequest{AccountID: bob.Account()}).ChannelID
	alice.Conn.Refused(alice.Start(channel, 1, bob, eve).Request, wire.CodePermissionDenied)
	alice.Conn.Refused(alice.Start(channel, 1).Request, wire.CodeInvalidMessage)
	started := alice.Start(channel, 1, bob, tablet)
	celltest.Must[*wire.CreateGroupResponse](alice.Conn, started.Request)
	chats := started.Chats(bob, tablet)
	a, b := chats[0], chats[1]
	for what, r := range map[string]func() *wire.CommitRequest{
		"a stranger":               func() *wire.CommitRequest { r, _ := a.Change(mls.CommitOptions{}, eve); return r },
		"the other's device":       func() *wire.CommitRequest { r, _ := a.Change(a.Removing(tablet)); return r },
		"a device for the other's": func() *wire.CommitRequest { r, _ := a.Change(mls.CommitOptions{}, bob.Further(c)); return r },
	} {
		if e := alice.Conn.Refused(r(), wire.CodePermissionDenied); e.Message == "" {
			t.Error(what)
		}
	}
	r, _ := a.Commit(mls.CommitOptions{}, watch)
	b.Take(r.Commit)
	r, _ = b.Commit(b.Removing(tablet))
	a.Take(r.Commit)
	celltest.Must[*wire.Done](bob.Conn, &wire.SetRetentionRequest{ChannelID: channel, Retention: 2 * time.Hour})
	bob.Conn.Refused(&wire.SetRoleRequest{ChannelID: channel, AccountID: bob.Account(), Role: wire.RoleAdmin}, wire.CodeInvalidArgument)
	if x := details(t, alice, a); len(x.Members) != 2 || x.Channel.Retention != 2*time.Hour {
		t.Errorf("%+v", x)
	}
}

// A group that nobody can go on with is given up by a majority; the first who makes the next one wins.
func TestGenerations(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	people := make([]*celltest.Person, 5)
	for i := range people {
		people[i] = one.Signup(t, fmt.Sprint("person", i))
	}
	chats := celltest.Group(t, people...)
	channel := chats[0].Channel
	seq := send(t, chats[2], "before")
	vote := func(p *celltest.Person, generation uint32) *wire.GenerationVotes {
		t.Helper()
		return celltest.Must[*wire.GenerationVotes](p.Conn, &wire.VoteGenerationRequest{ChannelID: channel, Generation: generation})
	}
	next := people[1].Start(channel, 2, people[0], people[2], people[3], people[4])
	denied := people[1].Conn.Refused(next.Request, wire.CodePermissionDenied)
	if detail(denied, "votes") != "1" || detail(denied, "needed") != "3" {
		t.Errorf("%+v", denied)
	}
	for _, g := range []uint32{1, 3} {
		people[2].Conn.Refused(&wire.VoteGenerationRequest{ChannelID: channel, Generation: g}, wire.CodeEpochConflict)
	}
	for range 2 { // Twice is once.
		if v := vote(people[2], 2); v.Votes != 1 || v.Needed != 3 {
			t.Fatalf("%+v", v)
		}
	}
	people[1].Conn.Refused(next.Request, wire.CodePermissionDenied)
	vote(people[3], 2)
	// A member leaves nobody out who has a device.
	short := people[1].Start(channel, 2, people[0], people[2], people[3])
	people[1].Conn.Refused(short.Request, wire.CodeInvalidMessage)
	rival := on(two, people[4]).Start(channel, 2, people[0], people[1], people[2], people[3])
	x, y := people[1].Conn.Send(next.Request), people[4].Conn.Send(rival.Request)
	_, err1 := people[1].Conn.Answer(x)
	_, err2 := people[4].Conn.Answer(y)
	won, by := next, people[1]
	if err1 != nil {
		won, by = rival, people[4]
	}
	if (err1 == nil) == (err2 == nil) || err1 != nil && !wire.HasCode(err1, wire.CodeGenerationConflict) || err2 != nil && !wire.HasCode(err2, wire.CodeGenerationConflict) {
		t.Fatalf("%v and %v", err1, err2)
	}
	again := celltest.Must[*wire.CreateGroupResponse](by.Conn, won.Request)
	if again.StartSeq != seq {
		t.Errorf("%+v", again)
	}
	// The old group is never reopened.
	people[0].Conn.Refused(chats[0].Text("old"), wire.CodeEpochConflict)
	old, _ := chats[0].Change(mls.CommitOptions{})
	people[0].Conn.Refused(old, wire.CodeEpochConflict)
	send(t, won.Chat, "after")
	if d := details(t, people[0], chats[0]); d.Channel.Generation != 2 || d.Channel.Epoch != 1 || len(d.Members) != 5 {
		t.Errorf("%+v", d)
	}
	if v := vote(people[0], 3); v.Votes != 1 {
		t.Errorf("votes of the generation before count: %+v", v)
	}
}

// In a direct channel either one moves on; votes that nobody needs are not asked for.
func TestEitherOneMovesADirectChannelOn(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	channel := celltest.Must[*wire.Channel](alice.Conn, &wire.OpenDMRequest{AccountID: bob.Account()}).ChannelID
	celltest.Must[*wire.CreateGroupResponse](alice.Conn, alice.Start(channel, 1, bob).Request)
	if v := celltest.Must[*wire.GenerationVotes](bob.Conn, &wire.VoteGenerationRequest{ChannelID: channel, Generation: 2}); v.Votes != 1 || v.Needed != 1 {
		t.Errorf("%+v", v)
	}
	started := bob.Start(channel, 2, alice)
	celltest.Must[*wire.CreateGroupResponse](bob.Conn, started.Request)
	send(t, started.Chat, "anew")
}
