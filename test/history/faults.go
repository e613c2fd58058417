//go:build linux

package history

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"quicproquo.dev/test/history/bed"
	"quicproquo.dev/test/history/check"
	"quicproquo.dev/test/history/powerfs"
	"quicproquo.dev/test/history/record"
)

// Fault is something that happens to the cell.
type Fault string

// The faults.
const (
	KillCell      Fault = "kill -9 of a cell"
	DrainCell     Fault = "SIGTERM of a cell"
	PauseCell     Fault = "pause of a cell"
	KillDatabase  Fault = "kill -9 of PostgreSQL"
	KillBackend   Fault = "kill -9 of a process of PostgreSQL"
	PauseDatabase Fault = "pause of PostgreSQL"
	BadNetwork    Fault = "bad network"
	NoNetwork     Fault = "no network"
	Checkpoint    Fault = "checkpoint"
	PowerLoss     Fault = "loss of power"
	Restart       Fault = "orderly restart of PostgreSQL"
)

// AllFaults are those that any machine can have.
var AllFaults = []Fault{KillCell, KillCell, DrainCell, PauseCell, KillDatabase, KillBackend, PauseDatabase, BadNetwork, NoNetwork, Checkpoint}

// Counts is how often what happened.
type Counts struct {
	Faults map[Fault]int
	Loss   powerfs.Loss
	Codes  map[string]int // Answers that were errors.
}

// String tells of the faults in one line.
func (c Counts) String() string {
	var list []string
	for _, f := range slices.Sorted(maps.Keys(c.Faults)) {
		list = append(list, fmt.Sprintf("%d × %s", c.Faults[f], f))
	}
	if l := c.Loss; l.Files > 0 {
		list = append(list, fmt.Sprintf("%d of %d unsynced pages lost (%d torn), %d of %d directory changes undone", l.Lost, l.Pages, l.Torn, l.Undone, l.Changes))
	}
	if len(list) == 0 {
		return "no faults"
	}
	return strings.Join(list, ", ")
}

// Add adds another run's.
func (c *Counts) Add(o Counts) {
	if c.Faults == nil {
		c.Faults, c.Codes = map[Fault]int{}, map[string]int{}
	}
	for f, n := range o.Faults {
		c.Faults[f] += n
	}
	for code, n := range o.Codes {
		c.Codes[code] += n
	}
	c.Loss = addLoss(c.Loss, o.Loss)
}

func addLoss(a, b powerfs.Loss) powerfs.Loss {
	return powerfs.Loss{Files: a.Files + b.Files, Pages: a.Pages + b.Pages, Lost: a.Lost + b.Lost, Torn: a.Torn + b.Torn,
		Changes: a.Changes + b.Changes, Undone: a.Undone + b.Undone}
}

// nemesis makes faults happen, one after the other.
type nemesis struct {
	*Bench
	*rand.Rand
	rec    *record.Recorder
	o      Options
	counts Counts
}

func newNemesis(b *Bench, rec *record.Recorder, o Options) *nemesis {
	return &nemesis{Bench: b, rec: rec, o: o, Rand: rand.New(rand.NewPCG(o.Seed, 5)), counts: Counts{Faults: map[Fault]int{}}} //nolint:gosec // a test's dice.
}

const (
	shortFault, longFault = 100 * time.Millisecond, 1500 * time.Millisecond
	defaultPause          = 1200 * time.Millisecond
	scriptPatience        = 20 * time.Second
)

func (n *nemesis) run(ctx context.Context, d time.Duration) error {
	pause := n.o.Pause
	if pause == 0 {
		pause = defaultPause
	}
	if len(n.o.Script) > 0 {
		return n.play(ctx, d)
	}
	for end := time.Now().Add(d); ctx.Err() == nil; {
		wait := time.Duration(n.Int64N(int64(pause))) + pause/10
		if len(n.o.Faults) == 0 {
			wait = d
		}
		if left := time.Until(end); left < wait && (n.rec.Len() >= n.o.AtLeast || left < -2*d) {
			sleep(ctx, left)
			break
		}
		sleep(ctx, wait)
		if err := n.one(ctx, n.o.Faults[n.IntN(len(n.o.Faults))]); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// play follows the script.
func (n *nemesis) play(ctx context.Context, d time.Duration) error {
	each := d / time.Duration(len(n.o.Script)+1)
	for _, f := range n.o.Script {
		begun, noted := time.Now(), n.rec.Len()
		sleep(ctx, each)
		for n.rec.Len() < noted+n.o.Between && time.Since(begun) < scriptPatience && ctx.Err() == nil {
			sleep(ctx, shortFault)
		}
		if err := n.one(ctx, f); err != nil {
			return err
		}
	}
	sleep(ctx, each)
	return ctx.Err()
}

// one makes a fault happen, and notes it.
func (n *nemesis) one(ctx context.Context, f Fault) error {
	begun := n.rec.Now()
	text, err := n.strike(ctx, f)
	op := record.Op{Kind: record.Fault, Call: begun, Outcome: record.OK, Text: strings.TrimSpace(string(f) + " " + text)}
	if f == KillDatabase || f == KillBackend || f == PowerLoss {
		op.Code = check.CrashOfDatabase
	}
	n.rec.Done(op)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	n.counts.Faults[f]++
	return nil
}

func (n *nemesis) some() time.Duration {
	return shortFault + time.Duration(n.Int64N(int64(longFault-shortFault)))
}

func (n *nemesis) strike(ctx context.Context, f Fault) (text string, err error) {
	i := n.IntN(len(n.cells))
	c, p := n.cells[i], n.proxies[i]
	which := fmt.Sprint(i)
	switch f {
	case KillCell:
		c.Kill()
		sleep(ctx, n.some()/4)
		return which, c.Start(ctx)
	case DrainCell:
		if err := c.Drain(); err != nil {
			return which, err
		}
		return which, c.Start(ctx)
	case PauseCell:
		c.Pause()
		sleep(ctx, 2*n.some())
		c.Continue()
		return which, nil
	case BadNetwork, NoNetwork:
		p.Set(map[Fault]bed.Weather{BadNetwork: bed.Foul, NoNetwork: bed.Dark}[f])
		sleep(ctx, 2*n.some())
		p.Set(bed.Fair)
		return which, nil
	}
	return n.strikeDatabase(ctx, f)
}

func (n *nemesis) strikeDatabase(ctx context.Context, f Fault) (text string, err error) {
	switch f { //nolint:exhaustive // strike has the others.
	case KillDatabase:
		if err := n.db.Kill(); err != nil {
			return "", err
		}
		sleep(ctx, n.some()/4)
		return "", n.db.Start(ctx)
	case KillBackend:
		what := n.db.KillChild(n.Rand)
		sleep(ctx, shortFault) // Until the postmaster has noticed.
		return what, n.db.Await(ctx)
	case PauseDatabase:
		n.db.Pause()
		sleep(ctx, n.some())
		n.db.Continue()
		return "", nil
	case Checkpoint:
		ctx, cancel := context.WithTimeout(ctx, longFault)
		defer cancel()
		_ = n.db.Exec(ctx, "CHECKPOINT") // A database that was just killed has none.
		return "", nil
	case PowerLoss:
		return n.losePower(ctx)
	case Restart:
		if err := n.db.Stop(ctx); err != nil {
			return "", err
		}
		return "", n.db.Start(ctx)
	}
	return "", fmt.Errorf("there is no such fault: %q", f)
}

// losePower ends the database's machine, and sometimes that of the cells with it, sometimes in the middle of a checkpoint.
func (n *nemesis) losePower(ctx context.Context) (text string, err error) {
	if n.IntN(3) == 0 {
		checkpoint, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = n.db.Exec(checkpoint, "CHECKPOINT") // It is cut short.
		}()
		sleep(ctx, time.Duration(n.Int64N(int64(40*time.Millisecond))))
		defer func() {
			cancel()
			<-done
		}()
	}
	together := n.IntN(3) == 0
	if together {
		for _, c := range n.cells {
			c.Kill()
		}
	}
	l, err := n.db.PowerLoss(n.o.Loss, n.Rand)
	if err != nil {
		return "", err
	}
	n.counts.Loss = addLoss(n.counts.Loss, l)
	if err := n.db.Start(ctx); err != nil {
		return "", fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if together {
		for _, c := range n.cells {
			if err := c.Start(ctx); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("(%+v)", l), nil
}

// ErrDamaged says that PostgreSQL could not use what a loss of power had left.
var ErrDamaged = fmt.Errorf("PostgreSQL does not start on what the disk has left")

// heal makes everything well: what was struck was set right by then; what only seems to run is found out.
func (n *nemesis) heal(ctx context.Context) error {
	for i, p := range n.proxies {
		p.Set(bed.Fair)
		if err := n.cells[i].Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
