package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/wire"
)

// pushOf waits for the next push but KeyPackagesLow, which comes when the hub looks.
func pushOf(p *celltest.Person) wire.Push {
	for {
		push := p.Conn.Push()
		if _, low := push.(*wire.KeyPackagesLow); !low {
			return push
		}
	}
}

// deliveryOf waits for the next Delivery and acknowledges it.
func deliveryOf(t *testing.T, p *celltest.Person) *wire.Delivery {
	t.Helper()
	push := pushOf(p)
	d, ok := push.(*wire.Delivery)
	if !ok {
		t.Fatalf("the push is no Delivery: %T %+v", push, push)
	}
	celltest.Must[*wire.Done](p.Conn, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: d.ChannelID, Seq: d.Seq}}})
	return d
}

func subscribe(t *testing.T, p *celltest.Person) {
	t.Helper()
	celltest.Must[*wire.SubscribeResponse](p.Conn, &wire.SubscribeRequest{})
}

func caughtUp(t *testing.T, p *celltest.Person) {
	t.Helper()
	if push := pushOf(p); !isCaughtUp(push) {
		t.Fatalf("want CaughtUp, got %T %+v", push, push)
	}
}

func isCaughtUp(p wire.Push) bool {
	_, ok := p.(*wire.CaughtUp)
	return ok
}

// pair makes two people with a direct channel between them; bob has joined and is subscribed.
func pair(t *testing.T, c *celltest.Cell) (alice, bob *celltest.Person, from, to *celltest.DM) {
	t.Helper()
	alice, bob = c.Signup(t, "alice"), c.Signup(t, "bob")
	bob.Upload(3)
	from = alice.Create(bob)
	subscribe(t, bob)
	welcome := deliveryOf(t, bob)
	if welcome.Kind != wire.KindWelcome || welcome.ChannelID != bob.Certificate.DeviceID || welcome.AboutChannelID != from.Channel {
		t.Fatalf("not the Welcome: %+v", welcome)
	}
	to = bob.Join(welcome)
	caughtUp(t, bob)
	return alice, bob, from, to
}

func TestTwoPeopleExchangeMessages(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, to := pair(t, c)
	subscribe(t, alice)
	caughtUp(t, alice)
	for i := range 10 {
		text := fmt.Sprintf("message %d", i)
		sent := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, text))
		got := deliveryOf(t, bob)
		if want := uint64(i + 1); sent.Seq != want || got.Seq != want || got.PrevSeq != want-1 {
			t.Fatalf("sequence: sent %d, got %d after %d, want %d", sent.Seq, got.Seq, got.PrevSeq, want)
		}
		if got.SenderAccountID != alice.Certificate.AccountID || got.SenderDeviceID != alice.Certificate.DeviceID || !got.AcceptedAt.Equal(sent.AcceptedAt) {
			t.Fatalf("sender or time differs: %+v", got)
		}
		if read := to.Read(t, got); read != text {
			t.Fatalf("read %q, want %q", read, text)
		}
		own := deliveryOf(t, alice)
		if own.Kind != wire.KindOwn || own.Seq != sent.Seq || len(own.Payload) != 0 {
			t.Fatalf("the sender's own place in the order: %+v", own)
		}
	}
	celltest.Must[*wire.EnqueueResponse](bob.Conn, to.Message(t, "reply"))
	if d := deliveryOf(t, alice); from.Read(t, d) != "reply" || d.Seq != 11 {
		t.Fatalf("the reply: %+v", d)
	}
}

func TestStoredMessagesComeBeforeLiveOnes(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob, from, to := pair(t, c)
	bob.Conn.Close()
	for i := range 100 {
		celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, fmt.Sprint(i)))
	}
	bob.Reconnect(c)
	subscribe(t, bob)
	for i := range 100 {
		if d := deliveryOf(t, bob); d.Seq != uint64(i+1) || to.Read(t, d) != fmt.Sprint(i) {
			t.Fatalf("delivery %d: %+v", i, d)
		}
	}
	caughtUp(t, bob)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "live"))
	if d := deliveryOf(t, bob); d.Seq != 101 || to.Read(t, d) != "live" {
		t.Fatalf("live: %+v", d)
	}
}

func TestARetriedEnqueueIsStoredOnce(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	request := from.Message(t, "once")
	first := celltest.Must[*wire.EnqueueResponse](alice.Conn, request)
	again := celltest.Must[*wire.EnqueueResponse](alice.Conn, request)
	if first.Duplicate || !again.Duplicate || again.Seq != first.Seq || !again.AcceptedAt.Equal(first.AcceptedAt) {
		t.Fatalf("first %+v, again %+v", first, again)
	}
	other := from.Message(t, "other content")
	celltest.Must[*wire.EnqueueResponse](alice.Conn, other)
	if d := deliveryOf(t, bob); d.Seq != 1 {
		t.Fatalf("%+v", d)
	}
	if d := deliveryOf(t, bob); d.Seq != 2 || d.DeliveryID != other.DeliveryID {
		t.Fatalf("the duplicate was stored: %+v", d)
	}
}

func TestUnacknowledgedMessagesComeAgainAfterRestart(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, to := pair(t, c)
	for i := range 6 {
		celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, fmt.Sprint(i)))
	}
	for range 3 {
		to.Read(t, deliveryOf(t, bob)) // Acknowledged.
	}
	for range 3 {
		bob.Conn.Push() // Seen, not acknowledged.
	}
	c.Stop(t)
	c.Start(t)
	bob.Reconnect(c)
	subscribe(t, bob)
	for i := 3; i < 6; i++ {
		if d := deliveryOf(t, bob); d.Seq != uint64(i+1) || to.Read(t, d) != fmt.Sprint(i) {
			t.Fatalf("delivery %d: %+v", i, d)
		}
	}
	caughtUp(t, bob)
}

func TestCreditHoldsDeliveriesBack(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, _ := pair(t, c)
	bob.Reconnect(c)
	answer := celltest.Must[*wire.SubscribeResponse](bob.Conn, &wire.SubscribeRequest{Credit: 2})
	if answer.Credit != 2 {
		t.Fatalf("credit %d", answer.Credit)
	}
	caughtUp(t, bob)
	for i := range 4 {
		celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, fmt.Sprint(i)))
	}
	bob.Conn.Push()
	second := bob.Conn.Push().(*wire.Delivery)
	if p := bob.Conn.PushWithin(200 * time.Millisecond); p != nil {
		t.Fatalf("a third delivery in flight: %+v", p)
	}
	celltest.Must[*wire.Done](bob.Conn, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: second.ChannelID, Seq: second.Seq}}})
	if d := bob.Conn.Push().(*wire.Delivery); d.Seq != 3 {
		t.Fatalf("%+v", d)
	}
}

func TestANewerSubscriptionReplacesTheOlder(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	_, bob, _, _ := pair(t, c)
	older := bob.Conn
	bob.Reconnect(c)
	subscribe(t, bob)
	caughtUp(t, bob)
	if g, ok := older.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwaySessionReplaced {
		t.Fatalf("want GoAway sessionReplaced, got %+v", g)
	}
}

func TestDrainSendsClientsAway(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	_, bob, _, _ := pair(t, c)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.Stop(t)
	}()
	if g, ok := bob.Conn.Push().(*wire.GoAway); !ok || g.Reason != wire.GoAwayDraining {
		t.Fatalf("want GoAway draining, got %+v", g)
	}
	<-stopped
}

func TestALargeMessageTravelsOnAStreamOfItsOwn(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, bob, from, to := pair(t, c)
	big := strings.Repeat("x", 3<<20)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, big))
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "small"))
	got := map[uint64]*wire.Delivery{}
	for range 2 { // The small one may overtake: PrevSeq restores the order.
		d := bob.Conn.Push().(*wire.Delivery)
		got[d.Seq] = d
	}
	if got[2].PrevSeq != 1 || to.Read(t, got[1]) != big || to.Read(t, got[2]) != "small" {
		t.Fatal("the large message or the order was lost")
	}
}

func TestOpsPort(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	for path, want := range map[string]string{"/livez": "ok", "/readyz": "ok", "/metrics": "qpq_connections", "/policy": ""} {
		r, err := http.Get(c.OpsURL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %.80s", path, r.StatusCode, b)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTheLogHoldsNoSecretAndNoName(t *testing.T) {
	t.Parallel()
	c := celltest.New(t)
	alice, _, from, _ := pair(t, c)
	celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, "hidden words"))
	c.Stop(t)
	log := c.Log.String()
	for _, secret := range []string{"hidden words", "password of", "alice", "bob", c.Database} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	if !strings.Contains(log, "account created") {
		t.Error("the log is not the cell's")
	}
}
