package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/load/peer"
)

// load is how messages are offered: with so many in flight, or so many a second whatever becomes of them.
type load struct {
	inFlight int
	rate     int // Messages a second; 0: closed loop.
}

// String names the load as flags and tables do.
func (l load) String() string {
	if l.rate > 0 {
		return fmt.Sprintf("%d/s", l.rate)
	}
	return fmt.Sprint(l.inFlight)
}

const (
	openLoopInFlight = 8192             // Beyond it a message waits in the driver; its latency counts all the same.
	patience         = 60 * time.Second // For what is under way when publishing ends.
	settleEvery      = 2 * time.Millisecond
)

var errStuck = errors.New("what was published was not answered and delivered in time")

// driver offers one load to one session and notes when it was acknowledged.
type driver struct {
	session peer.Session
	tracker *peer.Tracker
	pairs   int
	slots   chan struct{}

	mu       sync.Mutex
	answered int
	refused  int
	reason   error
	lags     []time.Duration
	last     time.Time // The last acknowledgement.
	doneAll  chan struct{}
	expected int // Set when publishing ends.
}

func newDriver(s peer.Session, t *peer.Tracker, pairs int, l load) *driver {
	n := l.inFlight
	if l.rate > 0 {
		n = openLoopInFlight
	}
	return &driver{session: s, tracker: t, pairs: pairs, slots: make(chan struct{}, n), doneAll: make(chan struct{}), expected: -1}
}

// run publishes for a time, pair by pair in turn, and waits until all is answered and delivered.
func (d *driver) run(ctx context.Context, l load, duration time.Duration) error {
	sent, err := d.publish(ctx, l, duration)
	if err != nil {
		return err
	}
	d.expect(sent)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-d.doneAll:
	case <-ctx.Done():
		return fmt.Errorf("%w: %d of %d answered", errStuck, d.answers(), sent)
	}
	for !d.tracker.Complete() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errStuck, d.tracker.Judge().Err())
		case <-time.After(settleEvery):
		}
	}
	return nil
}

func (d *driver) publish(ctx context.Context, l load, duration time.Duration) (sent int, err error) {
	content := make([]byte, peer.ContentSize)
	begin := time.Now()
	for ; ; sent++ {
		intended := d.await(l, begin, sent)
		if intended.Sub(begin) >= duration || ctx.Err() != nil {
			return sent, ctx.Err()
		}
		pair := sent % d.pairs
		n := d.tracker.Fill(content, pair, intended)
		if err := d.session.Publish(pair, ids.NewDelivery(time.Now()), content, d.answer(pair, n, intended)); err != nil {
			return sent, err
		}
	}
}

// await waits for the next message's turn and says when it was meant to be sent: in an open loop at its own time, even
// if that has passed.
func (d *driver) await(l load, begin time.Time, n int) time.Time {
	if l.rate == 0 {
		d.slots <- struct{}{}
		return time.Now()
	}
	intended := begin.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	time.Sleep(time.Until(intended))
	d.slots <- struct{}{}
	return intended
}

func (d *driver) answer(pair int, n uint64, intended time.Time) func(error) {
	return func(err error) {
		now := time.Now()
		if err != nil {
			d.tracker.Refuse(pair, n)
		}
		<-d.slots
		d.mu.Lock()
		defer d.mu.Unlock()
		d.answered++
		if err != nil {
			d.refused++
			d.reason = err
		} else {
			d.lags = append(d.lags, now.Sub(intended))
			d.last = now
		}
		if d.answered == d.expected {
			close(d.doneAll)
		}
	}
}

func (d *driver) expect(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expected = n
	if d.answered == n {
		close(d.doneAll)
	}
}

func (d *driver) answers() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.answered
}
