//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"quicproquo.dev/internal/filelock"
)

// Server is a running PostgreSQL. Its methods may be called from any goroutine.
type Server struct {
	opts     Options
	major    int
	port     int
	password string
	logFrom  int64 // offset in the log at which this server's lines begin
	proc     *process

	lock     *os.File    // on the directory; held until proc ends
	started  atomic.Bool // Start has succeeded, or is about to
	stopping atomic.Bool // Stop was called
}

// Start runs a server on o.Dir, creating the data directory first if there is
// none, and returns once it accepts connections and o.Database exists. A
// server that was not shut down cleanly is recovered, which may take its time.
// If ctx ends before that, everything started is stopped again; afterwards ctx
// has no influence on the server. The caller must call Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(o)
	if err != nil {
		return nil, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	s := &Server{opts: o, lock: lock}
	if err := s.start(ctx); err != nil {
		s.unlock()
		return nil, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	b, a, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	s.major = b.major
	if err := s.launch(ctx, b, a); err != nil {
		return err
	}
	s.started.Store(true)
	select {
	case <-s.proc.done: // ended may not have seen started
		return s.deathError()
	default:
		return nil
	}
}

// ended runs when a server process has gone. Until Start succeeds the lock is
// Start's to release, which may want another try.
func (s *Server) ended() {
	if s.started.Load() {
		s.unlock()
	}
}

// unlock may be called twice: the second closing fails and changes nothing.
func (s *Server) unlock() { filelock.Release(s.lock) }

// URL is the connection string of Options.Database, understood by pgx. It
// holds the password: never log it.
func (s *Server) URL() string { return s.DatabaseURL(s.opts.Database) }

// DatabaseURL is the connection string of any database of this server. It
// holds the password: never log it.
func (s *Server) DatabaseURL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(User, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Major is the server's major version, for example 17.
func (s *Server) Major() int { return s.major }

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.proc.pid() }

// Done is closed when the server has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.proc.done }

// Err tells why the server ended by itself. It is nil while the server runs
// and after an end that Stop asked for.
func (s *Server) Err() error {
	select {
	case <-s.proc.done:
	default:
		return nil
	}
	if s.stopping.Load() {
		return nil
	}
	return fmt.Errorf("embedded PostgreSQL: %w", s.deathError())
}

func (s *Server) deathError() error {
	cause := s.proc.err
	if cause == nil {
		cause = errors.New("it exited with status 0")
	}
	return fmt.Errorf("the server ended unexpectedly: %w (log: %s)%s", cause, s.opts.logFile(), tail(s.opts.logFile(), s.logFrom))
}

// Stop asks for a fast shutdown (open transactions are rolled back, a
// checkpoint is written) and waits for its end. If ctx ends first, the server
// is stopped without a checkpoint, which the next start recovers from, and the
// error says so. Stop may be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	s.proc.signal(syscall.SIGINT)
	select {
	case <-s.proc.done:
		return nil
	case <-ctx.Done():
	}
	s.proc.abort()
	return fmt.Errorf("embedded PostgreSQL: stopped without a checkpoint, the next start will recover: %w", context.Cause(ctx))
}
