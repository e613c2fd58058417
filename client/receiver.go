package client

import (
	"context"
	"fmt"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/client/inorder"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

const (
	// Deliveries are acknowledged together: so many, with so much payload (a quarter of what a cell has in flight), or what
	// came in so long a time. An acknowledgement costs a packet, a request and a row, and only what was not acknowledged
	// when the program is killed is delivered again.
	ackMost      = 64
	ackBytes     = 4 << 20
	ackEvery     = 200 * time.Millisecond
	batchMost    = 64      // Deliveries handled together, at most,
	batchBytes   = 4 << 20 // and their payload, unless one alone is larger.
	flushTime    = 2 * time.Second
	welcomeGrace = 5 * time.Second // How long messages wait for the Welcome to their group.
	// KeyPackages are looked after once in a while, and soon after one was used.
	refillEvery = time.Hour
	refillSoon  = 2 * time.Second
)

// receiver is one subscription on one connection. One goroutine runs it.
type receiver struct {
	c      *Client
	follow bool
	show   Handler
	given  warnings

	s        *session
	epoch    uint64
	order    *inorder.Buffer
	waiting  map[ids.ID][]*wire.Delivery // For their group, by channel.
	mark     *wire.CaughtUp              // Received.
	caughtUp bool                        // Everything before mark is handled.
	acks     acks
	giveUp   *time.Timer // When waiting is over.
	refill   *time.Timer // When KeyPackages are looked after.
}

// run receives until the end. Errors that conn.Transient knows are worth another connection.
func (r *receiver) run(ctx context.Context) (err error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if r.s, err = r.c.connect(limited); err != nil {
		return timely(ctx, err)
	}
	defer r.s.Close()
	if err := r.bounded(ctx, r.begin); err != nil {
		return err
	}
	defer r.acks.flush(ctx)
	return r.loop(ctx)
}

func (r *receiver) begin(ctx context.Context, s *session) error {
	if r.show != nil {
		if err := r.c.fillKeyPackages(ctx, s); err != nil {
			return err
		}
	}
	answer, err := ask[*wire.SubscribeResponse](ctx, s, &wire.SubscribeRequest{Notices: true})
	if err != nil {
		return err
	}
	r.epoch = answer.RestoreEpoch
	r.order = inorder.New(int(answer.Credit))
	r.waiting = make(map[ids.ID][]*wire.Delivery)
	r.acks.start(s, int(answer.Credit))
	return nil
}

func (r *receiver) loop(ctx context.Context) error {
	r.giveUp = time.NewTimer(welcomeGrace)
	defer r.giveUp.Stop()
	r.refill = time.NewTimer(refillEvery)
	defer r.refill.Stop()
	renew := time.NewTimer(r.untilRenewal())
	defer renew.Stop()
	for {
		var err error
		select {
		case p := <-r.s.Pushes():
			err = r.take(ctx, p)
		case <-r.s.Done():
			return r.ended(ctx)
		case <-ctx.Done():
			return ctx.Err()
		case <-r.acks.due.C:
			r.acks.sendDue(ctx)
		case err = <-r.acks.answered:
			err = r.acks.done(ctx, err)
		case <-r.giveUp.C:
			err = r.giveUpWaiting(ctx)
		case <-renew.C:
			err = r.bounded(ctx, r.renew)
			renew.Reset(r.untilRenewal())
		case <-r.refill.C:
			err = r.bounded(ctx, r.c.fillKeyPackages)
			r.refill.Reset(refillEvery)
		}
		if err != nil || r.caughtUp && !r.follow {
			return err
		}
	}
}

// ended says why the connection is over: the cell may have said so before.
func (r *receiver) ended(ctx context.Context) error {
	for {
		select {
		case p := <-r.s.Pushes():
			if away, ok := p.(*wire.GoAway); ok {
				return r.goAway(ctx, away)
			}
		default:
			return r.s.Err()
		}
	}
}

// untilRenewal is when the connection's token is to be renewed: well before it ends, and not all the time where
// tokens are short.
func (r *receiver) untilRenewal() time.Duration {
	left := r.s.expires.Sub(r.c.serverNow(r.s))
	return max(left-2*tokenMargin, left/8, time.Second)
}

func (r *receiver) renew(ctx context.Context, s *session) error {
	rec, _, err := get[sessionRecord](ctx, r.c.store, sessionName)
	if err != nil {
		return err
	}
	return r.c.renew(ctx, s, rec)
}

// bounded runs op on the subscription's connection, and gives the connection up when that takes too long.
func (r *receiver) bounded(ctx context.Context, op func(context.Context, *session) error) error {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return timely(ctx, op(limited, r.s))
}

// take handles a push, and what is there already behind it.
func (r *receiver) take(ctx context.Context, p wire.Push) error {
	ready, away, err := r.gather(p)
	if err != nil {
		return err
	}
	if err := r.handle(ctx, ready); err != nil {
		return err
	}
	if away != nil {
		return r.goAway(ctx, away)
	}
	if !r.caughtUp && len(r.waiting) > 0 {
		r.giveUp.Reset(welcomeGrace) // As long as more comes, the Welcome may be in it.
	}
	return r.checkCaughtUp(ctx)
}

// gather puts pushes in order, for as long as there are any and a batch has room.
func (r *receiver) gather(p wire.Push) (ready []*wire.Delivery, away *wire.GoAway, err error) {
	for size := 0; ; {
		switch p := p.(type) {
		case *wire.Delivery:
			next, err := r.order.Add(p)
			if err != nil {
				return nil, nil, err
			}
			ready = append(ready, next...)
			size += len(p.Payload)
		case *wire.CaughtUp:
			r.mark = p
		case *wire.GoAway:
			return ready, p, nil
		}
		if len(ready) >= batchMost || size >= batchBytes {
			return ready, nil, nil
		}
		select {
		case p = <-r.s.Pushes():
		default:
			return ready, nil, nil
		}
	}
}

func (r *receiver) goAway(ctx context.Context, g *wire.GoAway) error {
	if g.Reason == wire.GoAwaySessionReplaced {
		return ErrReplaced
	}
	// After GoAwayRevoked too: what was revoked, the next connection is told. It may have been the session alone.
	r.c.log.DebugContext(ctx, "the cell asks to go", "reason", g.Reason.String())
	return &conn.LostError{Cause: fmt.Errorf("the cell asked to go: %v", g.Reason)}
}

// handle takes deliveries in, one run of the same channel after the other.
func (r *receiver) handle(ctx context.Context, ready []*wire.Delivery) error {
	for len(ready) > 0 {
		n := 1
		for n < len(ready) && ready[n].ChannelID == ready[0].ChannelID {
			n++
		}
		if err := r.handleRun(ctx, ready[:n]); err != nil {
			return err
		}
		ready = ready[n:]
	}
	return nil
}

func (r *receiver) handleRun(ctx context.Context, run []*wire.Delivery) error {
	channel := run[0].ChannelID
	if channel == r.c.self.DeviceID {
		for _, d := range run {
			handle := r.handleWelcome
			if d.Kind == wire.KindNotice {
				handle = r.handleNotice
			}
			if err := handle(ctx, d); err != nil {
				return err
			}
		}
		return nil
	}
	if held := r.waiting[channel]; len(held) > 0 {
		r.waiting[channel] = append(held, run...)
		return nil
	}
	return r.handleChannel(ctx, channel, run, false)
}

func (r *receiver) handleChannel(ctx context.Context, channel ids.ID, run []*wire.Delivery, giveUp bool) error {
	out, err := r.c.receive(ctx, channel, r.epoch, run, giveUp)
	if err != nil {
		return err
	}
	delete(r.waiting, channel)
	if len(out.waiting) > 0 {
		r.waiting[channel] = out.waiting
		r.giveUp.Reset(welcomeGrace)
	}
	return r.settle(ctx, channel, out, run)
}

// handleWelcome handles a delivery of the inbox, then what waited for it.
func (r *receiver) handleWelcome(ctx context.Context, d *wire.Delivery) error {
	out, err := r.c.welcome(ctx, r.s, r.epoch, d)
	if err != nil {
		return err
	}
	if err := r.settle(ctx, d.ChannelID, out, []*wire.Delivery{d}); err != nil {
		return err
	}
	r.refill.Reset(refillSoon)
	if held := r.waiting[d.AboutChannelID]; len(held) > 0 {
		return r.handleChannel(ctx, d.AboutChannelID, held, false)
	}
	return nil
}

// handleNotice handles a notice of the inbox. A key that was reset is asked for at once, and warned of.
func (r *receiver) handleNotice(ctx context.Context, d *wire.Delivery) error {
	out, n, err := r.c.notice(ctx, r.s, r.epoch, d)
	if err != nil {
		return err
	}
	if err := r.settle(ctx, d.ChannelID, out, []*wire.Delivery{d}); err != nil {
		return err
	}
	switch {
	case n.Kind == wire.NoticeDeviceRevoked && n.DeviceID == r.c.self.DeviceID:
		return ErrRevoked
	case n.Kind == wire.NoticeRootKeyReset && !r.c.own(n.AccountID):
		return r.c.warnOfKeys(ctx, r.show, r.given)
	case n.Kind == wire.NoticeContactAccepted:
		r.c.wakeSender()
	}
	return nil
}

// settle acknowledges what is saved of a run, then shows it.
func (r *receiver) settle(ctx context.Context, channel ids.ID, out outcome, run []*wire.Delivery) error {
	if handled := len(run) - len(out.waiting); handled > 0 && out.lastSeq > 0 {
		r.acks.add(ctx, channel, out.lastSeq, handled, payload(run)-payload(out.waiting))
	}
	if !out.lines {
		return nil
	}
	return r.c.showChannel(ctx, channel, r.show)
}

// checkCaughtUp notes when everything that was stored has been handled. What still waits for a Welcome then waits in
// vain: the Welcome was stored before it.
func (r *receiver) checkCaughtUp(ctx context.Context) error {
	if r.caughtUp || r.mark == nil || r.order.Passed() < r.mark.Deliveries {
		return nil
	}
	if err := r.giveUpWaiting(ctx); err != nil {
		return err
	}
	r.caughtUp = true
	return nil
}

func (r *receiver) giveUpWaiting(ctx context.Context) error {
	for channel, held := range r.waiting {
		if err := r.handleChannel(ctx, channel, held, true); err != nil {
			return err
		}
	}
	return nil
}

// payload is that of deliveries, in bytes.
func payload(deliveries []*wire.Delivery) (size int) {
	for _, d := range deliveries {
		size += len(d.Payload)
	}
	return size
}
