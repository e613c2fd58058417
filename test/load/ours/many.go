package ours

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
	"quicproquo.dev/test/load/peer"
)

// OpenMany is Open with many channels for each pair of people, all of which both read: in the Topology and in Publish
// and deliver a pair is a channel. People and one channel for each pair of them are made as by clients; the other
// channels, for which that would take hours, are written into the database as the cell would have.
func (s *System) OpenMany(ctx context.Context, people, channels int, deliver peer.Deliver) (peer.Session, error) {
	m := &Many{session: &session{}, people: people, numbers: map[ids.ID]int{}}
	if err := m.open(ctx, s, channels, deliver); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Many is a session with many channels.
type Many struct {
	*session
	people    int
	published int
	numbers   map[ids.ID]int // Of channels.
}

func (m *Many) open(ctx context.Context, s *System, channels int, deliver peer.Deliver) error {
	take := func(d *wire.Delivery) {
		if n, ok := m.numbers[d.ChannelID]; ok && d.Kind == wire.KindApplication {
			b, _ := content(d.Payload) // None is a wrong one.
			deliver(n, 0, b)
		}
	}
	var recipients []*device
	for pair := range m.people {
		tag := fmt.Sprintf("%d-of-%d", pair, channels)
		sender, err := s.signup(ctx, "many-sender-"+tag, func(*wire.Delivery) {})
		if err != nil {
			return err
		}
		recipient, err := s.signup(ctx, "many-recipient-"+tag, take)
		if err != nil {
			return err
		}
		m.devices, m.senders, recipients = append(m.devices, sender, recipient), append(m.senders, sender), append(recipients, recipient)
		if err := recipient.upload(ctx); err != nil {
			return err
		}
		channel, err := sender.openChannel(ctx, recipient.account)
		if err != nil {
			return err
		}
		m.add(channel)
	}
	if err := m.write(ctx, s, recipients, channels); err != nil {
		return fmt.Errorf("writing channels: %w", err)
	}
	for _, r := range recipients {
		if _, err := call[*wire.SubscribeResponse](ctx, r.link, &wire.SubscribeRequest{Credit: credit}); err != nil {
			return err
		}
	}
	return nil
}

func (m *Many) add(channel ids.ID) {
	m.numbers[channel] = len(m.channels)
	m.channels, m.templates = append(m.channels, channel), append(m.templates, newTemplate(channel))
}

// write makes further channels until there are so many.
func (m *Many) write(ctx context.Context, s *System, recipients []*device, channels int) error {
	db, err := s.Database(ctx)
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	now := time.Now()
	var rows, cursors [][]any
	for len(m.channels) < channels {
		pair := len(m.channels) % m.people
		c := ids.New()
		m.add(c)
		rows = append(rows, []any{[ids.Size]byte(c), int16(1), int32(generation), int64(epoch), int64(0), now})
		for _, d := range []*device{m.senders[pair], recipients[pair]} {
			cursors = append(cursors, []any{[ids.Size]byte(d.cert.DeviceID), [ids.Size]byte(c), int64(0)})
		}
	}
	if _, err := db.CopyFrom(ctx, pgx.Identifier{"channels"}, []string{"channel_id", "kind", "generation", "epoch", "last_seq", "created_at"}, pgx.CopyFromRows(rows)); err != nil {
		return err
	}
	if _, err := db.CopyFrom(ctx, pgx.Identifier{"cursors"}, []string{"device_id", "channel_id", "acked_seq"}, pgx.CopyFromRows(cursors)); err != nil {
		return err
	}
	_, err = db.Exec(ctx, "ANALYZE channels, cursors") // As autovacuum would within a minute.
	return err
}

// Publish implements peer.Session.
func (m *Many) Publish(channel int, id ids.ID, content []byte, done func(error)) error {
	m.published++
	return m.publish(m.senders[channel%m.people], channel, id, content, done)
}

// Published is how many messages Publish was given.
func (m *Many) Published() int { return m.published }
