package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
)

// run runs the program to its end.
func run(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	p := start(t, args...)
	code = p.Exit(t)
	return code, p.Printed()
}

func wantRun(t *testing.T, code int, want string, args ...string) string {
	t.Helper()
	got, out := run(t, args...)
	if got != code || !strings.Contains(out, want) {
		t.Errorf("%v: exit code %d, want %d and %q:\n%s", args, got, code, want, out)
	}
	return out
}

// logged is a cell with an audit log of one account and a checkpoint.
func logged(t *testing.T) (c *celltest.Cell, a *server.Audit, account ids.ID) {
	t.Helper()
	c = celltest.New(t)
	account = c.Signup(t, "alice").Certificate.AccountID
	c.Stop(t)
	a, err := server.OpenAudit(t.Context(), c.Config(t))
	must(t, err)
	t.Cleanup(a.Store.Close)
	for range 20 {
		must(t, a.Store.WriteAudit(t.Context(), audit.LoginSucceeded(account), audit.LoginFailed(ids.ID{}, audit.ReasonUnknownName)))
	}
	p, err := a.Store.CheckpointAudit(t.Context(), time.Now())
	if err != nil || p.Made.Number == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	return c, a, account
}

// tamper runs SQL round the triggers.
func tamper(t *testing.T, c *celltest.Cell, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.Database)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), `SET session_replication_role = replica`)
	must(t, err)
	tag, err := conn.Exec(t.Context(), sql)
	if err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %v, %v", sql, tag, err)
	}
}

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	c, _, _ := logged(t)
	out := wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", c.ConfigFile())
	_, rest, ok := strings.Cut(out, "--against: ")
	anchor, _, _ := strings.Cut(rest, "\n")
	if !ok {
		t.Fatalf("no checkpoint is shown:\n%s", out)
	}
	wantRun(t, 0, "sound", "audit", "verify", "--config", c.ConfigFile(), "--against", anchor)
	number, _, _ := strings.Cut(anchor, ":")
	wantRun(t, 1, "fork", "audit", "verify", "--config", c.ConfigFile(), "--against", number+":"+strings.Repeat("ab", 32))
	wantRun(t, 1, "cut off", "audit", "verify", "--config", c.ConfigFile(), "--against", "99:"+strings.Repeat("ab", 32))
	tamper(t, c, `DELETE FROM audit_events WHERE (writer, seq) = (SELECT writer, 7 FROM audit_events WHERE seq = 7 LIMIT 1)`)
	if out := wantRun(t, 1, "THE AUDIT LOG WAS CHANGED: missing: chain ", "audit", "verify", "--config", c.ConfigFile()); !strings.Contains(out, "row 7") || strings.Contains(out, "sound") {
		t.Errorf("%s", out)
	}
}

func TestAuditExport(t *testing.T) {
	t.Parallel()
	c, a, account := logged(t)
	keys, file := filepath.Join(c.Dir, "audit.pem"), filepath.Join(c.Dir, "audit.jsonl")
	pem := wantRun(t, 0, "BEGIN PUBLIC KEY", "audit", "key", "--config", c.ConfigFile())
	must(t, os.WriteFile(keys, []byte(pem), 0o600))
	save := func(args ...string) string {
		t.Helper()
		code, out := run(t, append([]string{"audit", "export", "--config", c.ConfigFile()}, args...)...)
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		// Both outputs are in one buffer; the lines of the export are the objects.
		var lines strings.Builder
		for l := range strings.Lines(out) {
			if strings.HasPrefix(l, "{") {
				lines.WriteString(l)
			}
		}
		must(t, os.WriteFile(file, []byte(lines.String()), 0o600))
		return out
	}
	save("--checkpoint")
	all := wantRun(t, 0, "sound", "audit", "verify", "--file", file, "--public-key", keys)
	b, err := os.ReadFile(file)
	must(t, err)
	if bytes.Contains(b, []byte(account.String())) || bytes.Contains(b, []byte("alice")) || !bytes.Contains(b, []byte(`"kind":"admin.audit_exported"`)) {
		t.Errorf("%s", b)
	}
	must(t, os.WriteFile(file, bytes.Replace(b, []byte(`"kind":"auth.login"`), []byte(`"kind":"device.added"`), 1), 0o600))
	wantRun(t, 1, "its fields say otherwise than its body", "audit", "verify", "--file", file, "--public-key", keys)
	must(t, os.WriteFile(file, b[:len(b)/2], 0o600))
	wantRun(t, 1, "line ", "audit", "verify", "--file", file, "--public-key", keys)

	ref, err := a.Store.AuditRef(t.Context(), account)
	must(t, err)
	save("--account", account.String(), "--kind", "auth.login", "--checkpoint")
	b, err = os.ReadFile(file)
	must(t, err)
	if n := bytes.Count(b, []byte(`"type":"event"`)); n != 20 || bytes.Count(b, []byte(ref.String())) != 20 {
		t.Errorf("%d events:\n%s", n, b)
	}
	wantRun(t, 0, "the export does not show them", "audit", "verify", "--file", file, "--public-key", keys)
	out := save("--after", "1", "--checkpoint")
	wantRun(t, 0, "begins with checkpoint 2", "audit", "verify", "--file", file, "--public-key", keys)
	if !strings.Contains(out, "the export goes on with --after 5") {
		t.Errorf("%s", out)
	}
	save("--only-matching", "--kind", "auth.login")
	wantRun(t, 1, "nothing of it can be proven", "audit", "verify", "--file", file, "--public-key", keys)
	if !strings.Contains(all, "checkpoint") {
		t.Error(all)
	}
	wantRun(t, 1, `no kind of event "nonsense"`, "audit", "export", "--config", c.ConfigFile(), "--kind", "nonsense")
	wantRun(t, 1, "not a time", "audit", "export", "--config", c.ConfigFile(), "--since", "yesterday")
	wantRun(t, 1, "no event names account", "audit", "export", "--config", c.ConfigFile(), "--account", ids.New().String())
}

func TestAuditSubject(t *testing.T) {
	t.Parallel()
	c, a, account := logged(t)
	ref, err := a.Store.AuditRef(t.Context(), account)
	must(t, err)
	wantRun(t, 0, ref.String(), "audit", "subject", "--config", c.ConfigFile(), "--account", account.String())
	wantRun(t, 0, account.String()+" alice", "audit", "subject", "--config", c.ConfigFile(), "--pseudonym", ref.String())
	wantRun(t, 0, a.Keys.Admin("cn=x").String(), "audit", "subject", "--config", c.ConfigFile(), "--admin", "cn=x")
	must(t, a.Store.EraseAuditSubject(t.Context(), account))
	wantRun(t, 1, "was erased with its account", "audit", "subject", "--config", c.ConfigFile(), "--pseudonym", ref.String())
	wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", c.ConfigFile())
}

func TestAuditPrune(t *testing.T) {
	t.Parallel()
	c, a, _ := logged(t)
	a.Store.Close()
	wantRun(t, 1, "at least 48h", "audit", "prune", "--config", c.ConfigFile(), "--keep", "1h")
	wantRun(t, 0, "nothing to remove that is older than 9600h0m0s", "audit", "prune", "--config", c.ConfigFile())
	for _, table := range []string{"audit_events", "audit_checkpoints", "audit_checkpoint_heads"} {
		tamper(t, c, `DELETE FROM `+table) // Begin anew, in the past.
	}
	other, err := server.OpenAudit(t.Context(), c.Config(t))
	must(t, err)
	defer other.Store.Close()
	const day = 24 * time.Hour
	for _, ago := range []time.Duration{500 * day, 100 * day, 3 * day, 36 * time.Hour, 0} {
		at := time.Now().Add(-ago)
		must(t, other.Store.WriteAudit(t.Context(), audit.AdminRefused(audit.ReasonInvalidToken).At(at)))
		_, err := other.Store.CheckpointAudit(t.Context(), at)
		must(t, err)
	}
	pruned := func(want string, args ...string) {
		t.Helper()
		wantRun(t, 0, want, append([]string{"audit", "prune", "--config", c.ConfigFile()}, args...)...)
		wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", c.ConfigFile())
	}
	use := func(kept string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(c.Dir, "policy.yaml"), []byte("version: quicproquo.dev/policy/v1\nretention:\n  audit: "+kept+"\n"), 0o600))
	}
	pruned("removed 2 rows older than 9600h0m0s; the log can be verified from checkpoint 1 on")
	pruned("nothing to remove that is older than 9600h0m0s")
	use("2000h") // By the policy's own word, and no flag.
	pruned("removed 1 rows older than 2000h0m0s; the log can be verified from checkpoint 2 on")
	use("24h") // Shorter than servers may rest between two events.
	pruned("the policy's retention.audit is 24h0m0s; 48h0m0s are kept")
	wantRun(t, 0, "pruned up to checkpoint 3", "audit", "verify", "--config", c.ConfigFile())
	use("9600h")
	pruned("nothing to remove that is older than 50h0m0s", "--keep", "50h")
	use("nine")
	wantRun(t, 1, "retention.audit", "audit", "prune", "--config", c.ConfigFile())
	pruned("nothing to remove", "--keep", "50h")
}

func TestAuditCommandLine(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		want string
		args []string
	}{
		{"--config", []string{"audit", "verify"}},
		{"public-key", []string{"audit", "verify", "--file", "x"}},
		{"/nowhere/x", []string{"audit", "verify", "--file", "y", "--public-key", "/nowhere/x"}},
		{"NUMBER:HASH", []string{"audit", "verify", "--config", "x", "--against", "7"}},
		{"config", []string{"audit", "export"}},
		{"at least one", []string{"audit", "subject", "--config", "x"}},
		{"--server-role", []string{"migrate", "--config", "x", "--print-grants"}},
	} {
		wantRun(t, 1, x.want, x.args...)
	}
}

// A whole cell serves under a role that may read the audit log and add to it, and no more, once the owner has migrated
// and granted.
func TestServeUnderARoleOfItsOwn(t *testing.T) {
	t.Parallel()
	uri := pgtest.New(t)
	role := celltestRole(t, uri)
	c := celltest.Prepare(t)
	database := filepath.Join(c.Dir, "database-uri")
	must(t, os.WriteFile(database, []byte(uri), 0o600))
	c.Config(t)
	wantRun(t, 0, `GRANT SELECT, INSERT ON "audit_events" TO`, "migrate", "--config", migrated(t, c, role), "--server-role", role, "--print-grants")
	u, err := url.Parse(uri)
	must(t, err)
	u.User = url.UserPassword(role, "s")
	must(t, os.WriteFile(database, []byte(u.String()), 0o600))
	c.Database = u.String()
	c.Start(t)
	alice := c.Signup(t, "alice")
	alice.Conn.Close()
	wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", c.ConfigFile())
	a, err := server.OpenAudit(t.Context(), c.Config(t))
	must(t, err)
	defer a.Store.Close()
	old := time.Now().Add(-500 * 24 * time.Hour)
	for i := range 2 {
		must(t, a.Store.WriteAudit(t.Context(), audit.AdminRefused(audit.ReasonInvalidToken).At(old)))
		_, err := a.Store.CheckpointAudit(t.Context(), old.Add(time.Duration(i)*time.Hour))
		must(t, err)
	}
	wantRun(t, 1, store.ErrNotOwner.Error(), "audit", "prune", "--config", c.ConfigFile())
}

func migrated(t *testing.T, c *celltest.Cell, role string) string {
	t.Helper()
	wantRun(t, 0, "", "migrate", "--config", c.ConfigFile(), "--server-role", role)
	return c.ConfigFile()
}

// celltestRole makes a role that goes with the test.
func celltestRole(t *testing.T, uri string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), uri)
	must(t, err)
	role := conn.Config().Database + "_cell"
	_, err = conn.Exec(t.Context(), fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 's'`, role))
	must(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		for _, sql := range []string{`REASSIGN OWNED BY %s TO CURRENT_USER`, `DROP OWNED BY %s`, `DROP ROLE %s`} {
			_, err := conn.Exec(ctx, fmt.Sprintf(sql, role))
			must(t, err)
		}
		must(t, conn.Close(ctx))
	})
	return role
}

// Killed with SIGKILL while it writes, again and again: what is left verifies, and goes on.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	c, a, _ := logged(t)
	before := 0
	for range 3 {
		p := celltest.RunSelf(t, patience, []string{asWriter + "=" + c.ConfigFile(), "QPQ_DATABASE_URI="})
		for end := time.Now().Add(patience); !strings.Contains(p.Printed(), "100"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it does not write:\n%s", p.Printed())
			}
		}
		must(t, p.Process.Signal(syscall.SIGKILL))
		p.Exit(t)
		if _, err := a.Store.CheckpointAudit(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		out := wantRun(t, 0, "the audit log is sound", "audit", "verify", "--config", c.ConfigFile())
		var now int
		if _, err := fmt.Sscanf(out, "%d rows", &now); err != nil || now < before+100 {
			t.Errorf("%d rows before; nothing was written, %v:\n%s", before, err, out)
		}
		before = now
	}
}

// asWriter makes the test binary one that writes events until it is killed.
const asWriter = "QPQ_TEST_WRITE_AUDIT"

func write(config string) {
	c, err := server.LoadConfig(config)
	if err != nil {
		panic(err)
	}
	a, err := server.OpenAudit(context.Background(), c)
	if err != nil {
		panic(err)
	}
	for n := 0; ; n++ {
		if n == 100 {
			fmt.Println("100")
		}
		go func() { _ = a.Store.WriteAudit(context.Background(), audit.AdminRefused(audit.ReasonInvalidToken)) }()
		if err := a.Store.WriteAudit(context.Background(), audit.AdminRefused(audit.ReasonInvalidToken), audit.ChainEnded()); err != nil {
			panic(err)
		}
	}
}
