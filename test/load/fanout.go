package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"quicproquo.dev/test/load/bare"
	"quicproquo.dev/test/load/ours"
	"quicproquo.dev/test/load/peer"
)

// nameBare is the relay that a cell's pushes are compared with.
const nameBare = "bare"

// fanoutMost is how many times a bare push's CPU a cell's further copy may take.
const fanoutMost = 1.5

// fan is a system with one sender who writes to one device, and one who writes to many.
type fan struct {
	system    peer.System
	one, many *opened
}

// fanOut measures what one message to many devices costs, beside one to a single device and beside a bare push.
func (p *plan) fanOut(ctx context.Context, systems []peer.System) (err error) {
	one, many := peer.Topology{Pairs: 1, Devices: 1}, peer.Topology{Pairs: 1, Devices: p.devices}
	first, closeFirst, err := openAll(ctx, systems, one)
	defer func() { err = errors.Join(err, closeFirst()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(p.diagnoses, "connecting %s\n", many)
	second, closeSecond, err := openAll(ctx, systems, many)
	defer func() { err = errors.Join(err, closeSecond()) }()
	if err != nil {
		return err
	}
	var fans []fan
	for i, s := range systems {
		fans = append(fans, fan{s, first[i], second[i]})
	}
	if err := p.fanStored(ctx, fans); err != nil {
		return err
	}
	return p.fanCPU(ctx, fans)
}

// fanStored shows what the cells' database does for a message, one at a time.
func (p *plan) fanStored(ctx context.Context, fans []fan) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "devices\tsystem\tmessages\trows\tdedup rows\tstatements\tWAL B\tcursor rows\tcursor WAL B\t\n")
	for _, f := range fans {
		cell, ok := f.system.(*ours.System)
		if !ok {
			continue
		}
		for _, o := range []*opened{f.one, f.many} {
			if _, err := p.measure(ctx, cell, o, load{inFlight: 1}, p.warm); err != nil {
				return err
			}
			before, err := cell.Stored(ctx)
			if err != nil {
				return err
			}
			x, err := p.measure(ctx, cell, o, load{inFlight: 1}, p.duration*time.Duration(min(o.topology.Devices, 5))) // For many messages of each: the log has whole pages now and then.
			if err != nil {
				return err
			}
			after, err := cell.Stored(ctx)
			if err != nil {
				return err
			}
			per := func(a, b float64) float64 { return (b - a) / float64(x.Messages) }
			fmt.Fprintf(w, "%d\t%s\t%d\t%.3f\t%.3f\t%.2f\t%.0f\t%.2f\t%.0f\t\n", o.topology.Devices, cell.Name(), x.Messages,
				per(before.Messages, after.Messages), per(before.DeliveryIDs, after.DeliveryIDs), per(before.Statements, after.Statements),
				per(before.WAL, after.WAL), per(before.Cursors, after.Cursors), per(before.CursorWAL, after.CursorWAL))
		}
	}
	return w.Flush()
}

// fanCPU compares the CPU of a further copy, round by round.
func (p *plan) fanCPU(ctx context.Context, fans []fan) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "load\tsystem\tCPU µs of a message to 1\tto %d\tof a further copy\trange\t÷ bare\trange\t\n", p.devices)
	broken := 0
	for _, l := range p.loads {
		costs, err := p.fanRounds(ctx, fans, l)
		if err != nil {
			return err
		}
		for i, f := range fans {
			var ratios []float64
			for r := range costs[i].further {
				ratios = append(ratios, costs[i].further[r]/costs[len(fans)-1].further[r])
			}
			c, q := spreadOf(costs[i].further), spreadOf(ratios)
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.1f\t%.1f–%.1f\t%.2f\t%.2f–%.2f\t\n", l, f.system.Name(), spreadOf(costs[i].one).median, spreadOf(costs[i].many).median,
				c.median, c.low, c.high, q.median, q.low, q.high)
			if q.median > fanoutMost {
				broken++
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if broken > 0 {
		fmt.Fprintf(p.out, "does not hold: a further copy takes at most %.1f times a bare push\n", fanoutMost)
		if p.check {
			return fmt.Errorf("%d demands do not hold", broken)
		}
	}
	return nil
}

// fanCost is CPU by round, in µs.
type fanCost struct{ one, many, further []float64 }

func (p *plan) fanRounds(ctx context.Context, fans []fan, l load) ([]fanCost, error) {
	costs := make([]fanCost, len(fans))
	for round := range p.rounds {
		for i := range fans {
			i = (i + round) % len(fans)
			var cpu [2]float64
			for k, o := range []*opened{fans[i].one, fans[i].many} {
				if _, err := p.measure(ctx, fans[i].system, o, l, p.warm); err != nil {
					return nil, err
				}
				x, err := p.measure(ctx, fans[i].system, o, l, p.duration)
				if err != nil {
					return nil, err
				}
				cpu[k] = float64(x.CPU) / float64(time.Millisecond) // Per 1,000 messages, hence µs of one.
			}
			c := &costs[i]
			c.one, c.many, c.further = append(c.one, cpu[0]), append(c.many, cpu[1]), append(c.further, (cpu[1]-cpu[0])/float64(p.devices-1))
		}
	}
	return costs, nil
}

// relay starts the bare relay.
func (p *plan) relay(ctx context.Context, o bare.Options) (peer.System, error) {
	size, err := ours.PushSize()
	if err != nil {
		return nil, err
	}
	o.Size = size
	return bare.Start(ctx, o)
}
