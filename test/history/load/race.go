package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// commitRaces is how many epochs of a generation two devices race for.
const commitRaces = 3

// race is two devices of two accounts who both want to make each generation of their channel, and end each epoch.
type race struct {
	*World
	sides  [2]*actor
	groups [2]*mls.Group
}

// race goes on with one pair after another, and then with further generations of their channels.
func (w *World) race(ctx context.Context, pairs [][2]*peer.Device) {
	for generation := uint32(1); !w.stopped() && ctx.Err() == nil; generation++ {
		for _, p := range pairs {
			if w.stopped() || ctx.Err() != nil {
				return
			}
			r := &race{World: w, sides: [2]*actor{w.actor(p[0]), w.actor(p[1])}}
			if !r.generation(ctx, generation) {
				r.hangUp()
				return
			}
			r.hangUp()
		}
	}
}

func (r *race) hangUp() {
	r.sides[0].hangUp()
	r.sides[1].hangUp()
}

// both does something on both sides at once.
func (r *race) both(f func(side int, a *actor)) {
	var all sync.WaitGroup
	for i, a := range r.sides {
		all.Go(func() { f(i, a) })
	}
	all.Wait()
}

// generation has both sides make a generation, and then race for its epochs.
func (r *race) generation(ctx context.Context, n uint32) bool {
	var channel ids.ID
	var started [2]*peer.Started
	var won, ok [2]bool
	r.both(func(i int, a *actor) {
		c, opened := a.openDirect(ctx, r.sides[1-i].device)
		r.unsettled(c)
		if !opened || n > 1 && !a.vote(ctx, c, n) {
			return
		}
		s, made := a.start(ctx, c, n, r.sides[1-i].device)
		if !made {
			return
		}
		started[i] = s
		won[i], ok[i] = a.offer(ctx, s)
		r.mu.Lock()
		channel = c
		r.mu.Unlock()
	})
	if !ok[0] || !ok[1] {
		return false
	}
	if won[0] == won[1] {
		r.problem("of generation %d of channel %s %t, %t won", n, channel, won[0], won[1])
		return false
	}
	winner := 0
	if won[1] {
		winner = 1
	}
	r.established(channel, []*peer.Device{r.sides[0].device, r.sides[1].device})
	joined, err := r.sides[1-winner].device.Join(started[winner].Welcome)
	if err != nil {
		r.problem("joining: %v", err)
		return false
	}
	r.groups[winner], r.groups[1-winner] = started[winner].Group, joined
	for range commitRaces {
		if !r.epoch(ctx, channel, n) {
			return false
		}
	}
	return true
}

// start makes a group with the other device: of the first generation with a claimed KeyPackage.
func (a *actor) start(ctx context.Context, channel ids.ID, generation uint32, with *peer.Device) (*peer.Started, bool) {
	var packages map[ids.ID][]byte
	if generation == 1 {
		var ok bool
		if packages, ok = a.claim(ctx, []*peer.Device{with}); !ok {
			return nil, false
		}
	} else {
		b, err := with.KeyPackage(false)
		if err != nil {
			a.problem("making a KeyPackage: %v", err)
			return nil, false
		}
		packages = map[ids.ID][]byte{with.ID: b}
	}
	s, err := a.device.Start(channel, generation, packages)
	if err != nil {
		a.problem("making a group: %v", err)
	}
	return s, err == nil
}

// vote gives the present generation up. The other side may be ahead by then.
func (a *actor) vote(ctx context.Context, channel ids.ID, generation uint32) bool {
	for ctx.Err() == nil {
		if a.connect(ctx) != nil {
			break
		}
		_, outcome, code := a.raw(ctx, &wire.VoteGenerationRequest{ChannelID: channel, Generation: generation})
		switch {
		case outcome == record.OK, outcome == record.Refused && code == fmt.Sprint(wire.CodeGenerationConflict),
			outcome == record.Refused && code == fmt.Sprint(wire.CodeEpochConflict):
			return true
		case outcome == record.Refused:
			a.problem("a vote is refused: %s", code)
			return false
		}
	}
	return false
}

// epoch has both sides end an epoch; who loses takes the winner's Commit.
func (r *race) epoch(ctx context.Context, channel ids.ID, generation uint32) bool {
	var requests [2]*wire.CommitRequest
	var pending [2]*mls.PendingCommit
	var won, ok [2]bool
	r.both(func(i int, a *actor) {
		id := ids.NewDelivery(time.Now())
		p, err := r.groups[i].Commit(mls.CommitOptions{AuthenticatedData: id[:]})
		if err != nil {
			a.problem("making a Commit: %v", err)
			return
		}
		pending[i] = p
		requests[i] = &wire.CommitRequest{ChannelID: channel, Generation: generation, Epoch: r.groups[i].Epoch(), DeliveryID: id, Commit: p.Commit, GroupInfo: p.GroupInfo}
		won[i], ok[i] = a.commit(ctx, requests[i])
	})
	if !ok[0] || !ok[1] {
		return false
	}
	if won[0] == won[1] {
		r.problem("of epoch %d of channel %s %t, %t won", requests[0].Epoch, channel, won[0], won[1])
		return false
	}
	winner := 0
	if won[1] {
		winner = 1
	}
	m, err := mls.ParseMessage(requests[winner].Commit)
	if err == nil {
		_, err = r.groups[1-winner].Process(m, time.Now())
	}
	if err == nil {
		err = r.groups[winner].Merge(pending[winner])
	}
	if err != nil {
		r.problem("going on to the next epoch: %v", err)
	}
	return err == nil
}

// commit hands a Commit in until it is known whether it won.
func (a *actor) commit(ctx context.Context, r *wire.CommitRequest) (won, ok bool) {
	op := record.Op{Kind: record.Commit, Channel: r.ChannelID.String(), Device: a.device.ID.String(), ID: r.DeliveryID.String(), Content: fingerprint(r.Commit),
		Generation: r.Generation, Epoch: r.Epoch}
	learn := func(op *record.Op, body wire.Response) {
		if c, ok := body.(*wire.CommitResponse); ok {
			op.Seq, op.At, op.Duplicate = c.Seq, c.AcceptedAt.UnixMilli(), c.Duplicate
		}
	}
	done, ok := a.until(ctx, op, r, learn)
	if !ok {
		return false, false
	}
	if done.Outcome == record.Refused && done.Code != fmt.Sprint(wire.CodeEpochConflict) {
		a.problem("a Commit is refused: %s", done.Code)
		return false, false
	}
	if a.IntN(3) == 0 {
		a.hangUp()
		a.until(ctx, op, r, learn)
	}
	return done.Outcome == record.OK, true
}
