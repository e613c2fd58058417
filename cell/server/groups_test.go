package server_test

import (
	"testing"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/wire"
)

// details are what the cell says of a channel.
func details(t *testing.T, p *celltest.Person, c *celltest.Chat) *wire.ChannelDetails {
	t.Helper()
	return celltest.Must[*wire.ChannelDetails](p.Conn, &wire.GetChannelRequest{ChannelID: c.Channel})
}

// send has the cell take a text, and returns its sequence.
func send(t *testing.T, c *celltest.Chat, text string) uint64 {
	t.Helper()
	return celltest.Must[*wire.EnqueueResponse](c.Conn, c.Text(text)).Seq
}

func TestAGroupGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, carol, dave := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "carol"), c.Signup(t, "dave")
	chats := celltest.Group(t, alice, bob, carol)
	a, b := chats[0], chats[1]
	send(t, b, "before dave")
	subscribe(t, dave)
	caughtUp(t, dave)
	add, added := a.Commit(mls.CommitOptions{}, dave)
	if added.Seq != 2 || added.Epoch != 2 || added.Duplicate {
		t.Fatalf("%+v", added)
	}
	b.Take(add.Commit)
	chats[2].Take(add.Commit)
	welcome := deliveryOf(t, dave)
	if welcome.Kind != wire.KindWelcome || welcome.AboutChannelID != a.Channel {
		t.Fatalf("%+v", welcome)
	}
	d := dave.JoinWelcome(a.Channel, 1, welcome.Payload)
	send(t, b, "to dave")
	if got := deliveryOf(t, dave); got.Seq != 3 || got.Kind != wire.KindApplication {
		t.Fatalf("a newcomer begins with %+v", got)
	}
	if x := details(t, dave, a); len(x.Members) != 4 || x.Channel.Epoch != 2 || x.Channel.Kind != wire.ChannelGroup || x.Channel.Role != wire.RoleMember {
		t.Fatalf("%+v", x)
	}
	// Who is removed reads up to the Commit and nothing after it, and can do nothing more.
	subscribe(t, bob)
	remove, _ := d.Change(d.Removing(bob))
	dave.Conn.Refused(remove, wire.CodePermissionDenied)
	gone, answer := a.Commit(a.Removing(bob))
	d.Take(gone.Commit)
	send(t, a, "without bob")
	var last *wire.Delivery
	for last == nil || last.Seq < answer.Seq {
		if got, ok := bob.Conn.Push().(*wire.Delivery); ok && got.ChannelID == a.Channel {
			last = got
		}
	}
	if last.Kind != wire.KindCommit || last.Seq != answer.Seq {
		t.Fatalf("%+v", last)
	}
	bob.Conn.Refused(&wire.GetChannelRequest{ChannelID: a.Channel}, wire.CodeNotFound)
	bob.Conn.Refused(b.Text("still here?"), wire.CodeNotFound)
	again := celltest.Must[*wire.CommitResponse](alice.Conn, gone)
	if !again.Duplicate || again.Seq != answer.Seq || !again.AcceptedAt.Equal(answer.AcceptedAt) || again.Epoch != answer.Epoch {
		t.Fatalf("the winner's retry: %+v, first %+v", again, answer)
	}
	bob.Reconnect(c)
	subscribe(t, bob)
	for {
		push := bob.Conn.Push()
		if isCaughtUp(push) {
			break
		}
		if got := push.(*wire.Delivery); got.ChannelID == a.Channel && got.Seq > answer.Seq {
			t.Fatalf("bob reads on: %+v", got)
		}
	}
	send(t, d, "and still without bob")
	// A further device of a member comes in by itself.
	tablet := alice.Further(c)
	join, t2 := tablet.External(a.Channel, false)
	joined := celltest.Must[*wire.CommitResponse](tablet.Conn, join)
	if joined.Epoch != 4 {
		t.Fatalf("%+v", joined)
	}
	a.Take(join.Commit)
	send(t, t2, "from my tablet")
	if x := details(t, alice, a); len(x.Members) != 3 || x.Channel.Epoch != 4 {
		t.Fatalf("%+v", x)
	}
}
