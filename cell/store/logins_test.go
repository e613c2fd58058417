package store

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

func TestLoginAccount(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	alice, phone := person(t, s, "alice")
	_, other := person(t, s, "bob")
	decoy := s.NewDecoy([]byte("no record"), []byte("no key"))
	now := time.Now()
	get := func(name string, device ids.ID, address string) LoginAccount {
		t.Helper()
		l, err := s.LoginAccount(t.Context(), name, device, address, now, decoy)
		must(t, err)
		return l
	}
	l := get("alice", phone.ID, "192.0.2.1")
	if !l.Exists || l.ID != alice.ID || string(l.OPAQUERecord) != "record of alice" || string(l.WrappedRootKey) != "wrapped" || l.Name != "alice" ||
		!l.Device.Equal(phone.Key) || !l.KnownUntil.IsZero() || l.HasSkeleton {
		t.Errorf("%+v", l)
	}
	for what, device := range map[string]ids.ID{"none": {}, "another's": other.ID, "nobody's": ids.New()} {
		if l := get("alice", device, ""); l.Device != nil {
			t.Errorf("%s device: %x", what, l.Device)
		}
	}
	nobody := get("nobody", phone.ID, "192.0.2.1")
	if nobody.Exists || nobody.ID == alice.ID || string(nobody.OPAQUERecord) != "no record" || nobody.Device != nil {
		t.Errorf("%+v", nobody)
	}
	must(t, s.ForgiveAttempt(t.Context(), Forgiven{}, alice.ID, "192.0.2.1", now.Add(time.Hour)))
	if l := get("alice", ids.ID{}, "192.0.2.1"); !l.KnownUntil.Equal(utc(now.Add(time.Hour))) {
		t.Errorf("a known address: %s", l.KnownUntil)
	}
	if l := get("alice", ids.ID{}, "192.0.2.2"); !l.KnownUntil.IsZero() {
		t.Errorf("an unknown address: %s", l.KnownUntil)
	}
	must(t, s.SetSkeleton(t.Context(), alice.ID, "looks"))
	if !get("alice", ids.ID{}, "").HasSkeleton {
		t.Error("the skeleton was not stored")
	}
	if err := s.SetSkeleton(t.Context(), other.AccountID, "looks"); !errors.Is(err, ErrExists) {
		t.Errorf("the same look twice: %v", err)
	}
	now = now.Add(time.Hour)
	if l := get("alice", ids.ID{}, "192.0.2.1"); !l.KnownUntil.IsZero() {
		t.Error("an address is known too long")
	}
}

func TestAttemptsAreCountedTogether(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	at := time.Now().UTC().Truncate(time.Second)
	a, b, c := s.AttemptSubject("name", "a"), s.AttemptSubject("name", "b"), s.AttemptSubject("address", "a")
	if bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Fatal("two subjects are one")
	}
	add := func(list []Attempts) error {
		for i := range list {
			list[i] = Attempts{list[i].Failures + 1, at, at.Add(time.Hour)}
		}
		return nil
	}
	var group sync.WaitGroup
	for i := range 30 { // In any order, at once.
		subjects := [][][]byte{{a, b, c}, {c, b}, {b, a}}[i%3]
		group.Go(func() {
			if err := s.ChangeAttempts(context.WithoutCancel(t.Context()), subjects, add); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			if err := s.ForgiveAttempt(context.WithoutCancel(t.Context()), Forgiven{[][]byte{c, a}, []bool{false, false}, []time.Duration{time.Minute, time.Minute}}, ids.ID{}, "", time.Time{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	read := func(subject []byte) (got Attempts) {
		must(t, s.ChangeAttempts(t.Context(), [][]byte{subject}, func(list []Attempts) error { got = list[0]; return nil }))
		return got
	}
	if n := read(b).Failures; n != 30 {
		t.Errorf("%d failures of 30", n)
	}
	refused := errors.New("refused")
	if err := s.ChangeAttempts(t.Context(), [][]byte{b}, func(list []Attempts) error { list[0].Failures = 99; return refused }); !errors.Is(err, refused) || read(b).Failures != 30 {
		t.Errorf("a refused change: %v, %d", err, read(b).Failures)
	}
	if inUse, _ := s.Stats(); inUse != 0 {
		t.Errorf("%d connections are kept", inUse)
	}
	must(t, s.ForgiveAttempt(t.Context(), Forgiven{[][]byte{b}, []bool{false}, []time.Duration{time.Minute}}, ids.ID{}, "", time.Time{}))
	if got := read(b); got.Failures != 29 || !got.ForgetAt.Equal(at.Add(29*time.Minute)) {
		t.Errorf("forgiven: %+v", got)
	}
	must(t, s.ForgiveAttempt(t.Context(), Forgiven{[][]byte{b}, []bool{true}, []time.Duration{time.Minute}}, ids.ID{}, "", time.Time{}))
	if got := read(b); got.Failures != 0 || !got.ForgetAt.Equal(at) {
		t.Errorf("cleared: %+v", got)
	}
}

func TestSweepLogins(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	alice, _ := person(t, s, "alice")
	now := time.Now()
	for i, until := range []time.Time{now.Add(-time.Second), now.Add(time.Hour)} {
		must(t, s.ChangeAttempts(t.Context(), [][]byte{s.AttemptSubject("name", fmt.Sprint(i))}, func(list []Attempts) error {
			list[0] = Attempts{1, now, until}
			return nil
		}))
		must(t, s.ForgiveAttempt(t.Context(), Forgiven{}, alice.ID, fmt.Sprint(i), until))
		must(t, s.AddInvitation(t.Context(), []byte{byte(i)}, now, until))
	}
	must(t, s.AddResetCode(t.Context(), alice.ID, []byte("reset"), now, now.Add(-time.Second)))
	must(t, s.SetRecoveryCodes(t.Context(), alice.ID, Proof{OPAQUERecord: alice.OPAQUERecord}, []RecoveryCode{{[]byte("key"), []byte("wrapped")}}, now))
	must(t, s.SweepSessions(t.Context(), now))
	for _, table := range []string{"login_attempts", "known_addresses", "invitations", "recovery_codes"} {
		var n int
		must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
		if n != 1 {
			t.Errorf("%s has %d rows, not the one that has not lapsed", table, n)
		}
	}
}

// What people know, and where they are, cannot be read in the tables about logins.
func TestLoginTablesAreSealed(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	alice, _ := person(t, s, "alice")
	now := time.Now()
	must(t, s.SetRecoveryCodes(t.Context(), alice.ID, Proof{OPAQUERecord: alice.OPAQUERecord}, []RecoveryCode{{[]byte("key"), []byte("wrapped secret")}}, now))
	must(t, s.ForgiveAttempt(t.Context(), Forgiven{}, alice.ID, "192.0.2.33", now.Add(time.Hour)))
	must(t, s.ChangeAttempts(t.Context(), [][]byte{s.AttemptSubject("pair", "192.0.2.33\x00alice")}, func([]Attempts) error { return nil }))
	must(t, s.SetSkeleton(t.Context(), alice.ID, "aiice"))
	for _, table := range []string{"recovery_codes", "known_addresses", "login_attempts", "accounts"} {
		var text string
		must(t, s.pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(x::text, ' '), '') FROM `+table+` x`).Scan(&text))
		for _, secret := range []string{"wrapped secret", fmt.Sprintf("%x", "wrapped secret"), "192.0.2.33", fmt.Sprintf("%x", "192.0.2.33"), "aiice", fmt.Sprintf("%x", "aiice")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %q", table, secret)
			}
		}
		if text == "" {
			t.Errorf("%s has no rows: this test would prove nothing", table)
		}
	}
	a, c, err := s.RecoveryAccount(t.Context(), "alice", []byte("key"), now)
	if err != nil || a.ID != alice.ID || string(c.WrappedRootKey) != "wrapped secret" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSecretsChangeOnlyByTheirProof(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	alice, phone := person(t, s, "alice")
	now := time.Now()
	proof := Proof{OPAQUERecord: alice.OPAQUERecord}
	must(t, s.SetRecoveryCodes(t.Context(), alice.ID, proof, []RecoveryCode{{[]byte("one"), []byte("w")}, {[]byte("two"), []byte("w")}}, now))
	next := Password{OPAQUERecord: []byte("second"), OPAQUEKey: 2, WrappedRootKey: []byte("anew")}
	for what, p := range map[string]Proof{"another record": {OPAQUERecord: []byte("x")}, "no record": {}, "another code": {RecoveryKey: []byte("three")}} {
		if err := s.SetPassword(t.Context(), alice.ID, p, next, nil, now); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var wins int
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 4 { // One code, four connections.
		group.Go(func() {
			err := s.SetPassword(context.WithoutCancel(t.Context()), alice.ID, Proof{RecoveryKey: []byte("one")}, next, &phone.ID, now)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				wins++
			} else if !errors.Is(err, ErrChanged) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if wins != 1 {
		t.Errorf("the code served %d times", wins)
	}
	if err := s.SetRecoveryCodes(t.Context(), alice.ID, proof, nil, now); !errors.Is(err, ErrChanged) {
		t.Errorf("by the password of before: %v", err)
	}
	l, err := s.LoginAccount(t.Context(), "alice", ids.ID{}, "", now, s.NewDecoy(nil, nil))
	must(t, err)
	if string(l.OPAQUERecord) != "second" || l.OPAQUEKey != 2 || string(l.WrappedRootKey) != "anew" {
		t.Errorf("%+v", l.Account)
	}
	if err := s.SetPassword(t.Context(), ids.New(), proof, next, nil, now); !errors.Is(err, ErrNotFound) {
		t.Errorf("an account that is not there: %v", err)
	}
}

// Deleting an account's row takes with it what these tables hold of it.
func TestLoginTablesGoWithTheirAccount(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t), 1)
	must(t, s.Migrate(t.Context(), quiet))
	for _, table := range []string{"recovery_codes", "known_addresses"} {
		var rule string
		must(t, s.pool.QueryRow(t.Context(), `SELECT confdeltype::text FROM pg_constraint WHERE contype = 'f' AND conrelid = $1::regclass AND confrelid = 'accounts'::regclass`, table).Scan(&rule))
		if rule != "c" {
			t.Errorf("%s: %s", table, rule)
		}
	}
}

func TestResetAccountLeavesNothingOfBefore(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	alice, phone := person(t, s, "alice")
	now := time.Now()
	must(t, s.AddKeyPackages(t.Context(), phone.ID, []KeyPackage{{DeviceID: phone.ID, Ref: []byte("r"), InitKey: []byte("i"), ExpiresAt: now.Add(time.Hour), Package: []byte("p")}}, 10, now))
	must(t, s.SetRecoveryCodes(t.Context(), alice.ID, Proof{OPAQUERecord: alice.OPAQUERecord}, []RecoveryCode{{[]byte("one"), []byte("w")}}, now))
	must(t, s.AddResetCode(t.Context(), alice.ID, []byte("first"), now, now.Add(time.Hour)))
	must(t, s.AddResetCode(t.Context(), alice.ID, []byte("reset"), now, now.Add(time.Hour)))
	d := Device{ID: ids.New(), AccountID: alice.ID, Key: make(ed25519.PublicKey, 32), Certificate: []byte("c"), CreatedAt: now}
	n := &Reset{Notice: *aboutDevice(alice.ID, ids.ID{}), RecoveryKey: []byte("first"), RootKey: bytes.Repeat([]byte{7}, 32), Password: Password{[]byte("new"), 1, []byte("w")}, Device: d,
		RecoveryCodes: []RecoveryCode{{[]byte("two"), []byte("w")}}, Session: Session{ID: ids.New(), DeviceID: d.ID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}}
	if _, err := s.ResetAccount(t.Context(), n, now); !errors.Is(err, ErrChanged) {
		t.Errorf("by a code that another replaced: %v", err)
	}
	n.RecoveryKey = []byte("reset")
	_, err := s.ResetAccount(t.Context(), n, now)
	must(t, err)
	for sql, want := range map[string]int{
		`SELECT count(*) FROM devices WHERE revoked_at IS NULL`: 1, `SELECT count(*) FROM sessions WHERE revoked_at IS NULL`: 1,
		`SELECT count(*) FROM key_packages`: 0, `SELECT count(*) FROM recovery_codes`: 1, `SELECT count(*) FROM devices`: 2,
		`SELECT count(*) FROM revocations WHERE kind = 2`: 1, `SELECT count(*) FROM revocations WHERE kind = 1`: 1,
		`SELECT count(*) FROM cursors`: 1,
	} {
		var n int
		must(t, s.pool.QueryRow(t.Context(), sql).Scan(&n))
		if n != want {
			t.Errorf("%s: %d, want %d", sql, n, want)
		}
	}
	a, err := s.AccountByID(t.Context(), alice.ID)
	if err != nil || a.RootKey[0] != 7 || string(a.OPAQUERecord) != "new" {
		t.Errorf("%+v, %v", a, err)
	}
}
