package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

// deletion is one by an admin.
func (l *life) deletion(s *Store) *Deletion {
	return &Deletion{Account: l.account.ID, At: time.Now(),
		Attempts: func(name string, devices []ids.ID) [][]byte {
			list := [][]byte{s.AttemptSubject("name", name)}
			for _, d := range devices {
				list = append(list, s.AttemptSubject("device", string(d[:])))
			}
			return list
		},
		Event: func(devices int) audit.Event { return audit.AccountDeleted(audit.ByAdmin("x"), l.account.ID, devices) }}
}

// finish takes the steps of a deletion until there are no more, and returns who was told and in how many steps.
func finish(ctx context.Context, s *Store, account ids.ID) (told []*Message, steps int, err error) {
	now := time.Now()
	n := &Notice{Account: account, Payload: append([]byte("deleted: "), account[:]...), At: now, Until: now.Add(week)}
	for more := true; more && err == nil; steps++ {
		var some []*Message
		some, more, err = s.ContinueDeletion(ctx, n)
		told = append(told, some...)
	}
	return told, steps, err
}

// world is a store with an audit log, and somebody to talk with.
func world(t *testing.T) (s *Store, peer Account, device Device, others []Account) {
	t.Helper()
	s = fresh(t)
	must(t, s.EnableAudit(t.Context(), auditKeys(t, 1)))
	peer, device = person(t, s, "the peer")
	for i := range 3 {
		other, _ := person(t, s, fmt.Sprint("other ", i))
		others = append(others, other)
	}
	return s, peer, device, others
}

func TestNothingIsLeftOfADeletedAccount(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	s.deletionRows, s.deletionChannels = 3, 1 // Many steps.
	l := live(t, s, "alice-of-the-test", peer, device, others)
	_, err := s.pool.Exec(t.Context(), `UPDATE channels SET remove_first = ARRAY [$2::uuid] WHERE channel_id = $1`, l.direct, l.devices[1].ID)
	must(t, err)
	must(t, s.BlockContact(t.Context(), &ContactChange{Account: peer.ID, Other: l.account.ID, At: time.Now()}, true))
	before := hits(t, s, l.needles)
	fates := decided(t)
	for _, column := range []string{"accounts.account_id", "accounts.name_index", "accounts.root_key", "accounts.skeleton_index", "devices.device_id", "devices.account_id",
		"devices.device_key", "devices.certificate", "sessions.session_id", "sessions.device_id", "sessions.refresh_hash", "recovery_codes.recovery_key",
		"recovery_codes.account_id", "known_addresses.account_id", "login_attempts.subject", "device_links.link_id", "device_links.account_id", "device_links.certificate",
		"key_packages.ref", "key_packages.device_id", "key_packages.package", "key_packages_seen.ref", "key_packages_seen.init_key", "key_package_claims.claimer_id",
		"key_package_claims.account_id", "key_package_claims.device_ids", "key_package_claims.packages", "channels.channel_id", "channel_members.account_id", "groups.creator_id",
		"cursors.device_id", "cursors.channel_id", "messages.channel_id", "messages.sender_id", "delivery_ids.sender_id", "revocations.subject", "audit_subjects.account_id",
		"audit_subjects.ref_index", "generation_votes.account_id", "contacts.asker", "channels.remove_first", "channels.muted"} {
		if len(before[column]) == 0 {
			t.Errorf("the test put nothing into %s", column)
		}
	}
	if len(before["contacts.account_low"])+len(before["contacts.account_high"]) == 0 {
		t.Error("the test put nothing into contacts")
	}
	if len(before["direct_channels.account_low"])+len(before["direct_channels.account_high"]) == 0 {
		t.Error("the test put nothing into direct_channels")
	}
	for column := range before {
		if fates[column].deletion == "nobody's" {
			t.Errorf("%s is called nobody's, and holds %q", column, before[column])
		}
	}

	must(t, s.BeginDeletion(t.Context(), l.deletion(s)))
	told, steps, err := finish(t.Context(), s, l.account.ID)
	must(t, err)
	if steps < 15 {
		t.Errorf("it took only %d steps", steps)
	}
	if len(told) != 1 || told[0].ChannelID != device.ID { // Once, although they share two channels.
		t.Errorf("told: %d", len(told))
	}
	left := hits(t, s, l.needles)
	checkLeft(t, left)
	want := []string{"channels.remove_first", "departed_senders.device_id", "key_packages_seen.init_key", "key_packages_seen.ref", "messages.payload", "messages.sender_id", "revocations.subject"}
	if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, want) {
		t.Errorf("left is %q, want %q", left, want)
	}
	if list, err := s.Deletions(t.Context(), 10); err != nil || len(list) != 0 {
		t.Errorf("still to do: %v, %v", list, err)
	}
	// Its leaf in a group of others stays until one of them commits its removal.
	h, err := s.GroupHead(t.Context(), l.group)
	must(t, err)
	if !slices.Equal(h.RemoveFirst, []ids.ID{l.devices[0].ID}) || !maps.Equal(h.Members, map[ids.ID]Role{peer.ID: RoleAdmin}) {
		t.Errorf("the group is to remove %v first, and has the members %v", h.RemoveFirst, h.Members)
	}
	must(t, s.StoreChange(t.Context(), change(t, s, l.group, device, nil, h.RemoveFirst)))
	expire(t, s)
	if left := hits(t, s, l.needles); len(left) != 0 {
		t.Errorf("when all has expired, %q are left", left)
	}
	var channels int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM channels WHERE channel_id = $1`, l.direct).Scan(&channels))
	if channels != 0 {
		t.Error("the closed channel is still there")
	}
}

// expire is what housekeeping does when two months have passed.
func expire(t *testing.T, s *Store) {
	t.Helper()
	later := time.Now().Add(60 * day)
	_, err := s.DropExpiredPartitions(t.Context(), later, fortnight)
	must(t, err)
	must(t, s.SweepKeyPackages(t.Context(), later, later, 1))
	must(t, s.SweepSessions(t.Context(), later))
	must(t, s.SweepRevocations(t.Context(), later))
	for more := true; more; {
		more, err = s.SweepDeparted(t.Context(), later)
		must(t, err)
	}
}

// From the first transaction on nobody gets in, finds it, or is handed anything of it, and the name is free.
func TestADeletedAccountIsOfNoUseAtOnce(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	l := live(t, s, "alice", peer, device, others[:1])
	ctx, now := t.Context(), time.Now()
	must(t, s.BeginDeletion(ctx, l.deletion(s)))
	id, d := l.account.ID, l.devices[0]
	session := Session{ID: ids.New(), DeviceID: d.ID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	login, err := s.LoginAccount(ctx, "alice", d.ID, "192.0.2.1", now, s.NewDecoy([]byte("r"), []byte("w")))
	if err != nil || login.Exists || login.Device != nil || !login.KnownUntil.IsZero() {
		t.Errorf("login: %+v, %v", login, err)
	}
	for what, f := range map[string]func() error{
		"by name": func() error { _, err := s.AccountByName(ctx, "alice"); return err },
		"by id":   func() error { _, err := s.AccountByID(ctx, id); return err },
		"by a code": func() error {
			_, _, err := s.RecoveryAccount(ctx, "alice", l.account.RecoveryCodes[0].RecoveryKey, now)
			return err
		},
		"another device": func() error {
			n := Notice{Account: id, Device: session.ID, At: now, Until: now}
			_, err := s.AddDevice(ctx, Device{ID: ids.New(), AccountID: id, CreatedAt: now}, session, 64, &n)
			return err
		},
		"a channel":       func() error { _, err := s.DirectChannel(ctx, id, others[2].ID, now); return err },
		"disable":         func() error { return s.SetDisabled(ctx, id, true, now) },
		"end sessions":    func() error { return s.EndSessions(ctx, id, now) },
		"delete":          func() error { return s.BeginDeletion(ctx, l.deletion(s)) },
		"export":          func() error { _, _, err := s.Export(ctx, id, nil, now); return err },
		"its pseudonym":   func() error { _, err := s.AuditRef(ctx, id); return err },
		"a link":          func() error { _, err := s.Link(ctx, l.linkID(), now); return err },
		"its pseudonym's": func() error { return s.WriteAudit(ctx, audit.LoginFailed(id, audit.ReasonWrongPassword)) },
	} {
		err := f()
		if what == "its pseudonym's" {
			if _, again := s.AuditRef(ctx, id); err != nil || !errors.Is(again, ErrNotFound) {
				t.Errorf("an event after the deletion gave it a pseudonym again: %v, %v", err, again)
			}
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.CreateSession(ctx, session); !errors.Is(err, ErrRevoked) {
		t.Errorf("a session: %v", err)
	}
	if err := s.SetPassword(ctx, id, Proof{OPAQUERecord: l.account.OPAQUERecord}, Password{}, nil, now); !errors.Is(err, ErrChanged) {
		t.Errorf("another password: %v", err)
	}
	if err := s.AddKeyPackages(ctx, d.ID, nil, 10, now); !errors.Is(err, ErrRevoked) {
		t.Errorf("KeyPackages: %v", err)
	}
	if list, err := s.ClaimKeyPackages(ctx, &Claim{Claimer: device.ID, ClaimerAccount: id, Request: ids.New(), Account: id, At: now}); err != nil || len(list) != 0 {
		t.Errorf("a claim: %d, %v", len(list), err)
	}
	var open int
	must(t, s.pool.QueryRow(ctx, `SELECT count(*) FROM sessions JOIN devices USING (device_id) WHERE account_id = $1 AND sessions.revoked_at IS NULL`, id).Scan(&open))
	if open != 0 {
		t.Errorf("%d sessions go on", open)
	}
	again, _ := person(t, s, "alice")
	got, err := s.AccountByName(ctx, "alice")
	if err != nil || got.ID != again.ID {
		t.Errorf("the name's next owner: %v, %v", got.ID, err)
	}
	_, _, err = finish(ctx, s, id)
	must(t, err)
	if got, err := s.AccountByName(ctx, "alice"); err != nil || got.ID != again.ID {
		t.Errorf("the name's next owner, after the deletion: %v, %v", got.ID, err)
	}
}

func (l *life) linkID() (id ids.ID) {
	for _, n := range l.needles {
		if n.what == "a link" {
			return ids.ID(n.b)
		}
	}
	return id
}

// The other side reads on, also what it had not fetched before, and cannot write.
func TestTheOtherSideOfADeletedAccount(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	l := live(t, s, "alice", peer, device, others)
	ctx := t.Context()
	unread, err := s.ReadMessages(ctx, l.direct, 0, 100, 1<<20, time.Now())
	must(t, err)
	first := message(l.direct, device, "before")
	must(t, s.AppendBatch(ctx, []*Append{first}))
	must(t, s.BeginDeletion(ctx, l.deletion(s)))
	_, _, err = finish(ctx, s, l.account.ID)
	must(t, err)
	after, err := s.ReadMessages(ctx, l.direct, 0, 100, 1<<20, time.Now())
	must(t, err)
	if len(after) != len(unread)+1 {
		t.Fatalf("%d messages, there were %d", len(after), len(unread)+1)
	}
	for i, m := range unread {
		a := after[i]
		sender := m.SenderAccount
		if sender != l.account.ID && sender != peer.ID || a.SenderAccount != sender || a.SenderID != m.SenderID || string(a.Payload) != string(m.Payload) {
			t.Errorf("message %d is from %v, was from %v", i, a.SenderAccount, m.SenderAccount)
		}
	}
	inbox, err := s.ReadMessages(ctx, device.ID, 0, 100, 1<<20, time.Now())
	must(t, err)
	var notices int
	for _, m := range inbox {
		if m.Kind == MessageWelcome && m.SenderAccount != l.account.ID {
			t.Errorf("a Welcome is from %v", m.SenderAccount)
		}
		if m.Kind == MessageNotice && strings.HasPrefix(string(m.Payload), "deleted: ") {
			notices++
		}
	}
	if notices != 1 {
		t.Errorf("told %d times", notices)
	}
	must(t, s.StoreChange(ctx, change(t, s, l.group, device, nil, []ids.ID{l.devices[0].ID})))
	late, again, group := message(l.direct, device, "after"), *first, epochMessage(l.group, device, 1)
	again.Message.fingerprint = [fingerprintSize]byte{}
	must(t, s.AppendBatch(ctx, []*Append{late, &again, group}))
	if !errors.Is(late.Err, ErrClosed) || again.Err != nil || !again.Duplicate || group.Err != nil {
		t.Errorf("written after: %v; a retry: %v, %v; in the group: %v", late.Err, again.Duplicate, again.Err, group.Err)
	}
	if _, err := s.CreateGroup(ctx, &Group{ChannelID: l.direct, Generation: 2, Creator: device.ID, At: time.Now()}); !errors.Is(err, ErrClosed) {
		t.Errorf("another generation: %v", err)
	}
	cursors, err := s.Cursors(ctx, device.ID)
	must(t, err)
	if !slices.ContainsFunc(cursors, func(c Cursor) bool { return c.ChannelID == l.direct }) {
		t.Error("the other side does not read the channel any more")
	}
	if more, err := s.SweepDeparted(ctx, time.Now()); more || err != nil {
		t.Error(more, err)
	}
	if kept, err := s.ReadMessages(ctx, l.direct, 0, 100, 1<<20, time.Now()); err != nil || len(kept) != len(after) || kept[0].SenderAccount != after[0].SenderAccount {
		t.Errorf("housekeeping took messages away that can still be read: %v", err)
	}
}

var errCrash = errors.New("the process dies here")

// Wherever the process dies, the next goes on, and the outcome is the same.
func TestADeletionThatIsCutOff(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	s.deletionRows, s.deletionChannels = 6, 3
	crashed := 0
	for at := 1; ; at++ {
		l := live(t, s, fmt.Sprintf("alice number %d", at), peer, device, others)
		points := 0
		s.crash = func(string) error {
			if points++; points == at {
				return errCrash
			}
			return nil
		}
		err := s.BeginDeletion(t.Context(), l.deletion(s))
		begun := err == nil
		if begun {
			_, _, err = finish(t.Context(), s, l.account.ID)
		}
		s.crash = nil
		if err == nil {
			break // It has no more points than that.
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		crashed++
		list, err := s.Deletions(t.Context(), 10)
		must(t, err)
		if !begun {
			if a, err := s.AccountByName(t.Context(), l.account.Name); err != nil || a.ID != l.account.ID || len(list) != 0 {
				t.Fatalf("cut off at %d, before it began, the account is not whole: %v", at, err)
			}
			must(t, s.BeginDeletion(t.Context(), l.deletion(s)))
			list = []ids.ID{l.account.ID}
		}
		for _, account := range list { // As housekeeping finds it.
			_, _, err := finish(t.Context(), s, account)
			must(t, err)
		}
		left := hits(t, s, l.needles)
		checkLeft(t, left)
		if t.Failed() {
			t.Fatalf("cut off at point %d", at)
		}
	}
	if crashed < 30 {
		t.Errorf("it was cut off at %d points only", crashed)
	}
}

// Two servers at once, with the other side writing and opening meanwhile.
func TestDeletionBesideTraffic(t *testing.T) {
	t.Parallel()
	s, peer, device, others := world(t)
	s.deletionRows, s.deletionChannels = 5, 1
	ctx := t.Context()
	for round := range 3 {
		l := live(t, s, fmt.Sprint("alice ", round), peer, device, others)
		var all sync.WaitGroup
		stop := make(chan struct{})
		busy := func(f func() error) {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := f(); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrRevoked) && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrConflict) {
						t.Error(err)
						return
					}
				}
			})
		}
		busy(func() error {
			return s.AppendBatch(ctx, []*Append{message(l.direct, device, "x"), message(l.direct, l.devices[0], "y")})
		})
		busy(func() error { _, err := s.DirectChannel(ctx, l.account.ID, others[0].ID, time.Now()); return err })
		busy(func() error {
			return s.CreateSession(ctx, Session{ID: ids.New(), DeviceID: l.devices[0].ID, RefreshHash: []byte("h"), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
		})
		busy(func() error { _, err := s.ReadMessages(ctx, l.direct, 0, 10, 1<<20, time.Now()); return err })
		must(t, s.BeginDeletion(ctx, l.deletion(s)))
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				for {
					list, err := s.Deletions(ctx, 10)
					if err != nil || len(list) == 0 {
						return
					}
					if _, _, err := finish(ctx, s, list[0]); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		both.Wait()
		close(stop)
		all.Wait()
		checkLeft(t, hits(t, s, l.needles))
	}
}

// The proof is judged under the account's lock.
func TestDeletionNeedsItsProof(t *testing.T) {
	t.Parallel()
	s, _, _, _ := world(t)
	a, _ := person(t, s, "alice")
	l := &life{account: a}
	for what, p := range map[string]*Proof{"another password": {OPAQUERecord: []byte("of before")}, "a code that is none": {RecoveryKey: make([]byte, 32)}} {
		d := l.deletion(s)
		d.Proof = p
		if err := s.BeginDeletion(t.Context(), d); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.AccountByName(t.Context(), "alice"); err != nil {
		t.Error(err)
	}
	d := l.deletion(s)
	d.Proof = &Proof{OPAQUERecord: a.OPAQUERecord}
	must(t, s.BeginDeletion(t.Context(), d))
}

// An account without anything is gone after one step.
func TestDeletionOfAFreshAccount(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, _ := person(t, s, "alice")
	l := &life{account: a}
	must(t, s.BeginDeletion(t.Context(), l.deletion(s)))
	if _, _, err := finish(t.Context(), s, a.ID); err != nil {
		t.Fatal(err)
	}
	checkLeft(t, hits(t, s, []needle{idNeedle("its id", a.ID)}))
	if _, more, err := s.ContinueDeletion(t.Context(), &Notice{Account: a.ID, At: time.Now()}); more || err != nil {
		t.Errorf("once more: %v, %v", more, err)
	}
	if _, more, err := s.ContinueDeletion(t.Context(), &Notice{Account: ids.New(), At: time.Now()}); more || err != nil {
		t.Errorf("of nobody: %v, %v", more, err)
	}
	b, _ := person(t, s, "bob")
	if _, more, err := s.ContinueDeletion(t.Context(), &Notice{Account: b.ID, At: time.Now()}); more || err != nil {
		t.Errorf("of one that is not deleted: %v, %v", more, err)
	}
	if _, err := s.AccountByID(t.Context(), b.ID); err != nil {
		t.Error("it was deleted")
	}
}
