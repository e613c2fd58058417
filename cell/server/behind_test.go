package server_test

import (
	"fmt"
	"testing"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/wire"
)

// A device that retention has passed, a Commit among what it missed, is told so before it is given what there is still, and comes
// back by an external Commit in place of itself; from there on it reads everything.
func TestADeviceThatRetentionPassedRejoins(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	chats := celltest.Group(t, alice, bob)
	a, b := chats[0], chats[1]
	send(t, a, "bob has gone")
	_, missed := a.Commit(mls.CommitOptions{})
	c.Execute(t, fmt.Sprintf(`DELETE FROM messages WHERE channel_id = '%x'`, a.Channel[:])) // As the end of their partition does.
	last := send(t, a, "under keys that bob has not")

	withBehind := celltest.Must[*wire.SubscribeResponse](bob.Conn, &wire.SubscribeRequest{Notices: true})
	if withBehind.Credit == 0 {
		t.Fatal("no credit")
	}
	told := false
	for d := (*wire.Delivery)(nil); d == nil || d.Seq < last; {
		switch p := bob.Conn.Push().(type) {
		case *wire.Behind:
			if p.ChannelID != a.Channel || p.Seq != missed.Seq || d != nil {
				t.Fatalf("told %+v after %+v", p, d)
			}
			told = true
		case *wire.Delivery:
			if p.ChannelID == a.Channel {
				d = p
			}
		}
	}
	if !told {
		t.Fatal("it is not told")
	}
	bob.Conn.Refused(b.Text("from the old epoch"), wire.CodeEpochConflict)
	resync, b := bob.External(a.Channel, true)
	joined := celltest.Must[*wire.CommitResponse](bob.Conn, resync)
	a.Take(resync.Commit)
	next := send(t, a, "welcome back")
	for seq := last; seq < next; {
		if d, ok := bob.Conn.Push().(*wire.Delivery); ok && d.ChannelID == a.Channel {
			if seq++; d.Seq != seq || d.Seq == joined.Seq && d.Kind != wire.KindOwn {
				t.Fatalf("%+v, want %d", d, seq)
			}
		}
	}
	send(t, b, "thanks")
	if x := details(t, alice, a); len(x.Members) != 2 || x.Members[0].Devices+x.Members[1].Devices != 2 {
		t.Errorf("%+v", x.Members)
	}
}
