package e2elocal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/client"
	"quicproquo.dev/schema/wire"
)

func TestConversation(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	first := alice.dm(bob, "hello bob")
	if first.Seq != 1 || first.Bytes < 256 {
		t.Errorf("first message: %+v", first)
	}
	got := bob.expect("hello bob")[0]
	me := alice.Whoami()
	if got.From != "alice" || got.Device != me.DeviceID || got.Account != me.AccountID || got.Channel != first.Channel ||
		got.Seq != 1 || got.DeliveryID != first.DeliveryID {
		t.Errorf("bob got %+v", got)
	}
	second := bob.dm(alice, "hello alice")
	if second.Seq != 2 || second.Channel != first.Channel {
		t.Errorf("second message: %+v", second)
	}
	alice.expect("hello alice")
	alice.expect()
	bob.expect()
	alice.dm(bob, "three")
	alice.dm(bob, "four")
	bob.dm(alice, "five")
	bob.expect("three", "four")
	alice.expect("five")
}

func TestSizes(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	var texts []string
	sizes := map[int]int{}
	for _, n := range []int{0, 1, 100, 300, 5000, 70 << 10, 1 << 20, 5<<20 - 1000} {
		text := strings.Repeat("é", n/2)
		texts = append(texts, text)
		sent := alice.dm(bob, text)
		if sent.Bytes > wire.MaxPayload {
			t.Errorf("a text of %d bytes makes a message of %d", len(text), sent.Bytes)
		}
		sizes[sent.Bytes]++
	}
	if sizes[len("")] != 0 || len(sizes) != len(texts)-2 {
		t.Errorf("the texts of 0, 1 and 100 bytes should make messages of one size, the others of their own: %v", sizes)
	}
	bob.expect(texts...)
	_, err := alice.SendDM(t.Context(), "bob", strings.Repeat("x", 5<<20))
	var tooLong *client.TooLongError
	if !errors.As(err, &tooLong) || tooLong.Limit < 5<<20-1000 {
		t.Errorf("a text that is too long: %v", err)
	}
	if _, err := alice.SendDM(t.Context(), "bob", "\xff"); !errors.Is(err, client.ErrNotUTF8) {
		t.Errorf("a text that is no UTF-8: %v", err)
	}
	alice.dm(bob, strings.Repeat("x", tooLong.Limit))
	bob.expect(strings.Repeat("x", tooLong.Limit))
}

func TestManyMessages(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Limits.RequestsPerSecond = 1000 }) // TestLowLimits is about fewer.
	alice, bob := c.signup("alice"), c.signup("bob")
	const n = 300 // More than the credit and than a batch.
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprint("message ", i))
		alice.dm(bob, texts[i])
	}
	list := bob.expect(texts...)
	for i, m := range list {
		if m.Seq != uint64(i+1) {
			t.Errorf("message %d has sequence %d", i, m.Seq)
		}
	}
	if t.Failed() {
		return
	}
	bob.expect()
}

func TestBothOpenAtOnce(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	for i := range 5 {
		alice, bob := c.signup(fmt.Sprint("alice", i)), c.signup(fmt.Sprint("bob", i))
		var wg sync.WaitGroup
		channels := make([]*client.Sent, 2)
		for j, pair := range [][2]*person{{alice, bob}, {bob, alice}} {
			wg.Go(func() {
				var err error
				if channels[j], err = pair[0].SendDM(t.Context(), pair[1].name, "from "+pair[0].name); err != nil {
					t.Errorf("%s: %v", pair[0].name, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		if channels[0].Channel != channels[1].Channel {
			t.Error("two channels came of it")
		}
		alice.expect("from " + bob.name)
		bob.expect("from " + alice.name)
		alice.dm(bob, "again")
		bob.expect("again")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	if _, err := alice.SendDM(t.Context(), "nobody", "x"); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("to nobody: %v", err)
	}
	if _, err := alice.SendDM(t.Context(), "alice", "x"); !errors.Is(err, client.ErrSelf) {
		t.Errorf("to oneself: %v", err)
	}
	if _, err := alice.SendDM(t.Context(), "no name", "x"); !wire.HasCode(err, wire.CodeInvalidArgument) {
		t.Errorf("to what is no name: %v", err)
	}
}

// TestSecondDevice: devices that exist when the conversation begins take part in it; later ones do not, and are told.
func TestSecondDevice(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	phone := c.login("alice")
	if a, b := alice.Whoami(), phone.Whoami(); a.AccountID != b.AccountID || a.DeviceID == b.DeviceID {
		t.Errorf("devices %+v and %+v", a, b)
	}
	alice.dm(bob, "one")
	bob.expect("one")
	if got := phone.expect("one")[0]; got.From != "alice" || got.Device != alice.Whoami().DeviceID {
		t.Errorf("the other device got %+v", got)
	}
	phone.dm(bob, "two")
	bob.dm(alice, "three")
	bob.expect("two")
	alice.expect("two", "three")
	phone.expect("three")

	late := c.login("alice")
	late.expect()
	if _, err := late.SendDM(t.Context(), "bob", "x"); !errors.Is(err, client.ErrNotInGroup) {
		t.Errorf("a device that came later writes: %v", err)
	}
	carol := c.signup("carol")
	late.dm(carol, "new conversation")
	carol.expect("new conversation")
	alice.expect("new conversation")
}
