//go:build unix

package embeddedpg

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The directory stands below one that only the caller can enter, as a root
// caller's home is: the whole life of a server must work there.
func TestServerLife(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	o := Options{Dir: filepath.Join(parent, "deep", "pg"), Progress: &progress, Database: "it's a \"name\""}
	s := startServer(t, o)
	requireUnreachable(t, o.Dir)

	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "password_encryption": "scram-sha-256",
	} {
		if got := query(t, s, "SHOW "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if got := query(t, s, "SELECT current_database()"); got != o.Database {
		t.Errorf("the database is %q, want %q", got, o.Database)
	}
	if !strings.Contains(progress.String(), "creating a new data directory") {
		t.Errorf("no progress was told: %q", progress.String())
	}
	query(t, s, "CREATE TABLE kept AS SELECT 42 AS n")
	requireSecret(t, s, o)
	stopServer(t, s)
	if err := s.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}

	again := startServer(t, o)
	if got := query(t, again, "SELECT n FROM kept"); got != "42" {
		t.Errorf("after a restart the row reads %q", got)
	}
	if log := readFile(t, filepath.Join(o.Dir, "postgres.log")); strings.Contains(log, "not properly shut down") {
		t.Error("Stop was not a clean shutdown")
	}
}

// requireUnreachable makes sure that a root caller's test tests what it says.
func requireUnreachable(t *testing.T, dir string) {
	t.Helper()
	a, err := chooseAccount(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if !a.drop {
		t.Log("not root: the server runs as the caller, who can reach everything")
		return
	}
	if _, err := a.output(t.Context(), "/bin/sh", "-c", "test ! -e '"+dir+"'"); err != nil {
		t.Fatalf("the server's user can reach %s: %v", dir, err)
	}
}

func requireSecret(t *testing.T, s *Server, o Options) {
	t.Helper()
	info, err := os.Stat(filepath.Join(o.Dir, "password"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the password file has mode %v", info.Mode())
	}
	password := strings.TrimSpace(readFile(t, filepath.Join(o.Dir, "password")))
	if len(password) < 32 || strings.Contains(readFile(t, filepath.Join(o.Dir, "postgres.log")), password) {
		t.Error("the password is short, or in the log")
	}
	cmdline, err := os.ReadFile(filepath.Join("/proc", joinInts([]int{s.PID()}), "cmdline"))
	if err == nil && bytes.Contains(cmdline, []byte(password)) {
		t.Error("the password is on the command line")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	s := startServer(t, o)
	imposter := &Server{opts: s.opts, port: s.port, password: "guess", proc: s.proc}
	if err := imposter.becomeReady(testContext(t)); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("logging in with a wrong password: %v", err)
	}
}

func TestInUse(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	s := startServer(t, o)
	startFails(t, o, "in use", joinInts([]int{os.Getpid()}))

	// A server whose starter does not hold the lock, such as one by pg_ctl.
	s.unlock()
	startFails(t, o, "in use", joinInts([]int{s.PID()}))
	query(t, s, "SELECT 1") // unharmed
}

// A program that is being started at the moment of Stop has copies of all open
// files until it runs; it does not keep the directory locked.
func TestChildDoesNotHoldTheLock(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	s := startServer(t, o)
	child := exec.Command("sleep", "600")
	child.ExtraFiles = []*os.File{s.lock}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	stopServer(t, s)
	startServer(t, o)
}

func TestOtherMajor(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	stopServer(t, startServer(t, o))
	version := filepath.Join(o.Dir, "data", "PG_VERSION")
	if err := os.WriteFile(version, []byte("13\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	startFails(t, o, "made by PostgreSQL 13", "apt-get install postgresql-13", "remove "+filepath.Join(o.Dir, "data"))
	if got := readFile(t, version); got != "13\n" {
		t.Errorf("PG_VERSION was changed to %q", got)
	}
}

func TestMissingPassword(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	stopServer(t, startServer(t, o))
	if err := os.Remove(filepath.Join(o.Dir, "password")); err != nil {
		t.Fatal(err)
	}
	startFails(t, o, "password is missing", "put it back")
}

func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(o.Dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if a, err := lookupAccount("nobody"); err == nil && os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(o.Dir, "data"), int(a.uid), int(a.gid)); err != nil {
			t.Fatal(err)
		}
	}
	startFails(t, o, "not a PostgreSQL data directory")
}

func TestDataOfRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make such a directory")
	}
	o := Options{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(o.Dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	startFails(t, o, "belongs to root", "chown")
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the test's end
	port := l.Addr().(*net.TCPAddr).Port
	startFails(t, Options{Dir: t.TempDir(), Port: port}, "another program uses it", "0 for a free one")
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"Dir is empty":        {},
		"port 70000":          {Dir: t.TempDir(), Port: 70000},
		"no initdb":           {Dir: t.TempDir(), BinDir: t.TempDir()},
		"unrecognized config": {Dir: t.TempDir(), Settings: map[string]string{"no_such_setting": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			startFails(t, o, name)
		})
	}
}

// A crash of the server is seen by its owner, and the next start recovers
// every committed row.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	s := startServer(t, o)
	query(t, s, "CREATE TABLE kept AS SELECT 42 AS n")
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, s.Done())
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "ended unexpectedly") {
		t.Errorf("Err after a crash: %v", err)
	}
	again := startServer(t, o)
	if got := query(t, again, "SELECT n FROM kept"); got != "42" {
		t.Errorf("after the crash the row reads %q", got)
	}
	if log := readFile(t, filepath.Join(o.Dir, "postgres.log")); !strings.Contains(log, "not properly shut down") {
		t.Error("the server was not killed at all")
	}
}

// A postmaster.pid whose number belongs to another program by now.
func TestReusedPID(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	stopServer(t, startServer(t, o))
	stale := joinInts([]int{os.Getpid()}) + "\n/proc/self/fd/3\n1\n5432\n\n127.0.0.1\n\nready   \n"
	if err := os.WriteFile(filepath.Join(o.Dir, "data", "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, o)
	query(t, s, "SELECT 1")
}

func TestCancelledStart(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	for _, after := range []time.Duration{0, 100 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		if s, err := Start(ctx, o); err == nil {
			stopServer(t, s)
			t.Errorf("Start within %v succeeded", after)
		}
		cancel()
	}
	s := startServer(t, o) // nothing half made is in the way
	query(t, s, "SELECT 1")
}

func TestStopInTime(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir()}
	s := startServer(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); err != nil && !strings.Contains(err.Error(), "without a checkpoint") {
		t.Errorf("Stop: %v", err)
	}
	await(t, s.Done())
	query(t, startServer(t, o), "SELECT 1")
}

func await(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the server did not end")
	}
}
