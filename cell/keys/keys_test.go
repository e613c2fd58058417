package keys

import (
	"log/slog"
	"testing"
	"time"

	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// service is a Service whose clock and policy the test has in hand.
type service struct {
	*Service
	store *store.Store
	rules *policy.Policy
	now   time.Time
}

func makeService(t *testing.T) *service {
	t.Helper()
	sealer, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	must(t, err)
	st, err := store.Open(t.Context(), store.Options{URI: pgtest.New(t), Sealer: sealer})
	must(t, err)
	t.Cleanup(st.Close)
	must(t, st.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	s := &service{store: st, rules: policy.Default(), now: time.Now()}
	must(t, st.EnsurePartitions(t.Context(), s.now, 48*time.Hour, []time.Duration{time.Duration(s.rules.Retention.Inbox)}, time.Hour))
	s.Service = New(st, func() *policy.Policy { return s.rules }, func() time.Time { return s.now })
	return s
}

func (s *service) person(t *testing.T) identity.Principal {
	t.Helper()
	p := identity.Principal{AccountID: ids.New(), DeviceID: ids.New()}
	must(t, s.store.CreateAccount(t.Context(), store.Account{ID: p.AccountID, Name: p.AccountID.String(), RootKey: make([]byte, 32), CreatedAt: s.now, Skeleton: p.AccountID.String()},
		store.Device{ID: p.DeviceID, AccountID: p.AccountID, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: s.now},
		store.Session{ID: ids.New(), DeviceID: p.DeviceID, RefreshHash: []byte("h"), CreatedAt: s.now, ExpiresAt: s.now.Add(time.Hour)}))
	return p
}

// stock gives a device KeyPackages that are none, past the checks.
func (s *service) stock(t *testing.T, p identity.Principal, n int, life time.Duration) {
	t.Helper()
	var list []store.KeyPackage
	for range n {
		list = append(list, store.KeyPackage{Ref: []byte(ids.New().String()), InitKey: []byte(ids.New().String()), ExpiresAt: s.now.Add(life), Package: []byte("p")})
	}
	must(t, s.store.AddKeyPackages(t.Context(), p.DeviceID, list, s.rules.MLS.MaxKeyPackagesPerDevice, s.now))
}

func (s *service) claim(t *testing.T, by, of identity.Principal) error {
	t.Helper()
	_, err := s.Claim(t.Context(), by, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: of.AccountID})
	return err
}

// Whom an account may write to, it may have KeyPackages of; and nobody else's.
func TestClaimsFollowContacts(t *testing.T) {
	t.Parallel()
	s := makeService(t)
	alice, bob, tablet := s.person(t), s.person(t), s.person(t)
	s.stock(t, bob, 50, time.Hour)
	s.stock(t, tablet, 5, time.Hour)
	change := func(by, of identity.Principal) *store.ContactChange {
		return &store.ContactChange{Account: by.AccountID, Other: of.AccountID, At: s.now}
	}
	want := func(what string, inOpen, inAsking wire.Code) {
		t.Helper()
		for mode, code := range map[policy.ContactMode]wire.Code{policy.ContactsOpen: inOpen, policy.ContactsRequest: inAsking} {
			s.rules.Contacts = mode
			if err := s.claim(t, alice, bob); (code == 0) != (err == nil) || err != nil && !wire.HasCode(err, code) {
				t.Errorf("%s, %s: %v, want %v", what, mode, err, code)
			}
		}
	}
	want("strangers", 0, wire.CodeContactPending)
	_, _, err := s.store.AskContact(t.Context(), change(alice, bob), 10, 10)
	must(t, err)
	want("asked", 0, wire.CodeContactPending)
	_, err = s.store.AcceptContact(t.Context(), change(bob, alice))
	must(t, err)
	want("accepted", 0, 0)
	must(t, s.store.BlockContact(t.Context(), change(bob, alice), true))
	want("blocked", wire.CodePermissionDenied, wire.CodeContactPending)
	must(t, s.store.BlockContact(t.Context(), change(bob, alice), false))
	want("no longer", 0, 0)
	must(t, s.store.BlockContact(t.Context(), change(alice, bob), true))
	want("by oneself", 0, 0)
	s.rules.Contacts = policy.ContactsRequest
	if err := s.claim(t, bob, bob); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if err := s.claim(t, alice, identity.Principal{AccountID: ids.New()}); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("nobody's: %v", err)
	}
}

// So many claims an hour, by account and target, and again an hour later.
func TestClaimsAnHour(t *testing.T) {
	t.Parallel()
	s := makeService(t)
	alice, bob, carol := s.person(t), s.person(t), s.person(t)
	s.stock(t, bob, 100, 24*time.Hour)
	s.stock(t, carol, 10, 24*time.Hour)
	for range claimsPerClaimer {
		must(t, s.claim(t, alice, bob))
	}
	if err := s.claim(t, alice, bob); !wire.HasCode(err, wire.CodeRateLimited) {
		t.Fatalf("%v", err)
	}
	must(t, s.claim(t, alice, carol))
	must(t, s.claim(t, carol, bob))
	s.now = s.now.Add(time.Hour + time.Second)
	must(t, s.claim(t, alice, bob))
}

// A device runs low by claims and by expiry, and does no longer once it has uploaded.
func TestWhoRunsLow(t *testing.T) {
	t.Parallel()
	s := makeService(t)
	s.rules.MLS.MaxKeyPackagesPerDevice = 12 // Fewer than 3 are few.
	alice, bob := s.person(t), s.person(t)
	low := func() (n int, is bool) {
		t.Helper()
		m, err := s.store.LowKeyPackages(t.Context(), []ids.ID{bob.DeviceID, alice.DeviceID})
		must(t, err)
		left, is := m[bob.DeviceID]
		return left.OneTime, is
	}
	s.stock(t, bob, 4, time.Hour)
	must(t, s.claim(t, alice, bob))
	if n, is := low(); is {
		t.Errorf("3 are few: %d", n)
	}
	must(t, s.claim(t, alice, bob))
	if n, is := low(); !is || n != 2 {
		t.Errorf("2 left: %d, %v", n, is)
	}
	s.stock(t, bob, 1, 48*time.Hour)
	if _, is := low(); is {
		t.Error("it has 3 again")
	}
	s.now = s.now.Add(2 * time.Hour)
	must(t, s.store.SweepKeyPackages(t.Context(), s.now, s.now.Add(-24*time.Hour), store.FewKeyPackages(12)))
	if n, is := low(); !is || n != 1 {
		t.Errorf("two have expired: %d, %v", n, is)
	}
}
