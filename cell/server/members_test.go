package server_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/wire"
)

// However a device is revoked, while others write at another replica: what is sent after the answer is refused until a Commit
// removes the device, and what was answered before is delivered to all who are left.
func TestNothingIsTakenBetweenARevocationAndTheRemoval(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	for name, revoke := range map[string]func(t *testing.T, bob, phone *celltest.Person){
		"by another of the account's": func(t *testing.T, bob, phone *celltest.Person) {
			prove(t, bob)
			celltest.Must[*wire.Done](bob.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.ID()})
		},
		"by itself": func(_ *testing.T, _, phone *celltest.Person) {
			celltest.Must[*wire.Done](phone.Conn, &wire.RevokeDeviceRequest{DeviceID: phone.ID()})
		},
		"by an admin": func(t *testing.T, bob, phone *celltest.Person) {
			celltest.Must[*wire.Done](one.Admin(t, admintoken.CellAdmin), &wire.AdminRevokeDeviceRequest{AccountID: bob.Account(), DeviceID: phone.ID()})
		},
		"with its account": func(t *testing.T, bob, _ *celltest.Person) {
			prove(t, bob)
			celltest.Must[*wire.Done](bob.Conn, &wire.DeleteAccountRequest{Name: bob.Name})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suffix := fmt.Sprint(len(name))
			alice, bob, carol := one.Signup(t, "alice"+suffix), one.Signup(t, "bob"+suffix), one.Signup(t, "carol"+suffix)
			phone := bob.Another(one)
			chats := celltest.Group(t, alice, bob, phone, carol)
			a, d := chats[0], chats[3]
			on(two, carol)
			subscribe(t, alice)
			caughtUp(t, alice)

			var mu sync.Mutex
			var answered time.Time
			var taken []uint64
			writing := make(chan struct{})
			var carols sync.WaitGroup
			carols.Go(func() {
				for i := range 10_000 {
					begun := time.Now()
					body, err := carol.Conn.Call(d.Text(fmt.Sprint("message ", i)))
					if i == 20 {
						close(writing)
					}
					if wire.HasCode(err, wire.CodeRemoveFirst) {
						return
					}
					if err != nil {
						t.Errorf("message %d: %v", i, err)
						return
					}
					mu.Lock()
					taken = append(taken, body.(*wire.EnqueueResponse).Seq)
					late := !answered.IsZero() && begun.After(answered)
					mu.Unlock()
					if late {
						t.Errorf("message %d was sent after the revocation's answer, and taken", i)
						return
					}
				}
				t.Error("nothing was refused")
			})
			<-writing
			revoke(t, bob, phone)
			mu.Lock()
			answered = time.Now()
			mu.Unlock()
			carols.Wait()

			update, _ := a.Change(mls.CommitOptions{})
			alice.Conn.Refused(update, wire.CodeRemoveFirst)
			gone := []*celltest.Person{phone}
			if name == "with its account" {
				gone = append(gone, bob)
				half, _ := a.Change(a.Removing(phone))
				alice.Conn.Refused(half, wire.CodeRemoveFirst)
			}
			r, answer := d.Commit(d.Removing(gone...))
			a.Take(r.Commit)
			last := send(t, a, "now")
			var got []uint64
			for len(got) == 0 || got[len(got)-1] < last {
				if x := deliveryOf(t, alice); x.ChannelID == a.Channel {
					got = append(got, x.Seq)
				}
			}
			if want := append(taken, answer.Seq, last); !slices.Equal(got, want) || got[len(got)-1] != uint64(len(got)) {
				t.Errorf("delivered %v, answered %v", got, want)
			}
		})
	}
}

// A device that is removed, and comes back at the hands of somebody at another replica, reads what came before its removal, and
// from its return on; whether it was connected or away.
func TestADeviceComesBackIntoItsGroup(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	for name, away := range map[string]bool{"connected": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alice, bob := one.Signup(t, "alice-"+name), one.Signup(t, "bob-"+name)
			chats := celltest.Group(t, alice, bob)
			a := chats[0]
			on(two, bob)
			if !away {
				subscribe(t, bob)
			}
			want := []uint64{send(t, a, "before")}
			_, removed := a.Commit(a.Removing(bob))
			want = append(want, removed.Seq)
			var got []uint64
			var welcome *wire.Delivery
			read := func(until uint64) {
				t.Helper()
				for len(got) == 0 || got[len(got)-1] < until || welcome == nil && until > removed.Seq {
					p := bob.Conn.Push()
					d, ok := p.(*wire.Delivery)
					switch {
					case !ok:
					case d.ChannelID == a.Channel:
						if d.Seq == 1 && d.Kind != wire.KindApplication {
							t.Fatalf("%+v", d)
						}
						got = append(got, d.Seq)
					case d.Kind == wire.KindWelcome && d.AboutChannelID == a.Channel:
						welcome = d
					}
				}
			}
			if !away {
				read(removed.Seq)
				welcome = nil
			}
			send(t, a, "not for bob")
			send(t, a, "nor this")
			_, back := a.Commit(mls.CommitOptions{}, bob)
			last := send(t, a, "welcome back")
			want = append(want, last)
			if away {
				subscribe(t, bob)
			}
			read(last)
			if !slices.Equal(got, want) {
				t.Fatalf("delivered %v, want %v; it came back at %d", got, want, back.Seq)
			}
			b := bob.JoinWelcome(a.Channel, 1, welcome.Payload)
			send(t, b, "thanks")
		})
	}
}

// Without history, the cell deletes what every device has acknowledged, by itself; what one has not is there for it.
func TestWithoutHistoryMessagesGoOnceAllHaveThem(t *testing.T) {
	t.Parallel()
	c := celltest.New(t, celltest.Unlimited())
	alice, bob := c.Signup(t, "alice"), c.Signup(t, "bob")
	off, on := celltest.Group(t, alice, bob), celltest.Group(t, alice, bob)
	celltest.Must[*wire.Done](alice.Conn, &wire.SetRetentionRequest{ChannelID: off[0].Channel, History: wire.HistoryOff})
	first := off[0].Text("forget it")
	celltest.Must[*wire.EnqueueResponse](alice.Conn, first)
	send(t, on[0], "keep it")
	for range 5 {
		send(t, off[0], "forget it")
		send(t, on[0], "keep it")
	}
	for i, p := range []*celltest.Person{alice, bob} {
		subscribe(t, p)
		for n := 0; n < 12; {
			if d, ok := p.Conn.Push().(*wire.Delivery); ok && d.ChannelID != p.ID() {
				n++
			}
		}
		celltest.Must[*wire.Done](p.Conn, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: off[0].Channel, Seq: []uint64{6, 4}[i]}, {ChannelID: on[0].Channel, Seq: 6}}})
	}
	seqs := func(channel *celltest.Chat) string {
		return c.Query(t, fmt.Sprintf(`SELECT coalesce(string_agg(seq::text, ' ' ORDER BY seq), '') FROM messages WHERE channel_id = '%x'`, channel.Channel[:]))
	}
	eventually(t, "cursors are written", func() bool {
		return c.Query(t, fmt.Sprintf(`SELECT count(*) FROM cursors WHERE channel_id = '%x' AND acked_seq >= 4`, off[0].Channel[:])) == "2"
	})
	c.Stop(t)
	c.Start(t) // Which begins with a round of housekeeping.
	eventually(t, "the first four have gone", func() bool { return seqs(off[0]) == "5 6" })
	if got := seqs(on[0]); got != "1 2 3 4 5 6" {
		t.Errorf("with history: %s", got)
	}
	alice.Reconnect(c)
	if again := celltest.Must[*wire.EnqueueResponse](alice.Conn, first); !again.Duplicate || again.Seq != 1 {
		t.Errorf("what is gone is still known: %+v", again)
	}
	bob.Reconnect(c)
	subscribe(t, bob)
	for _, want := range []uint64{5, 6} {
		for {
			if d, ok := bob.Conn.Push().(*wire.Delivery); ok && d.ChannelID == off[0].Channel {
				if d.Seq != want {
					t.Errorf("delivered %d, want %d", d.Seq, want)
				}
				break
			}
		}
	}
}
