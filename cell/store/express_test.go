package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
)

// familiar makes a direct channel to which the store has written so often that it expects the next message.
func familiar(t *testing.T, s *Store) (channel ids.ID, alice Device) {
	t.Helper()
	channel, alice, _ = direct(t, s)
	for i := range 2 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, fmt.Sprint("before ", i))}))
	}
	if _, ok := s.heads.expect([]ids.ID{channel}); !ok {
		t.Fatal("the channel is not familiar after two messages")
	}
	return channel, alice
}

// express tries to store messages in one round trip.
func express(t *testing.T, s *Store, batch ...*Append) bool {
	t.Helper()
	conn, err := s.urgent.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	tx := &appendTx{batch: batch, conn: conn.Conn()}
	stored, err := tx.express(t.Context(), s)
	must(t, err)
	return stored
}

func TestAFamiliarChannelTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice := familiar(t, s)
	for i := range 3 {
		a, b := message(channel, alice, fmt.Sprint("a ", i)), message(channel, alice, fmt.Sprint("b ", i))
		if !express(t, s, a, b) {
			t.Fatalf("batch %d was not stored in one", i)
		}
		if a.Message.Seq != uint64(3+2*i) || b.Message.Seq != a.Message.Seq+1 { //nolint:gosec // small.
			t.Errorf("batch %d: sequences %d and %d", i, a.Message.Seq, b.Message.Seq)
		}
	}
	page, err := s.ReadMessages(t.Context(), channel, 0, 100, 1<<20, time.Now())
	must(t, err)
	if len(page) != 8 || string(page[7].Payload) != "b 2" || page[7].Seq != 8 {
		t.Errorf("%d messages: %+v", len(page), page)
	}
}

var errRemoveFirst, errEpoch = &RemoveFirstError{}, &EpochError{}

// sameKind is errors.Is, for errors with contents by their type.
func sameKind(err, want error) bool {
	if want == nil {
		return err == nil
	}
	return errors.Is(err, want) || err != nil && reflect.TypeOf(err) == reflect.TypeOf(want)
}

// What is not as expected is found out, nothing is stored, and the batch ends as if it had gone the long way at once.
func TestWhatIsNotAsExpectedGoesTheLongWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string // What changes behind the store's back.
		want error  // Of a new message then; nil: it is stored.
		seq  uint64
	}{
		"another process wrote":      {`UPDATE channels SET last_seq = last_seq + 5 WHERE channel_id = $1`, nil, 8},
		"written, and the same":      {`UPDATE channels SET last_seq = last_seq WHERE channel_id = $1`, nil, 3},
		"the next generation":        {`UPDATE channels SET generation = 2 WHERE channel_id = $1`, ErrOtherGeneration, 0},
		"the channel was closed":     {`UPDATE channels SET closed_until = now() WHERE channel_id = $1`, ErrClosed, 0},
		"a device was revoked":       {`UPDATE channels SET remove_first = ARRAY [channel_id] WHERE channel_id = $1`, errRemoveFirst, 0},
		"the next epoch":             {`UPDATE channels SET epoch = epoch + 1 WHERE channel_id = $1`, errEpoch, 0},
		"the sender was removed":     {`UPDATE cursors SET until_seq = 2 WHERE channel_id = $1`, ErrNotFound, 0},
		"the sender has no cursor":   {`DELETE FROM cursors WHERE channel_id = $1`, ErrNotFound, 0},
		"the sender's account muted": {`UPDATE channels SET muted = (SELECT array_agg(account_id) FROM channel_members WHERE channel_id = $1) WHERE channel_id = $1`, ErrMuted, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(t)
			channel, alice := familiar(t, s)
			_, err := s.pool.Exec(t.Context(), c.sql, channel)
			must(t, err)
			admitted := 0
			a := message(channel, alice, "now")
			a.Message.SenderAccount = alice.AccountID
			a.Admit = func() error { admitted++; return nil }
			a.Withdraw = func() { admitted-- }
			if express(t, s, a) {
				t.Fatal("it was stored all the same")
			}
			must(t, s.AppendBatch(t.Context(), []*Append{a}))
			if !sameKind(a.Err, c.want) || a.Message.Seq != c.seq || a.Duplicate {
				t.Errorf("%+v, want sequence %d, %v", a, c.seq, c.want)
			}
			if want := map[bool]int{true: 1}[c.want == nil]; admitted != want {
				t.Errorf("charged %d times, want %d", admitted, want)
			}
		})
	}
}

// A database that was restored counts its transactions anew: the version of a row may be what it was in another life.
func TestAVersionAloneIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice := familiar(t, s)
	_, err := s.pool.Exec(t.Context(), `UPDATE channels SET last_seq = 7 WHERE channel_id = $1`, channel)
	must(t, err)
	r := s.heads.heads[channel]
	must(t, s.pool.QueryRow(t.Context(), `SELECT xmin::text::bigint FROM channels WHERE channel_id = $1`, channel).Scan(&r.head.version))
	s.heads.heads[channel] = r
	a := message(channel, alice, "now")
	if express(t, s, a) {
		t.Fatalf("it was stored as %d", a.Message.Seq)
	}
	must(t, s.AppendBatch(t.Context(), []*Append{a}))
	if a.Message.Seq != 8 {
		t.Errorf("sequence %d, want 8", a.Message.Seq)
	}
}

func TestANewConnectionForgets(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice := familiar(t, s)
	s.urgent.Reset()
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "after")}))
	if _, ok := s.heads.expect([]ids.ID{channel}); ok {
		t.Error("a head is believed that was written over another connection")
	}
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "again")}))
	if _, ok := s.heads.expect([]ids.ID{channel}); !ok {
		t.Error("the channel did not become familiar again")
	}
}

// A channel's own retention counts once, whichever way a message goes.
func TestRetentionGoesBothWays(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	_, err := s.pool.Exec(t.Context(), `UPDATE channels SET retention_sec = 3600 WHERE channel_id = $1`, channel)
	must(t, err)
	for range 2 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "before")}))
	}
	quick := message(channel, alice, "quick")
	if !express(t, s, quick) {
		t.Fatal("it was not stored in one")
	}
	_, err = s.pool.Exec(t.Context(), `UPDATE channels SET retention_sec = NULL WHERE channel_id = $1`, channel)
	must(t, err)
	slow := message(channel, alice, "slow")
	must(t, s.AppendBatch(t.Context(), []*Append{slow}))
	if a, b := quick.Message.ExpiresAt.Sub(quick.Message.AcceptedAt), slow.Message.ExpiresAt.Sub(slow.Message.AcceptedAt); a != time.Hour || b != week {
		t.Errorf("kept for %s and %s, want %s and %s", a, b, time.Hour, week)
	}
}

func TestARetryIsFoundAndCostsNothing(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice := familiar(t, s)
	first := message(channel, alice, "once")
	must(t, s.AppendBatch(t.Context(), []*Append{first}))
	charged := 0
	retry := *first
	retry.Message.Seq = 0
	retry.Admit = func() error { charged++; return nil }
	retry.Withdraw = func() { charged-- }
	other := retry
	other.Message.Payload, other.Message.fingerprint = []byte("something else"), [fingerprintSize]byte{}
	must(t, s.AppendBatch(t.Context(), []*Append{&retry}))
	if !retry.Duplicate || retry.Message.Seq != first.Message.Seq || charged != 0 {
		t.Errorf("%+v, charged %d times", retry, charged)
	}
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "between")})) // To be familiar again.
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "between")}))
	must(t, s.AppendBatch(t.Context(), []*Append{&other}))
	if !errors.Is(other.Err, ErrDeliveryIDReused) || charged != 0 {
		t.Errorf("%+v, charged %d times", other, charged)
	}
	refused := errors.New("no quota")
	late := *first
	late.Admit = func() error { return refused }
	must(t, s.AppendBatch(t.Context(), []*Append{&late}))
	if !late.Duplicate || late.Err != nil {
		t.Errorf("a retry without quota: %+v", late)
	}
}

// writable makes a channel to which a device may write.
func writable(t *testing.T, s *Store, device Device) ids.ID {
	t.Helper()
	channel := ids.New()
	_, err := s.pool.Exec(t.Context(), `INSERT INTO channels (channel_id, kind, generation, created_at) VALUES ($1, 2, 1, now())`, channel)
	must(t, err)
	_, err = s.pool.Exec(t.Context(), `INSERT INTO cursors (device_id, channel_id, acked_seq) VALUES ($1, $2, 0)`, device.ID, channel)
	must(t, err)
	return channel
}

// Two processes write to the same channels and to their own, in small batches with retries among them.
func TestTwoProcessesShareChannels(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	stores := []*Store{s, open(t, s.pool.Config().ConnString(), 1)}
	_, alice, _ := direct(t, s)
	channels := make([]ids.ID, 3)
	for i := range channels {
		channels[i] = writable(t, s, alice)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	seqs := make([]map[uint64]ids.ID, len(channels))
	for i := range seqs {
		seqs[i] = map[uint64]ids.ID{}
	}
	for w, st := range stores {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7)) //nolint:gosec // a test, and w is small.
			var sent []*Append
			for range 150 {
				var batch []*Append
				var of []int
				for range 1 + r.IntN(3) {
					c := []int{w, 2}[r.IntN(2)] // Its own, or the shared one.
					a := message(channels[c], alice, "text")
					if len(sent) > 0 && r.IntN(8) == 0 {
						again := *sent[r.IntN(len(sent))]
						a = &again
						c = slices.Index(channels, a.Message.ChannelID)
					} else {
						sent = append(sent, a)
					}
					batch, of = append(batch, a), append(of, c)
				}
				if err := st.AppendBatch(t.Context(), batch); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, a := range batch {
					if before, ok := seqs[of[i]][a.Message.Seq]; a.Err != nil || ok && before != a.Message.DeliveryID {
						t.Errorf("sequence %d of %s and of %s: %v", a.Message.Seq, before, a.Message.DeliveryID, a.Err)
					}
					seqs[of[i]][a.Message.Seq] = a.Message.DeliveryID
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	for i, c := range channels {
		page, err := s.ReadMessages(t.Context(), c, 0, 10_000, 1<<24, time.Now())
		must(t, err)
		for n, m := range page {
			if m.Seq != uint64(n+1) || seqs[i][m.Seq] != m.DeliveryID { //nolint:gosec // small.
				t.Fatalf("channel %d: message %d has sequence %d and is %s, answered was %s", i, n+1, m.Seq, m.DeliveryID, seqs[i][m.Seq])
			}
		}
		if len(page) != len(seqs[i]) {
			t.Errorf("channel %d: %d stored, %d answered", i, len(page), len(seqs[i]))
		}
	}
}
