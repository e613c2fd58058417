package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
)

// A batch that failed is stored again by the same values: nothing of the first try may be left in them.
func TestABatchCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	early, late := message(channel, alice, "for the next generation"), message(channel, alice, "no place for it")
	early.Message.Generation = 2
	late.Message.ExpiresAt = time.Now().Add(400 * day) // No such partition: the batch fails.
	twice := *early
	if err := s.AppendBatch(t.Context(), []*Append{early, late, &twice}); err == nil || errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if !errors.Is(early.Err, ErrOtherGeneration) {
		t.Fatalf("the first try: %v", early.Err)
	}
	_, err := s.pool.Exec(t.Context(), `UPDATE channels SET generation = 2 WHERE channel_id = $1`, channel)
	must(t, err)
	must(t, s.AppendBatch(t.Context(), []*Append{early}))
	if early.Err != nil || early.Duplicate || early.Message.Seq != 1 {
		t.Errorf("the second try: %+v", early)
	}
}

// Heads are moved before it is known what of a batch is stored: in the end each is where its last message is.
func TestHeadsAreWhereTheirLastMessagesAre(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	_, alice, bob := direct(t, s)
	some, none, all := writable(t, s, alice), writable(t, s, alice), writable(t, s, alice)
	first := message(some, alice, "first")
	must(t, s.AppendBatch(t.Context(), []*Append{first}))
	refused := errors.New("no quota")
	retry, noQuota := *first, message(some, alice, "over the limit")
	noQuota.Admit = func() error { return refused }
	batch := []*Append{message(some, bob, "a stranger's"), &retry, message(all, alice, "a"), message(some, alice, "second"), noQuota, message(none, bob, "a stranger's"),
		message(ids.New(), alice, "to nowhere"), message(all, alice, "b"), message(some, alice, "third")}
	for i := range 2 { // The second time all are retries, or refused again.
		must(t, s.AppendBatch(t.Context(), batch))
		for n, want := range []error{ErrNotFound, nil, nil, nil, refused, ErrNotFound, ErrNotFound, nil, nil} {
			if a := batch[n]; !errors.Is(a.Err, want) || want == nil && a.Message.Seq != []uint64{0, 1, 1, 2, 0, 0, 0, 2, 3}[n] || a.Duplicate != (want == nil && (i == 1 || n == 1)) {
				t.Errorf("time %d, message %d: sequence %d, duplicate %t, %v", i, n, a.Message.Seq, a.Duplicate, a.Err)
			}
		}
		ends, err := s.LastSeqs(t.Context(), []ids.ID{some, none, all})
		must(t, err)
		if ends[some] != 3 || ends[none] != 0 || ends[all] != 2 {
			t.Fatalf("time %d: the ends are %d, %d and %d", i, ends[some], ends[none], ends[all])
		}
	}
	last := message(some, alice, "fourth")
	must(t, s.AppendBatch(t.Context(), []*Append{last}))
	if last.Message.Seq != 4 {
		t.Errorf("the next has sequence %d", last.Message.Seq)
	}
}

// Large batches of two processes, with the same channels in other orders and with messages that are refused.
func TestBatchesOfTwoProcessesOverlap(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	_, alice, bob := direct(t, s)
	channels := make([]ids.ID, 50)
	for i := range channels {
		channels[i] = writable(t, s, alice)
	}
	var all sync.WaitGroup
	for w, st := range []*Store{s, open(t, s.pool.Config().ConnString(), 1)} {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 11)) //nolint:gosec // a test, and w is small.
			for range 40 {
				var batch []*Append
				for _, c := range r.Perm(len(channels))[:expressMost+8] {
					batch = append(batch, message(channels[c], []Device{alice, alice, bob}[r.IntN(3)], "text"))
				}
				if err := st.AppendBatch(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for _, c := range channels {
		page, err := s.ReadMessages(t.Context(), c, 0, 10_000, 1<<24, time.Now())
		must(t, err)
		ends, err := s.LastSeqs(t.Context(), []ids.ID{c})
		must(t, err)
		if n := uint64(len(page)); n == 0 || page[n-1].Seq != n || ends[c] != n {
			t.Errorf("%d messages, and the channel's end is %d", n, ends[c])
		}
	}
}

// With the session's default isolation, waiting for a lock would show an old picture of what its holder did.
func TestTheDatabasesDefaultIsolationDoesNotMatter(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	_, err := s.pool.Exec(t.Context(), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$`)
	must(t, err)
	s = open(t, s.pool.Config().ConnString(), 1)
	channel, alice, bob := direct(t, s)
	shared := message(channel, alice, "the same, from everywhere")
	var all sync.WaitGroup
	for w := range 8 {
		from := []Device{alice, bob}[w%2]
		all.Go(func() {
			for i := range 10 {
				again := *shared
				batch := []*Append{message(channel, from, fmt.Sprint(w, i)), &again}
				if err := s.AppendBatch(context.Background(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	page, err := s.ReadMessages(t.Context(), channel, 0, 1000, 1<<20, time.Now())
	must(t, err)
	if len(page) != 81 || page[80].Seq != 81 {
		t.Errorf("%d messages, want 81 without a gap", len(page))
	}
}

// Connections die at any moment, also between a COMMIT and its answer. Whoever repeats until it is answered has each
// message stored once.
func TestRetriesSettleWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	ctx, stop := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killer.Go(func() {
		for ctx.Err() == nil { // Connections of commits, by what they do.
			_, _ = s.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
				AND state <> 'idle' AND (query LIKE '%COMMIT%' OR query LIKE '%messages%' OR query LIKE '%channels%')`)
		}
	})
	const writers, each = 4, 60
	seqs := make(chan uint64, writers*each)
	var lost, all sync.WaitGroup
	var failures sync.Map
	for w := range writers {
		from := []Device{alice, bob}[w%2]
		all.Go(func() {
			for i := range each {
				a := message(channel, from, fmt.Sprint(w, i))
				for try := 0; ; try++ {
					again := *a
					err := s.AppendBatch(context.Background(), []*Append{&again})
					if err == nil {
						seqs <- again.Message.Seq
						break
					}
					failures.Store(fmt.Sprint(w, i), true)
					if !errors.Is(err, ErrUnavailable) {
						t.Errorf("try %d: %v", try, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	stop()
	killer.Wait()
	lost.Wait()
	close(seqs)
	seen := map[uint64]bool{}
	for seq := range seqs {
		if seen[seq] {
			t.Errorf("sequence %d was answered twice", seq)
		}
		seen[seq] = true
	}
	page, err := s.ReadMessages(t.Context(), channel, 0, 2*writers*each, 1<<20, time.Now())
	must(t, err)
	if len(page) != writers*each || page[len(page)-1].Seq != writers*each || len(seen) != writers*each {
		t.Errorf("%d stored up to %d, %d answered, want %d", len(page), page[len(page)-1].Seq, len(seen), writers*each)
	}
	n := 0
	failures.Range(func(any, any) bool { n++; return true })
	t.Logf("%d of %d messages needed more than one try", n, writers*each)
	if n == 0 {
		t.Error("no connection died in time: this test has lost its meaning")
	}
}

func TestPagesAreCutBySize(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	for _, size := range []int{100, 100, 500, 100, 100} {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, string(make([]byte, size)))}))
	}
	for _, x := range []struct {
		after           uint64
		limit, maxBytes int
		want            int
	}{
		{0, 64, 1 << 20, 5}, {0, 3, 1 << 20, 3}, {0, 64, 200, 2}, {0, 64, 199, 1}, {0, 64, 1, 1}, {2, 64, 100, 1}, {2, 64, 600, 2}, {5, 64, 1 << 20, 0},
	} {
		page, err := s.ReadMessages(t.Context(), channel, x.after, x.limit, x.maxBytes, time.Now())
		must(t, err)
		if len(page) != x.want || x.want > 0 && page[0].Seq != x.after+1 {
			t.Errorf("%+v: %d messages", x, len(page))
		}
	}
}

func TestAPageEndsBeforeADamagedRow(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	for i := range 4 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, fmt.Sprint(i))}))
	}
	_, err := s.pool.Exec(t.Context(), `UPDATE messages SET payload = 'altered' WHERE channel_id = $1 AND seq = 3`, channel)
	must(t, err)
	for after, want := range []int{2, 1, 0} {
		page, err := s.ReadMessages(t.Context(), channel, uint64(after), 10, 1<<20, time.Now())
		if !errors.Is(err, ErrCorrupt) || len(page) != want {
			t.Errorf("after %d: %d messages, %v", after, len(page), err)
		}
	}
	page, err := s.ReadMessages(t.Context(), channel, 3, 10, 1<<20, time.Now())
	if err != nil || len(page) != 1 {
		t.Errorf("behind it: %d messages, %v", len(page), err)
	}
}

func TestGenerationsThatCannotBe(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	for _, generation := range []uint32{0, 1, 3, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32} {
		_, err := s.CreateGroup(t.Context(), &Group{ChannelID: channel, Generation: generation, GroupInfo: []byte("other"), Creator: alice.ID, At: time.Now()})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
	if _, err := s.CreateGroup(t.Context(), &Group{ChannelID: ids.New(), Generation: 1, At: time.Now()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such channel: %v", err)
	}
}

func TestAnEmptyClaimIsNotRemembered(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, alice := person(t, s, "alice")
	_, bob := person(t, s, "bob")
	request := ids.New()
	claim := func() []KeyPackage {
		list, err := s.ClaimKeyPackages(t.Context(), &Claim{Claimer: bob.ID, Request: request, Account: a.ID, At: time.Now()})
		must(t, err)
		return list
	}
	if n := len(claim()); n != 0 {
		t.Fatalf("%d packages", n)
	}
	must(t, s.AddKeyPackages(t.Context(), alice.ID, []KeyPackage{{Ref: []byte("r"), InitKey: []byte("k"), ExpiresAt: time.Now().Add(time.Hour), Package: []byte("p")}}, 10, time.Now()))
	for range 2 {
		if list := claim(); len(list) != 1 || string(list[0].Package) != "p" {
			t.Fatalf("%+v", list)
		}
	}
}

func TestAnAccountHasSoManyDevices(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, d := person(t, s, "alice")
	const most = 5
	add := func() error {
		n := Device{ID: ids.New(), AccountID: a.ID, Key: d.Key, Certificate: d.Certificate, CreatedAt: time.Now()}
		_, err := s.AddDevice(context.Background(), n, Session{ID: ids.New(), DeviceID: n.ID, RefreshHash: []byte("h"), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}, most,
			aboutDevice(a.ID, n.ID))
		return err
	}
	results := make(chan error, 2*most)
	for range cap(results) { // All at once.
		go func() { results <- add() }()
	}
	added := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			added++
		case !errors.Is(err, ErrTooMany):
			t.Error(err)
		}
	}
	if added != most-1 {
		t.Errorf("%d were added to the first, at most %d may be there", added, most)
	}
	_, err := s.pool.Exec(t.Context(), `UPDATE devices SET revoked_at = now() WHERE device_id = $1`, d.ID)
	must(t, err)
	must(t, add()) // A revoked one leaves its place.
}

func TestChannelCounts(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	_, alice, bob := direct(t, s)
	_, eve := person(t, s, "eve")
	counts, err := s.ChannelCounts(t.Context(), []ids.ID{alice.ID, bob.ID, eve.ID, ids.New()})
	must(t, err)
	if len(counts) != 3 || counts[alice.ID] != 2 || counts[bob.ID] != 2 || counts[eve.ID] != 1 {
		t.Errorf("%v", counts)
	}
}
