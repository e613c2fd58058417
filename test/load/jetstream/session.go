package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

// maxPending is how many publications of a connection may wait for their acknowledgement.
const maxPending = 8192

// session is a stream, a subject for each pair, and a durable consumer for each device; everybody has a connection.
type session struct {
	conns    []*nats.Conn
	stops    []func()
	senders  []*sender
	subjects []string
}

// Open implements peer.System.
func (s *System) Open(ctx context.Context, t peer.Topology, deliver peer.Deliver) (peer.Session, error) {
	n := &session{}
	if err := n.open(ctx, s, t, deliver); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *session) open(ctx context.Context, s *System, t peer.Topology, deliver peer.Deliver) error {
	stream := fmt.Sprintf("pairs-%d-devices-%d", t.Pairs, t.Devices)
	js, err := n.dial(s)
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{stream + ".>"}, Storage: jetstream.FileStorage}); err != nil {
		return fmt.Errorf("making a stream: %w", err)
	}
	for pair := range t.Pairs {
		n.subjects = append(n.subjects, fmt.Sprintf("%s.%d", stream, pair))
		js, err := n.dial(s)
		if err != nil {
			return err
		}
		n.senders = append(n.senders, newSender(js))
		for device := range t.Devices {
			if err := n.consume(ctx, s, stream, pair, device, deliver); err != nil {
				return fmt.Errorf("consuming: %w", err)
			}
		}
	}
	return nil
}

func (n *session) dial(s *System) (jetstream.JetStream, error) {
	nc, err := nats.Connect(s.url, nats.Secure(s.tls))
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	n.conns = append(n.conns, nc)
	return jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(maxPending))
}

func (n *session) consume(ctx context.Context, s *System, stream string, pair, device int, deliver peer.Deliver) error {
	js, err := n.dial(s)
	if err != nil {
		return err
	}
	c, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: fmt.Sprintf("p%d-d%d", pair, device),
		AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: n.subjects[pair]})
	if err != nil {
		return err
	}
	running, err := c.Consume(func(m jetstream.Msg) {
		deliver(pair, device, m.Data())
		_ = m.Ack() // What is not acknowledged comes again, and is seen as doubled.
	})
	if err != nil {
		return err
	}
	n.stops = append(n.stops, running.Stop)
	return nil
}

// Publish implements peer.Session.
func (n *session) Publish(pair int, id ids.ID, content []byte, done func(error)) error {
	return n.senders[pair].publish(n.subjects[pair], id, content, done)
}

// Close implements peer.Session.
func (n *session) Close() error {
	for _, stop := range n.stops {
		stop()
	}
	for _, s := range n.senders {
		s.close()
	}
	for _, nc := range n.conns {
		nc.Close()
	}
	return nil
}

// sender publishes on one connection. The server acknowledges a stream's messages in their order, so one goroutine can
// wait for one after the other.
type sender struct {
	js      jetstream.JetStream
	waiting chan pending
	done    sync.WaitGroup
}

type pending struct {
	future jetstream.PubAckFuture
	done   func(error)
}

func newSender(js jetstream.JetStream) *sender {
	s := &sender{js: js, waiting: make(chan pending, maxPending)}
	s.done.Go(func() {
		for p := range s.waiting {
			select {
			case <-p.future.Ok():
				p.done(nil)
			case err := <-p.future.Err():
				p.done(err)
			}
		}
	})
	return s
}

func (s *sender) publish(subject string, id ids.ID, content []byte, done func(error)) error {
	m := nats.NewMsg(subject)
	m.Data = append([]byte(nil), content...) // A future keeps its message.
	future, err := s.js.PublishMsgAsync(m, jetstream.WithMsgID(id.String()))
	if err != nil {
		return err
	}
	s.waiting <- pending{future, done}
	return nil
}

func (s *sender) close() {
	close(s.waiting)
	s.done.Wait()
}
