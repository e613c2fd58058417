//go:build linux

package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/test/history/powerfs"
)

// DatabaseOptions say how PostgreSQL runs.
type DatabaseOptions struct {
	// Power puts its files on a disk that can lose its power. Nil: they lie on this machine's.
	Power *powerfs.Options
	// Settings are PostgreSQL's, such as fsync.
	Settings map[string]string
}

// Postgres is one database server that is killed and started again over the same files, at the same port. One goroutine
// uses it.
type Postgres struct {
	dir    string
	port   int
	o      DatabaseOptions
	server *embeddedpg.Server
	disk   *powerfs.Helper
	boots  uint64
	url    string
}

// startPatience is for a start, which may recover first.
const startPatience = 60 * time.Second

// NewPostgres makes the files in dir, lets prepare make what is to be in the database, and starts.
func NewPostgres(ctx context.Context, dir string, o DatabaseOptions, prepare func(url string) error) (*Postgres, error) {
	port, err := freePort(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, port: port, o: o}
	// Nothing can be lost yet: this is quick, and ends with everything on the disk that the power may be taken from.
	server, err := embeddedpg.Start(ctx, p.options(p.backing(), true))
	if err != nil {
		return nil, err
	}
	p.url = server.URL()
	err = prepare(p.url)
	if err = errors.Join(err, server.Stop(ctx)); err != nil {
		return nil, err
	}
	return p, p.Start(ctx)
}

func (p *Postgres) backing() string { return filepath.Join(p.dir, "disk") }
func (p *Postgres) mount() string   { return filepath.Join(p.dir, "mount") }

func (p *Postgres) options(dir string, fast bool) embeddedpg.Options {
	s := map[string]string{"max_connections": "120", "shared_buffers": "32MB", "checkpoint_timeout": "30s", "max_wal_size": "64MB", "min_wal_size": "32MB",
		"bgwriter_delay": "20ms", "wal_writer_delay": "20ms", "log_checkpoints": "off"}
	if !fast {
		maps.Copy(s, p.o.Settings)
	}
	return embeddedpg.Options{Dir: dir, Port: p.port, NoFsync: fast, Settings: s, Progress: io.Discard}
}

// URL is the connection string, the same for ever.
func (p *Postgres) URL() string { return p.url }

// Log is what PostgreSQL printed last.
func (p *Postgres) Log() string {
	b, _ := os.ReadFile(filepath.Join(p.backing(), "postgres.log"))
	return string(b[max(0, len(b)-4000):])
}

// Start starts it, after a kill or a loss of power.
func (p *Postgres) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	dir := p.backing()
	if p.o.Power != nil {
		o := *p.o.Power
		p.boots++
		o.Seed += p.boots
		o.Under = "data"
		var err error
		if p.disk, err = powerfs.Spawn(p.backing(), p.mount(), o); err != nil {
			return err
		}
		dir = p.mount()
	}
	var err error
	p.server, err = embeddedpg.Start(ctx, p.options(dir, false))
	if err != nil {
		err = errors.Join(err, p.unmount())
	}
	return err
}

func (p *Postgres) unmount() error {
	if p.disk == nil {
		return nil
	}
	d := p.disk
	p.disk = nil
	return d.Unmount()
}

// Kill ends all its processes at once.
func (p *Postgres) Kill() error {
	if err := p.kill(); err != nil {
		return err
	}
	return p.unmount()
}

func (p *Postgres) kill() error {
	if err := killTree(p.server.PID()); err != nil {
		return err
	}
	select {
	case <-p.server.Done():
		return nil
	case <-time.After(killPatience):
		return errors.New("the postmaster was killed and is still there")
	}
}

// PowerLoss kills it and throws away what its disk had not synced.
func (p *Postgres) PowerLoss(m powerfs.Mode, r *rand.Rand) (powerfs.Loss, error) {
	if err := p.kill(); err != nil {
		return powerfs.Loss{}, err
	}
	d := p.disk
	p.disk = nil
	return d.PowerLoss(m, r.Uint64())
}

// KillChild kills one of the server's processes, as the kernel does that runs out of memory; the others end and begin anew
// by themselves. It says which.
func (p *Postgres) KillChild(r *rand.Rand) string {
	kids := children(p.server.PID())
	if len(kids) == 0 {
		return "none"
	}
	pid := kids[r.IntN(len(kids))]
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	_ = syscall.Kill(pid, syscall.SIGKILL)
	what, _, _ := strings.Cut(string(b), "\x00")
	if words := strings.Fields(what); len(words) > 1 {
		what = words[1]
	}
	return what
}

// Pause stops all processes where they are; Continue lets them go on.
func (p *Postgres) Pause() { p.signalAll(syscall.SIGSTOP) }

// Continue ends a Pause.
func (p *Postgres) Continue() { p.signalAll(syscall.SIGCONT) }

func (p *Postgres) signalAll(s syscall.Signal) {
	for _, pid := range append([]int{p.server.PID()}, children(p.server.PID())...) {
		_ = syscall.Kill(pid, s)
	}
}

// Stop shuts down in order.
func (p *Postgres) Stop(ctx context.Context) error {
	if p.server == nil {
		return nil
	}
	err := p.server.Stop(ctx)
	return errors.Join(err, p.unmount())
}

// Await waits until it answers.
func (p *Postgres) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err := p.Exec(ctx, "SELECT 1")
	for ; err != nil && ctx.Err() == nil; err = p.Exec(ctx, "SELECT 1") {
		sleep(ctx, readyPoll)
	}
	return err
}

// Exec runs a statement behind the cells' back.
func (p *Postgres) Exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// deadlocks is how often ExecAgain tries.
const deadlocks = 10

// ExecAgain is Exec for a change of tables that others are using: what ends in a deadlock with them has done nothing, and is
// tried again.
func (p *Postgres) ExecAgain(ctx context.Context, sql string) error {
	for try := 1; ; try++ {
		err := p.Exec(ctx, sql)
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != "40P01" || try == deadlocks {
			return err
		}
	}
}

// freePort finds a port that nobody uses at the moment.
func freePort(ctx context.Context, network string) (int, error) {
	var lc net.ListenConfig
	if network == "udp" {
		l, err := lc.ListenPacket(ctx, "udp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		return l.LocalAddr().(*net.UDPAddr).Port, l.Close() //nolint:forcetypeassert // of a UDP socket.
	}
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close() //nolint:forcetypeassert // of a TCP socket.
}
