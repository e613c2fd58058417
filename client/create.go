package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quicproquo.dev/client/keystore"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	// creationLife is how long a creation that was never answered is tried again before a fresh one is made: its
	// KeyPackages get old.
	creationLife = time.Hour
	// welcomeTries times welcomeWait and more is how long a Welcome is waited for that must be there already.
	welcomeTries = 8
	welcomeWait  = 250 * time.Millisecond
	// ownLooks is how often this process reads the inbox for a Welcome: once would do if no two devices ever raced.
	ownLooks = 2
)

// ensureGroup makes sure that the profile has the group of a channel: it creates it, or gets its Welcome. One process
// at a time does it.
func (c *Client) ensureGroup(ctx context.Context, ch *wire.Channel) error {
	rec, _, err := get[channelRecord](ctx, c.store, channelName(ch.ChannelID))
	if err != nil || rec.hasGroup(ch.Generation) {
		return err
	}
	unlock, err := c.store.Lock(ctx, "create")
	if err != nil {
		return err
	}
	defer unlock()
	if rec, _, err = get[channelRecord](ctx, c.store, channelName(ch.ChannelID)); err != nil {
		return err
	}
	switch pending := rec.Creation; {
	case rec.hasGroup(ch.Generation):
		return nil
	case pending != nil && pending.Generation >= ch.Generation && ch.Generation > 0, ch.Generation == 0, rec.Superseded >= ch.Generation:
		return c.create(ctx, ch, pending)
	}
	err = c.awaitWelcome(ctx, ch.ChannelID, ch.Generation)
	if errors.Is(err, ErrNotInGroup) && c.self.StartedOver {
		return c.create(ctx, ch, nil)
	}
	return err
}

// hasGroup reports whether the channel, at that generation, has a group to write to.
func (rec *channelRecord) hasGroup(generation uint32) bool {
	return rec.newest() > 0 && rec.newest() >= generation && rec.Superseded < generation
}

// create makes a channel's next group, or offers an earlier one again whose answer was lost: the cell answers the winner
// as the first time.
func (c *Client) create(ctx context.Context, ch *wire.Channel, pending *creation) error {
	if pending == nil || pending.Generation != ch.Generation && !c.opts.Now().Before(pending.CreatedAt.Add(creationLife)) {
		var err error
		if pending, err = c.prepareGroup(ctx, ch, ch.Generation+1); err != nil {
			return err
		}
	}
	start, err := c.offer(ctx, ch.ChannelID, pending)
	switch {
	case err == nil:
		return c.adopt(ctx, ch.ChannelID, pending.Generation, start)
	case wire.HasCode(err, wire.CodeGenerationConflict): // Another device was first, and has made a Welcome for this one.
		err = c.awaitWelcome(ctx, ch.ChannelID, pending.Generation)
		return errors.Join(err, c.discard(ctx, ch.ChannelID, pending.Generation))
	case permanent(err):
		return errors.Join(err, c.discard(ctx, ch.ChannelID, pending.Generation))
	}
	return err
}

// prepareGroup makes a group of every device of both accounts and saves it.
func (c *Client) prepareGroup(ctx context.Context, ch *wire.Channel, generation uint32) (*creation, error) {
	var members []*mls.KeyPackage
	var devices []ids.ID
	for _, account := range []ids.ID{ch.Peer.AccountID, c.self.AccountID} {
		packages, owners, err := c.claim(ctx, account)
		if err != nil {
			return nil, err
		}
		members, devices = append(members, packages...), append(devices, owners...)
	}
	made, err := c.makeGroup(ctx, ch, generation, members)
	if err != nil {
		return nil, fmt.Errorf("setting up the group: %w", err)
	}
	made.Devices = devices
	return made, update(ctx, c.store, channelName(ch.ChannelID), func(rec *channelRecord) (bool, error) {
		rec.ChannelID, rec.Peer = ch.ChannelID, peer{ch.Peer.AccountID, ch.Peer.Name}
		rec.Creation = made
		return true, nil
	})
}

// claim takes one KeyPackage of every device of an account, apart from this one and those that were revoked, and checks each.
func (c *Client) claim(ctx context.Context, account ids.ID) (packages []*mls.KeyPackage, owners []ids.ID, err error) {
	req := &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: account}
	gone, err := c.revokedOf(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	err = c.do(ctx, func(ctx context.Context, s *session) error {
		packages, owners = nil, nil
		r, err := ask[*wire.ClaimKeyPackagesResponse](ctx, s, req)
		if c.own(account) && wire.HasCode(err, wire.CodeNoKeyPackage) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, p := range r.Packages {
			if p.DeviceID == c.self.DeviceID || slices.Contains(gone, p.DeviceID) {
				continue
			}
			kp, err := c.checkClaimed(ctx, s, account, p)
			if err != nil {
				return err
			}
			packages, owners = append(packages, kp), append(owners, p.DeviceID)
		}
		return nil
	})
	return packages, owners, err
}

// checkClaimed checks that a KeyPackage is of the device and the account that it was handed out for.
func (c *Client) checkClaimed(ctx context.Context, s *session, account ids.ID, p wire.ClaimedKeyPackage) (*mls.KeyPackage, error) {
	var trust roots
	err := c.store.View(ctx, func(tx *keystore.Tx) (err error) {
		trust, err = c.rootsOf(tx, account)
		return err
	})
	if err != nil {
		return nil, err
	}
	m, err := mls.ParseMessage(p.KeyPackage)
	if err != nil {
		return nil, fmt.Errorf("%w: the KeyPackage of device %s: %w", ErrUntrusted, p.DeviceID, err)
	}
	if m.KeyPackage == nil {
		return nil, fmt.Errorf("%w: what device %s was said to offer is no KeyPackage", ErrUntrusted, p.DeviceID)
	}
	if err := m.KeyPackage.Verify(c.serverNow(s), trust); err != nil {
		return nil, fmt.Errorf("%w: the KeyPackage of device %s: %w", ErrUntrusted, p.DeviceID, err)
	}
	cert, err := devicecert.Parse(m.KeyPackage.Credential().Identity)
	if err != nil || cert.AccountID != account || cert.DeviceID != p.DeviceID {
		return nil, fmt.Errorf("%w: the KeyPackage of device %s names another device", ErrUntrusted, p.DeviceID)
	}
	return m.KeyPackage, nil
}

// makeGroup runs the MLS side: a group with the own leaf, and one Commit that adds everybody else.
func (c *Client) makeGroup(ctx context.Context, ch *wire.Channel, generation uint32, members []*mls.KeyPackage) (*creation, error) {
	var trust roots
	err := c.store.View(ctx, func(tx *keystore.Tx) (err error) {
		trust, err = c.rootsIn(tx, ch.Peer.AccountID)
		return err
	})
	if err != nil {
		return nil, err
	}
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: ids.GroupID(ch.ChannelID, generation), Credential: c.credential(),
		Signer: c.device, Validator: trust, Now: c.opts.Now})
	if err != nil {
		return nil, err
	}
	commit, err := group.Commit(mls.CommitOptions{Adds: members})
	if err != nil {
		return nil, err
	}
	if err := group.Merge(commit); err != nil { // Nobody else is in the group yet who could commit otherwise.
		return nil, err
	}
	state, err := group.MarshalBinary()
	return &creation{Generation: generation, State: state, GroupInfo: commit.GroupInfo, Welcome: commit.Welcome, CreatedAt: c.opts.Now()}, err
}

// offer asks the cell to take a group.
func (c *Client) offer(ctx context.Context, channel ids.ID, g *creation) (start uint64, err error) {
	req := &wire.CreateGroupRequest{ChannelID: channel, Generation: g.Generation, GroupInfo: g.GroupInfo}
	for _, d := range g.Devices {
		req.Welcomes = append(req.Welcomes, wire.DeviceWelcome{DeviceID: d, Welcome: g.Welcome})
	}
	err = c.do(ctx, func(ctx context.Context, s *session) error {
		r, err := ask[*wire.CreateGroupResponse](ctx, s, req)
		if err == nil {
			start = r.StartSeq
		}
		return err
	})
	return start, err
}

// adopt makes a creation that the cell took the channel's group.
func (c *Client) adopt(ctx context.Context, channel ids.ID, generation uint32, start uint64) error {
	return update(context.WithoutCancel(ctx), c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		if rec.Creation == nil || rec.Creation.Generation != generation || rec.newest() >= generation {
			return false, nil
		}
		if len(rec.Groups) == 0 {
			rec.LastSeq = max(rec.LastSeq, start)
		}
		rec.add(generation, rec.Creation.State)
		return true, nil
	})
}

// discard forgets a creation that lost.
func (c *Client) discard(ctx context.Context, channel ids.ID, generation uint32) error {
	return update(ctx, c.store, channelName(channel), func(rec *channelRecord) (bool, error) {
		if rec.Creation == nil || rec.Creation.Generation != generation {
			return false, nil
		}
		rec.Creation = nil
		return true, nil
	})
}

// awaitWelcome waits until the profile has a channel's group. When another process subscribes for this profile, it is
// the one to bring it; else this one reads the inbox, where the Welcome has been since the group exists.
func (c *Client) awaitWelcome(ctx context.Context, channel ids.ID, generation uint32) error {
	for try, looked := 0, 0; try < welcomeTries && looked < ownLooks; try++ {
		did, err := c.catchUp(ctx)
		if err != nil {
			return err
		}
		if did {
			looked++
		}
		rec, _, err := get[channelRecord](ctx, c.store, channelName(channel))
		if err != nil || rec.newest() >= generation {
			return err
		}
		if err := pause(ctx, welcomeWait*time.Duration(try+1)/2); err != nil {
			return err
		}
	}
	return ErrNotInGroup
}

// catchUp handles what waits in the inbox and the channels, without showing anything; did is false when another
// process is at it.
func (c *Client) catchUp(ctx context.Context) (did bool, err error) {
	unlock, err := c.store.TryLock(subscriberLock)
	if err != nil || unlock == nil {
		return false, err
	}
	defer unlock()
	err = c.subscribe(ctx, false, nil, nil)
	if errors.Is(err, ErrReplaced) { // By a copy of this profile elsewhere, if at all.
		return false, nil
	}
	return true, err
}
