package e2elocal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/client"
	"quicproquo.dev/client/keystore"
	"quicproquo.dev/schema/ids"
)

// eventually waits for what the cell does after its answer.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// readsNotice reads until a notice of a kind about somebody came; what else is read is returned.
func (p *person) readsNotice(kind client.NoticeKind, about string) (others []client.Message) {
	p.t.Helper()
	eventually(p.t, string(kind)+" of "+about, func() (found bool) {
		err := p.Read(p.t.Context(), false, func(m client.Message) error {
			if m.Notice != nil && m.Notice.Kind == kind && m.From == about {
				found = true
			} else {
				others = append(others, m)
			}
			return nil
		})
		if err != nil {
			p.t.Fatalf("%s reads: %v", p.name, err)
		}
		return found
	})
	return others
}

func TestDeleteAccount(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	tablet := c.login("alice")
	alice.dm(bob, "before bob knows")
	bob.expect("before bob knows")
	bob.dm(alice, "an answer")
	alice.dm(bob, "unread when she leaves")
	alice.Close()

	if err := client.DeleteAccount(t.Context(), alice.opts, "Alice"); !errors.Is(err, client.ErrNotName) {
		t.Errorf("under another name: %v", err)
	}
	wrong := alice.opts
	wrong.Passphrase = []byte("wrong")
	if err := client.DeleteAccount(t.Context(), wrong, "alice"); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("by another passphrase: %v", err)
	}
	if err := client.DeleteAccount(t.Context(), alice.opts, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alice.opts.Profile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the profile: %v", err)
	}
	if err := client.DeleteAccount(t.Context(), alice.opts, "alice"); !errors.Is(err, keystore.ErrNoProfile) {
		t.Errorf("once more: %v", err)
	}

	// Her other device is shut out; bob is told, reads what he had not, and cannot write.
	if err := tablet.Read(t.Context(), false, func(client.Message) error { return nil }); err == nil {
		t.Error("another device of the account reads on")
	}
	others := bob.readsNotice(client.AccountDeleted, "alice")
	checkTexts(t, "bob", others, "unread when she leaves")
	if len(others) == 1 && others[0].From != "alice" {
		t.Errorf("it is from %q", others[0].From)
	}
	if _, err := bob.SendDM(t.Context(), "alice", "too late"); !errors.Is(err, client.ErrGone) || client.Code(err) != "notFound" {
		t.Errorf("bob writes: %v", err)
	}

	// The name is free. Bob does not take its next owner for her.
	next := c.signup("alice")
	var changed *client.RootKeyChangedError
	if _, err := bob.SendDM(t.Context(), "alice", "is that you?"); !errors.As(err, &changed) || changed.Account != next.Whoami().AccountID {
		t.Fatalf("bob writes to the next alice: %v", err)
	}
	k, err := bob.TrustNewKey(t.Context(), "alice")
	if err != nil || k == nil || bytes.Equal(k.Old, k.New) {
		t.Fatalf("bob accepts her: %+v, %v", k, err)
	}
	bob.dm(next, "hello, another alice")
	next.expect("hello, another alice")
	next.dm(bob, "hello bob")
	bob.expect("hello bob")
	if again, err := bob.TrustNewKey(t.Context(), "alice"); err != nil || again != nil {
		t.Errorf("accepted twice: %+v, %v", again, err)
	}
}

// While the account is there, its name cannot be another's: a cell that says so is not believed, whatever its person accepts.
func TestNobodyElseIsTakenForAContactWhoIsThere(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	bob.dm(alice, "hello")
	if k, err := bob.TrustNewKey(t.Context(), "alice"); err != nil || k != nil {
		t.Errorf("%+v, %v", k, err)
	}
}

// An account that is logged out, or of whose deletion the answer was lost, is deleted all the same.
func TestDeleteAccountIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	if err := alice.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.deleteUnanswered(alice); err == nil {
		t.Fatal("it succeeded without an answer")
	}
	if _, err := os.Stat(filepath.Join(alice.opts.Profile, "profile")); err != nil {
		t.Fatalf("the profile is gone before the cell has said so: %v", err)
	}
	if err := client.DeleteAccount(t.Context(), alice.opts, "alice"); err != nil {
		t.Fatalf("again: %v", err)
	}
	if _, err := os.Stat(alice.opts.Profile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the profile: %v", err)
	}
	c.signup("alice")
}

// deleteUnanswered has the cell delete an account while its answers get lost.
func (c *cell) deleteUnanswered(p *person) error {
	c.t.Helper()
	ctx, giveUp := context.WithCancel(c.t.Context())
	defer giveUp()
	db, err := pgx.Connect(ctx, c.database())
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(ctx))
	count := func(sql string) (n int) {
		if err := db.QueryRow(ctx, sql).Scan(&n); err != nil {
			c.t.Fatal(err)
		}
		return n
	}
	if _, err := db.Exec(ctx, `BEGIN; SELECT FROM accounts FOR KEY SHARE`); err != nil { // It waits here.
		c.t.Fatal(err)
	}
	through := c.makeProxy()
	o := p.opts
	o.Endpoint = through.addr
	done := make(chan error, 1)
	go func() { done <- client.DeleteAccount(ctx, o, p.name) }()
	eventually(c.t, "the request", func() bool {
		return count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
	through.loseAnswers.Store(true)
	if _, err := db.Exec(ctx, `COMMIT`); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, "the deletion", func() bool { return count(`SELECT count(*) FROM accounts WHERE deleting_at IS NULL`) == 0 })
	giveUp()
	return <-done
}

// disable shuts an account out or lets it in again, and returns its id.
func (c *cell) disable(name string, disabled bool) ids.ID {
	c.t.Helper()
	admin := c.admin()
	a, err := admin.AccountForAdmin(c.t.Context(), name, ids.ID{})
	if err == nil {
		err = admin.SetDisabled(c.t.Context(), a.AccountID, disabled, audit.ByAdmin("test"))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return a.AccountID
}

// A profile whose passphrase is the account's no more deletes nothing, on either side.
func TestDeleteAccountNeedsThePresentPassphrase(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice := c.signup("alice")
	tablet := c.login("alice")
	if err := tablet.ChangePassword(t.Context(), []byte("another"), false); err != nil {
		t.Fatal(err)
	}
	if err := client.DeleteAccount(t.Context(), alice.opts, "alice"); !errors.Is(err, client.ErrPasswordChanged) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(alice.opts.Profile, "profile")); err != nil {
		t.Errorf("the profile: %v", err)
	}
	c.signup("bob").dm(alice, "you are there still")
}

func TestExportAccount(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.dm(bob, "secret words")
	var out bytes.Buffer
	n, err := alice.ExportAccount(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for line := range bytes.Lines(out.Bytes()) {
		var o struct{ Type string }
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		types[o.Type]++
		n--
	}
	if n != 0 || types["account"] != 1 || types["device"] != 1 || types["channel"] != 1 || types["messageSent"] != 1 || types["auditEvent"] < 3 {
		t.Errorf("%d lines too many, of %v", n, types)
	}
	text := out.String()
	for _, other := range []string{`"bob"`, "secret words", password} {
		if strings.Contains(text, other) {
			t.Errorf("it has %q", other)
		}
	}
	for _, own := range []string{`"name":"alice"`, alice.Whoami().AccountID.String(), alice.Whoami().DeviceID.String(), bob.Whoami().AccountID.String()} {
		if !strings.Contains(text, own) {
			t.Errorf("it lacks %s", own)
		}
	}
	failing := errors.New("the disk is full")
	if _, err := alice.ExportAccount(t.Context(), failingWriter{failing}); !errors.Is(err, failing) {
		t.Errorf("a disk that is full: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestProgramAccount(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	alice.ok("dm", "bob", "hello", "--json")
	bob.ok("read", "--json")
	file := filepath.Join(t.TempDir(), "copy.jsonl")
	got := alice.ok("account", "export", file, "--json")[0]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got["lines"] != float64(bytes.Count(b, []byte("\n"))) || len(objects(t, string(b))) < 5 {
		t.Errorf("export prints %v, and writes\n%s", got, b)
	}
	if exit, _, errs := alice.run("account", "export", file); exit != 2 || !strings.Contains(errs, "is there already") {
		t.Errorf("over a file: exit %d, %q", exit, errs)
	}
	if exit, out, _ := alice.run("account", "export", "-"); exit != 0 || len(objects(t, out)) < 5 {
		t.Errorf("to standard output: exit %d, %q", exit, out)
	}

	alice.fails("wrongName", "account", "delete", "--yes", "bob")
	alice.as("QPQ_PASSPHRASE=wrong").fails("wrongPassphrase", "account", "delete", "--yes", "alice")
	if got := alice.ok("account", "delete", "--yes", "alice", "--json")[0]; got["deleted"] != true || got["name"] != "alice" {
		t.Errorf("delete prints %v", got)
	}
	alice.fails("noProfile", "whoami")
	alice.fails("noProfile", "account", "delete", "--yes", "alice")
	eventually(t, "the notice", func() bool {
		_, out, _ := bob.run("read", "--json")
		return strings.Contains(out, `"notice":"accountDeleted"`) && strings.Contains(out, `"name":"alice"`)
	})
	bob.fails("notFound", "dm", "alice", "are you there?")
	alice.signup("alice")
	bob.fails("rootKeyChanged", "dm", "alice", "are you there?")
	bob.ok("trust", "alice", "--json")
	bob.ok("dm", "alice", "are you there?", "--json")
	if got := alice.ok("read", "--json"); len(got) != 1 || got[0]["text"] != "are you there?" {
		t.Errorf("the next alice reads %v", got)
	}
}

// A disabled account is told so, by people's words, and goes on when it is enabled again.
func TestDisabledAccount(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	bob.ok("dm", "alice", "one", "--json")
	id := c.disable("alice", true)
	eventually(t, "alice is shut out", func() bool { exit, _, _ := alice.run("devices"); return exit != 0 }) // It takes nothing, as a read would.
	alice.fails("accountDisabled", "read")
	alice.fails("accountDisabled", "login", "alice")
	fresh := c.user()
	fresh.fails("accountDisabled", fresh.at("login", "alice")...)
	bob.ok("dm", "alice", "two", "--json") // It waits for her.
	if got := c.disable("alice", false); got != id {
		t.Fatal("another account")
	}
	eventually(t, "alice is let in", func() bool { exit, _, _ := alice.run("devices"); return exit == 0 }) // A server learns of it within half a second.
	got := alice.ok("read", "--json")
	if len(got) != 2 || got[0]["text"] != "one" || got[1]["text"] != "two" {
		t.Errorf("she reads %v", got)
	}
}
