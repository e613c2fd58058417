package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quicproquo.dev/schema/ids"
)

// harmless are refusals that one who changes groups while devices and accounts end there has to expect.
func harmless(err error) bool {
	var moved *EpochError
	var first *RemoveFirstError
	if err == nil || errors.As(err, &moved) || errors.As(err, &first) {
		return true
	}
	for _, e := range []error{ErrMoved, ErrRevoked, ErrNotFound, ErrMuted, ErrClosed, ErrChanged} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Devices are revoked and accounts deleted in groups that others write to, and change, at the same time, some of them by adding
// just these devices: nobody is locked up, no sequence has a gap, and no device that has ended is left in a group unmarked.
func TestDevicesAndAccountsEndBesideEverything(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	const groups, members = 3, 8
	var channels []ids.ID
	var teams [][]Device
	for range groups {
		c, d := team(t, s, members)
		channels, teams = append(channels, c), append(teams, d)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	var stored, commits atomic.Int64
	try := func(f func(r *rand.Rand) error) {
		seed := rand.Uint64()
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for ctx.Err() == nil {
				if err := f(r); !harmless(err) && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for g := range groups {
		for w := range 2 {
			try(func(r *rand.Rand) error { // Removes whoever has to be, and adds some of another group's.
				h, err := s.GroupHead(ctx, channels[g])
				if err != nil {
					return err
				}
				now, added := time.Now(), teams[(g+1)%groups][1+r.IntN(members-1)]
				c := &Change{Base: h, IDTime: now, State: []byte("s"), GroupInfo: []byte("i"), Removes: h.RemoveFirst, Adds: []ids.ID{added.ID},
					Message: Message{ChannelID: channels[g], Kind: MessageCommit, Generation: 1, Epoch: h.Epoch, SenderAccount: teams[g][0].AccountID, SenderID: teams[g][0].ID,
						DeliveryID: ids.NewDelivery(now), AcceptedAt: now, ExpiresAt: now.Add(week), Payload: fmt.Append(nil, "commit ", w)}}
				if _, in := h.Members[added.AccountID]; !in {
					c.Joins = []ids.ID{added.AccountID}
				}
				if err = s.StoreChange(ctx, c); err == nil {
					commits.Add(1)
				}
				return err
			})
		}
		try(func(r *rand.Rand) error {
			var batch []*Append
			for i, c := range channels {
				h, err := s.GroupHead(ctx, c)
				if err != nil {
					return err
				}
				batch = append(batch, epochMessage(c, teams[i][r.IntN(2)], h.Epoch))
			}
			err := s.AppendBatch(ctx, batch)
			for _, a := range batch {
				if err == nil && a.Err == nil {
					stored.Add(1)
				}
			}
			return err
		})
		try(func(r *rand.Rand) error {
			change := &ContactChange{Account: teams[g][0].AccountID, Other: teams[(g+1)%groups][1+r.IntN(members-1)].AccountID, At: time.Now(),
				Notice: func(inbox ids.ID) Message {
					return Message{ChannelID: inbox, Kind: MessageNotice, SenderAccount: teams[g][0].AccountID, SenderID: teams[g][0].ID, DeliveryID: ids.NewDelivery(time.Now()),
						AcceptedAt: time.Now(), ExpiresAt: time.Now().Add(week), Payload: []byte("notice")}
				}}
			_, _, err := s.AskContact(ctx, change, 1000, 1000)
			return err
		})
		try(func(r *rand.Rand) error {
			_, err := s.DirectChannel(ctx, teams[g][0].AccountID, teams[(g+1)%groups][1+r.IntN(members-1)].AccountID, time.Now())
			return err
		})
	}
	var ended sync.WaitGroup
	for g := range groups {
		ended.Go(func() { // All but the first two, every other with its account.
			for i, d := range teams[g][2:] {
				var err error
				if i%2 == 0 {
					_, err = s.RevokeDevice(t.Context(), aboutDevice(d.AccountID, d.ID), nil)
				} else if err = s.BeginDeletion(t.Context(), (&life{account: Account{ID: d.AccountID}}).deletion(s)); err == nil {
					_, _, err = finish(t.Context(), s, d.AccountID)
				}
				if err != nil {
					t.Errorf("device %d of group %d: %v", i, g, err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	ended.Wait()
	stop()
	all.Wait()
	t.Logf("%d messages, %d Commits", stored.Load(), commits.Load())
	if stored.Load() == 0 || commits.Load() == 0 {
		t.Error("nothing was stored beside it")
	}
	var gaps, strays int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM channels c WHERE c.last_seq <> (SELECT count(*) FROM messages m WHERE m.channel_id = c.channel_id)
		AND EXISTS (SELECT FROM devices d WHERE d.device_id = c.channel_id AND d.revoked_at IS NULL OR c.kind <> 3)`).Scan(&gaps))
	for list, err := s.Deletions(t.Context(), 100); len(list) > 0 || err != nil; list, err = s.Deletions(t.Context(), 100) {
		must(t, err) // What a step found locked, it left to the next round.
		_, _, err = finish(t.Context(), s, list[0])
		must(t, err)
	}
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM cursors k LEFT JOIN devices d USING (device_id) WHERE d.device_id IS NULL OR d.revoked_at IS NOT NULL`).Scan(&strays))
	if gaps != 0 || strays != 0 {
		t.Errorf("%d channels have gaps, %d cursors are of devices that have ended", gaps, strays)
	}
}
