package server_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func asking(p *policy.Policy) { p.Contacts = policy.ContactsRequest }

// contact is how a person stands to another, as the cell tells it.
func contact(t *testing.T, p, other *celltest.Person) wire.ContactState {
	t.Helper()
	for _, c := range celltest.Must[*wire.ContactList](p.Conn, &wire.ListContactsRequest{}).Contacts {
		if c.Account.AccountID == other.Account() {
			return c.State
		}
	}
	return wire.ContactNone
}

// notice waits for the next notice.
func notice(t *testing.T, p *celltest.Person) wire.Notice {
	t.Helper()
	d := deliveryOf(t, p)
	if d.Kind != wire.KindNotice || d.ChannelID != p.ID() {
		t.Fatalf("%+v", d)
	}
	n, err := wire.UnmarshalNotice(d.Payload)
	must(t, err)
	return n
}

func withNotices(t *testing.T, p *celltest.Person) {
	t.Helper()
	celltest.Must[*wire.SubscribeResponse](p.Conn, &wire.SubscribeRequest{Notices: true})
	for !isCaughtUp(p.Conn.Push()) {
		continue
	}
}

func open(p *celltest.Person) *wire.OpenDMRequest { return &wire.OpenDMRequest{AccountID: p.Account()} }

func claim(p *celltest.Person) *wire.ClaimKeyPackagesRequest {
	return &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: p.Account()}
}

func TestContactsAreAskedFor(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(asking))
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), one.Signup(t, "bob")
	bob.Upload(2)
	on(two, bob)
	withNotices(t, bob)
	withNotices(t, alice)
	ch := celltest.Must[*wire.Channel](alice.Conn, open(bob))
	if ch.Contact != wire.ContactRequested || ch.ChannelID.IsZero() {
		t.Fatalf("%+v", ch)
	}
	if n := notice(t, bob); n.Kind != wire.NoticeContactRequested || n.AccountID != alice.Account() {
		t.Fatalf("%+v", n)
	}
	celltest.Must[*wire.Channel](alice.Conn, open(bob)) // Again: nobody is told again.
	alice.Conn.Refused(claim(bob), wire.CodeContactPending)
	started := alice.Start(ch.ChannelID, 1, bob)
	alice.Conn.Refused(started.Request, wire.CodeContactPending)
	if a, b := contact(t, alice, bob), contact(t, bob, alice); a != wire.ContactRequested || b != wire.ContactAsked {
		t.Fatalf("%v, %v", a, b)
	}
	alice.Conn.Refused(&wire.AcceptContactRequest{AccountID: bob.Account()}, wire.CodeNotFound) // One's own request.
	for range 2 {
		celltest.Must[*wire.Done](bob.Conn, &wire.AcceptContactRequest{AccountID: alice.Account()})
	}
	if n := notice(t, alice); n.Kind != wire.NoticeContactAccepted || n.AccountID != bob.Account() {
		t.Fatalf("%+v", n)
	}
	celltest.Must[*wire.ClaimKeyPackagesResponse](alice.Conn, claim(bob))
	celltest.Must[*wire.CreateGroupResponse](alice.Conn, started.Request)
	if seq := send(t, started.Chat, "at last"); seq != 1 {
		t.Errorf("sequence %d", seq)
	}
	if d := deliveryOf(t, bob); d.Kind != wire.KindWelcome {
		t.Errorf("bob was told twice: %+v", d)
	}
	for _, r := range []wire.Request{&wire.AcceptContactRequest{AccountID: alice.Account()}, &wire.BlockAccountRequest{AccountID: alice.Account(), Blocked: true}} {
		alice.Conn.Refused(r, wire.CodeInvalidArgument)
	}
	alice.Conn.Refused(&wire.AcceptContactRequest{AccountID: ids.New()}, wire.CodeNotFound)
	alice.Conn.Refused(&wire.BlockAccountRequest{AccountID: ids.New(), Blocked: true}, wire.CodeNotFound)
}

// Both ask each other, one after the other or at once: both have accepted.
func TestBothAsking(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(asking))
	two := one.Replica(t)
	for i := range 8 {
		a, b := one.Signup(t, fmt.Sprint("a", i)), on(two, one.Signup(t, fmt.Sprint("b", i)))
		x, y := a.Conn.Send(open(b)), b.Conn.Send(open(a))
		_, err1 := a.Conn.Answer(x)
		_, err2 := b.Conn.Answer(y)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if sa, sb := contact(t, a, b), contact(t, b, a); sa != wire.ContactAccepted || sb != wire.ContactAccepted {
			t.Fatalf("%v, %v", sa, sb)
		}
	}
}

// What a blocked account is answered is what one is answered that has not been accepted, word for word.
func TestABlockLooksLikeAnUnansweredRequest(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(asking))
	blocks, silent, alice := c.Signup(t, "blocks"), c.Signup(t, "silent"), c.Signup(t, "alice")
	for _, p := range []*celltest.Person{blocks, silent} {
		p.Upload(1)
		celltest.Must[*wire.Channel](alice.Conn, open(p))
	}
	celltest.Must[*wire.Done](blocks.Conn, &wire.BlockAccountRequest{AccountID: alice.Account(), Blocked: true})
	compare := func(what string, of func(p *celltest.Person) wire.Request) {
		t.Helper()
		x, err1 := alice.Conn.Call(of(blocks))
		y, err2 := alice.Conn.Call(of(silent))
		if fmt.Sprint(err1) != fmt.Sprint(err2) {
			t.Errorf("%s: %v, %v", what, err1, err2)
		}
		a, ok := x.(*wire.Channel)
		if b, also := y.(*wire.Channel); ok != also || ok && (a.Contact != b.Contact || a.Role != b.Role || a.Generation != b.Generation) {
			t.Errorf("%s: %+v, %+v", what, x, y)
		}
	}
	compare("openDm", func(p *celltest.Person) wire.Request { return open(p) })
	compare("claim", func(p *celltest.Person) wire.Request { return claim(p) })
	compare("createGroup", func(p *celltest.Person) wire.Request {
		return alice.Start(celltest.Must[*wire.Channel](alice.Conn, open(p)).ChannelID, 1, p).Request
	})
	if a, b := contact(t, alice, blocks), contact(t, alice, silent); a != b || a != wire.ContactRequested {
		t.Errorf("%v, %v", a, b)
	}
	if contact(t, blocks, alice) != wire.ContactBlocked {
		t.Error("who blocks does not see it")
	}
	blocks.Conn.Refused(open(alice), wire.CodePermissionDenied) // It takes the block back first.
	blocks.Conn.Refused(&wire.AcceptContactRequest{AccountID: alice.Account()}, wire.CodeNotFound)
}

func TestABlockedAccountWritesNothing(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]policy.ContactMode{"open": policy.ContactsOpen, "request": policy.ContactsRequest} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(func(p *policy.Policy) { p.Contacts = mode }))
			want := map[policy.ContactMode]wire.Code{policy.ContactsOpen: wire.CodePermissionDenied, policy.ContactsRequest: wire.CodeContactPending}[mode]
			alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
			bob.Upload(1)
			channel := celltest.Must[*wire.Channel](alice.Conn, open(bob)).ChannelID
			celltest.Must[*wire.Channel](bob.Conn, open(alice))
			started := alice.Start(channel, 1, bob)
			celltest.Must[*wire.CreateGroupResponse](alice.Conn, started.Request)
			chats := started.Chats(bob)
			stored := chats[0].Text("before")
			celltest.Must[*wire.EnqueueResponse](alice.Conn, stored)
			celltest.Must[*wire.Done](bob.Conn, &wire.BlockAccountRequest{AccountID: alice.Account(), Blocked: true})
			alice.Conn.Refused(chats[0].Text("after"), want)
			commit, _ := chats[0].Change(mls.CommitOptions{})
			alice.Conn.Refused(commit, want)
			alice.Conn.Refused(chats[0].Propose(mls.ProposeOptions{Update: true}), want)
			alice.Conn.Refused(claim(bob), want)
			alice.Conn.Refused(alice.Start(channel, 2, bob).Request, want)
			if again := celltest.Must[*wire.EnqueueResponse](alice.Conn, stored); !again.Duplicate {
				t.Errorf("%+v", again)
			}
			if mode == policy.ContactsOpen {
				alice.Conn.Refused(open(bob), want)
			}
			// A group of a third account takes both all the same; who blocks is not brought in by the other.
			carol := c.Signup(t, "carol")
			group := alice.OpenGroup()
			alice.Conn.Refused(alice.Start(group, 1, bob).Request, want)
			if mode == policy.ContactsOpen {
				both := celltest.Group(t, carol, alice, bob)
				send(t, both[1], "we are in the same group")
			}
			celltest.Must[*wire.Done](bob.Conn, &wire.BlockAccountRequest{AccountID: alice.Account()})
			send(t, chats[0], "again")
		})
	}
}

func TestContactRequestsAreLimited(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(asking))
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	block := func(on bool) {
		celltest.Must[*wire.Done](bob.Conn, &wire.BlockAccountRequest{AccountID: alice.Account(), Blocked: on})
	}
	for range 3 {
		celltest.Must[*wire.Channel](alice.Conn, open(bob))
		block(true)
		block(false) // The request is forgotten.
		if s := contact(t, bob, alice); s != wire.ContactNone {
			t.Fatalf("%v", s)
		}
	}
	if e := alice.Conn.Refused(open(bob), wire.CodeRateLimited); detail(e, "limit") != "contacts" || e.RetryAfter == 0 {
		t.Errorf("%+v", e)
	}
	for i := range 100 {
		celltest.Must[*wire.Channel](alice.Conn, open(c.Signup(t, fmt.Sprint("stranger", i))))
	}
	last := c.Signup(t, "last")
	alice.Conn.Refused(open(last), wire.CodeRateLimited)
	page := celltest.Must[*wire.ContactList](alice.Conn, &wire.ListContactsRequest{})
	if len(page.Contacts) != 100 || page.More {
		t.Errorf("%d contacts, more %v", len(page.Contacts), page.More)
	}
}

// Those who wrote to each other before contacts were asked for go on.
func TestAPolicyThatBeginsToAsk(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, carol := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol")
	bob.Upload(2)
	dm := alice.Create(bob)
	p := policy.Default()
	p.Contacts = policy.ContactsRequest
	b, err := p.Marshal()
	must(t, err)
	c.WritePolicy(t, b)
	c.Reload(t)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, dm.Message(t, "as before"))
	celltest.Must[*wire.ClaimKeyPackagesResponse](alice.Conn, claim(bob))
	if ch := celltest.Must[*wire.Channel](alice.Conn, open(bob)); ch.Contact != wire.ContactAccepted {
		t.Errorf("%+v", ch)
	}
	carol.Conn.Refused(claim(bob), wire.CodeContactPending)
}

func TestClaimsAreLimited(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	bob.Upload(70)
	phone := eve.Further(c)
	first := claim(bob)
	celltest.Must[*wire.ClaimKeyPackagesResponse](eve.Conn, first)
	for i := range 59 {
		celltest.Must[*wire.ClaimKeyPackagesResponse]([]*celltest.Conn{eve.Conn, phone.Conn}[i%2], claim(bob))
	}
	for _, conn := range []*celltest.Conn{eve.Conn, phone.Conn} { // It counts by account.
		if e := conn.Refused(claim(bob), wire.CodeRateLimited); detail(e, "limit") != "claims" {
			t.Errorf("%+v", e)
		}
	}
	celltest.Must[*wire.ClaimKeyPackagesResponse](eve.Conn, first) // A lost answer is answered.
	celltest.Must[*wire.ClaimKeyPackagesResponse](alice.Conn, claim(bob))
}

// A device is told that its KeyPackages run out, whichever replica they were claimed at.
func TestKeyPackagesRunLow(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited(), celltest.WithPolicy(func(p *policy.Policy) { p.MLS.MaxKeyPackagesPerDevice = 16 }))
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), on(two, one.Signup(t, "bob"))
	alice.Upload(6)
	withNotices(t, alice)
	for range 2 {
		celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, claim(alice))
	}
	if p := alice.Conn.PushWithin(1500 * time.Millisecond); p != nil {
		t.Fatalf("4 of 16 are a quarter, yet: %+v", p)
	}
	celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, claim(alice))
	low, ok := alice.Conn.Push().(*wire.KeyPackagesLow)
	if !ok || low.OneTime != 3 || !low.LastResortExpiresAt.IsZero() {
		t.Fatalf("%+v", low)
	}
	alice.Upload(5)
	if p := alice.Conn.PushWithin(1500 * time.Millisecond); p != nil {
		t.Fatalf("%+v", p)
	}
	for range 5 {
		celltest.Must[*wire.ClaimKeyPackagesResponse](bob.Conn, claim(alice))
	}
	if low, ok := alice.Conn.Push().(*wire.KeyPackagesLow); !ok || low.OneTime != 3 {
		t.Fatalf("%+v", low)
	}
}

// A channel of one day is gone after it, whatever others keep; one without history when everybody has acknowledged.
func TestRetentionIsTheChannelsOwn(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	bob.Upload(4)
	short, long, policys := celltest.Group(t, alice, bob), celltest.Group(t, alice, bob), celltest.Group(t, alice, bob)
	set := func(chat *celltest.Chat, kept time.Duration) {
		celltest.Must[*wire.Done](alice.Conn, &wire.SetRetentionRequest{ChannelID: chat.Channel, Retention: kept})
	}
	send(t, short[0], "under the policy's")
	set(short[0], 24*time.Hour)
	set(long[0], 90*24*time.Hour)
	for _, g := range [][]*celltest.Chat{short, long, policys} {
		send(t, g[0], "kept as it should")
		g[0].Commit(mls.CommitOptions{})
	}
	for _, x := range []struct {
		chat *celltest.Chat
		from uint64
		days int
	}{{short[0], 1, 7}, {short[0], 2, 1}, {short[0], 3, 1}, {long[0], 1, 90}, {long[0], 2, 90}, {policys[0], 1, 7}, {policys[0], 2, 7}} {
		id := x.chat.Channel
		c.Execute(t, fmt.Sprintf(`DO $$ BEGIN IF (SELECT round(extract(epoch FROM expires_at - accepted_at)) FROM messages WHERE channel_id = '%x' AND seq = %d) IS DISTINCT FROM %d THEN
			RAISE 'sequence %d does not live for %d days'; END IF; END $$`, id[:], x.from, x.days*86400, x.from, x.days))
	}
	set(short[0], 0)
	if x := details(t, bob, short[0]); x.Channel.Retention != 0 {
		t.Errorf("%+v", x)
	}
	for _, r := range []time.Duration{time.Hour - time.Second, 366 * 24 * time.Hour} {
		if _, err := alice.Conn.Call(&wire.SetRetentionRequest{ChannelID: short[0].Channel, Retention: r}); !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("%s: %v", r, err)
		}
	}
}

// Per channel, so many messages a second, whoever writes them; a retry of a stored one is answered.
func TestMessagesOfAChannelAreLimited(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.WithPolicy(func(p *policy.Policy) {
		p.Limits.RequestsPerSecond, p.Limits.RequestBurst, p.Limits.MessagesPerChannel = 1000, 2000, 10
	}))
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	chats := celltest.Group(t, alice, bob)
	other := celltest.Group(t, alice, bob)
	first := chats[0].Text("first")
	celltest.Must[*wire.EnqueueResponse](alice.Conn, first)
	var mu sync.Mutex
	limited := 0
	for i := range 40 {
		_, err := []*celltest.Conn{alice.Conn, bob.Conn}[i%2].Call(chats[i%2].Text("x"))
		if wire.HasCode(err, wire.CodeRateLimited) {
			mu.Lock()
			limited++
			mu.Unlock()
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if limited < 5 {
		t.Errorf("%d of 40 were refused", limited)
	}
	if again := celltest.Must[*wire.EnqueueResponse](alice.Conn, first); !again.Duplicate {
		t.Errorf("%+v", again)
	}
	send(t, other[0], "another channel")
}
