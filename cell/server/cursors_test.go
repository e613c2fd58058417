package server_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Acknowledgements that cannot be are refused as a whole, and move no cursor: those beyond the end, of what was not delivered in
// this subscription, of others' channels and inboxes, of none, and where there is no subscription.
func TestCursorsThatCannotBe(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, eve := c.Signup(t, "alice"), c.Signup(t, "bob"), c.Signup(t, "eve")
	chats := celltest.Group(t, alice, bob)
	others := celltest.Group(t, alice, eve)
	channel, foreign := chats[0].Channel, others[0].Channel
	for range 3 {
		send(t, chats[0], "read me")
		send(t, others[0], "not for bob")
	}
	ack := func(list ...wire.Ack) *wire.AckRequest { return &wire.AckRequest{Acks: list} }
	bob.Conn.Refused(ack(wire.Ack{ChannelID: channel, Seq: 1}), wire.CodeInvalidCursor) // Before it has subscribed.
	celltest.Must[*wire.SubscribeResponse](bob.Conn, &wire.SubscribeRequest{Credit: 2})
	for n := 0; n < 2; {
		if d, ok := bob.Conn.Push().(*wire.Delivery); ok {
			if n++; d.ChannelID != channel && d.ChannelID != bob.ID() {
				t.Fatalf("%+v", d)
			}
		}
	}
	good := wire.Ack{ChannelID: channel, Seq: 1}
	for name, list := range map[string][]wire.Ack{
		"beyond the end":            {{ChannelID: channel, Seq: 4}},
		"beyond what was delivered": {{ChannelID: channel, Seq: 3}},
		"as far as numbers go":      {{ChannelID: channel, Seq: math.MaxUint64}},
		"what -1 is in the wire":    {{ChannelID: channel, Seq: math.MaxUint64 - 1}},
		"negative in the database":  {{ChannelID: channel, Seq: 1 << 63}},
		"the most of the database":  {{ChannelID: channel, Seq: math.MaxInt64}},
		"another's channel":         {{ChannelID: foreign, Seq: 1}},
		"another's inbox":           {{ChannelID: alice.ID(), Seq: 1}},
		"no channel":                {{ChannelID: ids.New(), Seq: 1}},
		"one good, one beyond":      {good, {ChannelID: channel, Seq: 99}},
		"one good, one another's":   {good, {ChannelID: foreign, Seq: 1}},
	} {
		if _, err := bob.Conn.Call(ack(list...)); !wire.HasCode(err, wire.CodeInvalidCursor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := bob.Conn.Call(ack(wire.Ack{Seq: 1})); !wire.HasCode(err, wire.CodeInvalidCursor, wire.CodeInvalidArgument) {
		t.Errorf("without an id: %v", err)
	}
	time.Sleep(300 * time.Millisecond) // Cursors are written several times in that.
	at := func() string {
		id, device := channel, bob.ID()
		return c.Query(t, fmt.Sprintf(`SELECT acked_seq FROM cursors WHERE channel_id = '%x' AND device_id = '%x'`, id[:], device[:]))
	}
	if got := at(); got != "0" {
		t.Errorf("the cursor is at %s", got)
	}
	for _, list := range [][]wire.Ack{{}, {{ChannelID: channel, Seq: 0}}, {good, good}} { // Nothing, nothing new, and twice.
		celltest.Must[*wire.Done](bob.Conn, ack(list...))
	}
	eventually(t, "the cursor is written", func() bool { return at() == "1" })
	celltest.Must[*wire.Done](bob.Conn, ack(wire.Ack{ChannelID: channel, Seq: 0})) // Never back.
	time.Sleep(200 * time.Millisecond)
	if got := at(); got != "1" {
		t.Errorf("the cursor is at %s", got)
	}
}

// While it drains, a cell finishes what it has taken: whoever was answered finds the message, all that were sent before the cell
// began to drain are answered, and nothing is stored twice.
func TestAcceptedWorkIsFinishedWhileDraining(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	a := celltest.Group(t, alice, bob)[0]
	const n = 150
	requests := make([]*wire.EnqueueRequest, n)
	for i := range requests {
		requests[i] = a.Text(fmt.Sprint("message ", i))
	}
	open := make([]uint64, n)
	for i, r := range requests {
		open[i] = alice.Conn.Send(r)
	}
	if _, err := alice.Conn.Answer(open[0]); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.Stop(t)
	}()
	stored := map[uint64]bool{}
	for i, id := range open[1:] {
		body, err := alice.Conn.Answer(id)
		if err != nil {
			t.Fatalf("message %d: %v", i+1, err)
		}
		seq := body.(*wire.EnqueueResponse).Seq
		if stored[seq] {
			t.Errorf("two messages have sequence %d", seq)
		}
		stored[seq] = true
	}
	alice.Conn.Close()
	<-stopped
	if got := c.Query(t, fmt.Sprintf(`SELECT count(*) || ' ' || max(seq) FROM messages WHERE channel_id = '%x'`, a.Channel[:])); got != fmt.Sprint(n, " ", n) {
		t.Errorf("stored: %s", got)
	}
	c.Start(t)
	alice.Reconnect(c)
	for _, r := range requests[n-3:] {
		if again := celltest.Must[*wire.EnqueueResponse](alice.Conn, r); !again.Duplicate || !stored[again.Seq] {
			t.Errorf("%+v", again)
		}
	}
}
