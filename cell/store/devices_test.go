package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/schema/ids"
)

func aboutDevice(account, device ids.ID) *Notice {
	now := time.Now()
	return &Notice{Account: account, Device: device, Payload: []byte("notice"), At: now, Until: now.Add(week)}
}

// another adds a device to an account.
func another(t *testing.T, s *Store, account ids.ID) Device {
	t.Helper()
	d := Device{ID: ids.New(), AccountID: account, Key: make([]byte, 32), Certificate: []byte("cert"), Name: "another", CreatedAt: time.Now()}
	_, err := s.AddDevice(t.Context(), d, sessionOf(d.ID), 64, aboutDevice(account, d.ID))
	must(t, err)
	return d
}

func sessionOf(device ids.ID) Session {
	now := time.Now()
	return Session{ID: ids.New(), DeviceID: device, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
}

func (s *Store) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

// A transaction that began before others, and commits after them, is not missed.
func TestRevocationsOfLateCommitsAreSeen(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	late, err := s.pool.Begin(t.Context())
	must(t, err)
	defer late.Rollback(context.Background()) //nolint:errcheck // committed below.
	slow, quick := ids.New(), ids.New()
	insert := `INSERT INTO revocations (kind, subject, at) VALUES (2, $1, now())`
	_, err = late.Exec(t.Context(), insert, slow)
	must(t, err)
	_, err = s.pool.Exec(t.Context(), insert, quick)
	must(t, err)
	list, next, err := s.Revocations(t.Context(), 0)
	if err != nil || len(list) != 1 || list[0].Subject != quick || list[0].Kind != RevokedDevice {
		t.Fatalf("%+v, %v", list, err)
	}
	must(t, late.Commit(t.Context()))
	list, next, err = s.Revocations(t.Context(), next)
	if err != nil || len(list) != 2 || list[0].Subject != slow {
		t.Fatalf("after the late commit: %+v, %v", list, err)
	}
	for begun := time.Now(); len(list) > 0; { // Once all others of the whole server have ended too.
		if list, next, err = s.Revocations(t.Context(), next); err != nil || time.Since(begun) > time.Minute {
			t.Fatalf("nothing is new: %+v, %v", list, err)
		}
	}
	must(t, s.SweepRevocations(t.Context(), time.Now().Add(time.Minute)))
	if list, _, err = s.Revocations(t.Context(), 0); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Many transactions at once, each open for some time of its own: who asks again and again has seen all.
func TestNoRevocationIsMissed(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const writers, each = 8, 25
	var all sync.WaitGroup
	done := make(chan struct{})
	for range writers {
		all.Go(func() {
			for i := range each {
				err := s.tx(context.Background(), func(tx pgx.Tx) error {
					var b pgx.Batch
					queueRevocation(&b, RevokedSession, ids.New(), time.Now())
					b.Queue(`SELECT pg_sleep($1)`, float64(i%5)/500)
					return tx.SendBatch(context.Background(), &b).Close()
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	seen := map[uint64]bool{}
	horizon, most := Horizon(0), 0
	for last := false; ; {
		list, next, err := s.Revocations(t.Context(), horizon)
		must(t, err)
		for _, r := range list {
			seen[r.ID] = true
		}
		horizon, most = next, max(most, len(list))
		if last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d were seen", len(seen), writers*each)
	}
	t.Logf("an answer has at most %d rows of %d", most, writers*each)
}

func TestAnAccountIsRevokedWithItsSessions(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, _ := person(t, s, "alice")
	another(t, s, a.ID)
	person(t, s, "bob")
	must(t, s.tx(t.Context(), func(tx pgx.Tx) error {
		var b pgx.Batch
		queueRevocation(&b, RevokedAccount, a.ID, time.Now())
		return tx.SendBatch(t.Context(), &b).Close()
	}))
	list, _, err := s.Revocations(t.Context(), 0)
	must(t, err)
	kinds := map[RevocationKind]int{}
	for _, r := range list {
		kinds[r.Kind]++
	}
	if kinds[RevokedAccount] != 1 || kinds[RevokedSession] != 2 || len(list) != 3 {
		t.Errorf("%+v", list)
	}
}

// Whatever ends a session tells every server so.
func TestWhateverEndsASessionIsARevocation(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *Store, a Account, d Device, session ids.ID) error{
		"logout": func(s *Store, _ Account, _ Device, id ids.ID) error { return s.EndSession(t.Context(), id, time.Now()) },
		"a newer one of its device": func(s *Store, _ Account, d Device, _ ids.ID) error {
			return s.CreateSession(t.Context(), sessionOf(d.ID))
		},
		"another password": func(s *Store, a Account, _ Device, _ ids.ID) error {
			return s.SetPassword(t.Context(), a.ID, Proof{OPAQUERecord: a.OPAQUERecord}, Password{[]byte("n"), 1, []byte("w")}, &ids.ID{}, time.Now())
		},
		"a token that was spent before": func(s *Store, _ Account, _ Device, id ids.ID) error {
			return s.UpdateSession(t.Context(), id, time.Now(), func(*Session) (bool, audit.Event, error) { return true, audit.Event{}, nil })
		},
		"its device": func(s *Store, a Account, d Device, _ ids.ID) error {
			_, err := s.RevokeDevice(t.Context(), aboutDevice(a.ID, d.ID), nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			a, d := person(t, s, "alice")
			var session ids.ID
			must(t, s.pool.QueryRow(t.Context(), `SELECT session_id FROM sessions`).Scan(&session))
			must(t, end(s, a, d, session))
			list, _, err := s.Revocations(t.Context(), 0)
			must(t, err)
			if !slices.ContainsFunc(list, func(r Revocation) bool { return r.Kind == RevokedSession && r.Subject == session }) {
				t.Errorf("%+v", list)
			}
		})
	}
}

func TestARevokedDeviceHasNothingLeft(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, phone, bobs := direct(t, s)
	laptop := another(t, s, phone.AccountID)
	_, stranger := person(t, s, "stranger")
	now := time.Now()
	pack := func(name string) []KeyPackage {
		return []KeyPackage{{Ref: []byte(name), InitKey: []byte(name), ExpiresAt: now.Add(time.Hour), Package: []byte("p")},
			{Ref: []byte(name + "l"), InitKey: []byte(name + "l"), LastResort: true, ExpiresAt: now.Add(time.Hour), Package: []byte("p")}}
	}
	must(t, s.AddKeyPackages(t.Context(), phone.ID, pack("phone"), 10, now))
	must(t, s.AddKeyPackages(t.Context(), bobs.ID, pack("bob"), 10, now))
	_, err := s.ClaimKeyPackages(t.Context(), &Claim{Claimer: phone.ID, Request: ids.New(), Account: bobs.AccountID, At: now})
	must(t, err)
	if n := s.count(t, `SELECT count(*) FROM messages WHERE channel_id = $1`, phone.ID); n != 1 { // The laptop's arrival.
		t.Errorf("%d notices for the phone", n)
	}
	n := aboutDevice(phone.AccountID, phone.ID)
	if _, err := s.RevokeDevice(t.Context(), aboutDevice(bobs.AccountID, phone.ID), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another account: %v", err)
	}
	if _, err := s.RevokeDevice(t.Context(), n, &Proof{OPAQUERecord: []byte("another")}); !errors.Is(err, ErrChanged) {
		t.Errorf("by a proof that holds no more: %v", err)
	}
	notices, err := s.RevokeDevice(t.Context(), n, nil)
	must(t, err)
	var told []ids.ID
	for _, m := range notices {
		told = append(told, m.ChannelID)
		page, err := s.ReadMessages(t.Context(), m.ChannelID, m.Seq-1, 10, 1<<20, now)
		if err != nil || len(page) != 1 || page[0].Kind != MessageNotice || string(page[0].Payload) != "notice" || page[0].SenderAccount != phone.AccountID {
			t.Errorf("stored: %+v, %v", page, err)
		}
	}
	want := []ids.ID{laptop.ID, bobs.ID}
	slices.SortFunc(told, ids.ID.Compare)
	slices.SortFunc(want, ids.ID.Compare)
	if !slices.Equal(told, want) {
		t.Errorf("told are %v, not %v; the stranger is %v", told, want, stranger.ID)
	}
	for _, table := range []string{"key_packages WHERE device_id = $1", "key_package_claims WHERE claimer_id = $1", "cursors WHERE device_id = $1",
		"messages WHERE channel_id = $1", "sessions WHERE device_id = $1 AND revoked_at IS NULL", "devices WHERE device_id = $1 AND revoked_at IS NULL"} {
		if n := s.count(t, `SELECT count(*) FROM `+table, phone.ID); n != 0 {
			t.Errorf("%s: %d", table, n)
		}
	}
	if n := s.count(t, `SELECT count(*) FROM revocations WHERE kind = 2 AND subject = $1`, phone.ID); n != 1 {
		t.Errorf("%d rows say so", n)
	}
	if again, err := s.RevokeDevice(t.Context(), n, nil); err != nil || len(again) != 0 {
		t.Errorf("again: %d notices, %v", len(again), err)
	}
	cannot(t, s, channel, phone, bobs, pack("late"))
	if list, err := s.Devices(t.Context(), phone.AccountID); err != nil || len(list) != 1 || list[0].ID != laptop.ID || list[0].Name != "another" || list[0].LastSeen.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
}

// cannot checks what a revoked device is refused.
func cannot(t *testing.T, s *Store, channel ids.ID, phone, bobs Device, pack []KeyPackage) {
	t.Helper()
	m := message(channel, phone, "from the revoked one")
	must(t, s.AppendBatch(t.Context(), []*Append{m}))
	if !errors.Is(m.Err, ErrNotFound) {
		t.Errorf("it writes: %v", m.Err)
	}
	if err := s.AddKeyPackages(t.Context(), phone.ID, pack, 10, time.Now()); !errors.Is(err, ErrRevoked) {
		t.Errorf("it uploads: %v", err)
	}
	if err := s.CreateSession(t.Context(), sessionOf(phone.ID)); !errors.Is(err, ErrRevoked) {
		t.Errorf("it starts a session: %v", err)
	}
	for what, g := range map[string]*Group{
		"it makes a group":     {ChannelID: channel, Generation: 2, Epoch: 1, GroupInfo: []byte("g"), Creator: phone.ID, CreatorAccount: phone.AccountID, At: time.Now()},
		"it is put into a one": {ChannelID: channel, Generation: 2, Epoch: 1, GroupInfo: []byte("g"), Creator: bobs.ID, CreatorAccount: bobs.AccountID, At: time.Now(), Welcomes: []Message{welcome(phone.ID, channel)}},
	} {
		if _, err := s.CreateGroup(t.Context(), g); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.RenameDevice(t.Context(), phone.AccountID, phone.ID, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is renamed: %v", err)
	}
}

func welcome(inbox, about ids.ID) Message {
	now := time.Now()
	return Message{ChannelID: inbox, Kind: MessageWelcome, Generation: 2, SenderID: inbox, DeliveryID: ids.NewDelivery(now), AboutChannel: about,
		AcceptedAt: now, ExpiresAt: now.Add(week), Payload: []byte("w")}
}

// While a device writes as fast as it can, and is put into further groups, it is revoked: what is stored then is all
// that there will be.
func TestNothingIsStoredOfADeviceOnceItIsRevoked(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	for round := range 5 {
		channel, phone, bobs := directNamed(t, s, fmt.Sprint("alice", round), fmt.Sprint("bob", round))
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var sent sync.WaitGroup
		sent.Add(4)
		for range 4 {
			all.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					m := message(channel, phone, fmt.Sprint(i))
					if err := s.AppendBatch(context.Background(), []*Append{m}); err != nil && !errors.Is(err, ErrUnavailable) {
						t.Error(err)
					}
					if i == 3 {
						sent.Done()
					}
					if errors.Is(m.Err, ErrNotFound) {
						return
					}
				}
			})
		}
		all.Go(func() {
			sent.Wait()
			g := &Group{ChannelID: channel, Generation: 2, Epoch: 1, GroupInfo: []byte("g"), Creator: bobs.ID, CreatorAccount: bobs.AccountID, At: time.Now(), Welcomes: []Message{welcome(phone.ID, channel)}}
			if _, err := s.CreateGroup(context.Background(), g); err != nil && !errors.Is(err, ErrRevoked) {
				t.Error(err)
			}
		})
		sent.Wait()
		_, err := s.RevokeDevice(t.Context(), aboutDevice(phone.AccountID, phone.ID), nil)
		must(t, err)
		stored := s.count(t, `SELECT count(*) FROM messages WHERE sender_id = $1`, phone.ID)
		all.Wait()
		stop()
		if after := s.count(t, `SELECT count(*) FROM messages WHERE sender_id = $1`, phone.ID); after != stored || stored < 16 {
			t.Errorf("%d messages, then %d", stored, after)
		}
		if n := s.count(t, `SELECT count(*) FROM cursors WHERE device_id = $1`, phone.ID) + s.count(t, `SELECT count(*) FROM messages WHERE channel_id = $1`, phone.ID); n != 0 {
			t.Errorf("%d rows are left of it", n)
		}
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, phone := person(t, s, "alice")
	b, bobs := person(t, s, "bob")
	proof := Proof{OPAQUERecord: a.OPAQUERecord}
	now := time.Now()
	bounds := LinkBounds{InAll: 10, OfAddress: 2, OfAccount: 2}
	start := func(place string) *Link {
		t.Helper()
		l := &Link{ID: ids.New(), Offer: []byte("offer"), CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute)}
		must(t, s.StartLink(t.Context(), l, place, bounds))
		return l
	}
	l := start("here")
	must(t, s.StartLink(t.Context(), l, "here", bounds)) // The answer was lost.
	other := *l
	other.Offer = []byte("another")
	if err := s.StartLink(t.Context(), &other, "there", bounds); !errors.Is(err, ErrExists) {
		t.Errorf("another offer under the same id: %v", err)
	}
	start("here")
	third := &Link{ID: ids.New(), Offer: []byte("o"), CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
	if err := s.StartLink(t.Context(), third, "here", bounds); !errors.Is(err, ErrTooMany) {
		t.Errorf("a third one from there: %v", err)
	}
	for range 8 {
		start("")
	}
	if err := s.StartLink(t.Context(), third, "", bounds); !errors.Is(err, ErrTooMany) {
		t.Errorf("more than may be in all: %v", err)
	}
	if got, err := s.Link(t.Context(), l.ID, now); err != nil || string(got.Offer) != "offer" || !got.Account.IsZero() || got.Approval != nil {
		t.Errorf("%+v, %v", got, err)
	}

	tablet := Device{ID: ids.New(), AccountID: a.ID, Key: make([]byte, 32), Certificate: []byte("tablet's"), Name: "tablet", CreatedAt: now}
	n := &NewDevice{Device: tablet, RootKey: a.RootKey, Session: sessionOf(tablet.ID), Notice: *aboutDevice(a.ID, tablet.ID)}
	if _, err := s.FinishLink(t.Context(), l.ID, n, 64, now); !errors.Is(err, ErrNotFound) {
		t.Errorf("finished before it is approved: %v", err)
	}
	l.Account, l.Certificate, l.Name, l.Approval = a.ID, tablet.Certificate, "tablet", []byte("approval")
	if err := s.ApproveLink(t.Context(), l, phone.ID, Proof{OPAQUERecord: []byte("x")}, bounds, now); !errors.Is(err, ErrChanged) {
		t.Errorf("by another password: %v", err)
	}
	must(t, s.ApproveLink(t.Context(), l, phone.ID, proof, bounds, now))
	must(t, s.ApproveLink(t.Context(), l, phone.ID, proof, bounds, now)) // The answer was lost.
	second := *l
	second.Approval = []byte("another")
	if err := s.ApproveLink(t.Context(), &second, phone.ID, proof, bounds, now); !errors.Is(err, ErrExists) {
		t.Errorf("a second approver of the account: %v", err)
	}
	second.Account = b.ID
	if err := s.ApproveLink(t.Context(), &second, bobs.ID, Proof{OPAQUERecord: b.OPAQUERecord}, bounds, now); !errors.Is(err, ErrExists) {
		t.Errorf("a second approver of another account: %v", err)
	}
	for what, x := range map[string]struct {
		change func(*NewDevice)
		at     time.Time
		err    error
	}{
		"another certificate": {func(n *NewDevice) { n.Device.Certificate = []byte("x") }, now, ErrNotFound},
		"another root key":    {func(n *NewDevice) { n.RootKey = []byte("x") }, now, ErrChanged},
		"too late":            {func(*NewDevice) {}, now.Add(10 * time.Minute), ErrNotFound},
		"too many devices":    {func(*NewDevice) {}, now, ErrTooMany},
	} {
		bad, most := *n, 64
		x.change(&bad)
		if errors.Is(x.err, ErrTooMany) {
			most = 1
		}
		if _, err := s.FinishLink(t.Context(), l.ID, &bad, most, x.at); !errors.Is(err, x.err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	told, err := s.FinishLink(t.Context(), l.ID, n, 64, now)
	if err != nil || len(told) != 1 || told[0].ChannelID != phone.ID {
		t.Errorf("%d notices, %v", len(told), err)
	}
	first := n.Session.ID
	n.Session = sessionOf(tablet.ID)
	if told, err = s.FinishLink(t.Context(), l.ID, n, 64, now); err != nil || len(told) != 0 {
		t.Errorf("the same device again: %d notices, %v", len(told), err)
	}
	if s.count(t, `SELECT count(*) FROM sessions WHERE session_id = $1 AND revoked_at IS NOT NULL`, first) != 1 || s.count(t, `SELECT count(*) FROM devices WHERE device_id = $1`, tablet.ID) != 1 {
		t.Error("it is there twice, or has two sessions")
	}
	if got, err := s.Link(t.Context(), l.ID, now); err != nil || !got.Finished || got.Offer != nil || got.Approval != nil {
		t.Errorf("what is left: %+v, %v", got, err)
	}
	_, err = s.RevokeDevice(t.Context(), aboutDevice(a.ID, tablet.ID), nil)
	must(t, err)
	if _, err = s.FinishLink(t.Context(), l.ID, n, 64, now); !errors.Is(err, ErrRevoked) {
		t.Errorf("once it is revoked: %v", err)
	}
	must(t, s.SweepLinks(t.Context(), now.Add(11*time.Minute)))
	if n := s.count(t, `SELECT count(*) FROM device_links`); n != 0 {
		t.Errorf("%d links are left", n)
	}
}

// What was approved under a password, or by a device, that is no more is void.
func TestApprovalsEndWithWhatAllowedThem(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *Store, a Account, phone Device) error{
		"another password": func(s *Store, a Account, _ Device) error {
			return s.SetPassword(t.Context(), a.ID, Proof{OPAQUERecord: a.OPAQUERecord}, Password{[]byte("n"), 1, []byte("w")}, nil, time.Now())
		},
		"a device was revoked": func(s *Store, a Account, phone Device) error {
			_, err := s.RevokeDevice(t.Context(), aboutDevice(a.ID, phone.ID), nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			a, phone := person(t, s, "alice")
			now := time.Now()
			bounds := LinkBounds{10, 10, 10}
			l := &Link{ID: ids.New(), Offer: []byte("offer"), CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
			must(t, s.StartLink(t.Context(), l, "", bounds))
			l.Account, l.Certificate, l.Approval = a.ID, []byte("c"), []byte("approval")
			must(t, s.ApproveLink(t.Context(), l, phone.ID, Proof{OPAQUERecord: a.OPAQUERecord}, bounds, now))
			must(t, end(s, a, phone))
			if _, err := s.Link(t.Context(), l.ID, now); !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhoIsToldOfAnAccount(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	_, phone, bobs := direct(t, s)
	laptop := another(t, s, phone.AccountID)
	carol, _ := person(t, s, "carol")
	_, err := s.DirectChannel(t.Context(), phone.AccountID, carol.ID, time.Now()) // Opened, and never written in.
	must(t, err)
	for name, x := range map[string]struct {
		n    *Notice
		want []ids.ID
	}{
		"a device":             {aboutDevice(phone.AccountID, phone.ID), []ids.ID{laptop.ID, bobs.ID}},
		"the account":          {aboutDevice(phone.AccountID, ids.ID{}), []ids.ID{phone.ID, laptop.ID, bobs.ID}},
		"its contacts alone":   {&Notice{Account: phone.AccountID, Others: true, Payload: []byte("n"), At: time.Now(), Until: time.Now().Add(week)}, []ids.ID{bobs.ID}},
		"an account of nobody": {aboutDevice(ids.New(), ids.New()), nil},
	} {
		must(t, s.tx(t.Context(), func(tx pgx.Tx) error {
			var b pgx.Batch
			list, _, err := s.queueNotices(t.Context(), tx, &b, x.n)
			var told []ids.ID
			for _, m := range list {
				told = append(told, m.ChannelID)
			}
			slices.SortFunc(told, ids.ID.Compare)
			slices.SortFunc(x.want, ids.ID.Compare)
			if !slices.Equal(told, x.want) {
				t.Errorf("%s: %v, want %v", name, told, x.want)
			}
			return errors.Join(err, tx.SendBatch(t.Context(), &b).Close())
		}))
	}
}

func TestDevicesAreRenamedAndSeen(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, d := person(t, s, "alice")
	b, _ := person(t, s, "bob")
	if err := s.RenameDevice(t.Context(), b.ID, d.ID, "stolen"); !errors.Is(err, ErrNotFound) {
		t.Errorf("by another account: %v", err)
	}
	must(t, s.RenameDevice(t.Context(), a.ID, d.ID, "kitchen"))
	tomorrow := time.Now().UTC().Add(day).Truncate(day)
	must(t, s.DeviceSeen(t.Context(), d.ID, tomorrow))
	must(t, s.DeviceSeen(t.Context(), d.ID, tomorrow.Add(-2*day)))
	got, err := s.Device(t.Context(), d.ID)
	if err != nil || got.Name != "kitchen" || !got.LastSeen.Equal(tomorrow) {
		t.Errorf("%+v, %v", got, err)
	}
}
