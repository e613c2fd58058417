package e2elocal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"quicproquo.dev/client"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// TestDeathBetweenShowingAndMarking: the message is shown again, with the same channel and sequence; and once it was
// marked, never more.
func TestDeathBetweenShowingAndMarking(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "one")
	alice.dm(bob, "two")
	var dead *person
	var shown []client.Message
	err := bob.Read(t.Context(), false, func(m client.Message) error {
		shown = append(shown, m)
		if m.Text == "two" {
			dead = bob.crashImage()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again := dead.expect("one", "two") // Handed out together, they are marked together.
	for i, m := range again {
		if m.Channel != shown[i].Channel || m.Seq != shown[i].Seq || m.DeliveryID != shown[i].DeliveryID {
			t.Errorf("shown as %+v and then as %+v", shown[i], m)
		}
	}
	dead.expect()
	alice.dm(bob, "three")
	dead.expect("three")
}

// TestHandlerFails: what could not be written out is handed out again, what could is not.
func TestHandlerFails(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "one")
	alice.dm(bob, "two")
	broken := errors.New("broken pipe")
	err := bob.Read(t.Context(), false, func(m client.Message) error {
		if m.Text == "two" {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("Read with a handler that fails: %v", err)
	}
	bob.again().expect("two")
}

// TestLostAnswer: a message is saved, and the cell's answer is lost, or the message is. The next run of any process
// sends the same bytes under the same id, and the cell stores them once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		loseAll bool
		revive  func(alice *person)
	}{
		"answer, revived by the next message":  {false, func(*person) {}},
		"answer, revived by reading":           {false, func(alice *person) { alice.expect() }},
		"message, revived by the next message": {true, func(*person) {}},
		"message, revived by reading":          {true, func(alice *person) { alice.expect() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := makeCell(t)
			alice, bob := c.signup("alice"), c.signup("bob")
			alice.dm(bob, "first")
			via := c.makeProxy()
			via.loseAll.Store(tc.loseAll)
			texts := alice.dmLost(via, bob)
			tc.revive(alice.again())
			if seq := alice.again().dm(bob, "last").Seq; seq != uint64(len(texts)+2) {
				t.Errorf("the last message has sequence %d after %d others", seq, len(texts)+1)
			}
			bob.expect(append(append([]string{"first"}, texts...), "last")...)
		})
	}
}

// dmLost sends messages through via until the answer to one is lost, and returns the texts, the lost one last.
func (p *person) dmLost(via *proxy, to *person) (texts []string) {
	p.t.Helper()
	o := p.opts
	o.Endpoint, o.RetryFor = via.addr, time.Nanosecond
	c, err := client.Open(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	for i := range 20 {
		texts = append(texts, fmt.Sprint("through the proxy ", i))
		if !p.loses(via, func(ctx context.Context) error {
			_, err := c.SendDM(ctx, to.name, texts[i])
			var queued *client.QueuedError
			if err != nil && !errors.As(err, &queued) {
				p.t.Errorf("a message that is saved and not sent: %v", err)
			}
			return err
		}) {
			continue
		}
		return texts
	}
	p.t.Fatal("no answer was ever lost")
	return nil
}

// loses runs send, loses the cell's answers as soon as the message is saved, and gives up a little later.
func (p *person) loses(via *proxy, send func(context.Context) error) bool {
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	done := make(chan struct{})
	before := p.recordTimes()
	go func() {
		defer close(done)
		for ctx.Err() == nil && p.recordTimes() == before {
			time.Sleep(time.Millisecond)
		}
		via.loseAnswers.Store(true)
		time.Sleep(200 * time.Millisecond) // The message goes its way. Were it late, it would only be sent later.
		cancel()
	}()
	err := send(ctx)
	cancel()
	<-done
	via.loseAnswers.Store(false)
	return err != nil
}

// TestLostCreation: the cell makes the channel's group and its answer is lost, or the request is. Either way the group
// that both use next is the same.
func TestLostCreation(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, via := c.signup("alice"), c.makeProxy()
	o := alice.opts
	o.Endpoint, o.RetryFor = via.addr, time.Nanosecond
	cut, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	for i := range 20 {
		bob := c.signup(fmt.Sprint("bob", i))
		if alice.loses(via, func(ctx context.Context) error {
			_, err := cut.SendDM(ctx, bob.name, "perhaps")
			return err
		}) {
			bob.dm(alice, "one")
			dead := alice.crashImage()
			dead.dm(bob, "two")
			dead.expect("one")
			bob.expect("two")
			return
		}
	}
	t.Fatal("no answer was ever lost")
}

// TestOutboxOfTheDead: the process dies between saving a message and hearing that it was stored.
func TestOutboxOfTheDead(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "first")
	texts := alice.dmLost(c.makeProxy(), bob)
	dead := alice.crashImage()
	dead.expect()
	bob.expect(append([]string{"first"}, texts...)...)
	bob.dm(alice, "last")
	dead.expect("last")
	dead.dm(bob, "alive")
	bob.expect("alive")
}

// TestUndeliverable: an outbox that waited beyond the dedup window cannot be sent any more. Its author is told, with
// the text, and later messages are not held up.
func TestUndeliverable(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	channel := alice.dm(bob, "one").Channel
	alice.plantOutbox(channel, ids.NewDelivery(time.Now().Add(-20*24*time.Hour)), "two")
	alice.dm(bob, "three")
	bob.expect("one", "three")
	list := alice.read()
	if len(list) != 1 || list[0].Text != "two" || list[0].Failure == nil || list[0].Failure.Code != wire.CodeDeliveryIDOutOfWindow.String() {
		t.Errorf("alice is told %+v", list)
	}
	alice.expect()
}
