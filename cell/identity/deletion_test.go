package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/codes"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// told gathers the notices that are announced.
func (f *fixture) told() func() []*store.Message {
	var mu sync.Mutex
	var list []*store.Message
	f.Connect(f.revocations, func(m []*store.Message) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, m...)
	})
	return func() []*store.Message {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

func TestDeleteAccount(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	told := f.told()
	ctx := t.Context()
	alice, bob := newPerson("alice"), newPerson("bob")
	session, err := f.signup(ctx, alice)
	must(t, err)
	_, err = f.signup(ctx, bob)
	must(t, err)
	f.talk(t, alice, bob)
	ref, err := f.store.AuditRef(ctx, alice.cert.AccountID)
	must(t, err)
	attempt, second := f.login(t, alice), f.login(t, alice)
	_, _, unproven := f.loginStart(t, "alice", "password")
	for what, l := range map[string]*Login{"no login": nil, "one that is not finished": unproven} {
		_, err := f.DeleteAccount(ctx, l, &wire.DeleteAccountRequest{Name: "alice"})
		wantUnauthenticated(t, what, err)
	}
	for _, name := range []string{"bob", "", "alice2", "\x00"} {
		if _, err := f.DeleteAccount(ctx, attempt, &wire.DeleteAccountRequest{Name: name}); !wire.HasCode(err, wire.CodeInvalidArgument) {
			t.Errorf("under the name %q: %v", name, err)
		}
	}
	_, err = f.DeleteAccount(ctx, attempt, &wire.DeleteAccountRequest{Name: "ALICE"}) // As people write it.
	must(t, err)
	_, err = f.DeleteAccount(ctx, attempt, &wire.DeleteAccountRequest{Name: "alice"})
	wantUnauthenticated(t, "once more", err)
	_, err = f.DeleteAccount(ctx, second, &wire.DeleteAccountRequest{Name: "alice"})
	must(t, err) // Another device wanted it too: it is done.
	_, _, err = f.StartSession(ctx, f.proven(alice), &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	wantUnauthenticated(t, "a session by what was proven before", err)

	// It answers as a name that nobody has.
	_, answer, l := f.loginStart(t, "alice", "password")
	_, err = f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: madeUp})
	gone := []string{outcome(t, answer, nil), outcome(t, nil, err)}
	_, answer, l = f.loginStart(t, "nobod", "password")
	_, err = f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: madeUp})
	if never := []string{outcome(t, answer, nil), outcome(t, nil, err)}; !slices.Equal(gone, never) {
		t.Errorf("deleted: %q, never there: %q", gone, never)
	}
	if _, _, err := f.Refresh(ctx, &wire.RefreshSessionRequest{DeviceID: alice.cert.DeviceID, RefreshToken: session.RefreshToken, Proof: alice.proof()}, exporter); !wire.HasCode(err, wire.CodeDeviceRevoked) {
		t.Errorf("refresh: %v", err)
	}
	_, err = f.signup(ctx, newPerson("alice")) // The name is free.
	must(t, err)

	must(t, f.FinishDeletions(ctx))
	must(t, f.FinishDeletions(ctx))
	notices := told()
	if len(notices) != 1 || notices[0].ChannelID != bob.cert.DeviceID {
		t.Fatalf("told: %d", len(notices))
	}
	if n, err := wire.UnmarshalNotice(notices[0].Payload); err != nil || n.Kind != wire.NoticeAccountDeleted || n.AccountID != alice.cert.AccountID {
		t.Errorf("%+v, %v", n, err)
	}
	if events := f.events(t, r, ref); !slices.Contains(events, "account.deleted success account") {
		t.Errorf("the audit log: %q", events)
	}
	if _, err := f.store.Device(ctx, alice.cert.DeviceID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its device: %v", err)
	}
}

// proven is a login as it was proven before, whatever became of the account.
func (f *fixture) proven(p *person) *Login {
	return &Login{account: store.Account{ID: p.cert.AccountID, Name: p.name, RootKey: p.cert.RootKey}, known: true, proven: true, provenAt: f.time()}
}

// talk opens a direct channel with a group.
func (f *fixture) talk(t *testing.T, a, b *person) ids.ID {
	t.Helper()
	now := f.time()
	c, err := f.store.DirectChannel(t.Context(), a.cert.AccountID, b.cert.AccountID, now)
	must(t, err)
	welcome := store.Message{ChannelID: b.cert.DeviceID, Kind: store.MessageWelcome, Generation: 1, SenderID: a.cert.DeviceID, DeliveryID: ids.NewDelivery(now), AboutChannel: c.ID,
		AcceptedAt: now, ExpiresAt: now.Add(time.Duration(f.rules.Retention.Inbox)), Payload: []byte("welcome")}
	_, err = f.store.CreateGroup(t.Context(), &store.Group{ChannelID: c.ID, Generation: 1, GroupInfo: []byte("i"), Creator: a.cert.DeviceID, Welcomes: []store.Message{welcome}, At: now})
	must(t, err)
	return c.ID
}

// Neither a reset code nor a recovery code deletes: the first would do away with what its person can still read.
func TestCodesDoNotDelete(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	keys := f.withCodes(t, alice, 1)
	_, l, err := f.Recover(t.Context(), &wire.RecoverRequest{Name: "alice", RecoveryKey: keys[0].Public(), Proof: keys[0].Prove(exporter)}, exporter)
	must(t, err)
	_, err = f.DeleteAccount(t.Context(), l, &wire.DeleteAccountRequest{Name: "alice"})
	wantUnauthenticated(t, "by a recovery code", err)
	if _, err := f.AccountForAdmin(t.Context(), "alice", ids.ID{}); err != nil {
		t.Error(err)
	}
}

func TestDeletionHoldsOnlyWhatIsProvenStill(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	old, late := f.login(t, alice), f.login(t, alice)
	must(t, f.setPassword(t.Context(), f.login(t, alice), "second"))
	_, err = f.DeleteAccount(t.Context(), old, &wire.DeleteAccountRequest{Name: "alice"})
	wantUnauthenticated(t, "by a password of before", err)
	f.advance(provenFor + time.Second)
	_, err = f.DeleteAccount(t.Context(), late, &wire.DeleteAccountRequest{Name: "alice"})
	wantUnauthenticated(t, "too late", err)
	if _, err := f.AccountForAdmin(t.Context(), "alice", ids.ID{}); err != nil {
		t.Error(err)
	}
}

// RunDeletions wakes up by itself, and takes up what another process began.
func TestRunDeletions(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	alice, bob := newPerson("alice"), newPerson("bob")
	for _, p := range []*person{alice, bob} {
		_, err := f.signup(t.Context(), p)
		must(t, err)
	}
	must(t, f.DeleteAccountByAdmin(t.Context(), alice.cert.AccountID, audit.ByAdmin("root"))) // Before it runs.
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { f.RunDeletions(ctx) })
	gone := func(p *person) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, err := f.store.Device(t.Context(), p.cert.DeviceID); errors.Is(err, store.ErrNotFound) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s is still there", p.name)
			}
		}
	}
	gone(alice)
	must(t, f.DeleteAccountByAdmin(t.Context(), bob.cert.AccountID, audit.ByAdmin("root")))
	gone(bob)
	stop()
	done.Wait()
	if err := f.DeleteAccountByAdmin(t.Context(), bob.cert.AccountID, audit.ByAdmin("root")); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestExportAccount(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	alice := newPerson("alice")
	_, err := f.signup(t.Context(), alice)
	must(t, err)
	p := Principal{AccountID: alice.cert.AccountID, DeviceID: alice.cert.DeviceID}
	var after []byte
	var all bytes.Buffer
	types := map[string]int{}
	for {
		page, err := f.ExportAccount(t.Context(), p, &wire.ExportAccountRequest{After: after})
		must(t, err)
		if _, err := wire.Marshal(wire.Envelope{CorrelationID: 1, Body: page}); err != nil {
			t.Fatal(err)
		}
		all.Write(page.Lines)
		for line := range bytes.Lines(page.Lines) {
			var o struct{ Type string }
			must(t, json.Unmarshal(line, &o))
			types[o.Type]++
		}
		if after = page.Next; len(after) == 0 {
			break
		}
	}
	if types["account"] != 1 || types["device"] != 1 || types["session"] != 1 || types["auditEvent"] < 2 || !strings.Contains(all.String(), `"name":"alice"`) {
		t.Errorf("%v:\n%s", types, &all)
	}
	if _, err := f.ExportAccount(t.Context(), p, &wire.ExportAccountRequest{After: []byte{77}}); !wire.HasCode(err, wire.CodeInvalidArgument) {
		t.Errorf("a place that is none: %v", err)
	}
	ref, err := f.store.AuditRef(t.Context(), p.AccountID)
	must(t, err)
	if events := f.events(t, r, ref); !slices.Contains(events, "account.exported success account") {
		t.Errorf("the audit log: %q", events)
	}
	if _, err := f.ExportAccount(t.Context(), Principal{AccountID: ids.New()}, &wire.ExportAccountRequest{After: []byte{1}}); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

// However long the lines are, a page fits into its frame, and the next goes on where it ended.
func TestPagesOfAnExport(t *testing.T) {
	t.Parallel()
	var lines []store.ExportLine
	for i := range 40 {
		lines = append(lines, store.ExportLine{Value: strings.Repeat("x", 40<<10), Next: []byte{byte(i)}})
	}
	first, err := page(lines, []byte("end"))
	must(t, err)
	if len(first.Lines) > wire.MaxExportPage || len(first.Next) != 1 {
		t.Fatalf("%d bytes, then %x", len(first.Lines), first.Next)
	}
	if n := bytes.Count(first.Lines, []byte("\n")); n != int(first.Next[0])+1 {
		t.Errorf("%d lines, and the next page goes on behind %d", n, first.Next[0])
	}
	if last, err := page(lines[len(lines)-1:], []byte("end")); err != nil || string(last.Next) != "end" {
		t.Errorf("%q, %v", last.Next, err)
	}
	if none, err := page(nil, nil); err != nil || len(none.Lines) != 0 || none.Next != nil {
		t.Errorf("%+v, %v", none, err)
	}
}

func disable(t *testing.T, f *fixture, p *person, disabled bool) {
	t.Helper()
	must(t, f.SetDisabled(t.Context(), p.cert.AccountID, disabled, audit.ByAdmin("root")))
}

// Who has not proven to be of it finds out nothing; who has is told, and gets no further.
func TestADisabledAccount(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	r := f.withAudit(t)
	ctx := t.Context()
	alice, bob := newPerson("alice"), newPerson("carol")
	keys := f.withCodes(t, alice, 1)
	_, err := f.signup(ctx, bob)
	must(t, err)
	session, _, err := f.StartSession(ctx, f.login(t, alice), &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	must(t, err)
	before := f.login(t, alice)
	disable(t, f, alice, true)
	disable(t, f, alice, true) // Again does nothing.

	strangers := map[string][]string{}
	none := codes.New().Derive(codes.Recovery)
	for _, name := range []string{"alice", "carol"} {
		note := func(body wire.Body, err error) { strangers[name] = append(strangers[name], outcome(t, body, err)) }
		for range 3 {
			_, answer, l := f.loginStart(t, name, "wrong")
			note(answer, nil)
			_, err := f.LoginFinish(ctx, l, &wire.LoginFinishRequest{KE3: madeUp})
			note(nil, err)
		}
		_, _, err := f.Recover(ctx, &wire.RecoverRequest{Name: name, RecoveryKey: none.Public(), Proof: none.Prove(exporter)}, exporter)
		note(nil, err)
	}
	if !slices.Equal(strangers["alice"], strangers["carol"]) {
		t.Errorf("a disabled account is answered\n%q\nanother\n%q", strangers["alice"], strangers["carol"])
	}
	refresh := func(p *person) error {
		_, _, err := f.Refresh(ctx, &wire.RefreshSessionRequest{DeviceID: alice.cert.DeviceID, RefreshToken: session.RefreshToken, Proof: p.proof()}, exporter)
		return err
	}
	wantCode(t, refresh(bob), wire.CodeInvalidProof)
	wantCode(t, refresh(alice), wire.CodeAccountDisabled)
	_, _, err = f.loginWith(ctx, "alice", "password")
	wantCode(t, err, wire.CodeAccountDisabled)
	_, _, err = f.Recover(ctx, &wire.RecoverRequest{Name: "alice", RecoveryKey: keys[0].Public(), Proof: keys[0].Prove(exporter)}, exporter)
	wantCode(t, err, wire.CodeAccountDisabled)
	_, _, err = f.StartSession(ctx, before, &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter)
	wantCode(t, err, wire.CodeAccountDisabled)
	_, err = f.DeleteAccount(ctx, before, &wire.DeleteAccountRequest{Name: "alice"})
	wantCode(t, err, wire.CodeAccountDisabled)
	_, err = f.SetRecoveryCodes(ctx, f.proven(alice), &wire.SetRecoveryCodesRequest{}, ids.ID{})
	wantCode(t, err, wire.CodeAccountDisabled)
	another := alice.withDevice(alice.cert.AccountID)
	n := store.Notice{Account: alice.cert.AccountID, Device: another.cert.DeviceID, At: f.time(), Until: f.time()}
	if _, err := f.store.AddDevice(ctx, device(another.cert, "", f.time()), store.Session{ID: ids.New(), DeviceID: another.cert.DeviceID, CreatedAt: f.time(), ExpiresAt: f.time()}, 64, &n); !errors.Is(err, store.ErrDisabled) {
		t.Errorf("another device: %v", err)
	}
	if err := f.store.CreateSession(ctx, store.Session{ID: ids.New(), DeviceID: alice.cert.DeviceID, CreatedAt: f.time(), ExpiresAt: f.time()}); !errors.Is(err, store.ErrDisabled) {
		t.Errorf("another session: %v", err)
	}
	if a, err := f.AccountForAdmin(ctx, "", alice.cert.AccountID); err != nil || !a.Disabled || a.Name != "alice" || len(a.Devices) != 1 {
		t.Errorf("the admin sees %+v, %v", a, err)
	}

	disable(t, f, alice, false)
	wantCode(t, refresh(alice), wire.CodeInvalidToken) // Sessions of before are over.
	if _, _, err := f.loginWith(ctx, "alice", "password"); err != nil {
		t.Errorf("enabled again: %v", err)
	}
	if _, _, err := f.Recover(ctx, &wire.RecoverRequest{Name: "alice", RecoveryKey: keys[0].Public(), Proof: keys[0].Prove(exporter)}, exporter); err != nil {
		t.Errorf("its code, enabled again: %v", err)
	}
	ref, err := f.store.AuditRef(ctx, alice.cert.AccountID)
	must(t, err)
	events := f.events(t, r, ref)
	count := func(e string) (n int) {
		for _, has := range events {
			if has == e {
				n++
			}
		}
		return n
	}
	for e, want := range map[string]int{"account.disabled success admin": 1, "account.enabled success admin": 1, "auth.login denied account_disabled stranger": 1} {
		if count(e) != want {
			t.Errorf("%q is there %d times, in %q", e, count(e), events)
		}
	}
	if err := f.SetDisabled(ctx, ids.New(), true, audit.ByAdmin("root")); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestTimesDoNotTellDisabledAccountsApart(t *testing.T) { //nolint:paralleltest // It measures.
	f := makeService(t)
	for _, name := range []string{"known1", "known2", "others"} {
		p := newPerson(name)
		_, err := f.signup(t.Context(), p)
		must(t, err)
		if name == "known1" {
			disable(t, f, p, true)
		}
	}
	try := f.loginAttempt(t, f.ke1(t, "x").KE1)
	for range 20 { // Warm.
		try("known1")
		try("known2")
	}
	for tries := 1; ; tries++ {
		d, rank, median := compareTimes(func() { try("known1") }, func() { try("known2") })
		t.Logf("medians differ by %s of %s, rank by %+.3f", d, median, rank)
		if alikeInTime(d, rank) {
			return
		}
		if tries == timingTries {
			t.Fatal("how long the answer takes tells whether an account is disabled")
		}
	}
}

func TestEndSessions(t *testing.T) {
	t.Parallel()
	f := makeService(t)
	ctx := t.Context()
	alice := newPerson("alice")
	session, err := f.signup(ctx, alice)
	must(t, err)
	must(t, f.EndSessions(ctx, alice.cert.AccountID, audit.ByAdmin("root")))
	_, _, err = f.Refresh(ctx, &wire.RefreshSessionRequest{DeviceID: alice.cert.DeviceID, RefreshToken: session.RefreshToken, Proof: alice.proof()}, exporter)
	wantCode(t, err, wire.CodeInvalidToken)
	if _, _, err := f.StartSession(ctx, f.login(t, alice), &wire.StartSessionRequest{Certificate: alice.cert.Marshal(), Proof: alice.proof()}, exporter); err != nil {
		t.Errorf("another login: %v", err)
	}
	if err := f.EndSessions(ctx, ids.New(), audit.ByAdmin("root")); !wire.HasCode(err, wire.CodeNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}
