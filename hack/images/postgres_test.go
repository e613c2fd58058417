package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"quicproquo.dev/hack/images/debian"
)

// pod runs containers of the PostgreSQL image over one volume: each in
// namespaces of its own, where the entrypoint is process 1 and not root, and
// the files of the image are read-only.
type pod struct {
	t            *testing.T
	root, volume string
	config       v1.Config
	env          map[string]string
}

const databasePassword = `it's "a" $ecret \`

func makePod(t *testing.T) *pod {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes namespaces and changes the root directory, which takes root")
	}
	img := buildImage(t, testOptions(t), postgres)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t, root: unpackImage(t, img), volume: t.TempDir(), config: config.Config}
	p.env = map[string]string{"POSTGRES_PASSWORD": databasePassword, "POSTGRES_USER": "cell", "POSTGRES_DB": "messages"}
	// As Kubernetes does for fsGroup.
	if err := os.Chown(p.volume, 0, user); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(p.volume, 0o2775); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(p.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// container is a run of the entrypoint.
type container struct {
	*pod
	cmd   *exec.Cmd
	log   *buffer
	ended chan struct{}
}

// buffer is written by a process and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *buffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// enter is for the shell of this machine: it mounts what a container runtime
// mounts, and becomes the entrypoint. $0 is the root, $1 the volume.
const enter = `set -e; root=$0 volume=$1; shift
ip link set lo up
mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"; mkdir -m 1777 "$root/dev/shm"; mknod -m 666 "$root/dev/null" c 1 3
mount -t tmpfs -o mode=1777 tmp "$root/tmp"; mount -t tmpfs -o mode=1777 run "$root/run/postgresql"
mount --bind "$volume" "$root/var/lib/postgresql/data"
exec chroot --userspec=65532:65532 "$root" /usr/bin/env -i "$@"`

func (p *pod) start(args ...string) *container {
	p.t.Helper()
	c := &container{pod: p, log: &buffer{}, ended: make(chan struct{})}
	line := []string{"--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", enter, p.root, p.volume}
	line = append(line, p.config.Env...)
	for name, value := range p.env {
		line = append(line, name+"="+value)
	}
	line = append(append(line, p.config.Entrypoint...), args...)
	c.cmd = exec.Command("unshare", line...)
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // ended says it
		close(c.ended)
	}()
	p.t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.ended
		if p.t.Failed() {
			p.t.Logf("container:\n%s", c.log)
		}
	})
	return c
}

// pid is the entrypoint's, seen from here.
func (c *container) pid() string {
	c.t.Helper()
	id := c.cmd.Process.Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", id, id))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// run is kubectl exec.
func (c *container) run(command ...string) (string, error) {
	c.t.Helper()
	args := []string{"--all", "--root", "--wd", "--target", c.pid(), "--setuid", "65532", "--setgid", "65532", "/usr/bin/env", "-i"}
	out, err := exec.Command("nsenter", append(append(args, c.config.Env...), command...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// psql asks as that user, over TCP unless the host is empty.
func (c *container) psql(host, user, password, query string) (string, error) {
	c.t.Helper()
	args := []string{"PGPASSWORD=" + password, "psql", "-XAtw", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", "messages", "-c", query}
	if host != "" {
		args = append(args, "-h", host)
	}
	return c.run(args...)
}

// query asks as the cell does.
func (c *container) query(q string) string {
	c.t.Helper()
	out, err := c.psql("127.0.0.1", "cell", c.env["POSTGRES_PASSWORD"], q)
	if err != nil {
		c.t.Fatalf("%s: %v: %s", q, err, out)
	}
	return out
}

// ready waits for the server to take connections.
func (c *container) ready() *container {
	c.t.Helper()
	c.expect("database system is ready to accept connections")
	return c
}

// expect waits for words in the log.
func (c *container) expect(words string) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(c.log.String(), words) {
		select {
		case <-c.ended:
			if !strings.Contains(c.log.String(), words) {
				c.t.Fatalf("the container ended without saying %q", words)
			}
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the container never says %q", words)
		}
	}
}

// signal sends a signal to process 1, as a container runtime does.
func (c *container) signal(name string) {
	c.t.Helper()
	if out, err := exec.Command("kill", "-"+name, c.pid()).CombinedOutput(); err != nil {
		c.t.Fatalf("kill: %v: %s", err, out)
	}
}

// exit waits for the end and returns its code.
func (c *container) exit() int {
	c.t.Helper()
	select {
	case <-c.ended:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		c.t.Fatal("the container goes on")
		return 0
	}
}

func (c *container) stop() {
	c.t.Helper()
	c.signal("TERM")
	if code := c.exit(); code != 0 {
		c.t.Errorf("the container ends with %d", code)
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	p := makePod(t)
	c := p.start().ready()

	t.Run("settings", func(t *testing.T) {
		for name, want := range map[string]string{
			"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
			"server_encoding": "UTF8", "lc_collate": "C", "password_encryption": "scram-sha-256", "listen_addresses": "*",
		} {
			if got := c.query("SHOW " + name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	})

	t.Run("tools", func(t *testing.T) {
		for _, tool := range postgresTools {
			if out, err := c.run("sh", "-c", "command -v "+tool+" && busybox --list | grep -qx "+tool); err != nil {
				t.Errorf("%s: %v: %s", tool, err, out)
			}
		}
		if out, err := c.run("pg_isready", "-h", "127.0.0.1"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := c.run("touch", "/etc/x"); err == nil {
			t.Errorf("the image can be written to: %s", out)
		}
	})

	t.Run("roles", func(t *testing.T) {
		if got := c.query("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"); got != "f|f|f" {
			t.Errorf("the cell's role is superuser, may make roles, databases: %s", got)
		}
		if got, err := c.psql("", "postgres", "", "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"); err != nil || got != "t" {
			t.Errorf("the superuser on the socket: %s (%v)", got, err)
		}
		for _, refused := range [][3]string{{"127.0.0.1", "cell", "wrong"}, {"127.0.0.1", "postgres", ""}, {"127.0.0.1", "postgres", databasePassword}, {"", "cell", ""}} {
			if got, err := c.psql(refused[0], refused[1], refused[2], "SELECT 1"); err == nil {
				t.Errorf("%q: let in: %s", refused, got)
			}
		}
	})

	c.query("CREATE TABLE m (n int); INSERT INTO m VALUES (1)")

	t.Run("a client does not hold up the end", func(t *testing.T) {
		// Sleeping in a transaction, it would hold up a smart shutdown forever.
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = c.psql("127.0.0.1", "cell", databasePassword, "BEGIN; INSERT INTO m VALUES (2); SELECT pg_sleep(600)") // it is cut off
		}()
		for deadline := time.Now().Add(time.Minute); c.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != "1"; {
			if time.Now().After(deadline) {
				t.Fatal("the client does not get as far as sleeping")
			}
			time.Sleep(20 * time.Millisecond)
		}
		c.stop()
		<-gone
		c.expect("database system is shut down")
	})

	t.Run("another password", func(t *testing.T) {
		file := filepath.Join(p.volume, "password")
		if err := os.WriteFile(file, []byte("another\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p.env["POSTGRES_PASSWORD_FILE"] = "/var/lib/postgresql/data/password"
		c = p.start("-c", "shared_buffers=32MB", "-c", "fsync=off").ready()
		p.env["POSTGRES_PASSWORD"] = "another"
		if got := c.query("SELECT n FROM m"); got != "1" {
			t.Errorf("the table holds %s", got)
		}
		if out, err := c.psql("127.0.0.1", "cell", databasePassword, "SELECT 1"); err == nil {
			t.Errorf("the old password works: %s", out)
		}
		if got := c.query("SHOW shared_buffers") + " " + c.query("SHOW fsync"); got != "32MB on" {
			t.Errorf("shared_buffers, fsync: %s", got)
		}
	})

	t.Run("only one at a time", func(t *testing.T) {
		second := p.start()
		second.expect("another PostgreSQL still works on")
		c.query("INSERT INTO m VALUES (3)")
		c.signal("KILL") // as when memory runs out
		c.exit()
		c = second.ready()
		if got := c.query("SELECT string_agg(n::text, ',' ORDER BY n) FROM m"); got != "1,3" {
			t.Errorf("after a crash the table holds %s", got)
		}
		c.stop()
	})

	for _, secret := range []string{databasePassword, "another\n", "SCRAM-SHA-256"} {
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestPostgresTree needs no root.
func TestPostgresTree(t *testing.T) {
	t.Parallel()
	o := testOptions(t)
	apt := o.apt()
	list, err := apt.Resolve(t.Context(), postgresRoots, postgresWithout)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := postgresTree(t.Context(), apt, list)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range tree {
		if e.Mode&0o6000 != 0 {
			t.Errorf("%s is setuid or setgid", name)
		}
		if e.Mode&0o002 != 0 && e.Type == tar.TypeReg {
			t.Errorf("%s can be written by anybody", name)
		}
	}
	gone, _ := tree.Resolve("usr/lib/x86_64-linux-gnu/libicuuc.so.72")
	if o.arch == "amd64" {
		delete(tree, gone)
		if err := debian.CheckLibraries(tree); err == nil || !strings.Contains(err.Error(), "libicuuc.so.72 (for usr/lib/postgresql/15/bin/postgres)") {
			t.Errorf("without %s: %v", gone, err)
		}
	}
}

func TestPostgresInterrupted(t *testing.T) {
	t.Parallel()
	p := makePod(t)
	c := p.start()
	c.expect("making a new data directory")
	c.signal("KILL")
	c.exit()
	c = p.start().ready()
	c.query("SELECT 1")
	c.stop()
}

func TestPostgresRefuses(t *testing.T) {
	t.Parallel()
	p := makePod(t)
	data := filepath.Join(p.volume, "pgdata")
	for name, tc := range map[string]struct {
		prepare func(t *testing.T)
		words   string
	}{
		"no password": {func(*testing.T) { p.env["POSTGRES_PASSWORD"] = "" }, "there is no password: set POSTGRES_PASSWORD_FILE"},
		"no file":     {func(*testing.T) { p.env["POSTGRES_PASSWORD_FILE"] = "/nowhere" }, "cannot read POSTGRES_PASSWORD_FILE, /nowhere"},
		"another version": {func(t *testing.T) {
			write(t, filepath.Join(data, "PG_VERSION"), "14\n")
		}, "made by PostgreSQL 14 and this is PostgreSQL 15"},
		"no data": {func(t *testing.T) {
			write(t, filepath.Join(data, "something"), "")
		}, "holds no data of PostgreSQL"},
		"no access": {func(t *testing.T) {
			if err := os.Chmod(p.volume, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "set fsGroup: 65532"},
	} {
		t.Run(name, func(t *testing.T) {
			clear(p.env)
			p.env["POSTGRES_PASSWORD"] = databasePassword
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
			tc.prepare(t)
			c := p.start()
			if code := c.exit(); code != 1 {
				t.Errorf("it ends with %d", code)
			}
			if !strings.Contains(c.log.String(), tc.words) {
				t.Errorf("it says %q, want %q", c.log, tc.words)
			}
			if err := syscall.Chmod(p.volume, 0o2775); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
