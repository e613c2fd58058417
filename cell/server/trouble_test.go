package server_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// patient is the longest that a client may wait for any answer while the database is in trouble.
const patient = 16 * time.Second

// conversation is alice writing to bob through a database's trouble. Both stay connected; nothing restarts the cell.
type conversation struct {
	t          *testing.T
	cell       *celltest.Cell
	alice, bob *celltest.Person
	from, to   *celltest.DM
	stored     []*wire.EnqueueRequest // Acknowledged, in order of sequence.
	sizes      int                    // Bytes of text in each message.
	slowest    time.Duration
}

func converse(t *testing.T, c *celltest.Cell) *conversation {
	t.Helper()
	alice, bob, from, to := pair(t, c)
	return &conversation{t: t, cell: c, alice: alice, bob: bob, from: from, to: to, sizes: 20}
}

func (c *conversation) message() *wire.EnqueueRequest {
	random := make([]byte, c.sizes/2+1)
	rand.Read(random)
	return c.from.Message(c.t, hex.EncodeToString(random))
}

// try sends once: the message is acknowledged, or the answer is busy, with a time to wait, and not late.
func (c *conversation) try(m *wire.EnqueueRequest) bool {
	c.t.Helper()
	begin := time.Now()
	body, err := c.alice.Conn.Call(m)
	took := time.Since(begin)
	c.slowest = max(c.slowest, took)
	if took > patient {
		c.t.Errorf("an answer took %s", took)
	}
	var refusal *wire.Error
	switch {
	case err == nil:
		answer := body.(*wire.EnqueueResponse)
		if want := uint64(len(c.stored) + 1); answer.Seq != want {
			c.t.Errorf("sequence %d, want %d", answer.Seq, want)
		}
		c.stored = append(c.stored, m)
		return true
	case !errors.As(err, &refusal) || refusal.Code != wire.CodeBusy || !refusal.Retryable || refusal.RetryAfter <= 0:
		c.t.Fatalf("neither stored nor busy with a time to wait: %v", err)
	}
	return false
}

// send repeats one message as a client does.
func (c *conversation) send(m *wire.EnqueueRequest) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !c.try(m); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatal("busy for a minute")
		}
	}
}

// others are calls that need the database: each is answered in time, and, when it must fail, busy.
func (c *conversation) others(busy bool) {
	c.t.Helper()
	for _, r := range []wire.Request{&wire.KeyPackageStatusRequest{}, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: c.bob.Certificate.AccountID}} {
		begin := time.Now()
		_, err := c.alice.Conn.Call(r)
		if took := time.Since(begin); took > patient {
			c.t.Errorf("%s took %s", r.Method(), took)
		}
		if err != nil && !wire.HasCode(err, wire.CodeBusy) && !wire.HasCode(err, wire.CodeNoKeyPackage) || busy && err == nil {
			c.t.Errorf("%s: %v", r.Method(), err)
		}
	}
}

// ready checks that the pod stays ready, or every connection would be cut.
func (c *conversation) ready() {
	c.t.Helper()
	if got := c.cell.Ops(c.t, "/readyz"); !strings.Contains(got, "ok") {
		c.t.Errorf("not ready: %s", got)
	}
}

// end checks that bob gets everything that was acknowledged, once, in order, on the connection that he has had all the time.
func (c *conversation) end() {
	c.t.Helper()
	c.ready()
	for i, m := range c.stored {
		d := deliveryOf(c.t, c.bob)
		if d.Seq != uint64(i+1) || d.DeliveryID != m.DeliveryID || string(d.Payload) != string(m.Payload) {
			c.t.Fatalf("delivery %d is sequence %d", i+1, d.Seq)
		}
	}
	if log := c.cell.Log.String(); strings.Contains(log, `"request failed"`) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, `"request failed"`) {
				c.t.Errorf("the trouble looks like a fault of the cell: %s", line)
				break
			}
		}
	}
}

// through runs a trouble: before, during (when every message must be refused), after.
func (c *conversation) through(begin, end func()) {
	c.t.Helper()
	for range 3 {
		c.send(c.message())
	}
	begin()
	pending := c.message()
	for range 2 {
		if c.try(pending) {
			c.t.Error("stored in the middle of the trouble: this test has lost its meaning")
			pending = c.message()
		}
		c.ready()
	}
	end()
	c.send(pending)
	for range 3 {
		c.send(c.message())
	}
	c.others(false)
	c.end()
	c.t.Logf("report: %s: the slowest answer came after %s", c.t.Name(), c.slowest.Round(time.Millisecond))
}

func TestADatabaseThatIsSlow(t *testing.T) {
	t.Parallel()
	var p *databaseProxy
	c := converse(t, celltest.New(t, celltest.Through(func(database string) (uri string) {
		p, uri = slowed(t, database)
		return uri
	})))
	p.slow(150 * time.Millisecond) // Each way: what it answers is late, but it answers.
	for range 3 {
		c.send(c.message())
	}
	c.others(false)
	p.slow(0)
	c.end()
}

// A network that loses everything: no connection ends, no answer comes.
func TestADatabaseThatFallsSilent(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes as long as the cell's patience, twice")
	}
	var p *databaseProxy
	c := converse(t, celltest.New(t, celltest.Through(func(database string) (uri string) {
		p, uri = slowed(t, database)
		return uri
	})))
	c.through(func() {
		p.silence(true)
		c.others(true)
	}, func() { p.silence(false) })
}

func TestADatabaseThatIsReadOnly(t *testing.T) {
	t.Parallel()
	db := newOwnDatabase(t)
	c := converse(t, celltest.New(t, celltest.WithDatabase(db.server.URL())))
	set := func(on string) func() {
		return func() { alterSystem(t, db.server.URL(), "default_transaction_read_only", on) }
	}
	c.through(set("on"), set("off"))
}

// alterSystem changes a setting of the whole server, for sessions that exist too.
func alterSystem(t *testing.T, uri, name, value string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, uri)
	must(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "SET default_transaction_read_only = off") // The statements themselves write nothing that this forbids, but a function may.
	must(t, err)
	for _, sql := range []string{"ALTER SYSTEM SET " + name + " = '" + value + "'", "SELECT pg_reload_conf()"} {
		_, err = conn.Exec(ctx, sql)
		must(t, err)
	}
	for end := time.Now().Add(celltest.Patience); ; time.Sleep(10 * time.Millisecond) {
		fresh, err := pgx.Connect(ctx, uri)
		must(t, err)
		var now string
		must(t, fresh.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&now))
		must(t, fresh.Close(ctx))
		if now == value {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s stays %s", name, now)
		}
	}
}

// Killed, with what it had not yet written; it recovers by its log.
func TestADatabaseThatIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	db := newOwnDatabase(t)
	c := converse(t, celltest.New(t, celltest.WithDatabase(db.server.URL())))
	c.through(func() {
		crash(t, db.server)
		c.others(true)
	}, db.start)
}

// crash kills a server with all its processes, of which those that serve would otherwise go on for a moment.
func crash(t *testing.T, s *embeddedpg.Server) {
	t.Helper()
	pids := []int{s.PID()}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, f := range files {
		var pid, parent int
		var name, state string
		b, err := os.ReadFile(f)
		if err != nil {
			continue // It has ended.
		}
		if _, err := fmt.Sscan(string(b), &pid, &name, &state, &parent); err == nil && parent == s.PID() {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	<-s.Done()
}

// The disk of the messages is full; what is on others goes on.
func TestADatabaseWhoseDiskIsFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mountSmall(t, dir)
	db := newOwnDatabase(t)
	c := converse(t, celltest.New(t, celltest.WithDatabase(db.server.URL()), celltest.Unlimited()))
	c.sizes = 300_000
	var owner syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(db.options.Dir, "data"), &owner))
	space := filepath.Join(dir, "space")
	must(t, os.Mkdir(space, 0o700))
	must(t, os.Chown(space, int(owner.Uid), int(owner.Gid)))
	c.cell.Execute(t, "CREATE TABLESPACE small LOCATION '"+space+"'")
	c.cell.Execute(t, `DO $$ DECLARE p text; BEGIN FOR p IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'messages'::regclass
		LOOP EXECUTE 'ALTER TABLE ' || p || ' SET TABLESPACE small'; END LOOP; END $$`)
	ballast := filepath.Join(dir, "ballast")
	c.through(func() { fill(t, ballast) }, func() { must(t, os.Remove(ballast)) })
}

// mountSmall mounts a file system of a few megabytes.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs", dir).Run(); err != nil { //nolint:gosec // Our own directory.
		t.Skipf("NOT RUN: %s: a small file system cannot be mounted here: %v", t.Name(), err)
	}
	t.Cleanup(func() {
		if err := exec.CommandContext(context.Background(), "umount", "-l", dir).Run(); err != nil { //nolint:gosec // Our own directory.
			t.Error(err)
		}
	})
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // PostgreSQL's user has to get there.
		must(t, os.Chmod(d, 0o755)) //nolint:gosec // Nothing in it is secret.
	}
}

// fill writes until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path) //nolint:gosec // Ours.
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(t, err)
		}
	}
}

// Failed over: a streaming standby, which every commit waits for, is promoted after the first server was killed. The
// connection string names both, and asks for the one that can be written to.
func TestADatabaseThatFailsOver(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("pg_basebackup"); err != nil {
		t.Skipf("NOT RUN: %s: %v", t.Name(), err)
	}
	primary := newOwnDatabase(t)
	standby := newStandby(t, primary)
	alterSystem(t, primary.server.URL(), "synchronous_standby_names", "*")
	awaitRow(t, primary.server.URL(), "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'")

	both, err := url.Parse(primary.server.URL())
	must(t, err)
	second, err := url.Parse(standby.URL())
	must(t, err)
	both.Host = second.Host + "," + both.Host // The standby first: it must be passed over.
	both.RawQuery += "&target_session_attrs=read-write"
	c := converse(t, celltest.New(t, celltest.WithDatabase(primary.server.URL()), celltest.Through(func(string) string { return both.String() })))
	if strings.Contains(c.cell.Ops(t, "/durability"), `"reduced":true`) && !strings.Contains(c.cell.Ops(t, "/durability"), `"fsync":false`) {
		t.Errorf("with a synchronous standby: %s", c.cell.Ops(t, "/durability"))
	}
	c.through(func() {
		crash(t, primary.server)
		c.cell.Database = standby.URL()
		c.others(true)
	}, func() {
		c.cell.Execute(t, "SELECT pg_promote()")
	})
}

// newStandby makes a server that follows another.
func newStandby(t *testing.T, primary *ownDatabase) *embeddedpg.Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "standby")
	must(t, os.Mkdir(dir, 0o700))
	out, err := exec.CommandContext(t.Context(), "pg_basebackup", "-D", filepath.Join(dir, "data"), "-R", "-c", "fast", "-d", primary.server.URL()).CombinedOutput() //nolint:gosec // Ours.
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	password, err := os.ReadFile(filepath.Join(primary.options.Dir, "password"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "password"), password, 0o600))
	var owner syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(primary.options.Dir, "data"), &owner))
	must(t, filepath.WalkDir(filepath.Join(dir, "data"), func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
	}))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	s, err := embeddedpg.Start(ctx, embeddedpg.Options{Dir: dir, NoFsync: true})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must(t, s.Stop(ctx))
		must(t, embeddedpg.Remove(dir))
	})
	return s
}

func awaitRow(t *testing.T, uri, sql string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, uri)
	must(t, err)
	defer conn.Close(ctx)
	for end := time.Now().Add(celltest.Patience); ; time.Sleep(50 * time.Millisecond) {
		tag, err := conn.Exec(ctx, sql)
		must(t, err)
		if tag.RowsAffected() > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never a row: %s", sql)
		}
	}
}
