package e2elocal

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/client"
)

// follower is a Read that follows.
type follower struct {
	t        *testing.T
	messages chan client.Message
	notices  chan client.Message
	cancel   context.CancelFunc
	ended    chan error
}

func (p *person) follow() *follower {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	f := &follower{t: p.t, messages: make(chan client.Message, 100), notices: make(chan client.Message, 100), cancel: cancel, ended: make(chan error, 1)}
	go func() {
		f.ended <- p.Read(ctx, true, func(m client.Message) error {
			if m.Notice != nil {
				f.notices <- m
			} else {
				f.messages <- m
			}
			return nil
		})
	}()
	p.t.Cleanup(f.stop)
	return f
}

func (f *follower) expect(texts ...string) {
	f.t.Helper()
	for _, want := range texts {
		select {
		case m := <-f.messages:
			if m.Text != want || m.Failure != nil {
				f.t.Errorf("followed %q (%v), want %q", m.Text, m.Failure, want)
			}
		case err := <-f.ended:
			f.t.Fatalf("following ended: %v", err)
		case <-time.After(30 * time.Second):
			f.t.Fatalf("%q never came", want)
		}
	}
}

// stop ends following, which is no error.
func (f *follower) stop() {
	f.cancel()
	if err, ok := <-f.ended; ok && err != nil {
		f.t.Errorf("following ended with %v", err)
	}
	f.ended = closed
}

var closed = func() chan error {
	c := make(chan error)
	close(c)
	return c
}()

func TestFollow(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	f := bob.follow()
	alice.dm(bob, "one") // Its Welcome comes live.
	f.expect("one")
	alice.dm(bob, "two")
	bob.dm(alice, "mine") // From the same profile, while it follows.
	alice.dm(bob, "three")
	f.expect("two", "three")
	large := strings.Repeat("large ", 300_000) // It travels on a stream of its own.
	for range 3 {
		alice.dm(bob, large)
		alice.dm(bob, "small")
	}
	f.expect(large, "small", large, "small", large, "small")
	alice.expect("mine")
	f.stop()
	alice.dm(bob, "four")
	bob.expect("four")
}

func TestFollowThroughRestart(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	f := bob.follow()
	alice.dm(bob, "one")
	f.expect("one")
	c.restart()
	alice.dm(bob, "two")
	f.expect("two")
	c.restart()
	alice.dm(bob, "three")
	f.expect("three")
}

// TestReplaced: the newest reader of a device wins, the other one stops with an error that says so.
func TestReplaced(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	f := bob.follow()
	alice.dm(bob, "one")
	f.expect("one")
	newer := bob.again().follow()
	select {
	case err := <-f.ended:
		if !errors.Is(err, client.ErrReplaced) {
			t.Errorf("the older reader ended with %v", err)
		}
		f.ended = closed
	case <-time.After(30 * time.Second):
		t.Fatal("the older reader went on")
	}
	alice.dm(bob, "two")
	newer.expect("two")
}

// TestTwoOnOneProfile: several processes write while one follows; the first message makes the channel.
func TestTwoOnOneProfile(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	fa, fb := alice.follow(), bob.follow()
	const each = 20
	var wg sync.WaitGroup
	for _, pair := range [][2]*person{{alice, bob}, {alice.again(), bob}, {bob, alice}, {bob.again(), alice}} {
		wg.Go(func() {
			for range each {
				if _, err := pair[0].SendDM(t.Context(), pair[1].name, "x"); err != nil {
					t.Errorf("%s: %v", pair[0].name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[uint64]bool{}
	for range 2 * each {
		for _, f := range []*follower{fa, fb} {
			m := <-f.messages
			if m.Failure != nil || seen[m.Seq] {
				t.Errorf("%+v came twice, or broken", m)
			}
			seen[m.Seq] = true
		}
	}
	for seq := range uint64(4 * each) {
		if !seen[seq+1] {
			t.Errorf("sequence %d is missing", seq+1)
		}
	}
}

// TestReadersShareWhatIsUnread: a second process reads while the first is showing, and each message is shown once.
func TestReadersShareWhatIsUnread(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	for range 5 {
		alice.dm(bob, "x")
	}
	full := errors.New("disk full")
	if err := bob.Read(t.Context(), false, func(client.Message) error { return full }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	shown := make(chan uint64, 20)
	second := bob.again()
	ended := make(chan error, 1)
	err := bob.Read(t.Context(), false, func(m client.Message) error {
		if m.Seq == 1 {
			go func() {
				ended <- second.Read(t.Context(), false, func(m client.Message) error {
					shown <- m.Seq
					return nil
				})
			}()
			select {
			case seq := <-shown:
				t.Errorf("message %d is shown by a second process before the first has marked it", seq)
			case <-time.After(300 * time.Millisecond):
			}
		}
		shown <- m.Seq
		return nil
	})
	if err := errors.Join(err, <-ended); err != nil && !errors.Is(err, client.ErrReplaced) {
		t.Error(err)
	}
	count := map[uint64]int{}
	for len(shown) > 0 {
		count[<-shown]++
	}
	for seq := range uint64(5) {
		if count[seq+1] != 1 {
			t.Errorf("message %d was shown %d times", seq+1, count[seq+1])
		}
	}
}
