package server_test

import (
	"fmt"
	"sync"
	"testing"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Two servers over one database.

// on reconnects a person at a replica.
func on(c *celltest.Cell, p *celltest.Person) *celltest.Person {
	p.Reconnect(c)
	return p
}

func TestMessagesCrossReplicas(t *testing.T) {
	t.Parallel()
	one := celltest.New(t)
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), one.Signup(t, "bob")
	bob.Upload(1)
	on(two, bob)
	subscribe(t, bob)
	caughtUp(t, bob)
	subscribe(t, alice)
	caughtUp(t, alice)

	from := alice.Create(bob) // The Welcome and the channel are news to bob's replica.
	to := bob.Join(deliveryOf(t, bob))
	for i := range 5 {
		text := fmt.Sprint("to the other replica ", i)
		sent := celltest.Must[*wire.EnqueueResponse](alice.Conn, from.Message(t, text))
		if d := deliveryOf(t, bob); d.Seq != sent.Seq || d.PrevSeq != uint64(i) || to.Read(t, d) != text {
			t.Fatalf("%+v", d)
		}
		if d := deliveryOf(t, alice); d.Kind != wire.KindOwn || d.Seq != sent.Seq {
			t.Fatalf("%+v", d)
		}
	}
	celltest.Must[*wire.EnqueueResponse](bob.Conn, to.Message(t, "and back"))
	if d := deliveryOf(t, alice); from.Read(t, d) != "and back" || d.Seq != 6 {
		t.Fatalf("%+v", d)
	}
}

func TestAKeyPackageIsHandedOutOnceByAllReplicas(t *testing.T) {
	t.Parallel()
	one := celltest.New(t)
	two := one.Replica(t)
	alice := one.Signup(t, "alice")
	const n = 8
	alice.Upload(n)
	claimers := []*celltest.Person{one.Signup(t, "bob"), on(two, one.Signup(t, "carol"))}
	var mu sync.Mutex
	seen, none := map[string]int{}, 0
	var all sync.WaitGroup
	for _, p := range claimers {
		all.Go(func() {
			var open []uint64
			for range n {
				open = append(open, p.Conn.Send(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}))
			}
			for _, id := range open {
				body, err := p.Conn.Answer(id)
				mu.Lock()
				if wire.HasCode(err, wire.CodeNoKeyPackage) {
					none++
				} else if err != nil {
					t.Error(err)
				} else {
					seen[string(body.(*wire.ClaimKeyPackagesResponse).Packages[0].KeyPackage)]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != n || none != n {
		t.Errorf("%d KeyPackages were handed out and %d claims got none, of %d each", len(seen), none, n)
	}
	for _, times := range seen {
		if times != 1 {
			t.Errorf("a KeyPackage was handed out %d times", times)
		}
	}
}

func TestARetryAtAnotherReplicaIsStoredOnce(t *testing.T) {
	t.Parallel()
	one := celltest.New(t)
	two := one.Replica(t)
	alice, bob, from, _ := pair(t, one)
	elsewhere := two.Dial(t)
	celltest.Must[*wire.AuthenticateResponse](elsewhere, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(elsewhere)})
	stored := map[uint64]bool{}
	const rounds = 10
	for range rounds {
		r := from.Message(t, "the same at both, at once")
		a, b := alice.Conn.Send(r), elsewhere.Send(r)
		first, err1 := alice.Conn.Answer(a)
		second, err2 := elsewhere.Answer(b)
		if err1 != nil || err2 != nil {
			t.Fatalf("%v, %v", err1, err2)
		}
		x, y := first.(*wire.EnqueueResponse), second.(*wire.EnqueueResponse)
		if x.Seq != y.Seq || x.Duplicate == y.Duplicate {
			t.Fatalf("%+v and %+v", x, y)
		}
		stored[x.Seq] = true
		if d := deliveryOf(t, bob); d.Seq != x.Seq {
			t.Fatalf("%+v", d)
		}
	}
	if len(stored) != rounds {
		t.Errorf("%d sequences for %d messages", len(stored), rounds)
	}
}

func TestOneCreatorOfAGroupWinsOverAllReplicas(t *testing.T) {
	t.Parallel()
	one := celltest.New(t)
	two := one.Replica(t)
	alice, bob := one.Signup(t, "alice"), on(two, one.Signup(t, "bob"))
	alice.Upload(1)
	bob.Upload(1)
	a, b := alice.Open(bob), bob.Open(alice)
	x, y := alice.Conn.Send(a.Request), bob.Conn.Send(b.Request)
	_, err1 := alice.Conn.Answer(x)
	_, err2 := bob.Conn.Answer(y)
	if (err1 == nil) == (err2 == nil) || err1 != nil && !wire.HasCode(err1, wire.CodeGenerationConflict) || err2 != nil && !wire.HasCode(err2, wire.CodeGenerationConflict) {
		t.Fatalf("%v and %v", err1, err2)
	}
}
