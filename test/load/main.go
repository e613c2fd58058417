// Command load compares a cell with NATS JetStream at what both do: to take messages, keep them on disk, and deliver
// them once and in order. The systems take turns, round by round; medians are told. See the README.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"quicproquo.dev/internal/pki"
	"quicproquo.dev/test/load/bare"
	"quicproquo.dev/test/load/jetstream"
	"quicproquo.dev/test/load/ours"
	"quicproquo.dev/test/load/peer"
)

// plan says what to measure and how often.
type plan struct {
	systems        []string
	programs       map[string]string // Of systems: where their program is.
	topologies     []peer.Topology
	loads          []load
	rounds         int
	duration, warm time.Duration
	settings       map[string]string
	records        io.Writer
	prove, check   bool
	growth         string
	devices        int // Of a group, whose cost is to be measured; 0: it is not.
	out, diagnoses io.Writer

	dir  string
	runs uint32
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) == 4 && os.Args[1] == bare.Command {
		if err := bare.Main(ctx, os.Args[2], os.Args[3]); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "load:", err)
		}
		return
	}
	p, err := parseFlags()
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1) //nolint:gocritic // stop only restores signals.
	}
}

// The names of systems; those of further cells come from flags.
const (
	nameCell    = "cell"
	nameAlways  = "nats-always"
	nameDefault = "nats-default"
)

const defaultLoads = "1,16,256,2000/s"

func parseFlags() (*plan, error) {
	p := &plan{out: os.Stdout, diagnoses: os.Stderr, programs: map[string]string{}, settings: map[string]string{}}
	quick := flag.Bool("quick", false, "at most a minute: one topology, fewer rounds, and shorter ones")
	systems := flag.String("systems", strings.Join([]string{nameCell, nameAlways, nameDefault}, ","), "who takes part")
	topologies := flag.String("topologies", "1x1,8x1,64x1,1x8", "pairs x devices of each recipient")
	loads := flag.String("loads", defaultLoads, "messages in flight, or messages a second")
	flag.IntVar(&p.rounds, "rounds", 5, "rounds that count")
	flag.DurationVar(&p.duration, "duration", 2*time.Second, "of each run")
	flag.DurationVar(&p.warm, "warm", 500*time.Millisecond, "of a run before each run that counts")
	record := flag.String("record", "", "write every run to this file, one JSON object a line")
	flag.StringVar(&p.dir, "dir", "", "an empty directory for everything; a temporary one if empty")
	flag.BoolVar(&p.check, "check", false, "exit with 1 if a demand does not hold")
	flag.BoolVar(&p.prove, "prove", false, "instead: delay and count each system's syncs by strace, to see what an acknowledgement means")
	flag.StringVar(&p.growth, "growth", "", "instead: cost per message as a cell grows: messages or channels, up to a number, as in messages=1000000")
	flag.IntVar(&p.devices, "fanout", 0, "instead: what a message to so many devices costs, beside one to a single device and beside a bare push")
	program := func(name string) func(string) error {
		return func(path string) error {
			p.programs[name] = path
			return nil
		}
	}
	flag.Func("cell", "program of the cell (required)", program(nameCell))
	flag.Func("nats-server", "program of NATS (required unless it takes no part)", func(path string) error {
		return errors.Join(program(nameAlways)(path), program(nameDefault)(path))
	})
	flag.Func("another", "NAME=PROGRAM: a further cell, of another build; may be repeated", func(v string) error {
		name, path, ok := strings.Cut(v, "=")
		if !ok {
			return errors.New("want NAME=PROGRAM")
		}
		*systems += "," + name
		return program(name)(path)
	})
	flag.Func("postgres", "NAME=VALUE: a setting of the cells' PostgreSQL; may be repeated", func(v string) error {
		name, value, ok := strings.Cut(v, "=")
		p.settings[name] = value
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		return nil
	})
	flag.IntVar(&peer.ContentSize, "content", peer.ContentSize, "bytes of a message's content; a cell's message has 166 more, of MLS")
	flag.Parse()
	if peer.ContentSize < peer.MinContent || peer.ContentSize > 10<<10 {
		return nil, fmt.Errorf("content: want %d to %d bytes", peer.MinContent, 10<<10)
	}
	if *quick {
		*topologies, p.rounds, p.duration, p.warm = "8x1", 2, time.Second, 200*time.Millisecond
	}
	p.systems = strings.Split(*systems, ",")
	var err error
	switch {
	case p.devices > 0:
		err = p.prepareFanOut(loads)
	case p.growth != "":
		p.prepareGrowth()
	}
	if err != nil {
		return nil, err
	}
	if p.topologies, err = parseTopologies(*topologies); err != nil {
		return nil, err
	}
	if p.loads, err = parseLoads(*loads); err != nil {
		return nil, err
	}
	if *record != "" {
		f, err := os.Create(*record)
		if err != nil {
			return nil, err
		}
		p.records = f // Until the program ends.
	}
	for _, s := range p.systems {
		if p.programs[s] == "" && s != nameBare {
			return nil, fmt.Errorf("system %q: its program is not given", s)
		}
	}
	return p, nil
}

// prepareFanOut has the cells and the relay take part, and nobody else.
func (p *plan) prepareFanOut(loads *string) error {
	if p.devices < 2 || p.devices > 999 {
		return errors.New("fanout: want 2 to 999 devices")
	}
	p.systems = append(slices.DeleteFunc(p.systems, func(s string) bool { return s == nameAlways || s == nameDefault || s == nameBare }), nameBare)
	maps.Copy(p.settings, ours.StatementSettings())
	if *loads == defaultLoads {
		*loads = "16,100/s"
	}
	return nil
}

var topologyPattern = regexp.MustCompile(`^([1-9][0-9]{0,3})x([1-9][0-9]{0,2})$`)

func parseTopologies(s string) ([]peer.Topology, error) {
	var list []peer.Topology
	for _, v := range strings.Split(s, ",") {
		m := topologyPattern.FindStringSubmatch(v)
		if m == nil {
			return nil, fmt.Errorf("topology %q: want PAIRSxDEVICES, such as 8x1", v)
		}
		pairs, _ := strconv.Atoi(m[1])
		devices, _ := strconv.Atoi(m[2])
		list = append(list, peer.Topology{Pairs: pairs, Devices: devices})
	}
	return list, nil
}

func parseLoads(s string) ([]load, error) {
	var list []load
	for _, v := range strings.Split(s, ",") {
		number, open := strings.CutSuffix(v, "/s")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("load %q: want a number in flight, such as 16, or a second, such as 2000/s", v)
		}
		if open {
			list = append(list, load{rate: n})
		} else {
			list = append(list, load{inFlight: n})
		}
	}
	return list, nil
}

func (p *plan) run(ctx context.Context) (err error) {
	if p.dir == "" {
		if p.dir, err = os.MkdirTemp("", "qpq-load-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(p.dir)) }()
	}
	systems, closeAll, err := p.start(ctx)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	switch {
	case p.prove:
		return p.proof(ctx, systems)
	case p.devices > 0:
		return p.fanOut(ctx, systems)
	case p.growth != "":
		return p.grow(ctx, systems)
	}
	return p.compare(ctx, systems)
}

// start starts every system in a folder of its own.
func (p *plan) start(ctx context.Context) (list []peer.System, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, s := range list {
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	}
	ca, err := pki.NewCA("load", time.Now(), 24*time.Hour)
	if err != nil {
		return nil, closeAll, err
	}
	for _, name := range p.systems {
		dir := filepath.Join(p.dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return list, closeAll, err
		}
		s, err := p.startOne(ctx, name, dir, ca)
		if err != nil {
			return list, closeAll, fmt.Errorf("starting %s: %w", name, err)
		}
		list = append(list, s)
	}
	return list, closeAll, nil
}

func (p *plan) startOne(ctx context.Context, name, dir string, ca *pki.CA) (peer.System, error) {
	if name == nameAlways || name == nameDefault {
		return jetstream.Start(ctx, jetstream.Options{Name: name, Program: p.programs[name], Dir: dir, CA: ca, Always: name == nameAlways})
	}
	if name == nameBare {
		return p.relay(ctx, bare.Options{Name: name, Dir: dir, CA: ca})
	}
	return ours.Start(ctx, ours.Options{Name: name, Program: p.programs[name], Dir: dir, CA: ca, Settings: p.settings})
}

// opened is a topology on one system, where the run of the moment gets what is delivered.
type opened struct {
	topology peer.Topology
	session  peer.Session
	tracker  atomic.Pointer[peer.Tracker]
}

func (o *opened) use(t *peer.Tracker) { o.tracker.Store(t) }

func openAll(ctx context.Context, systems []peer.System, t peer.Topology) (list []*opened, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, o := range list {
			errs = append(errs, o.session.Close())
		}
		return errors.Join(errs...)
	}
	for _, s := range systems {
		o := &opened{topology: t}
		o.use(peer.NewTracker(0, t))
		o.session, err = s.Open(ctx, t, func(pair, device int, content []byte) { o.tracker.Load().Deliver(pair, device, content) })
		if err != nil {
			return list, closeAll, err
		}
		list = append(list, o)
	}
	return list, closeAll, nil
}

// compare measures every load on every topology, the systems in turn.
func (p *plan) compare(ctx context.Context, systems []peer.System) error {
	r := &report{systems: p.systems}
	for _, t := range p.topologies {
		if err := p.topology(ctx, systems, t, r); err != nil {
			return err
		}
	}
	r.print(p.out)
	if err := p.memory(systems); err != nil {
		return err
	}
	if broken := r.demands(p.out); p.check && broken > 0 {
		return fmt.Errorf("%d demands do not hold", broken)
	}
	return nil
}

func (p *plan) topology(ctx context.Context, systems []peer.System, t peer.Topology, r *report) (err error) {
	fmt.Fprintf(p.diagnoses, "connecting %s\n", t)
	sessions, closeAll, err := openAll(ctx, systems, t)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	for _, l := range p.loads {
		for round := range p.rounds {
			for i := range systems {
				i = (i + round) % len(systems) // Nobody is always the first.
				if err := p.turn(ctx, systems[i], sessions[i], l, r); err != nil {
					return err
				}
			}
		}
		r.tell(p.diagnoses, t, l)
	}
	return nil
}

// turn measures one system after warming it up.
func (p *plan) turn(ctx context.Context, s peer.System, o *opened, l load, r *report) error {
	if _, err := p.measure(ctx, s, o, l, p.warm); err != nil {
		return err
	}
	x, err := p.measure(ctx, s, o, l, p.duration)
	if err != nil {
		return err
	}
	r.add(x)
	if p.records != nil {
		return json.NewEncoder(p.records).Encode(x)
	}
	return nil
}

func (p *plan) memory(systems []peer.System) error {
	for _, s := range systems {
		n, err := peer.Memory(s.Processes())
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "%s: its processes had at most %d MiB each, added up\n", s.Name(), n>>20)
	}
	return nil
}
