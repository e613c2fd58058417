package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/history/peer"
	"quicproquo.dev/test/history/record"
)

// pairOf names two accounts, whoever comes first.
func pairOf(a, b *peer.Device) string {
	names := []string{a.Account.String(), b.Account.String()}
	slices.Sort(names)
	return strings.Join(names, "-")
}

// openDirect opens the channel of two accounts.
func (a *actor) openDirect(ctx context.Context, with *peer.Device) (ids.ID, bool) {
	var channel ids.ID
	op, ok := a.until(ctx, record.Op{Kind: record.Open, Pair: pairOf(a.device, with)}, &wire.OpenDMRequest{AccountID: with.Account}, func(op *record.Op, body wire.Response) {
		if c, ok := body.(*wire.Channel); ok {
			channel = c.ChannelID
			op.Channel, op.Generation, op.Seq = c.ChannelID.String(), c.Generation, c.LastSeq
		}
	})
	if ok && op.Outcome == record.Refused {
		a.problem("openDm is refused: %s", op.Code)
	}
	return channel, ok && op.Outcome == record.OK
}

// claim asks for a KeyPackage of each of these devices of one account until there is one. It is noted for each device.
func (a *actor) claim(ctx context.Context, devices []*peer.Device) (map[ids.ID][]byte, bool) {
	request := ids.New()
	for ctx.Err() == nil {
		got, outcome := a.claimOnce(ctx, request, devices)
		if outcome == record.OK || outcome == record.Refused {
			return got, outcome == record.OK && len(got) == len(devices)
		}
		if a.IntN(3) == 0 {
			a.hangUp()
		}
	}
	return nil, false
}

func (a *actor) claimOnce(ctx context.Context, request ids.ID, devices []*peer.Device) (map[ids.ID][]byte, record.Outcome) {
	if a.connect(ctx) != nil {
		return nil, record.Unknown
	}
	begun := a.rec.Now()
	body, outcome, code := a.raw(ctx, &wire.ClaimKeyPackagesRequest{RequestID: request, AccountID: devices[0].Account})
	ended := a.rec.Now()
	if outcome == record.Refused && code == fmt.Sprint(wire.CodeNoKeyPackage) {
		outcome, code = record.OK, ""
	}
	if outcome == record.Refused {
		a.problem("a claim is refused: %s", code)
	}
	got := map[ids.ID][]byte{}
	last := map[ids.ID]bool{}
	if r, ok := body.(*wire.ClaimKeyPackagesResponse); ok {
		for _, p := range r.Packages {
			got[p.DeviceID], last[p.DeviceID] = p.KeyPackage, p.LastResort
		}
	}
	for _, d := range devices {
		a.rec.Add(record.Op{Kind: record.Claim, Client: a.client, Call: begun, Return: ended, Outcome: outcome, Code: code, Device: d.ID.String(), From: a.device.ID.String(),
			ID: request.String(), Content: fingerprint(got[d.ID]), LastResort: last[d.ID]})
	}
	return got, outcome
}

// upload stores KeyPackages of the actor's device: so many, and the one of last resort if asked for.
func (a *actor) upload(ctx context.Context, n int, lastResort bool) bool {
	r := &wire.UploadKeyPackagesRequest{}
	op := record.Op{Kind: record.Upload, Device: a.device.ID.String()}
	for range n {
		b, err := a.device.KeyPackage(false)
		if err != nil {
			a.problem("making a KeyPackage: %v", err)
			return false
		}
		r.OneTime = append(r.OneTime, b)
		op.Packages = append(op.Packages, fingerprint(b))
	}
	if lastResort {
		b, err := a.device.KeyPackage(true)
		if err != nil {
			a.problem("making a KeyPackage: %v", err)
			return false
		}
		r.LastResort, op.Content = b, fingerprint(b)
	}
	done, ok := a.until(ctx, op, r, func(*record.Op, wire.Response) {})
	if ok && done.Outcome == record.Refused && done.Code != fmt.Sprint(wire.CodeReusedKeyPackage) {
		a.problem("an upload is refused: %s", done.Code)
	}
	return ok
}

// packagesOf claims a KeyPackage of each device but the actor's own.
func (a *actor) packagesOf(ctx context.Context, devices []*peer.Device) (map[ids.ID][]byte, bool) {
	accounts := map[ids.ID][]*peer.Device{}
	var order []ids.ID
	for _, d := range devices {
		if d == a.device {
			continue
		}
		if accounts[d.Account] == nil {
			order = append(order, d.Account)
		}
		accounts[d.Account] = append(accounts[d.Account], d)
	}
	all := map[ids.ID][]byte{}
	for _, account := range order {
		got, ok := a.claim(ctx, accounts[account])
		if !ok {
			return nil, false
		}
		for d, p := range got {
			all[d] = p
		}
	}
	return all, true
}

// offer hands a group in until it is known whether it won.
func (a *actor) offer(ctx context.Context, s *peer.Started) (won, ok bool) {
	op := record.Op{Kind: record.Create, Channel: s.Request.ChannelID.String(), Device: a.device.ID.String(), Generation: s.Request.Generation, ID: fingerprint(s.Welcome)}
	for _, w := range s.Request.Welcomes {
		op.Packages = append(op.Packages, w.DeviceID.String())
	}
	done, ok := a.until(ctx, op, s.Request, func(op *record.Op, body wire.Response) {
		if c, ok := body.(*wire.CreateGroupResponse); ok {
			op.Seq = c.StartSeq
		}
	})
	if !ok {
		return false, false
	}
	if done.Outcome == record.Refused && done.Code != fmt.Sprint(wire.CodeGenerationConflict) {
		a.problem("a group is refused: %s", done.Code)
		return false, false
	}
	if done.Outcome == record.OK && a.IntN(2) == 0 { // The winner may ask again, anywhere.
		a.hangUp()
		if again, ok := a.until(ctx, op, s.Request, func(op *record.Op, body wire.Response) {
			if c, ok := body.(*wire.CreateGroupResponse); ok {
				op.Seq = c.StartSeq
			}
		}); ok && again.Outcome == record.Refused && again.Code != fmt.Sprint(wire.CodeGenerationConflict) {
			a.problem("a group is refused when it is handed in again: %s", again.Code)
		}
	}
	return done.Outcome == record.OK, true
}

// found makes a chat's channel and its group: the founders race.
func (w *World) found(ctx context.Context, c *chat, founders []*peer.Device, direct bool) {
	var all sync.WaitGroup
	for i, d := range founders {
		all.Go(func() {
			a := w.actor(d)
			defer a.hangUp()
			if direct {
				channel, ok := a.openDirect(ctx, founders[1-i])
				if !ok {
					return
				}
				w.mu.Lock()
				c.channel = channel
				w.mu.Unlock()
				a.foundOne(ctx, channel, c.devices)
				return
			}
			if _, ok := answered[*wire.Channel](ctx, a, &wire.OpenGroupRequest{ChannelID: c.channel}); ok {
				a.foundOne(ctx, c.channel, c.devices)
			}
		})
	}
	all.Wait()
	if ctx.Err() == nil {
		w.established(c.channel, c.devices)
		close(c.ready)
	}
}

func (a *actor) foundOne(ctx context.Context, channel ids.ID, devices []*peer.Device) {
	packages, ok := a.packagesOf(ctx, devices)
	if !ok {
		a.problem("no KeyPackages for a group")
		return
	}
	s, err := a.device.Start(channel, 1, packages)
	if err != nil {
		a.problem("making a group: %v", err)
		return
	}
	a.offer(ctx, s)
}
