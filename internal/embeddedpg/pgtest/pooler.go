//go:build unix

package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Pooler starts a real PgBouncer in transaction mode before the database of a connection string, and returns the
// connection string that leads through it. Each transaction gets the connection of the database that has idled longest,
// so that whoever relies on getting the same one again soon fails. The test's end stops it. Without PgBouncer the test is skipped, and says so.
func Pooler(tb testing.TB, uri string) string {
	tb.Helper()
	program, err := lookPooler()
	if err != nil {
		tb.Skipf("NOT RUN: %s behind a transaction pooler: there is no PgBouncer (on Debian: apt-get install pgbouncer)", tb.Name())
	}
	database, err := url.Parse(uri)
	if err != nil {
		tb.Fatal("pgtest: not a connection string")
	}
	dir, err := os.MkdirTemp("", "quicproquo-pooler-*") //nolint:usetesting // Another user has to get there.
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := unusedPort(tb)
	startPooler(tb, program, dir, poolerConfig(database, dir, port))
	through := *database
	through.Host = net.JoinHostPort("127.0.0.1", port)
	awaitPort(tb, through.Host)
	return through.String()
}

func lookPooler() (string, error) {
	if p, err := exec.LookPath("pgbouncer"); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/pgbouncer")
}

func poolerConfig(database *url.URL, dir, port string) string {
	password, _ := database.User.Password()
	return fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
min_pool_size = 4
default_pool_size = 20
max_client_conn = 500
logfile = %s
`, database.Hostname(), database.Port(), database.User.Username(), password, port, filepath.Join(dir, "log"))
}

func startPooler(tb testing.TB, program, dir, config string) {
	tb.Helper()
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil { //nolint:gosec // The password is a test's.
		tb.Fatal(err)
	}
	args := []string{"-q", file}
	if os.Getuid() == 0 { // It refuses to be root.
		args = []string{"-q", "-u", "nobody", file}
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // For its log, whoever it runs as.
		tb.Fatal(err)
	}
	cmd := exec.Command(program, args...) //nolint:gosec,noctx // Its end is the test's.
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && tb.Failed() {
			tb.Logf("PgBouncer's log:\n%s", log)
		}
	})
}

func unusedPort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // It does not wait.
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func awaitPort(tb testing.TB, address string) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, time.Second) //nolint:noctx // It has a timeout.
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("pgtest: PgBouncer does not listen: %v", err)
		}
	}
}
