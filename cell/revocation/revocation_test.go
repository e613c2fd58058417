package revocation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is a database's, whose transactions are numbered by its rows.
type table struct {
	mu    sync.Mutex
	rows  []store.Revocation
	asked []store.Horizon
	away  error
	base  store.Horizon // The number of the first row's transaction.
	open  store.Horizon // A transaction that is under way; 0: none.
}

func (s *table) Revocations(_ context.Context, since store.Horizon) ([]store.Revocation, store.Horizon, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, since)
	if s.away != nil {
		return nil, 0, s.away
	}
	next := s.base + store.Horizon(len(s.rows))
	if s.open > 0 {
		next = s.open
	}
	var list []store.Revocation
	for i, r := range s.rows {
		if s.base+store.Horizon(i) >= since {
			list = append(list, r)
		}
	}
	return list, next, nil
}

func (s *table) add(kind store.RevocationKind, id ids.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, store.Revocation{ID: uint64(len(s.rows)) + 1, Kind: kind, Subject: id, At: time.Now()})
}

func (s *table) set(away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func start(t *testing.T, s Store) *Watcher {
	t.Helper()
	w := New(s, slog.New(slog.DiscardHandler), time.Now)
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w
}

func subject() Subject { return Subject{Account: ids.New(), Device: ids.New(), Session: ids.New()} }

// calls counts what a watch was told.
func watching(w *Watcher, s Subject) (told chan store.RevocationKind, stop func()) {
	told = make(chan store.RevocationKind, 10)
	stop, kind := w.Watch(s, func(k store.RevocationKind) { told <- k })
	if kind != 0 {
		told <- kind
	}
	return told, stop
}

func TestWhateverIsRevokedEndsWhatSpeaksForIt(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		kind store.RevocationKind
		of   func(Subject) ids.ID
		hit  bool
	}{
		"its session":                          {store.RevokedSession, func(s Subject) ids.ID { return s.Session }, true},
		"its device":                           {store.RevokedDevice, func(s Subject) ids.ID { return s.Device }, true},
		"its account":                          {store.RevokedAccount, func(s Subject) ids.ID { return s.Account }, true},
		"something else":                       {store.RevokedDevice, func(Subject) ids.ID { return ids.New() }, false},
		"a device that has its account's id":   {store.RevokedDevice, func(s Subject) ids.ID { return s.Account }, false},
		"a session that has its device's id":   {store.RevokedSession, func(s Subject) ids.ID { return s.Device }, false},
		"an account that is back":              {store.RestoredAccount, func(s Subject) ids.ID { return s.Account }, false},
		"a kind that a newer release has made": {99, func(s Subject) ids.ID { return s.Account }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &table{base: 700}
				w := start(t, s)
				me := subject()
				told, stop := watching(w, me)
				defer stop()
				gone, stopGone := watching(w, me)
				stopGone()
				s.add(x.kind, x.of(me))
				time.Sleep(pollEvery)
				synctest.Wait()
				if (len(told) == 1) != x.hit || (w.Revoked(me) != 0) != x.hit || len(gone) != 0 {
					t.Errorf("told %d times, revoked: %v; one that had stopped, %d times", len(told), w.Revoked(me), len(gone))
				}
				if x.hit {
					if late, _ := watching(w, me); len(late) != 1 || <-late != x.kind {
						t.Error("one that comes later is not refused")
					}
				}
				time.Sleep(10 * pollEvery)
				synctest.Wait()
				if len(told) > 1 {
					t.Errorf("told %d times", len(told))
				}
			})
		})
	}
}

func TestALateCommitIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700, open: 700}
		w := start(t, s)
		first, second := subject(), subject()
		s.add(store.RevokedDevice, first.Device)
		s.add(store.RevokedDevice, second.Device)
		told, stop := watching(w, first)
		defer stop()
		time.Sleep(20 * pollEvery)
		synctest.Wait()
		if len(told) != 1 || w.Revoked(second) == 0 {
			t.Errorf("told %d times of what is read again and again", len(told))
		}
		for _, since := range s.asked[1:] {
			if since > 700 {
				t.Fatalf("asked from %d on, while 700 is under way", since)
			}
		}
	})
}

// A poke is answered at once, and not by the next round.
func TestPoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700}
		w := start(t, s)
		me := subject()
		s.add(store.RevokedAccount, me.Account)
		begun := time.Now()
		w.Poke()
		synctest.Wait()
		if w.Revoked(me) != store.RevokedAccount || time.Since(begun) != 0 {
			t.Error("it was not looked for")
		}
	})
}

func TestADatabaseThatGoesAndComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700}
		w := start(t, s)
		before, meanwhile, after := subject(), subject(), subject()
		s.add(store.RevokedDevice, before.Device)
		time.Sleep(pollEvery)
		synctest.Wait()
		s.set(errors.New("away"))
		s.add(store.RevokedDevice, meanwhile.Device)
		told, stop := watching(w, meanwhile)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.Revoked(before) == 0 || w.Revoked(meanwhile) != 0 {
			t.Error("what was known is not in force, or what was not is")
		}
		s.mu.Lock()
		s.away, s.base = nil, 3 // Restored elsewhere: its transactions are numbered from the beginning.
		s.mu.Unlock()
		time.Sleep(pollEvery)
		synctest.Wait()
		if len(told) != 1 {
			t.Error("what was revoked meanwhile was not read")
		}
		s.add(store.RevokedDevice, after.Device)
		time.Sleep(pollEvery)
		synctest.Wait()
		if w.Revoked(after) == 0 {
			t.Error("what was revoked afterwards was not read")
		}
	})
}

// A database that is exchanged between two looks is noticed by its numbers.
func TestADatabaseThatIsExchanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700}
		w := start(t, s)
		me := subject()
		s.mu.Lock()
		s.base = 3
		s.mu.Unlock()
		s.add(store.RevokedDevice, me.Device)
		time.Sleep(pollEvery)
		synctest.Wait()
		if w.Revoked(me) == 0 {
			t.Error("its rows were not read")
		}
	})
}

func TestAnAccountIsRevokedAndBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700, open: 700} // All rows are read again each time.
		w := start(t, s)
		me := subject()
		s.add(store.RevokedAccount, me.Account)
		s.add(store.RestoredAccount, me.Account)
		time.Sleep(pollEvery)
		synctest.Wait()
		if w.Revoked(me) != 0 {
			t.Error("it is revoked still")
		}
		told, stop := watching(w, me)
		defer stop()
		time.Sleep(10 * pollEvery)
		synctest.Wait()
		if len(told) != 0 {
			t.Error("a connection was ended for what was taken back")
		}
		s.add(store.RevokedAccount, me.Account)
		time.Sleep(pollEvery)
		synctest.Wait()
		if len(told) != 1 || w.Revoked(me) != store.RevokedAccount {
			t.Error("the second time does not count")
		}
	})
}

// What no token can speak for any more is forgotten.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &table{base: 700}
		w := start(t, s)
		me := subject()
		s.add(store.RevokedSession, me.Session)
		time.Sleep(Kept - time.Minute)
		synctest.Wait()
		if w.Revoked(me) == 0 {
			t.Error("forgotten too soon")
		}
		time.Sleep(2*time.Minute + forgetEvery)
		synctest.Wait()
		if w.Revoked(me) != 0 || len(w.revoked) != 0 || len(w.seen) != 0 {
			t.Errorf("%d are remembered, and %d rows", len(w.revoked), len(w.seen))
		}
		s.rows[0].At = time.Now().Add(-Kept - time.Second)
		if w = New(s, slog.New(slog.DiscardHandler), time.Now); w.Load(t.Context()) != nil || len(w.revoked) != 0 {
			t.Error("an old row is remembered")
		}
	})
}

func BenchmarkRevoked(b *testing.B) {
	w := New(&table{}, slog.New(slog.DiscardHandler), time.Now)
	for i := range 100_000 {
		w.revoked[key{store.RevocationKind(i%3 + 1), ids.New()}] = time.Now()
	}
	s := subject()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if w.Revoked(s) != 0 {
				b.Error("revoked")
			}
		}
	})
}

// One look that ends one of ten thousand connections.
func BenchmarkApply(b *testing.B) {
	w := New(&table{}, slog.New(slog.DiscardHandler), time.Now)
	for range 10_000 {
		w.Watch(subject(), func(store.RevocationKind) {})
	}
	for i := 0; b.Loop(); i++ {
		w.seen = nil
		w.apply([]store.Revocation{{ID: uint64(i), Kind: store.RevokedDevice, Subject: ids.New(), At: time.Now()}})
	}
}
