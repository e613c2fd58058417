//go:build unix

// Package pgtest gives tests empty databases on a real PostgreSQL, which it
// starts once per test process.
//
// A package that uses it needs
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// or, with goleak, goleak.VerifyTestMain(pgtest.Wrap(m)).
//
// Without PostgreSQL the tests fail, and say how to get it: a database test
// that was skipped has tested nothing.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"quicproquo.dev/internal/embeddedpg"
)

// startTimeout bounds the server's first start, which may fetch its programs.
const startTimeout = 5 * time.Minute

// callTimeout bounds every other step.
const callTimeout = time.Minute

// An Option changes what New returns.
type Option func(*kind)

// kind tells the shared servers apart.
type kind struct{ durable bool }

// Durable asks for a server with fsync on, for tests about durability and its
// cost. The default server has it off: a commit still survives a crash of the
// server process, only not one of the machine, and the data is thrown away
// anyway.
func Durable() Option { return func(k *kind) { k.durable = true } }

// Runner is *testing.M, or one that wraps it.
type Runner interface{ Run() int }

// Main runs the tests, stops the servers they used, and exits.
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Wrap returns a Runner that runs m's tests and then stops the servers they
// used.
func Wrap(m Runner) Runner { return runner{m} }

type runner struct{ inner Runner }

func (r runner) Run() int {
	hasMain.Store(true)
	code := r.inner.Run()
	if err := stopAll(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// IgnoreServer lets goleak.VerifyNone pass inside a test while the shared
// server runs.
func IgnoreServer() goleak.Option {
	return goleak.IgnoreAnyFunction("quicproquo.dev/internal/embeddedpg.startProcess.func1")
}

var (
	hasMain   atomic.Bool
	databases atomic.Int64

	mu     sync.Mutex
	shared = map[kind]*instance{}
)

// instance is one shared server, or the reason why there is none.
type instance struct {
	dir    string
	server *embeddedpg.Server
	err    error
}

// New creates an empty database that the test's end drops, and returns its
// connection string. The user is a superuser.
func New(tb testing.TB, opts ...Option) string {
	tb.Helper()
	server := Server(tb, opts...)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if err := execute(server, "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("pgtest: creating a database: %v", err)
	}
	tb.Cleanup(func() {
		if err := execute(server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("pgtest: dropping the database: %v", err)
		}
	})
	return server.DatabaseURL(name)
}

// Server returns the shared server itself. Tests must not stop it.
func Server(tb testing.TB, opts ...Option) *embeddedpg.Server {
	tb.Helper()
	if !hasMain.Load() {
		tb.Fatal("pgtest: this package needs: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	var k kind
	for _, opt := range opts {
		opt(&k)
	}
	mu.Lock()
	defer mu.Unlock()
	if shared[k] == nil {
		shared[k] = startInstance(k)
	}
	if err := shared[k].err; err != nil {
		tb.Fatalf("pgtest: no PostgreSQL to test with: %v", err)
	}
	return shared[k].server
}

func startInstance(k kind) *instance {
	sweep()
	dir, err := os.MkdirTemp("", dirPrefix+"*")
	if err != nil {
		return &instance{err: err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	server, err := embeddedpg.Start(ctx, embeddedpg.Options{
		Dir:      dir,
		NoFsync:  !k.durable,
		Settings: map[string]string{"max_connections": "200", "shared_buffers": "64MB"},
		Progress: os.Stderr,
	})
	return &instance{dir: dir, server: server, err: err}
}

func execute(server *embeddedpg.Server, sql string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DatabaseURL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // the statement is done
	_, err = conn.Exec(ctx, sql)
	return err
}

func stopAll() error {
	mu.Lock()
	defer mu.Unlock()
	var first error
	for k, in := range shared {
		if err := in.stop(); err != nil && first == nil {
			first = err
		}
		delete(shared, k)
	}
	return first
}

// stop also tells when the server had died under the tests.
func (in *instance) stop() error {
	if in.server != nil {
		died := in.server.Err()
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if err := in.server.Stop(ctx); err != nil {
			return err
		}
		if died != nil {
			return died
		}
	}
	if in.dir == "" {
		return nil
	}
	return embeddedpg.Remove(in.dir)
}

const dirPrefix = "quicproquo-pgtest-"

// sweepAge is far above what lies between making a directory and locking it.
const sweepAge = 10 * time.Minute

// sweep removes what killed test processes left behind; embeddedpg.Remove
// refuses the directories of living ones.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*")) // the pattern is well formed
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > sweepAge {
			_ = embeddedpg.Remove(dir) // in use, or somebody else's
		}
	}
}
