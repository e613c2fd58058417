package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// badWelcome says that a Welcome is not what it should be; it is reported and passed over.
type badWelcome struct{ cause error }

func (e *badWelcome) Error() string { return "a Welcome that cannot be used: " + e.cause.Error() }
func (e *badWelcome) Unwrap() error { return e.cause }

// welcome handles one delivery of the inbox. The group is saved before the KeyPackage's private half is destroyed, and
// that before the inbox moves on: whatever a crash leaves undone is done again.
func (c *Client) welcome(ctx context.Context, via caller, epoch uint64, d *wire.Delivery) (out outcome, err error) {
	rec, _, err := get[channelRecord](ctx, c.store, channelName(d.ChannelID))
	if err != nil {
		return out, err
	}
	rec.restored(epoch)
	out.lastSeq = rec.LastSeq
	if d.Seq <= rec.LastSeq {
		return out, nil
	}
	err = c.join(ctx, via, d)
	var bad *badWelcome
	if err != nil && !errors.As(err, &bad) {
		return out, err
	}
	err = update(context.WithoutCancel(ctx), c.store, channelName(d.ChannelID), func(rec *channelRecord) (bool, error) {
		rec.ChannelID = d.ChannelID
		rec.restored(epoch)
		if bad != nil && d.Seq > rec.LastSeq {
			in := &incoming{c: c, rec: rec}
			in.fail(d, failWelcome, bad.cause.Error())
		}
		rec.LastSeq = max(rec.LastSeq, d.Seq)
		out.lastSeq, out.lines = rec.LastSeq, len(rec.Unread) > 0
		return true, nil
	})
	return out, err
}

// join enters the group that a Welcome is for. One that was joined before is passed over.
func (c *Client) join(ctx context.Context, via caller, d *wire.Delivery) error {
	if d.Kind != wire.KindWelcome {
		return &badWelcome{fmt.Errorf("a delivery of kind %v in the inbox", d.Kind)}
	}
	m, err := mls.ParseMessage(d.Payload)
	if err != nil {
		return &badWelcome{err}
	}
	if m.Welcome == nil {
		return &badWelcome{errors.New("it is another kind of MLS message")}
	}
	bundle, spent, err := c.bundleFor(ctx, m.Welcome)
	if err != nil {
		return err
	}
	rec, _, err := get[channelRecord](ctx, c.store, channelName(d.AboutChannelID))
	if err != nil {
		return err
	}
	if rec.newest() < d.Generation {
		if bundle == nil {
			return &badWelcome{errors.New("the private half of its KeyPackage is not in this profile")}
		}
		if err := c.enterGroup(ctx, via, d, m.Welcome, bundle); err != nil {
			return err
		}
	}
	return c.spend(ctx, spent)
}

func (c *Client) enterGroup(ctx context.Context, via caller, d *wire.Delivery, w *mls.Welcome, bundle *mls.KeyPackageBundle) error {
	group, err := mls.JoinGroup(w, bundle, c.device, mls.JoinOptions{Validator: anyRoot{}})
	if err != nil {
		return &badWelcome{err}
	}
	if !bytes.Equal(group.GroupID(), ids.GroupID(d.AboutChannelID, d.Generation)) {
		return &badWelcome{errors.New("it is for another channel or generation than the cell says")}
	}
	other, err := c.peerOf(ctx, via, group, d.AboutChannelID)
	if err != nil {
		return harmful(err)
	}
	state, err := group.MarshalBinary()
	if err != nil {
		return fmt.Errorf("saving a group: %w", err)
	}
	return update(ctx, c.store, channelName(d.AboutChannelID), func(rec *channelRecord) (bool, error) {
		if rec.newest() >= d.Generation {
			return false, nil
		}
		rec.ChannelID, rec.Peer = d.AboutChannelID, other
		rec.add(d.Generation, state)
		return true, nil
	})
}

// peerOf checks a group's members: the two accounts of the channel and nobody else, each under its own root key. The
// peer's is remembered, if it is seen for the first time, only once everything else fits.
func (c *Client) peerOf(ctx context.Context, via caller, group *mls.Group, channel ids.ID) (peer, error) {
	members, other, err := c.membersOf(group)
	if err != nil {
		return peer{}, &badWelcome{err}
	}
	ch, err := ask[*wire.Channel](ctx, via, &wire.OpenDMRequest{AccountID: other})
	if err != nil {
		return peer{}, err
	}
	if ch.ChannelID != channel || ch.Peer.AccountID != other {
		return peer{}, &badWelcome{errors.New("its members are not those of the channel")}
	}
	trust := roots{c.self.AccountID: c.self.RootKey, other: ch.Peer.RootKey}
	for _, m := range members {
		gone, err := c.revokedOf(ctx, m.AccountID)
		if err != nil {
			return peer{}, err
		}
		if slices.Contains(gone, m.DeviceID) {
			return peer{}, &badWelcome{fmt.Errorf("device %s is in it, which was revoked", m.DeviceID)}
		}
		if !trust[m.AccountID].Equal(m.RootKey) {
			return peer{}, &badWelcome{&RootKeyChangedError{ch.Peer.Name, m.AccountID}}
		}
	}
	return peer{other, ch.Peer.Name}, c.remember(ctx, &ch.Peer)
}

// harmful tells an answer about the Welcome's members that makes the Welcome bad from a failure to get one.
func harmful(err error) error {
	var bad *badWelcome
	var changed *RootKeyChangedError
	if errors.As(err, &bad) {
		return bad
	}
	if errors.As(err, &changed) || permanent(err) || errors.Is(err, conn.ErrProtocol) {
		return &badWelcome{err}
	}
	return err
}

// membersOf reads the members' certificates. Of a direct channel there are the own account, and exactly one other.
func (c *Client) membersOf(group *mls.Group) (members []*devicecert.Certificate, other ids.ID, err error) {
	for _, m := range group.Members() {
		cert, err := certificate(m.Credential, m.SignatureKey)
		if err != nil {
			return nil, other, err
		}
		if !c.own(cert.AccountID) {
			if !other.IsZero() && other != cert.AccountID {
				return nil, other, errors.New("more than two accounts are in it")
			}
			other = cert.AccountID
		}
		members = append(members, cert)
	}
	if other.IsZero() {
		return nil, other, errors.New("nobody else is in it")
	}
	return members, other, nil
}
