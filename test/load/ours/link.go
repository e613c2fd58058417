package ours

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"quicproquo.dev/schema"
	"quicproquo.dev/schema/devicecert"
	"quicproquo.dev/schema/frame"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// As the SDK has it.
const (
	ackMost      = 64 // Deliveries acknowledged together, at most,
	ackEvery     = 200 * time.Millisecond
	idle         = 45 * time.Second
	streamWindow = 256 << 10
	connWindow   = 1 << 20
)

// link is a device's connection, as lean as the protocol allows: requests are written together with those that come
// meanwhile, and whoever waits for an answer is called from the reader.
type link struct {
	quic    *quic.Conn
	control *quic.Stream
	deliver func(*wire.Delivery)
	running sync.WaitGroup

	mu      sync.Mutex
	buf     []byte
	last    uint64
	waiting map[uint64]func(wire.Response, error)
	err     error
	wake    chan struct{}

	ackMu sync.Mutex
	acks  map[ids.ID]uint64
	count int
	due   *time.Timer // When what has gathered is acknowledged at the latest.
}

var errClosed = errors.New("the connection has ended")

func (s *System) dial(ctx context.Context, deliver func(*wire.Delivery)) (*link, error) {
	q, err := quic.DialAddr(ctx, s.addr, s.tls, &quic.Config{MaxIdleTimeout: idle, KeepAlivePeriod: idle / 3, MaxIncomingStreams: -1,
		InitialStreamReceiveWindow: streamWindow, InitialConnectionReceiveWindow: connWindow})
	if err != nil {
		return nil, err
	}
	control, err := q.OpenStream()
	if err != nil {
		return nil, err
	}
	l := &link{quic: q, control: control, deliver: deliver, waiting: map[uint64]func(wire.Response, error){}, wake: make(chan struct{}, 1), acks: map[ids.ID]uint64{}}
	l.due = time.AfterFunc(time.Hour, func() { l.acknowledge(1) })
	l.due.Stop()
	l.running.Go(l.read)
	l.running.Go(l.write)
	_, err = call[*wire.HelloResponse](ctx, l, &wire.HelloRequest{Client: "load", MinVersion: schema.Version, MaxVersion: schema.Version})
	return l, err
}

// send queues a request; done is called once with its answer.
func (l *link) send(r wire.Request, done func(wire.Response, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.last++
	b, err := wire.Marshal(wire.Envelope{CorrelationID: l.last, Body: r})
	if err != nil {
		return err
	}
	l.waiting[l.last] = done
	if len(b) > frame.ControlLimit {
		l.running.Go(func() { l.sendAlone(b) })
		return nil
	}
	l.buf = append(l.buf, b...)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// sendAlone writes a large request to a stream of its own.
func (l *link) sendAlone(b []byte) {
	s, err := l.quic.OpenUniStreamSync(l.quic.Context())
	if err == nil {
		_, err = s.Write(b)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		l.fail(err)
	}
}

// call sends a request and waits for its answer.
func call[R wire.Response](ctx context.Context, l *link, r wire.Request) (R, error) {
	type answer struct {
		body wire.Response
		err  error
	}
	var none R
	got := make(chan answer, 1)
	if err := l.send(r, func(body wire.Response, err error) { got <- answer{body, err} }); err != nil {
		return none, err
	}
	select {
	case a := <-got:
		if a.err != nil {
			return none, fmt.Errorf("%s: %w", r.Method(), a.err)
		}
		out, ok := a.body.(R)
		if !ok {
			return none, fmt.Errorf("%s was answered with a %T", r.Method(), a.body)
		}
		return out, nil
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", r.Method(), ctx.Err())
	}
}

func (l *link) write() {
	var spare []byte
	for {
		select {
		case <-l.quic.Context().Done():
			return
		case <-l.wake:
		}
		l.mu.Lock()
		b := l.buf
		l.buf = spare[:0]
		l.mu.Unlock()
		if _, err := l.control.Write(b); err != nil {
			l.fail(err)
			return
		}
		spare = b
	}
}

func (l *link) read() {
	r := bufio.NewReaderSize(l.control, frame.ControlLimit)
	for {
		b, err := frame.Read(r, frame.ControlLimit)
		if err == nil {
			err = l.take(b)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *link) take(b []byte) error {
	e, err := wire.Unmarshal(b)
	if err != nil {
		return err
	}
	switch body := e.Body.(type) {
	case *wire.Delivery:
		l.deliver(body)
		l.note(body)
	case *wire.Error:
		if e.CorrelationID == 0 {
			return body
		}
		l.settle(e.CorrelationID, nil, body)
	case wire.Response:
		l.settle(e.CorrelationID, body, nil)
	}
	return nil
}

// note has a delivery acknowledged: with others, but soon.
func (l *link) note(d *wire.Delivery) {
	l.ackMu.Lock()
	l.acks[d.ChannelID] = d.Seq
	if l.count++; l.count == 1 {
		l.due.Reset(ackEvery)
	}
	l.ackMu.Unlock()
	l.acknowledge(ackMost)
}

// acknowledge tells the cell what was taken, if that is at least least deliveries, without waiting for its answer.
func (l *link) acknowledge(least int) {
	r := &wire.AckRequest{}
	l.ackMu.Lock()
	if l.count >= least {
		for channel, seq := range l.acks {
			r.Acks = append(r.Acks, wire.Ack{ChannelID: channel, Seq: seq})
		}
		clear(l.acks)
		l.count = 0
	}
	l.ackMu.Unlock()
	if len(r.Acks) == 0 {
		return
	}
	err := l.send(r, func(_ wire.Response, err error) {
		if err != nil {
			l.fail(fmt.Errorf("acknowledging: %w", err))
		}
	})
	if err != nil {
		l.fail(err)
	}
}

func (l *link) settle(id uint64, body wire.Response, err error) {
	l.mu.Lock()
	done := l.waiting[id]
	delete(l.waiting, id)
	l.mu.Unlock()
	if done != nil {
		done(body, err)
	}
}

// fail ends the connection and tells everyone who waits; the first reason stands.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	_ = l.quic.CloseWithError(0, "")
	for _, done := range waiting {
		done(nil, err)
	}
}

func (l *link) close() {
	l.due.Stop()
	l.fail(errClosed)
	l.running.Wait()
}

// prove binds a device to the connection.
func (l *link) prove(device ed25519.PrivateKey) ([]byte, error) {
	state := l.quic.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(devicecert.ExporterLabel, nil, devicecert.ExporterSize)
	return devicecert.Prove(device, exporter), err
}
