package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"quicproquo.dev/schema/ids"
	"quicproquo.dev/test/history/peer"
)

// stocks is how many KeyPackages a device begins with.
const stocks = 30

// Prepare makes the accounts, while all is well.
func (w *World) Prepare(ctx context.Context) error {
	for i := range w.size.Accounts {
		first, err := w.signup(ctx, fmt.Sprint("person", i))
		if err != nil {
			return err
		}
		w.people = append(w.people, first)
		for range w.size.Devices - 1 {
			d, err := w.with(ctx, func(c *peer.Conn) (*peer.Device, error) { return first.Further(ctx, c) })
			if err != nil {
				return err
			}
			w.people = append(w.people, d)
		}
	}
	for i := range w.size.Racers {
		d, err := w.signup(ctx, fmt.Sprint("racer", i))
		if err != nil {
			return err
		}
		w.racers = append(w.racers, d)
	}
	for i := range w.size.Targets {
		d, err := w.signup(ctx, fmt.Sprint("target", i))
		if err != nil {
			return err
		}
		w.targets = append(w.targets, d)
	}
	return w.stock(ctx)
}

func (w *World) signup(ctx context.Context, name string) (*peer.Device, error) {
	return w.with(ctx, func(c *peer.Conn) (*peer.Device, error) { return peer.Signup(ctx, c, w.name+name) })
}

// with makes a device on a connection of its own.
func (w *World) with(ctx context.Context, f func(*peer.Conn) (*peer.Device, error)) (*peer.Device, error) {
	var errs []error
	for try := range 5 {
		c, err := peer.Dial(ctx, w.addrs[try%len(w.addrs)], w.ca)
		if err == nil {
			var d *peer.Device
			d, err = f(c)
			c.Close()
			if err == nil {
				return d, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("making an account: %w", errors.Join(errs...))
}

func (w *World) stock(ctx context.Context) error {
	var all sync.WaitGroup
	for _, d := range slices.Concat(w.targets, w.people, w.racers) {
		all.Go(func() {
			a := w.actor(d)
			defer a.hangUp()
			a.upload(ctx, stocks, true)
		})
	}
	all.Wait()
	return ctx.Err()
}

// Start lets everybody do what they do, until ctx ends or Finish is called.
func (w *World) Start(ctx context.Context) {
	ctx, quit := context.WithCancel(ctx) //nolint:gosec // Wait calls it.
	w.quit = quit
	w.plan(ctx)
	for _, d := range w.people {
		for range w.size.Writers {
			w.working.Go(func() { w.write(ctx, d) })
		}
	}
	for i := range w.racers {
		var pairs [][2]*peer.Device
		for j := i + 1; j < len(w.racers); j++ {
			pairs = append(pairs, [2]*peer.Device{w.racers[i], w.racers[j]})
		}
		if len(pairs) > 0 {
			w.working.Go(func() { w.race(ctx, pairs) })
		}
	}
	for _, d := range w.targets {
		w.working.Go(func() { w.refill(ctx, d) })
	}
	for _, d := range w.racers {
		w.working.Go(func() { w.claims(ctx, d) })
	}
	reading, quit := context.WithCancel(ctx)
	w.quitRead = quit
	for _, d := range slices.Concat(w.people, w.racers) {
		r := w.reader(d)
		w.readers = append(w.readers, r)
		w.reading.Go(func() { r.read(reading) })
	}
}

// plan decides who talks with whom: all pairs of accounts, and all in one group.
func (w *World) plan(ctx context.Context) {
	n := w.size.Devices
	account := func(i int) []*peer.Device { return w.people[i*n : (i+1)*n] }
	for i := range w.size.Accounts {
		for j := range i {
			c := &chat{devices: slices.Concat(account(i), account(j)), ready: make(chan struct{})}
			w.chats = append(w.chats, c)
			w.working.Go(func() { w.found(ctx, c, []*peer.Device{account(i)[0], account(j)[0]}, true) })
		}
	}
	c := &chat{channel: ids.New(), devices: w.people, ready: make(chan struct{})}
	w.chats = append(w.chats, c)
	w.working.Go(func() { w.found(ctx, c, account(0)[:min(2, n)], false) })
}

// Finish begins nothing new, waits until every call has its answer and every device has read everything, and reports whether
// that came about. The cell must be well by now.
func (w *World) Finish(ctx context.Context) bool {
	close(w.stop)
	stop := context.AfterFunc(ctx, w.quit) // Who has no answer by then gets none.
	defer stop()
	w.Wait()
	return ctx.Err() == nil && w.each(ctx, (*reader).finish)
}

// Wait waits until nobody of those whom Start started does anything any more.
func (w *World) Wait() {
	w.working.Wait()
	w.quitRead()
	w.reading.Wait()
	w.quit()
}

// Quiet has every device look once more, after an orderly restart of all replicas, for what it had acknowledged.
func (w *World) Quiet(ctx context.Context) bool { return w.each(ctx, (*reader).quiet) }

func (w *World) each(ctx context.Context, f func(*reader, context.Context) bool) bool {
	var all sync.WaitGroup
	good := make([]bool, len(w.readers))
	for i, r := range w.readers {
		all.Go(func() { good[i] = f(r, ctx) })
	}
	all.Wait()
	for _, g := range good {
		if !g {
			return false
		}
	}
	return ctx.Err() == nil
}
