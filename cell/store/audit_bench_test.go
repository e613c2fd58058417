package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

// benchStore is a store on a database that syncs to disk, with an audit log or without.
func benchStore(b *testing.B, withAudit bool) (s *Store, account, device ids.ID) {
	b.Helper()
	sealer, err := NewSealer([]SealingKey{{1, make([]byte, SealingKeySize)}}, make([]byte, SealingKeySize))
	fail := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	fail(err)
	s, err = Open(b.Context(), Options{URI: pgtest.New(b, pgtest.Durable()), Sealer: sealer})
	fail(err)
	b.Cleanup(s.Close)
	fail(s.Migrate(b.Context(), slog.New(slog.DiscardHandler)))
	if withAudit {
		fail(s.EnableAudit(b.Context(), auditKeys(b, 1)))
	}
	account, device = ids.New(), ids.New()
	now := time.Now()
	fail(s.CreateAccount(b.Context(), Account{ID: account, Name: "alice", RootKey: make([]byte, 32), CreatedAt: now},
		Device{ID: device, AccountID: account, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: now},
		Session{ID: ids.New(), DeviceID: device, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}))
	return s, account, device
}

// Events per second: one after the other, from many at once each in a transaction of its own, and through a Recorder.
func BenchmarkAuditEvents(b *testing.B) {
	for _, at := range []int{1, 16, 256} {
		for _, how := range []string{"transactions", "recorder"} {
			b.Run(fmt.Sprintf("%s/%d", how, at), func(b *testing.B) {
				s, account, device := benchStore(b, true)
				ctx := audit.WithAddress(b.Context(), netip.MustParseAddr("192.0.2.1"))
				record := s.WriteAudit
				if how == "recorder" {
					r := audit.NewRecorder(s, audit.Options{})
					running, stop := context.WithCancel(b.Context())
					var done sync.WaitGroup
					done.Go(func() { r.Run(running) })
					defer done.Wait()
					defer stop()
					record = r.Record
				}
				b.ResetTimer()
				inParallel(b, at, func() error { return record(ctx, audit.SessionRefreshed(account, device, ids.ID{1})) })
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// inParallel runs f b.N times, n at once.
func inParallel(b *testing.B, n int, f func() error) {
	b.Helper()
	left := make(chan struct{}, b.N)
	for range b.N {
		left <- struct{}{}
	}
	close(left)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for range left {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// What a login has the database do: the verdict of the password, and the session; without an audit log the session alone.
func BenchmarkAuditedLogin(b *testing.B) {
	for _, at := range []int{1, 16} {
		for _, withAudit := range []bool{false, true} {
			b.Run(fmt.Sprintf("audit=%v/%d", withAudit, at), func(b *testing.B) {
				s, account, device := benchStore(b, withAudit)
				sink := audit.Discard
				if withAudit {
					r := audit.NewRecorder(s, audit.Options{})
					running, stop := context.WithCancel(b.Context())
					var done sync.WaitGroup
					done.Go(func() { r.Run(running) })
					defer done.Wait()
					defer stop()
					sink = r
				}
				devices := make(chan ids.ID, at) // Each login a device of its own, as logins are.
				for range at {
					d := ids.New()
					now := time.Now()
					if _, err := s.AddDevice(b.Context(), Device{ID: d, AccountID: account, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: now},
						Session{ID: ids.New(), DeviceID: d, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}, 1000, aboutDevice(account, d)); err != nil {
						b.Fatal(err)
					}
					devices <- d
				}
				_ = device
				b.ResetTimer()
				inParallel(b, at, func() error {
					d := <-devices
					defer func() { devices <- d }()
					if err := sink.Record(b.Context(), audit.LoginSucceeded(account)); err != nil {
						return err
					}
					now, id := time.Now(), ids.New()
					return s.CreateSession(b.Context(), Session{ID: id, DeviceID: d, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)},
						audit.SessionStarted(account, d, id))
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
			})
		}
	}
}

// Verifying a log, rows per second, and signing one.
func BenchmarkAuditVerify(b *testing.B) {
	s, account, device := benchStore(b, true)
	const rows = 20_000
	events := make([]audit.Event, 200)
	for i := range events {
		events[i] = audit.SessionRefreshed(account, device, ids.ID{1})
	}
	for range rows / len(events) {
		if err := s.WriteAudit(b.Context(), events...); err != nil {
			b.Fatal(err)
		}
	}
	start := time.Now()
	if p, err := s.CheckpointAudit(b.Context(), time.Now()); err != nil || p.Rows < rows {
		b.Fatal(p, err)
	}
	b.ReportMetric(rows/time.Since(start).Seconds(), "rows-signed/s")
	b.ResetTimer()
	for range b.N {
		v := &verifying{audit.Verifier{Trust: s.audit.keys.Trust(), Keys: s.audit.keys, Cell: s.audit.cell.ID}}
		if err := s.VisitAudit(b.Context(), 0, v); err != nil {
			b.Fatal(err)
		}
		if _, err := v.Finish(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}
