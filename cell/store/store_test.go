package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(killEnv); spec != "" {
		removeAndDie(spec)
	}
	goleak.VerifyTestMain(pgtest.Wrap(m))
}

var quiet = slog.New(slog.DiscardHandler)

const (
	week      = 7 * day
	fortnight = 14 * day
)

func testSealer(t *testing.T, keyIDs ...uint32) *Sealer {
	t.Helper()
	var keys []SealingKey
	for _, id := range keyIDs {
		keys = append(keys, SealingKey{id, bytes.Repeat([]byte{byte(id)}, SealingKeySize)})
	}
	s, err := NewSealer(keys, bytes.Repeat([]byte{9}, SealingKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open connects to a database that may be empty.
func open(t *testing.T, uri string, keyIDs ...uint32) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{URI: uri, Sealer: testSealer(t, keyIDs...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// fresh is a migrated store with partitions for a week.
func fresh(t *testing.T) *Store {
	t.Helper()
	s := open(t, pgtest.New(t), 1)
	must(t, s.Migrate(t.Context(), quiet))
	must(t, s.EnsurePartitions(t.Context(), time.Now(), 2*day, []time.Duration{time.Hour, week}, fortnight))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person makes an account with a device.
func person(t *testing.T, s *Store, name string) (Account, Device) {
	t.Helper()
	now := time.Now()
	a := Account{ID: ids.New(), Name: name, RootKey: make(ed25519.PublicKey, 32), OPAQUERecord: []byte("record of " + name), WrappedRootKey: []byte("wrapped"), CreatedAt: now}
	d := Device{ID: ids.New(), AccountID: a.ID, Key: make(ed25519.PublicKey, 32), Certificate: []byte("cert"), Name: name + "'s phone", CreatedAt: now}
	must(t, s.CreateAccount(t.Context(), a, d, Session{ID: ids.New(), DeviceID: d.ID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}))
	return a, d
}

// direct makes a channel with a group of two devices.
func direct(t *testing.T, s *Store) (channel ids.ID, alice, bob Device) {
	t.Helper()
	return directNamed(t, s, "alice", "bob")
}

func directNamed(t *testing.T, s *Store, one, two string) (channel ids.ID, alice, bob Device) {
	t.Helper()
	a, alice := person(t, s, one)
	b, bob := person(t, s, two)
	c, err := s.DirectChannel(t.Context(), a.ID, b.ID, time.Now())
	must(t, err)
	welcome := Message{ChannelID: bob.ID, Kind: MessageWelcome, Generation: 1, SenderID: alice.ID, DeliveryID: ids.New(), AboutChannel: c.ID,
		AcceptedAt: time.Now(), ExpiresAt: time.Now().Add(week), Payload: []byte("welcome")}
	_, err = s.CreateGroup(t.Context(), &Group{ChannelID: c.ID, Generation: 1, GroupInfo: []byte("info"), Creator: alice.ID, Welcomes: []Message{welcome}, At: time.Now()})
	must(t, err)
	return c.ID, alice, bob
}

func message(channel ids.ID, from Device, text string) *Append {
	now := time.Now()
	return &Append{IDTime: now, Message: Message{ChannelID: channel, Kind: MessageApplication, Generation: 1, SenderAccount: from.AccountID,
		SenderID: from.ID, DeliveryID: ids.NewDelivery(now), AcceptedAt: now, ExpiresAt: now.Add(week), Payload: []byte(text)}}
}

func TestCompatibilityRange(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t), 1)
	if err := s.CheckCompatible(t.Context()); !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), "cell migrate") {
		t.Fatalf("an empty database: %v", err)
	}
	var both sync.WaitGroup
	for range 2 { // Two replicas start together.
		both.Go(func() {
			if err := s.Migrate(t.Context(), quiet); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	must(t, s.CheckCompatible(t.Context()))
	for _, x := range []struct {
		change string
		ok     bool
	}{
		{`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`, true}, // A newer release expanded.
		{fmt.Sprintf(`UPDATE cell SET min_compatible = %d`, SchemaVersion+1), false},       // A newer release contracted.
	} {
		if _, err := s.pool.Exec(t.Context(), x.change); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckCompatible(t.Context()); (err == nil) != x.ok || err != nil && !errors.Is(err, ErrIncompatible) {
			t.Errorf("after %s: %v", x.change, err)
		}
		must(t, s.Migrate(t.Context(), quiet))
	}
}

func TestAccountsAreSealed(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, d := person(t, s, "alice")
	got, err := s.AccountByName(t.Context(), "alice")
	must(t, err)
	if got.ID != a.ID || got.Name != "alice" || string(got.OPAQUERecord) != "record of alice" || string(got.WrappedRootKey) != "wrapped" {
		t.Fatalf("%+v", got)
	}
	device, err := s.Device(t.Context(), d.ID)
	must(t, err)
	if device.Name != "alice's phone" || device.AccountID != a.ID || device.Revoked {
		t.Fatalf("%+v", device)
	}
	var row string
	must(t, s.pool.QueryRow(t.Context(), `SELECT encode(name_sealed || opaque_record_sealed || name_index || wrapped_root_sealed, 'escape') FROM accounts`).Scan(&row))
	for _, plain := range []string{"alice", "record", "wrapped"} {
		if strings.Contains(row, plain) {
			t.Errorf("%q is readable in the row", plain)
		}
	}
	if _, err := s.AccountByName(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestSealedValuesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	old, rotated, other := testSealer(t, 1), testSealer(t, 2, 1), testSealer(t, 3)
	sealed := old.seal("accounts.name", []byte("row"), []byte("plain"))
	if b, err := rotated.open("accounts.name", []byte("row"), sealed); err != nil || string(b) != "plain" {
		t.Fatalf("after rotation: %q, %v", b, err)
	}
	if _, err := old.open("accounts.name", []byte("another row"), sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("moved to another row: %v", err)
	}
	if _, err := old.open("devices.name", []byte("row"), sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("moved to another column: %v", err)
	}
	if _, err := other.open("accounts.name", []byte("row"), sealed); err == nil || !strings.Contains(err.Error(), "key 1") {
		t.Errorf("without the key: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := old.open("accounts.name", []byte("row"), bad); err == nil {
			t.Errorf("byte %d changed and nobody saw it", i)
		}
	}
}

func TestTheSequenceIsGapFreeInCommitOrder(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	const writers, each = 8, 25
	var all sync.WaitGroup
	for w := range writers { // Each is a replica of its own as far as the database can tell.
		from := []Device{alice, bob}[w%2]
		all.Go(func() {
			for i := range each {
				batch := []*Append{message(channel, from, fmt.Sprint(w, i)), message(channel, from, fmt.Sprint(w, i, "b"))}
				if err := s.AppendBatch(context.Background(), batch); err != nil {
					t.Error(err)
					return
				}
				if batch[0].Message.Seq+1 != batch[1].Message.Seq {
					t.Errorf("a batch was torn: %d, %d", batch[0].Message.Seq, batch[1].Message.Seq)
				}
			}
		})
	}
	// A reader with a cursor never sees a later sequence before an earlier one.
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	cursor := uint64(0)
	for {
		finished := false
		select {
		case <-done:
			finished = true
		default:
		}
		page, err := s.ReadMessages(t.Context(), channel, cursor, 64, 1<<20, time.Now())
		must(t, err)
		for _, m := range page {
			if m.Seq != cursor+1 {
				t.Fatalf("sequence %d after %d", m.Seq, cursor)
			}
			cursor = m.Seq
		}
		if finished && len(page) == 0 {
			break
		}
	}
	if cursor != 2*writers*each {
		t.Fatalf("%d messages, want %d", cursor, 2*writers*each)
	}
}

func TestAppendDecisions(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	_, eve := person(t, s, "eve")
	first := message(channel, alice, "first")
	must(t, s.AppendBatch(t.Context(), []*Append{first}))

	retry := *first
	retry.Message.fingerprint = [fingerprintSize]byte{}
	changed := *first
	changed.Message.fingerprint = [fingerprintSize]byte{}
	changed.Message.Payload = []byte("changed")
	twice := message(channel, bob, "twice")
	twiceAgain := *twice
	foreign, nowhere, late := message(channel, eve, "x"), message(ids.New(), alice, "x"), message(channel, alice, "x")
	late.Message.Generation = 2
	batch := []*Append{&retry, &changed, twice, &twiceAgain, foreign, nowhere, late}
	must(t, s.AppendBatch(t.Context(), batch))
	if !retry.Duplicate || retry.Message.Seq != first.Message.Seq || !retry.Message.AcceptedAt.Equal(utc(first.Message.AcceptedAt)) {
		t.Errorf("retry: %+v", retry)
	}
	if twice.Duplicate || twice.Message.Seq != 2 || !twiceAgain.Duplicate || twiceAgain.Message.Seq != 2 {
		t.Errorf("the same id twice in a batch: %+v, %+v", twice, twiceAgain)
	}
	for want, got := range map[error]error{ErrDeliveryIDReused: changed.Err, ErrOtherGeneration: late.Err} {
		if !errors.Is(got, want) {
			t.Errorf("want %v, got %v", want, got)
		}
	}
	if !errors.Is(foreign.Err, ErrNotFound) || !errors.Is(nowhere.Err, ErrNotFound) {
		t.Errorf("foreign %v, nowhere %v", foreign.Err, nowhere.Err)
	}
	page, err := s.ReadMessages(t.Context(), channel, 0, 10, 1<<20, time.Now())
	must(t, err)
	if len(page) != 2 {
		t.Errorf("%d messages are stored, want 2", len(page))
	}
}

func TestCorruptPayloadsAreFound(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "sound")}))
	_, err := s.pool.Exec(t.Context(), `UPDATE messages SET payload = 'altered' WHERE channel_id = $1`, channel)
	must(t, err)
	if _, err := s.ReadMessages(t.Context(), channel, 0, 10, 1<<20, time.Now()); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestCursorsOnlyMoveForward(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, bob := direct(t, s)
	for range 3 {
		must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "x")}))
	}
	for _, x := range []struct{ ack, want uint64 }{{2, 2}, {1, 2}, {99, 3}} {
		must(t, s.Acknowledge(t.Context(), []Ack{{bob.ID, channel, x.ack}, {bob.ID, ids.New(), 5}}))
		cursors, err := s.Cursors(t.Context(), bob.ID)
		must(t, err)
		if len(cursors) != 2 || cursors[0].ChannelID != bob.ID || cursors[1].AckedSeq != x.want || cursors[1].LastSeq != 3 {
			t.Fatalf("after ack %d: %+v", x.ack, cursors)
		}
	}
}

func TestPartitionsFollowExpiry(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, alice, _ := direct(t, s)
	short, long := message(channel, alice, "an hour"), message(channel, alice, "a week")
	short.Message.ExpiresAt = short.Message.AcceptedAt.Add(time.Hour)
	must(t, s.AppendBatch(t.Context(), []*Append{short, long}))
	read := func(now time.Time) int {
		page, err := s.ReadMessages(t.Context(), channel, 0, 10, 1<<20, now)
		must(t, err)
		return len(page)
	}
	if n := read(time.Now()); n != 2 {
		t.Fatalf("%d messages now", n)
	}
	if n := read(time.Now().Add(2 * time.Hour)); n != 1 {
		t.Fatalf("%d messages in two hours: what has expired must be unreadable at once", n)
	}
	later := time.Now().Add(3 * day)
	dropped, err := s.DropExpiredPartitions(t.Context(), later, fortnight)
	must(t, err)
	if len(dropped) == 0 {
		t.Fatal("no partition was dropped")
	}
	var rows int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM messages WHERE channel_id = $1`, channel).Scan(&rows))
	if rows != 1 {
		t.Fatalf("%d rows are left, want the long-lived one", rows)
	}
	if again, err := s.DropExpiredPartitions(t.Context(), later, fortnight); err != nil || len(again) != 0 {
		t.Fatalf("a second round: %v, %v", again, err)
	}
	must(t, s.EnsurePartitions(t.Context(), later, 2*day, []time.Duration{time.Hour, week}, fortnight))
}

func TestPartitionRemovalWaitsForReaders(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	s.detachPatience = 300 * time.Millisecond
	backup, err := s.pool.Begin(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = backup.Rollback(context.Background()) })               // Also when the test fails: Close waits for it.
	_, err = backup.Exec(t.Context(), `LOCK TABLE messages IN ACCESS SHARE MODE`) // As pg_dump does.
	must(t, err)
	future := time.Now().Add(4 * day) // The days of short-lived messages are over, those of a week are not.
	dropped, err := s.DropExpiredPartitions(t.Context(), future, 60*day)
	if !errors.Is(err, ErrRemovalWaits) || len(dropped) != 0 {
		t.Fatalf("while a backup reads: %v, %v", dropped, err)
	}
	channel, alice, _ := direct(t, s)
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "traffic goes on")}))
	must(t, s.EnsurePartitions(t.Context(), time.Now().Add(10*day), day, []time.Duration{week}, fortnight))
	must(t, backup.Rollback(t.Context()))
	dropped, err = s.DropExpiredPartitions(t.Context(), future, 60*day)
	must(t, err)
	if len(dropped) < 3 {
		t.Errorf("dropped %v, want the days of short-lived messages", dropped)
	}
	must(t, s.AppendBatch(t.Context(), []*Append{message(channel, alice, "and on")}))
}

func TestAnAbsentDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Options{URI: "postgres://u:secret@127.0.0.1:1/db", Sealer: testSealer(t, 1)})
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
	if _, err := Open(t.Context(), Options{URI: "postgres://u:secret@[bad", Sealer: testSealer(t, 1)}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
}
