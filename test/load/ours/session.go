package ours

import (
	"context"
	"errors"
	"fmt"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/load/peer"
)

const (
	credit     = 256 // What recipients ask for.
	perAccount = 32  // Devices of an account; a recipient with more of them is several people in a group.
)

// session is a topology of accounts, each of them with its connections.
type session struct {
	devices   []*device
	senders   []*device // By pair.
	channels  []ids.ID
	templates []*template
}

// Open implements peer.System: accounts are signed up, devices added, groups created and the recipients subscribed.
func (s *System) Open(ctx context.Context, t peer.Topology, deliver peer.Deliver) (peer.Session, error) {
	n := &session{}
	for pair := range t.Pairs {
		if err := n.addPair(ctx, s, t, pair, deliver); err != nil {
			return nil, errors.Join(fmt.Errorf("%s, %s, pair %d: %w", s.name, t, pair, err), n.Close())
		}
	}
	return n, nil
}

func (n *session) addPair(ctx context.Context, s *System, t peer.Topology, pair int, deliver peer.Deliver) error {
	tag := fmt.Sprintf("%d-%d-%d", t.Pairs, t.Devices, pair)
	sender, err := s.signup(ctx, "sender-"+tag, func(*wire.Delivery) {})
	if err != nil {
		return err
	}
	n.devices, n.senders = append(n.devices, sender), append(n.senders, sender)
	var first *device
	var accounts []ids.ID
	for i := range t.Devices {
		if i%perAccount == 0 {
			first = nil
		}
		d, err := n.addRecipient(ctx, s, first, fmt.Sprintf("recipient-%s-%d", tag, len(accounts)), pair, i, deliver)
		if err != nil {
			return err
		}
		if first == nil {
			first, accounts = d, append(accounts, d.account)
		}
	}
	channel, err := sender.openChannel(ctx, accounts...)
	if err != nil {
		return err
	}
	n.channels, n.templates = append(n.channels, channel), append(n.templates, newTemplate(channel))
	return nil
}

// addRecipient makes a device, of the account of first if there is one, which is subscribed and can be added to a group.
func (n *session) addRecipient(ctx context.Context, s *System, first *device, name string, pair, i int, deliver peer.Deliver) (*device, error) {
	take := func(d *wire.Delivery) {
		if d.Kind != wire.KindApplication {
			return
		}
		b, _ := content(d.Payload) // None is a wrong one.
		deliver(pair, i, b)
	}
	var d *device
	var err error
	if first == nil {
		d, err = s.signup(ctx, name, take)
	} else {
		d, err = s.another(ctx, first, take)
	}
	if err != nil {
		return nil, err
	}
	n.devices = append(n.devices, d)
	if err := d.upload(ctx); err != nil {
		return nil, err
	}
	_, err = call[*wire.SubscribeResponse](ctx, d.link, &wire.SubscribeRequest{Credit: credit})
	return d, err
}

// Publish implements peer.Session.
func (n *session) Publish(pair int, id ids.ID, content []byte, done func(error)) error {
	return n.publish(n.senders[pair], pair, id, content, done)
}

func (n *session) publish(sender *device, channel int, id ids.ID, content []byte, done func(error)) error {
	return sender.send(&wire.EnqueueRequest{ChannelID: n.channels[channel], Generation: generation, DeliveryID: id,
		Payload: n.templates[channel].fill(id, content)}, func(_ wire.Response, err error) { done(err) })
}

// Close implements peer.Session.
func (n *session) Close() error {
	for _, d := range n.devices {
		d.close()
	}
	return nil
}
