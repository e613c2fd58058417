package server_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// detail is what an error says besides.
func detail(e *wire.Error, key string) string {
	for _, d := range e.Details {
		if d.Key == key {
			return d.Value
		}
	}
	return ""
}

// Of the Commits of an epoch one wins, at whichever replica; the others are told where the winner is, and go on from there.
func TestOneCommitOfAnEpochWins(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	people := make([]*celltest.Person, 4)
	for i := range people {
		people[i] = one.Signup(t, fmt.Sprint("person", i))
	}
	chats := celltest.Group(t, people...)
	for i, p := range people {
		if i%2 == 1 {
			on(two, p)
		}
	}
	const rounds = 8
	for round := range rounds {
		requests := make([]*wire.CommitRequest, len(chats))
		pending := make([]*mls.PendingCommit, len(chats))
		for i, c := range chats {
			requests[i], pending[i] = c.Change(mls.CommitOptions{})
		}
		won := -1
		var mu sync.Mutex
		var answer *wire.CommitResponse
		var losers []*wire.Error
		var all sync.WaitGroup
		for i, c := range chats {
			id := c.Conn.Send(requests[i])
			all.Go(func() {
				body, err := c.Conn.Answer(id)
				mu.Lock()
				defer mu.Unlock()
				var lost *wire.Error
				switch {
				case err == nil && won < 0:
					won, answer = i, body.(*wire.CommitResponse)
				case errors.As(err, &lost) && lost.Code == wire.CodeEpochConflict:
					losers = append(losers, lost)
				default:
					t.Errorf("round %d, committer %d: %+v, %v", round, i, body, err)
				}
			})
		}
		all.Wait()
		if won < 0 || len(losers) != len(chats)-1 {
			t.Fatalf("round %d: %d won, %d lost", round, won, len(losers))
		}
		for _, l := range losers {
			if detail(l, "epoch") != strconv.FormatUint(answer.Epoch, 10) || detail(l, "seq") != strconv.FormatUint(answer.Seq, 10) {
				t.Errorf("a loser is told %+v, the winner %+v", l.Details, answer)
			}
		}
		for i, c := range chats {
			if i == won {
				if err := c.Group.Merge(pending[i]); err != nil {
					t.Fatal(err)
				}
				continue
			}
			c.Take(requests[won].Commit)
		}
	}
	if x := details(t, people[1], chats[1]); x.Channel.Epoch != 1+rounds || x.Channel.LastSeq != rounds {
		t.Errorf("%+v", x.Channel)
	}
}

// A message of an epoch that is over is refused with the place of the present one; the retry of a stored one is not.
func TestMessagesAreOfThePresentEpoch(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	chats := celltest.Group(t, c.Signup(t, "alice"), c.Signup(t, "bob"))
	a, b := chats[0], chats[1]
	early, late := b.Text("stored in time"), b.Text("too late")
	celltest.Must[*wire.EnqueueResponse](b.Conn, early)
	r, answer := a.Commit(mls.CommitOptions{})
	lost := b.Conn.Refused(late, wire.CodeEpochConflict)
	if detail(lost, "epoch") != "2" || detail(lost, "seq") != strconv.FormatUint(answer.Seq, 10) {
		t.Errorf("%+v", lost.Details)
	}
	if again := celltest.Must[*wire.EnqueueResponse](b.Conn, early); !again.Duplicate {
		t.Errorf("%+v", again)
	}
	ahead := a.Text("of the new epoch")
	celltest.Must[*wire.EnqueueResponse](a.Conn, ahead)
	b.Take(r.Commit)
	send(t, b, "caught up")
}

func TestProposalsWaitForACommit(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, carol := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol")
	chats := celltest.Group(t, alice, bob, carol)
	a, b, d := chats[0], chats[1], chats[2]
	leaf := b.Leaf(bob)
	leave := b.Propose(mls.ProposeOptions{Remove: &leaf})
	first := celltest.Must[*wire.EnqueueResponse](bob.Conn, leave)
	if again := celltest.Must[*wire.EnqueueResponse](bob.Conn, leave); !again.Duplicate || again.Seq != first.Seq {
		t.Fatalf("%+v, %+v", first, again)
	}
	expel := b.Leaf(carol)
	bob.Conn.Refused(b.Propose(mls.ProposeOptions{Remove: &expel}), wire.CodePermissionDenied)
	bob.Conn.Refused(b.Propose(mls.ProposeOptions{ReInit: &mls.ReInit{GroupID: []byte("x"), Version: 1, CipherSuite: 1}}), wire.CodeInvalidMessage)
	// A plain member commits what it could not do of its own accord: bob has asked for it.
	d.Take(leave.Proposal)
	a.Take(leave.Proposal)
	r, _ := d.Commit(mls.CommitOptions{})
	a.Take(r.Commit)
	if x := details(t, alice, a); len(x.Members) != 2 {
		t.Fatalf("%+v", x.Members)
	}
	bob.Conn.Refused(&wire.GetChannelRequest{ChannelID: a.Channel}, wire.CodeNotFound)
	// So many and no more wait, and a Commit clears them.
	for i := range 64 {
		body, err := carol.Conn.Call(d.Propose(mls.ProposeOptions{Update: true}))
		if err != nil {
			t.Fatalf("proposal %d: %v, %v", i, body, err)
		}
	}
	full := carol.Conn.Refused(d.Propose(mls.ProposeOptions{Update: true}), wire.CodeRateLimited)
	if detail(full, "limit") != "proposals" {
		t.Errorf("%+v", full)
	}
	r, _ = a.Commit(mls.CommitOptions{IgnoreReceived: true})
	d.Take(r.Commit)
	celltest.Must[*wire.EnqueueResponse](carol.Conn, d.Propose(mls.ProposeOptions{Update: true}))
}

// Once a device is revoked, nothing but its removal is taken in its groups, by anybody.
func TestARevokedDeviceIsRemovedFirst(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, carol := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol")
	phone := bob.Further(c)
	chats := celltest.Group(t, alice, bob, phone, carol)
	a, b, d := chats[0], chats[1], chats[3]
	stored := d.Text("before")
	celltest.Must[*wire.EnqueueResponse](carol.Conn, stored)
	phone.Revoke(c)
	text := a.Text("to whom?")
	for what, r := range map[string]wire.Request{"a message": text, "a proposal": b.Propose(mls.ProposeOptions{Update: true})} {
		conn := alice.Conn
		if what == "a proposal" {
			conn = bob.Conn
		}
		if e := conn.Refused(r, wire.CodeRemoveFirst); detail(e, "device") != phone.ID().String() {
			t.Errorf("%s: %+v", what, e)
		}
	}
	update, _ := a.Change(mls.CommitOptions{})
	alice.Conn.Refused(update, wire.CodeRemoveFirst)
	tablet := bob.Further(c)
	join, _ := tablet.External(a.Channel, false)
	tablet.Conn.Refused(join, wire.CodeRemoveFirst)
	if again := celltest.Must[*wire.EnqueueResponse](carol.Conn, stored); !again.Duplicate {
		t.Errorf("%+v", again)
	}
	r, _ := d.Commit(d.Removing(phone)) // A plain member, of another account.
	a.Take(r.Commit)
	send(t, a, "now")
	phone.Conn.Refused(chats[2].Text("ghost"), wire.CodeNotFound)
	back, _ := a.Change(mls.CommitOptions{}, phone)
	alice.Conn.Refused(back, wire.CodePermissionDenied)
}

func TestARevokedDevicesAccountStaysAndComesBack(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	chats := celltest.Group(t, alice, bob)
	other := bob.Further(c)
	bob.Revoke(c)
	a := chats[0]
	a.Commit(a.Removing(bob))
	if x := details(t, alice, a); len(x.Members) != 2 {
		t.Fatalf("bob has another device: %+v", x.Members)
	}
	join, b := other.External(a.Channel, false)
	celltest.Must[*wire.CommitResponse](other.Conn, join)
	a.Take(join.Commit)
	send(t, b, "back")
	other.Revoke(c)
	a.Commit(a.Removing(other))
	if x := details(t, alice, a); len(x.Members) != 1 {
		t.Fatalf("bob has no device left: %+v", x.Members)
	}
}

func TestExternalCommitsAreForMembersDevices(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	chats := celltest.Group(t, alice, bob)
	a := chats[0]
	eve.Conn.Refused(&wire.GetGroupInfoRequest{ChannelID: a.Channel}, wire.CodeNotFound)
	info := celltest.Must[*wire.ChannelGroupInfo](bob.Conn, &wire.GetGroupInfoRequest{ChannelID: a.Channel})
	m, err := mls.ParseMessage(info.GroupInfo)
	if err != nil {
		t.Fatal(err)
	}
	id := ids.NewDelivery(time.Now())
	forged, err := mls.JoinExternal(m.GroupInfo, mls.ExternalJoinOptions{Credential: mls.BasicCredential(eve.Certificate.Marshal()), Signer: eve.Device, AuthenticatedData: id[:]})
	if err != nil {
		t.Fatal(err)
	}
	r := &wire.CommitRequest{ChannelID: a.Channel, Generation: 1, Epoch: 1, DeliveryID: id, Commit: forged.Commit, GroupInfo: forged.GroupInfo}
	eve.Conn.Refused(r, wire.CodeNotFound)
	bob.Conn.Refused(r, wire.CodePermissionDenied) // Carried by a member.
	// A device that lost its state comes back in place of itself.
	resync, b := bob.External(a.Channel, true)
	if b.Group.Members() == nil {
		t.Fatal("no members")
	}
	celltest.Must[*wire.CommitResponse](bob.Conn, resync)
	a.Take(resync.Commit)
	send(t, b, "again")
	if x := details(t, alice, a); x.Members[0].Devices+x.Members[1].Devices != 2 {
		t.Errorf("%+v", x.Members)
	}
}

func TestCommitRefusals(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, carol, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol"), c.Signup(t, "eve")
	chats := celltest.Group(t, alice, bob)
	a, b := chats[0], chats[1]
	other := celltest.Group(t, alice, bob)[0]
	good, _ := a.Change(mls.CommitOptions{}, carol)
	foreign, _ := other.Change(mls.CommitOptions{}, carol)
	update, _ := a.Change(mls.CommitOptions{})
	stale := b.Propose(mls.ProposeOptions{Update: true})
	ghost := &celltest.Person{Name: "ghost", Root: carol.Root, Device: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	change := func(f func(*wire.CommitRequest)) *wire.CommitRequest {
		r := *good
		r.Welcomes = append([]wire.DeviceWelcome(nil), good.Welcomes...)
		f(&r)
		return &r
	}
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	for what, x := range map[string]struct {
		code   wire.Code
		change func(*wire.CommitRequest)
	}{
		"not MLS":                     {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Commit = []byte("hello") }},
		"an application message":      {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { x := a.Text("x"); r.Commit, r.DeliveryID = x.Payload, x.DeliveryID }},
		"a proposal":                  {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Commit, r.DeliveryID = stale.Proposal, stale.DeliveryID }},
		"a KeyPackage":                {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Commit = carol.KeyPackage() }},
		"another delivery id":         {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.DeliveryID = ids.NewDelivery(time.Now()) }},
		"no UUIDv7":                   {wire.CodeInvalidArgument, func(r *wire.CommitRequest) { r.DeliveryID = ids.ID{1} }},
		"an old id":                   {wire.CodeDeliveryIDOutOfWindow, func(r *wire.CommitRequest) { r.DeliveryID = ids.NewDelivery(time.Now().Add(-20 * 24 * time.Hour)) }},
		"a forged signature":          {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Commit = flip(r.Commit, len(r.Commit)/2) }},
		"a Commit of another channel": {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Commit, r.DeliveryID = foreign.Commit, foreign.DeliveryID }},
		"another channel":             {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.ChannelID = other.Channel }},
		"no such channel":             {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.ChannelID = ids.New() }},
		"another generation":          {wire.CodeEpochConflict, func(r *wire.CommitRequest) { r.Generation = 2 }},
		"another epoch":               {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Epoch = 0 }},
		"a huge epoch":                {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Epoch = 1<<64 - 1 }},
		"a foreign GroupInfo":         {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.GroupInfo = foreign.GroupInfo }},
		"another Commit's GroupInfo":  {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.GroupInfo = update.GroupInfo }},
		"a changed GroupInfo":         {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.GroupInfo = flip(r.GroupInfo, -1) }},
		"a Welcome as GroupInfo":      {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.GroupInfo = r.Welcomes[0].Welcome }},
		"no Welcome":                  {wire.CodeInvalidArgument, func(r *wire.CommitRequest) { r.Welcomes = nil }},
		"a Welcome for somebody else": {wire.CodeInvalidArgument, func(r *wire.CommitRequest) { r.Welcomes[0].DeviceID = eve.ID() }},
		"one Welcome too many": {wire.CodeInvalidArgument, func(r *wire.CommitRequest) {
			r.Welcomes = append(r.Welcomes, wire.DeviceWelcome{DeviceID: eve.ID(), Welcome: r.Welcomes[0].Welcome})
		}},
		"two Welcomes":                 {wire.CodeInvalidArgument, func(r *wire.CommitRequest) { r.Welcomes = append(r.Welcomes, r.Welcomes[0]) }},
		"a Welcome that is none":       {wire.CodeInvalidMessage, func(r *wire.CommitRequest) { r.Welcomes[0].Welcome = r.GroupInfo }},
		"an unknown device":            {wire.CodePermissionDenied, func(r *wire.CommitRequest) { *r = *adding(t, a, ghost, carol, carol.Root) }},
		"a ghost under a foreign root": {wire.CodePermissionDenied, func(r *wire.CommitRequest) { *r = *adding(t, a, eve, carol, eve.Root) }},
	} {
		e := alice.Conn.Refused(change(x.change), x.code)
		if e.Message == "" {
			t.Errorf("%s: no reason", what)
		}
	}
	bob.Conn.Refused(good, wire.CodePermissionDenied) // Of another device.
	eve.Conn.Refused(good, wire.CodeNotFound)
	if x := details(t, alice, a); x.Channel.Epoch != 1 || x.Channel.LastSeq != 0 || len(x.Members) != 2 {
		t.Fatalf("something was taken: %+v", x)
	}
	celltest.Must[*wire.CommitResponse](alice.Conn, good)
	// What was taken once is answered; under another id, an old Commit is of an epoch that is over.
	if again := celltest.Must[*wire.CommitResponse](alice.Conn, good); !again.Duplicate {
		t.Errorf("%+v", again)
	}
	alice.Conn.Refused(update, wire.CodeEpochConflict)
	bob.Conn.Refused(stale, wire.CodeEpochConflict)
	reused := *update
	reused.DeliveryID = good.DeliveryID
	alice.Conn.Refused(&reused, wire.CodeInvalidMessage)
}

// adding is a Commit that adds a device with certificate of account under a root, which the device's key signs.
func adding(t *testing.T, c *celltest.Chat, device, account *celltest.Person, root ed25519.PrivateKey) *wire.CommitRequest {
	t.Helper()
	id := ids.New()
	if device.Certificate != nil {
		id = account.ID()
	}
	cert := devicecert.Issue(root, account.Account(), id, device.Device.Public().(ed25519.PublicKey), time.Now())
	b, err := mls.NewKeyPackage(mls.KeyPackageOptions{Credential: mls.BasicCredential(cert.Marshal()), Signer: device.Device,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	delivery := ids.NewDelivery(time.Now())
	pending, err := c.Group.Commit(mls.CommitOptions{Adds: []*mls.KeyPackage{b.KeyPackage()}, AuthenticatedData: delivery[:]})
	if err != nil {
		t.Fatal(err)
	}
	return &wire.CommitRequest{ChannelID: c.Channel, Generation: 1, Epoch: c.Group.Epoch(), DeliveryID: delivery, Commit: pending.Commit, GroupInfo: pending.GroupInfo,
		Welcomes: []wire.DeviceWelcome{{DeviceID: id, Welcome: pending.Welcome}}}
}

// Who may add and remove whom: method by role.
func TestRolesInAGroup(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	admin, moderator, member, other, stranger := c.Signup(t, "admin"), c.Signup(t, "moderator"), c.Signup(t, "member"), c.Signup(t, "other"), c.Signup(t, "stranger")
	tablet := member.Further(c)
	chats := celltest.Group(t, admin, moderator, member, tablet, other)
	channel := chats[0].Channel
	role := func(by *celltest.Person, of *celltest.Person, r wire.ChannelRole) *wire.SetRoleRequest {
		return &wire.SetRoleRequest{ChannelID: channel, AccountID: of.Account(), Role: r}
	}
	celltest.Must[*wire.Done](admin.Conn, role(admin, moderator, wire.RoleModerator))
	add := func(i int, p *celltest.Person) *wire.CommitRequest {
		r, _ := chats[i].Change(mls.CommitOptions{}, p)
		return r
	}
	remove := func(i int, p *celltest.Person) *wire.CommitRequest {
		r, _ := chats[i].Change(chats[i].Removing(p))
		return r
	}
	mine := member.Further(c)
	for what, x := range map[string]struct {
		by *celltest.Person
		r  wire.Request
	}{
		"a member adds a stranger":        {member, add(2, stranger)},
		"a moderator adds a stranger":     {moderator, add(1, stranger)},
		"a member removes another":        {member, remove(2, other)},
		"a moderator removes the admin":   {moderator, remove(1, admin)},
		"a member adds another's device":  {other, add(4, mine)},
		"a member gives itself a role":    {member, role(member, member, wire.RoleAdmin)},
		"a moderator gives itself a role": {moderator, role(moderator, moderator, wire.RoleAdmin)},
		"a member sets the retention":     {member, &wire.SetRetentionRequest{ChannelID: channel, Retention: time.Hour}},
		"a moderator sets the retention":  {moderator, &wire.SetRetentionRequest{ChannelID: channel, Retention: time.Hour}},
		"the last admin steps down":       {admin, role(admin, admin, wire.RoleMember)},
	} {
		if e := x.by.Conn.Refused(x.r, wire.CodePermissionDenied); e.Message == "" {
			t.Error(what)
		}
	}
	if x := details(t, admin, chats[0]); x.Channel.Epoch != 1 {
		t.Fatalf("%+v", x)
	}
	// What they may.
	step := func(i int, o mls.CommitOptions, added ...*celltest.Person) {
		t.Helper()
		r, _ := chats[i].Commit(o, added...)
		for j, c := range chats {
			if j != i && c != nil {
				_ = c.TryTake(r.Commit, time.Now()) // One may be the one who is removed.
			}
		}
	}
	step(2, chats[2].Removing(tablet))
	chats[3] = nil
	step(2, mls.CommitOptions{}, mine)
	step(1, chats[1].Removing(other))
	chats[4] = nil
	step(0, mls.CommitOptions{}, stranger)
	celltest.Must[*wire.Done](admin.Conn, role(admin, member, wire.RoleAdmin))
	celltest.Must[*wire.Done](member.Conn, role(member, admin, wire.RoleMember))
	admin.Conn.Refused(role(admin, moderator, wire.RoleMember), wire.CodePermissionDenied)
	member.Conn.Refused(role(member, other, wire.RoleMember), wire.CodeNotFound) // It was removed.
	celltest.Must[*wire.Done](member.Conn, &wire.SetRetentionRequest{ChannelID: channel, Retention: 2 * time.Hour, History: wire.HistoryOn})
	if x := details(t, member, chats[2]); x.Channel.Role != wire.RoleAdmin || x.Channel.Retention != 2*time.Hour || x.Channel.History != wire.HistoryOn || len(x.Members) != 4 {
		t.Errorf("%+v", x)
	}
	// The last admin does not leave either.
	leaf := chats[2].Leaf(member)
	self := chats[2].Propose(mls.ProposeOptions{Remove: &leaf})
	celltest.Must[*wire.EnqueueResponse](member.Conn, self)
	chats[0].Take(self.Proposal)
	leave, _ := chats[0].Change(chats[0].Removing(mine))
	admin.Conn.Refused(leave, wire.CodePermissionDenied)
}
