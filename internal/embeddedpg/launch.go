//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// errPortTaken tells that another program holds the port.
var errPortTaken = errors.New("another program uses it")

// portTries bounds how often a free port is looked for: another program may
// take one between our finding it free and the server's binding it.
const portTries = 5

// prepare makes sure of programs, data directory and password.
func (s *Server) prepare(ctx context.Context) (binaries, account, error) {
	o := s.opts
	a, err := chooseAccount(o.dataDir())
	if err != nil {
		return binaries{}, a, err
	}
	major, err := dataMajor(o)
	if err != nil {
		return binaries{}, a, err
	}
	b, err := findBinaries(ctx, o, a, major)
	if err != nil {
		return b, a, err
	}
	if major == 0 {
		err = initialize(ctx, o, a, b)
	} else {
		err = awaitVacant(ctx, o)
	}
	if err != nil {
		return b, a, err
	}
	s.password, err = readPassword(o)
	return b, a, err
}

func (s *Server) launch(ctx context.Context, b binaries, a account) error {
	for try := 1; ; try++ {
		err := s.launchOnce(ctx, b, a)
		if err == nil || s.opts.Port != 0 || try == portTries || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

func (s *Server) launchOnce(ctx context.Context, b binaries, a account) error {
	var err error
	if s.port = s.opts.Port; s.port == 0 {
		if s.port, err = freePort(ctx); err != nil {
			return err
		}
	}
	s.opts.say("starting PostgreSQL %d on 127.0.0.1:%d", b.major, s.port)
	if err := s.spawn(b, a); err != nil {
		return err
	}
	if err := s.becomeReady(ctx); err != nil {
		s.proc.abort()
		return err
	}
	s.opts.say("ready")
	return nil
}

// spawn starts the postmaster. The caller's death asks it for a fast shutdown
// (SIGINT): sessions end, a checkpoint is written, and the next start needs no
// recovery.
func (s *Server) spawn(b binaries, a account) error {
	dir, err := os.Open(s.opts.dataDir())
	if err != nil {
		return err
	}
	defer dir.Close() // read only; the child has its own
	log, err := openLog(s.opts)
	if err != nil {
		return err
	}
	defer log.Close() // nothing is written here; the child has its own
	s.logFrom = fileSize(s.opts.logFile())
	cmd := s.command(b, a, dir)
	cmd.Stdout, cmd.Stderr = log, log
	s.proc, err = startProcess(cmd, syscall.SIGINT, s.ended)
	if err != nil {
		return fmt.Errorf("starting %s: %w", b.postgres(), err)
	}
	return nil
}

func (s *Server) command(b binaries, a account, dir *os.File) *exec.Cmd {
	cmd := a.command(b.postgres())
	cmd.Args = append(cmd.Args, "-D", a.attachDir(cmd, dir))
	params := s.opts.parameters(s.port)
	for _, name := range slices.Sorted(maps.Keys(params)) {
		cmd.Args = append(cmd.Args, "-c", name+"="+params[name])
	}
	return cmd
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("looking for a free port: not a TCP address"), l.Close())
	}
	return addr.Port, l.Close()
}

func (s *Server) becomeReady(ctx context.Context) error {
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.DatabaseURL("postgres"))
	if err != nil {
		return fmt.Errorf("logging in to the new server: %w", err)
	}
	err = ensureDatabase(ctx, conn, s.opts.Database)
	return errors.Join(err, conn.Close(ctx))
}

// awaitReady follows the state that the postmaster publishes in its pid file;
// unlike trial connections that leaves no complaints in the log.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	remind := time.NewTicker(5 * time.Second)
	defer remind.Stop()
	for {
		select {
		case <-s.proc.done:
			return s.startError()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-remind.C:
			s.opts.say("still starting (a server that was not shut down cleanly recovers first)")
		case <-tick.C:
			pf, err := readPIDFile(s.opts.dataDir())
			if err != nil {
				return err
			}
			if pf.pid == s.proc.pid() && (pf.status == "ready" || pf.status == "standby") { // A standby takes reading connections.
				return nil
			}
		}
	}
}

// startError tells why the server ended before it was ready.
func (s *Server) startError() error {
	text := tail(s.opts.logFile(), s.logFrom)
	if strings.Contains(text, "could not create any TCP/IP sockets") {
		return fmt.Errorf("port %d on 127.0.0.1 cannot be had: %w (choose another, or 0 for a free one)%s", s.port, errPortTaken, text)
	}
	return s.deathError()
}

func ensureDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	var exists bool
	row := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name)
	if err := row.Scan(&exists); err != nil {
		return fmt.Errorf("looking for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("creating database %s: %w", name, err)
	}
	return nil
}
