package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
)

// team makes a group channel with the devices of n accounts; the first is its admin.
func team(t *testing.T, s *Store, n int) (channel ids.ID, devices []Device) {
	t.Helper()
	channel = ids.New()
	g := &Group{ChannelID: channel, Generation: 1, Epoch: 1, GroupInfo: []byte("info"), State: []byte("state"), At: time.Now()}
	for i := range n {
		a, d := person(t, s, fmt.Sprintf("%s-%d", channel, i))
		devices = append(devices, d)
		g.Accounts = append(g.Accounts, a.ID)
		if i > 0 {
			g.Welcomes = append(g.Welcomes, Message{ChannelID: d.ID, Kind: MessageWelcome, Generation: 1, SenderID: devices[0].ID, DeliveryID: ids.New(),
				AboutChannel: channel, AcceptedAt: g.At, ExpiresAt: g.At.Add(week), Payload: []byte("welcome")})
		}
	}
	_, err := s.OpenGroup(t.Context(), channel, devices[0].AccountID, 10, time.Now())
	must(t, err)
	g.Base, err = s.GroupHead(t.Context(), channel)
	must(t, err)
	g.Creator, g.CreatorAccount = devices[0].ID, devices[0].AccountID
	_, err = s.CreateGroup(t.Context(), g)
	must(t, err)
	return channel, devices
}

// change is a Commit of a device on top of what the channel is now.
func change(t *testing.T, s *Store, channel ids.ID, from Device, adds, removes []ids.ID) *Change {
	t.Helper()
	h, err := s.GroupHead(t.Context(), channel)
	must(t, err)
	now := time.Now()
	return &Change{Base: h, IDTime: now, State: fmt.Appendf(nil, "state after %d", h.Epoch), GroupInfo: fmt.Appendf(nil, "info %d", h.Epoch+1), Adds: adds, Removes: removes,
		Message: Message{ChannelID: channel, Kind: MessageCommit, Generation: h.Generation, Epoch: h.Epoch, SenderAccount: from.AccountID, SenderID: from.ID,
			DeliveryID: ids.NewDelivery(now), AcceptedAt: now, ExpiresAt: now.Add(week), Payload: []byte(ids.New().String())}}
}

func epochMessage(channel ids.ID, from Device, epoch uint64) *Append {
	a := message(channel, from, ids.New().String())
	a.Message.Epoch = epoch
	return a
}

func sent(t *testing.T, s *Store, a *Append) *Append {
	t.Helper()
	must(t, s.AppendBatch(t.Context(), []*Append{a}))
	return a
}

// Everything that follows from a Commit is there, or nothing.
func TestACommitChangesEverythingAtOnce(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 3)
	newcomer, joiner := person(t, s, "newcomer")
	sent(t, s, epochMessage(channel, devices[1], 1))
	c := change(t, s, channel, devices[0], []ids.ID{joiner.ID}, []ids.ID{devices[1].ID})
	c.Joins, c.Leaves = []ids.ID{newcomer.ID}, []ids.ID{devices[1].AccountID}
	c.Welcomes = []Message{{ChannelID: joiner.ID, Kind: MessageWelcome, Generation: 1, SenderID: devices[0].ID, DeliveryID: ids.New(), AboutChannel: channel,
		AcceptedAt: time.Now(), ExpiresAt: time.Now().Add(week), Payload: []byte("welcome")}}
	must(t, s.StoreChange(t.Context(), c))
	if c.Message.Seq != 2 || c.Welcomes[0].Seq != 1 {
		t.Fatalf("sequences %d and %d", c.Message.Seq, c.Welcomes[0].Seq)
	}
	h, err := s.GroupHead(t.Context(), channel)
	must(t, err)
	if h.Epoch != 2 || h.EpochSeq != 2 || len(h.Members) != 3 || h.Members[newcomer.ID] != RoleMember || h.Members[devices[1].AccountID] != 0 {
		t.Errorf("%+v", h)
	}
	g, err := s.GroupState(t.Context(), channel, 1)
	must(t, err)
	if g.Epoch != 2 || string(g.State) != "state after 1" || string(g.GroupInfo) != "info 2" {
		t.Errorf("%+v", g)
	}
	for d, want := range map[ids.ID]Cursor{devices[0].ID: {channel, 0, 2, 0, 1, []uint64{}}, devices[1].ID: {channel, 0, 2, 2, 1, []uint64{}}, joiner.ID: {channel, 2, 2, 0, 1, []uint64{}}} {
		if got, err := s.CursorOf(t.Context(), d, channel); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	for _, x := range []struct {
		from Device
		want error
	}{{devices[1], ErrNotFound}, {joiner, nil}} {
		if a := sent(t, s, epochMessage(channel, x.from, 2)); !errors.Is(a.Err, x.want) {
			t.Errorf("%v, want %v", a.Err, x.want)
		}
	}
	var moved *EpochError
	if a := sent(t, s, epochMessage(channel, devices[0], 1)); !errors.As(a.Err, &moved) || *moved != (EpochError{1, 2, 2}) {
		t.Errorf("%v", a.Err)
	}
	again := *c
	again.Message.Seq, again.Message.AcceptedAt = 0, time.Now()
	must(t, s.StoreChange(t.Context(), &again))
	if !again.Duplicate || again.Message.Seq != 2 || !again.Message.AcceptedAt.Equal(utc(c.Message.AcceptedAt)) {
		t.Errorf("%+v", again.Message)
	}
	// It reads to the end of what it may, and is forgotten then.
	must(t, s.SweepGroups(t.Context(), time.Now(), time.Now()))
	if list, err := s.Cursors(t.Context(), devices[1].ID); err != nil || len(list) != 2 {
		t.Errorf("%+v %v", list, err)
	}
	must(t, s.Acknowledge(t.Context(), []Ack{{devices[1].ID, channel, 2}}))
	if list, err := s.Cursors(t.Context(), devices[1].ID); err != nil || len(list) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	must(t, s.SweepGroups(t.Context(), time.Now(), time.Now()))
	if _, err := s.CursorOf(t.Context(), devices[1].ID, channel); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestCommitsThatAreNotStored(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 3)
	_, gone := person(t, s, "gone")
	_, err := s.pool.Exec(t.Context(), `UPDATE devices SET revoked_at = now() WHERE device_id = $1`, gone.ID)
	must(t, err)
	stale := change(t, s, channel, devices[1], nil, nil)
	must(t, s.StoreChange(t.Context(), change(t, s, channel, devices[0], nil, nil)))
	var moved *EpochError
	if err := s.StoreChange(t.Context(), stale); !errors.As(err, &moved) || moved.Epoch != 2 || moved.Seq != 1 {
		t.Errorf("an old epoch: %v", err)
	}
	if err := s.StoreChange(t.Context(), change(t, s, channel, devices[0], []ids.ID{gone.ID}, nil)); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked device: %v", err)
	}
	judged := change(t, s, channel, devices[0], nil, nil)
	must(t, s.SetRole(t.Context(), channel, devices[0].AccountID, devices[1].AccountID, RoleAdmin))
	if err := s.StoreChange(t.Context(), judged); !errors.Is(err, ErrMoved) {
		t.Errorf("roles that have changed: %v", err)
	}
	proposal := change(t, s, channel, devices[0], nil, nil)
	proposal.Message.Kind = MessageProposal
	late := *proposal
	late.Message.DeliveryID = ids.NewDelivery(time.Now())
	must(t, s.StoreChange(t.Context(), proposal))
	if err := s.StoreChange(t.Context(), &late); !errors.Is(err, ErrMoved) {
		t.Errorf("another proposal came first: %v", err)
	}
	reused := change(t, s, channel, devices[0], nil, nil)
	reused.Message.DeliveryID, reused.IDTime = proposal.Message.DeliveryID, proposal.IDTime
	if err := s.StoreChange(t.Context(), reused); !errors.Is(err, ErrDeliveryIDReused) {
		t.Errorf("another message under the same id: %v", err)
	}
	h, err := s.GroupHead(t.Context(), channel)
	must(t, err)
	if h.Epoch != 2 || h.Proposals != 1 {
		t.Errorf("%+v", h)
	}
}

// The mark of a revoked device stops everything in its channels but the Commit that removes it.
func TestRemoveFirst(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 3)
	other, _ := team(t, s, 2)
	stored := sent(t, s, epochMessage(channel, devices[0], 1))
	revoke := func(list ...ids.ID) {
		t.Helper()
		must(t, s.tx(t.Context(), func(tx pgx.Tx) error {
			var b pgx.Batch
			queueRemoveFirst(&b, list...)
			queueRemoveFirst(&b, list...) // Once more changes nothing.
			b.Queue(`UPDATE devices SET revoked_at = now() WHERE device_id = ANY ($1)`, list)
			b.Queue(`DELETE FROM cursors WHERE device_id = ANY ($1)`, list)
			return tx.SendBatch(t.Context(), &b).Close()
		}))
	}
	revoke(devices[1].ID, devices[2].ID)
	var first *RemoveFirstError
	if a := sent(t, s, epochMessage(channel, devices[0], 1)); !errors.As(a.Err, &first) || first.Device != devices[1].ID && first.Device != devices[2].ID {
		t.Errorf("%v", a.Err)
	}
	again := epochMessage(channel, devices[0], 1)
	again.Message.DeliveryID, again.Message.Payload, again.IDTime = stored.Message.DeliveryID, stored.Message.Payload, stored.IDTime
	if sent(t, s, again); again.Err != nil || !again.Duplicate {
		t.Errorf("a retry: %+v", again)
	}
	for _, removes := range [][]ids.ID{nil, {devices[1].ID}} {
		if err := s.StoreChange(t.Context(), change(t, s, channel, devices[0], nil, removes)); !errors.As(err, &first) {
			t.Errorf("%v", err)
		}
	}
	must(t, s.StoreChange(t.Context(), change(t, s, channel, devices[0], nil, []ids.ID{devices[1].ID, devices[2].ID})))
	if a := sent(t, s, epochMessage(channel, devices[0], 2)); a.Err != nil {
		t.Error(a.Err)
	}
	h, err := s.GroupHead(t.Context(), other)
	must(t, err)
	if len(h.RemoveFirst) != 0 {
		t.Errorf("another channel: %+v", h)
	}
	var marked int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM channels WHERE remove_first IS NOT NULL`).Scan(&marked))
	if marked != 0 {
		t.Errorf("%d channels are marked, inboxes among them", marked)
	}
}

// Commits, messages, revocations, roles and contacts at once neither lock each other up nor lose anything: sequences have no
// gap, and one Commit ends each epoch.
func TestManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const groups, members = 4, 6
	var channels []ids.ID
	var teams [][]Device
	for range groups {
		c, d := team(t, s, members)
		channels, teams = append(channels, c), append(teams, d)
	}
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Second)
	defer stop()
	var mu sync.Mutex
	won := map[string]int{}
	var all sync.WaitGroup
	try := func(f func() error) {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := f(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for g := range groups {
		for w := range 3 {
			try(func() error {
				h, err := s.GroupHead(ctx, channels[g])
				if err != nil {
					return err
				}
				now := time.Now()
				c := &Change{Base: h, IDTime: now, State: []byte("s"), GroupInfo: []byte("i"), Removes: h.RemoveFirst, Message: Message{ChannelID: channels[g], Kind: MessageCommit,
					Generation: 1, Epoch: h.Epoch, SenderAccount: teams[g][w].AccountID, SenderID: teams[g][w].ID, DeliveryID: ids.NewDelivery(now), AcceptedAt: now,
					ExpiresAt: now.Add(week), Payload: []byte("commit")}}
				err = s.StoreChange(ctx, c)
				var moved *EpochError
				var first *RemoveFirstError
				if errors.As(err, &moved) || errors.As(err, &first) || errors.Is(err, ErrMoved) {
					return nil
				}
				if err == nil {
					mu.Lock()
					won[fmt.Sprint(g, h.Epoch)]++
					mu.Unlock()
				}
				return err
			})
		}
		try(func() error {
			var batch []*Append
			for i := range channels { // Of all the groups, in one transaction.
				batch = append(batch, epochMessage(channels[i], teams[i][0], 1))
			}
			return s.AppendBatch(ctx, batch)
		})
		try(func() error {
			return s.SetRole(ctx, channels[g], teams[g][0].AccountID, teams[g][1].AccountID, Role(1+time.Now().UnixNano()%3)) //nolint:gosec // 1 to 3.
		})
		try(func() error {
			_, _, err := s.AskContact(ctx, &ContactChange{Account: teams[g][0].AccountID, Other: teams[(g+1)%groups][1].AccountID, At: time.Now()}, 1000, 1000)
			if err != nil {
				return err
			}
			return s.BlockContact(ctx, &ContactChange{Account: teams[(g+1)%groups][1].AccountID, Other: teams[g][0].AccountID, At: time.Now()}, time.Now().UnixNano()%2 == 0)
		})
	}
	for i := 3; i < members; i++ {
		must(t, s.tx(t.Context(), func(tx pgx.Tx) error {
			var b pgx.Batch
			var list []ids.ID
			for g := range groups {
				list = append(list, teams[g][i].ID)
			}
			queueRemoveFirst(&b, list...)
			return tx.SendBatch(t.Context(), &b).Close()
		}))
		time.Sleep(300 * time.Millisecond)
	}
	all.Wait()
	for key, n := range won {
		if n != 1 {
			t.Errorf("epoch %s was ended %d times", key, n)
		}
	}
	for g, c := range channels {
		h, err := s.GroupHead(t.Context(), c)
		must(t, err)
		var messages, last, commits int
		must(t, s.pool.QueryRow(t.Context(), `SELECT count(*), max(seq), count(*) FILTER (WHERE kind = 2) FROM messages WHERE channel_id = $1`, c).Scan(&messages, &last, &commits))
		if messages != last || uint64(commits)+1 != h.Epoch { //nolint:gosec // small.
			t.Errorf("group %d: %d messages up to %d, %d Commits, epoch %d", g, messages, last, commits, h.Epoch)
		}
	}
}

// Without history a message goes once every device that is in the group has acknowledged it, and not before; removed and
// revoked devices are not waited for, nor is a newcomer for what was before it.
func TestAcknowledgedMessagesGo(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 4)
	kept, keepers := team(t, s, 2)
	for range 10 {
		sent(t, s, epochMessage(channel, devices[0], 1))
		sent(t, s, epochMessage(kept, keepers[0], 1))
	}
	purge := func(byPolicy bool) {
		t.Helper()
		for after, more := (ids.ID{}), true; more; {
			var err error
			after, more, err = s.PurgeAcknowledged(t.Context(), after, byPolicy)
			must(t, err)
		}
	}
	first := func(c ids.ID) uint64 {
		t.Helper()
		page, err := s.ReadMessages(t.Context(), c, 0, 1, 1<<20, time.Now())
		must(t, err)
		if len(page) == 0 {
			return 0
		}
		return page[0].Seq
	}
	ack := func(c ids.ID, seq uint64, list ...Device) {
		t.Helper()
		var acks []Ack
		for _, d := range list {
			acks = append(acks, Ack{d.ID, c, seq})
		}
		must(t, s.Acknowledge(t.Context(), acks))
	}
	ack(channel, 8, devices[0], devices[1])
	ack(channel, 5, devices[2])
	ack(channel, 2, devices[3])
	ack(kept, 9, keepers...)
	purge(false)
	if first(channel) != 1 {
		t.Fatal("history is on")
	}
	must(t, s.SetRetention(t.Context(), channel, devices[0].AccountID, 0, HistoryOff))
	purge(false)
	if got := first(channel); got != 3 {
		t.Fatalf("the first is %d, want 3", got)
	}
	must(t, s.StoreChange(t.Context(), change(t, s, channel, devices[0], nil, []ids.ID{devices[3].ID}))) // Sequence 11.
	purge(false)
	if got := first(channel); got != 6 {
		t.Fatalf("a removed device is waited for: the first is %d, want 6", got)
	}
	_, err := s.pool.Exec(t.Context(), `UPDATE devices SET revoked_at = now() WHERE device_id = $1`, devices[2].ID)
	must(t, err)
	_, newcomer := person(t, s, "newcomer")
	must(t, s.StoreChange(t.Context(), change(t, s, channel, devices[0], []ids.ID{newcomer.ID}, nil))) // Sequence 12.
	purge(false)
	if got := first(channel); got != 9 {
		t.Fatalf("a revoked device or a newcomer is waited for: the first is %d, want 9", got)
	}
	if first(kept) != 1 {
		t.Error("another channel's messages went")
	}
	purge(true)
	if got := first(kept); got != 10 {
		t.Errorf("by the policy: the first is %d, want 10", got)
	}
	must(t, s.SetRetention(t.Context(), kept, keepers[0].AccountID, 0, HistoryOn))
	ack(kept, 10, keepers...)
	purge(true)
	if got := first(kept); got != 10 {
		t.Errorf("history of its own: the first is %d, want 10", got)
	}
	if a := sent(t, s, epochMessage(channel, devices[0], 3)); a.Message.Seq != 13 {
		t.Errorf("%+v", a)
	}
}

func TestAGroupIsNotWithoutAnAdmin(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	channel, devices := team(t, s, 3)
	admin, moderator := devices[0], devices[2]
	must(t, s.SetRole(t.Context(), channel, admin.AccountID, moderator.AccountID, RoleModerator))
	for what, err := range map[error]error{
		ErrLastAdmin: s.SetRole(t.Context(), channel, admin.AccountID, admin.AccountID, RoleMember),
		ErrChanged:   s.SetRole(t.Context(), channel, moderator.AccountID, moderator.AccountID, RoleAdmin),
		ErrNotFound:  s.SetRole(t.Context(), channel, admin.AccountID, ids.New(), RoleMember),
	} {
		if !errors.Is(err, what) {
			t.Errorf("%v, want %v", err, what)
		}
	}
	c := change(t, s, channel, devices[1], nil, []ids.ID{admin.ID})
	c.Leaves = []ids.ID{admin.AccountID} // Its account is gone.
	must(t, s.StoreChange(t.Context(), c))
	h, err := s.GroupHead(t.Context(), channel)
	must(t, err)
	if h.Members[moderator.AccountID] != RoleAdmin || h.Members[devices[1].AccountID] != RoleMember {
		t.Errorf("%+v", h.Members)
	}
}

func TestQuorum(t *testing.T) {
	t.Parallel()
	for members, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 1024: 513} {
		if got := Quorum(ChannelGroup, members); got != want {
			t.Errorf("%d of %d, want %d", got, members, want)
		}
	}
	s := fresh(t)
	channel, devices := team(t, s, 3)
	now := time.Now()
	vote := func(d Device, at time.Time) (int, int) {
		t.Helper()
		votes, members, err := s.VoteGeneration(t.Context(), channel, 2, d.AccountID, at, now.Add(-time.Hour))
		must(t, err)
		return votes, members
	}
	if v, m := vote(devices[1], now.Add(-2*time.Hour)); v != 0 || m != 3 {
		t.Errorf("an old vote counts: %d of %d", v, m)
	}
	if v, _ := vote(devices[1], now); v != 1 {
		t.Errorf("renewed: %d", v)
	}
	if _, _, err := s.VoteGeneration(t.Context(), channel, 2, ids.New(), now, now); !errors.Is(err, ErrNotFound) {
		t.Errorf("a stranger's: %v", err)
	}
	c := change(t, s, channel, devices[0], nil, []ids.ID{devices[1].ID})
	c.Leaves = []ids.ID{devices[1].AccountID}
	must(t, s.StoreChange(t.Context(), c))
	if v, m := vote(devices[2], now); v != 1 || m != 2 {
		t.Errorf("who has left counts: %d of %d", v, m)
	}
}

func TestRetentions(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	want := []time.Duration{time.Hour, day, 90 * day}
	for _, r := range []time.Duration{day, 90 * day, day, time.Hour, 0} {
		channel, devices := team(t, s, 1)
		must(t, s.SetRetention(t.Context(), channel, devices[0].AccountID, r, HistoryPolicy))
	}
	if got, err := s.Retentions(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
}
