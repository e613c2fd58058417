package server_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// awaitReplicas waits until a server has heard of n processes, itself included.
func awaitReplicas(t *testing.T, n int, cells ...*celltest.Cell) {
	t.Helper()
	end := time.Now().Add(celltest.Patience)
	for _, c := range cells {
		for c.Metric(t, "qpq_replicas") != float64(n) || c.Metric(t, "qpq_wakeups_listening") != 1 {
			if time.Now().After(end) {
				t.Fatalf("a server has not heard of %d processes: %v, listening %v", n, c.Metric(t, "qpq_replicas"), c.Metric(t, "qpq_wakeups_listening"))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// reader is a person with a DM from the sender, subscribed at a replica, and how long messages took to come.
type reader struct {
	*celltest.Person
	from, to *celltest.DM
	took     []time.Duration
}

func newReader(t *testing.T, at *celltest.Cell, home *celltest.Cell, sender *celltest.Person, name string) *reader {
	t.Helper()
	p := home.Signup(t, name)
	p.Upload(1)
	from := sender.Create(p)
	on(at, p)
	subscribe(t, p)
	r := &reader{Person: p, from: from, to: p.Join(deliveryOf(t, p))}
	caughtUp(t, p)
	return r
}

// roundTrip sends one message and takes the time until it is there.
func (r *reader) roundTrip(t *testing.T, sender *celltest.Person) {
	t.Helper()
	m := r.from.Message(t, "how long does it take?")
	begin := time.Now()
	id := sender.Conn.Send(m)
	d, ok := r.Conn.Push().(*wire.Delivery)
	r.took = append(r.took, time.Since(begin))
	if _, err := sender.Conn.Answer(id); err != nil || !ok {
		t.Fatalf("%v, %v", d, err)
	}
	celltest.Must[*wire.Done](r.Conn, &wire.AckRequest{Acks: []wire.Ack{{ChannelID: d.ChannelID, Seq: d.Seq}}})
}

func (r *reader) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(r.took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Push across replicas within 2 × of the same replica. PostgreSQL waits for the disk, as in life; sends alternate. What other
// processes do on the machine makes outliers: so there are three rounds, and one has to be good.
func TestPushAcrossReplicasTakesAtMostTwiceAsLong(t *testing.T) {
	one := celltest.New(t, celltest.WithDatabase(pgtest.New(t, pgtest.Durable())), celltest.Unlimited())
	two := one.Replica(t)
	awaitReplicas(t, 2, one, two)
	alice := one.Signup(t, "alice")
	same, other := newReader(t, one, one, alice, "bob"), newReader(t, two, one, alice, "carol")
	trips := 300
	if testing.Short() {
		trips = 50
	}
	const rounds = 3
	for round := 1; ; round++ {
		same.took, other.took = nil, nil
		for range trips {
			same.roundTrip(t, alice)
			other.roundTrip(t, alice)
		}
		median, p99 := float64(other.quantile(.5))/float64(same.quantile(.5)), float64(other.quantile(.99))/float64(same.quantile(.99))
		t.Logf("report: push at the same replica: median %s, p99 %s; at another: median %s (%.2f x), p99 %s (%.2f x), of %d each",
			same.quantile(.5).Round(10*time.Microsecond), same.quantile(.99).Round(10*time.Microsecond),
			other.quantile(.5).Round(10*time.Microsecond), median, other.quantile(.99).Round(10*time.Microsecond), p99, trips)
		if median <= 2 && p99 <= 4 { // Of 300 the last three are a busy machine's say, hence the looser bound.
			return
		}
		if round == rounds {
			t.Fatalf("the median is %.2f x, p99 %.2f x, in the last of %d rounds", median, p99, rounds)
		}
	}
}

// 1 to 4 replicas: sequences without gaps, dedup, and every message once, in order, at a reader on each of them.
func TestSequenceDedupAndWakeupsHoldWithOneToFourReplicas(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 4; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			cells := []*celltest.Cell{celltest.New(t, celltest.Unlimited())}
			for len(cells) < n {
				cells = append(cells, cells[0].Replica(t))
			}
			awaitReplicas(t, n, cells...)
			alice := cells[0].Signup(t, "alice")
			var readers []*reader
			for i, c := range cells {
				readers = append(readers, newReader(t, c, cells[0], alice, fmt.Sprint("reader", i)))
			}
			sendEverywhere(t, cells, alice, readers)
			claimEverywhere(t, cells, alice)
		})
	}
}

const everywhere = 40 // Messages for each reader.

// sendEverywhere sends each message at two of the replicas, at once and from all of them, and checks what readers get.
func sendEverywhere(t *testing.T, cells []*celltest.Cell, alice *celltest.Person, readers []*reader) {
	t.Helper()
	work := make([][]*wire.EnqueueRequest, len(cells))
	for i := range everywhere {
		for _, r := range readers {
			m := r.from.Message(t, fmt.Sprint("message ", i))
			a := rand.IntN(len(cells))
			b := (a + 1) % len(cells)
			work[a], work[b] = append(work[a], m), append(work[b], m)
		}
	}
	var mu sync.Mutex
	seqs := map[ids.ID]map[ids.ID]uint64{} // Channel, delivery id.
	firsts := 0
	var all sync.WaitGroup
	for i, c := range cells {
		conn := c.Dial(t)
		celltest.Must[*wire.AuthenticateResponse](conn, &wire.AuthenticateRequest{AccessToken: alice.Session.AccessToken, Proof: alice.Proof(conn)})
		all.Go(func() {
			open := make([]uint64, len(work[i]))
			for j, m := range work[i] {
				open[j] = conn.Send(m)
			}
			for j, m := range work[i] {
				body, err := conn.Answer(open[j])
				if err != nil {
					t.Error(err)
					return
				}
				answer := body.(*wire.EnqueueResponse)
				mu.Lock()
				if seqs[m.ChannelID] == nil {
					seqs[m.ChannelID] = map[ids.ID]uint64{}
				}
				if seq, twice := seqs[m.ChannelID][m.DeliveryID]; twice && seq != answer.Seq {
					t.Errorf("one message has the sequences %d and %d", seq, answer.Seq)
				}
				seqs[m.ChannelID][m.DeliveryID] = answer.Seq
				if !answer.Duplicate {
					firsts++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if firsts != everywhere*len(readers) {
		t.Errorf("%d messages were stored, of %d", firsts, everywhere*len(readers))
	}
	for _, r := range readers {
		for i := range uint64(everywhere) {
			d := deliveryOf(t, r.Person)
			if d.Seq != i+1 || d.PrevSeq != i || seqs[d.ChannelID][d.DeliveryID] != d.Seq {
				t.Fatalf("sequence %d after %d at place %d; its sender was told %d", d.Seq, d.PrevSeq, i+1, seqs[d.ChannelID][d.DeliveryID])
			}
		}
	}
}

// claimEverywhere has each replica claim alice's KeyPackages at once, more often than there are: each is handed out once.
func claimEverywhere(t *testing.T, cells []*celltest.Cell, alice *celltest.Person) {
	t.Helper()
	const n = 8
	alice.Upload(n)
	var mu sync.Mutex
	times := map[string]int{}
	var all sync.WaitGroup
	for i, c := range cells {
		p := c.Signup(t, fmt.Sprint("claimer", i))
		all.Go(func() {
			var open []uint64
			for range n {
				open = append(open, p.Conn.Send(&wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: alice.Certificate.AccountID}))
			}
			for _, id := range open {
				body, err := p.Conn.Answer(id)
				mu.Lock()
				if err == nil {
					times[string(body.(*wire.ClaimKeyPackagesResponse).Packages[0].KeyPackage)]++
				} else if !wire.HasCode(err, wire.CodeNoKeyPackage) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for _, n := range times {
		if n != 1 {
			t.Errorf("a KeyPackage was handed out %d times", n)
		}
	}
	if len(times) != n {
		t.Errorf("%d of %d KeyPackages were handed out", len(times), n)
	}
}

// LISTEN connection loss: nothing is late by more than the poll, and wake-ups come back.
func TestWakeupsComeBackAfterTheirConnectionsAreLost(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	two := one.Replica(t)
	awaitReplicas(t, 2, one, two)
	alice := one.Signup(t, "alice")
	bob := newReader(t, two, one, alice, "bob")
	for range 5 {
		one.Execute(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'LISTEN|pg_notify' AND pid <> pg_backend_pid()`)
		bob.roundTrip(t, alice)
		if took := bob.took[len(bob.took)-1]; took > 3*time.Second {
			t.Errorf("without wake-ups a message took %s", took)
		}
		awaitReplicas(t, 2, one, two)
	}
	if !strings.Contains(two.Log.String(), "listening for other replicas failed") {
		t.Error("the connections were not lost, or nobody logs it: this test has lost its meaning")
	}
}

// No NOTIFY on the enqueue path: as long as there is one process alone it tells nobody, and several tell on a connection of their own.
func TestEnqueueDoesNotNotify(t *testing.T) {
	t.Parallel()
	one := celltest.New(t, celltest.Unlimited())
	awaitReplicas(t, 1, one)
	alice := one.Signup(t, "alice")
	bob := newReader(t, one, one, alice, "bob")
	before := one.Metric(t, `qpq_wakeups_sent_total{result="ok"}`)
	for range 50 {
		bob.roundTrip(t, alice)
	}
	if sent := one.Metric(t, `qpq_wakeups_sent_total{result="ok"}`) - before; sent > 5 {
		t.Errorf("a process alone sent %v texts for 50 messages; heartbeats alone are expected", sent)
	}
	two := one.Replica(t)
	awaitReplicas(t, 2, one, two)
	before, commits := one.Metric(t, `qpq_wakeups_sent_total{result="ok"}`), one.Metric(t, "qpq_enqueue_batch_messages_count")
	const n = 200
	var open []uint64
	for range n {
		open = append(open, alice.Conn.Send(bob.from.Message(t, "many at once")))
	}
	for _, id := range open {
		if _, err := alice.Conn.Answer(id); err != nil {
			t.Fatal(err)
		}
	}
	sent, commits := one.Metric(t, `qpq_wakeups_sent_total{result="ok"}`)-before, one.Metric(t, "qpq_enqueue_batch_messages_count")-commits
	if sent == 0 || sent > commits+5 {
		t.Errorf("%v texts for %v commits", sent, commits)
	}
	if n := one.Query(t, `SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'pg_notify'`); n != "2" {
		t.Errorf("%s connections notify, want one of each process that does nothing else", n)
	}
}
