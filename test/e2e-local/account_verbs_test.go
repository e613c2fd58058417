package e2elocal

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/schema/codes"
)

// as is the same user's program with other environment variables.
func (u *user) as(env ...string) *user {
	v := *u
	v.env = env
	return &v
}

// with adds to the environment.
func (u *user) with(env ...string) *user { return u.as(append(slices.Clone(u.env), env...)...) }

// fails runs and expects an error of a code.
func (u *user) fails(code string, args ...string) {
	u.t.Helper()
	exit, out, errs := u.run(append(args, "--json")...)
	list := objects(u.t, errs)
	if exit != 1 || out != "" || len(list) != 1 {
		u.t.Errorf("qpq %v: exit %d, %q, %q", args, exit, out, errs)
		return
	}
	if e, _ := list[0]["error"].(map[string]any); e["code"] != code || e["message"] == "" {
		u.t.Errorf("qpq %v: %v, want the code %s", args, e, code)
	}
}

func texts(t *testing.T, list any) []string {
	t.Helper()
	var out []string
	items, _ := list.([]any)
	for _, c := range items {
		text, _ := c.(string)
		if _, err := codes.Parse(codes.Recovery, text); err != nil {
			t.Errorf("%q is no recovery code", text)
		}
		out = append(out, text)
	}
	return out
}

// at adds where the cell is to a command.
func (u *user) at(args ...string) []string {
	u.cell.write("ca.pem", u.cell.ca.CertPEM())
	return append(args, "--cell", u.cell.addr, "--ca", u.cell.path("ca.pem"))
}

func TestProgramPasswords(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user(), c.user().signup("bob")
	me := alice.ok(alice.at("signup", "alice", "--recovery-codes", "--json")...)[0]
	recovery := texts(t, me["recoveryCodes"])
	if len(recovery) != 8 {
		t.Fatalf("%d recovery codes: %v", len(recovery), me)
	}
	bob.ok("dm", "alice", "one", "--json")

	alice.as("QPQ_NEW_PASSPHRASE=").fails("emptyPassphrase", "passwd")
	changing := alice.as("QPQ_NEW_PASSPHRASE=second")
	if got := changing.ok("passwd", "--json")[0]; got["changed"] != true || got["otherSessionsEnded"] != false {
		t.Errorf("passwd prints %v", got)
	}
	alice.fails("wrongPassphrase", "whoami")
	second := alice.as("QPQ_PASSPHRASE=second")
	if got := second.ok("read", "--json"); len(got) != 1 || got[0]["text"] != "one" {
		t.Errorf("read prints %v", got)
	}

	// A laptop whose profile still has the second one when the account has the third.
	laptop := c.user().as("QPQ_PASSPHRASE=second")
	laptop.ok(laptop.at("login", "alice", "--json")...)
	second.as("QPQ_PASSPHRASE=second", "QPQ_NEW_PASSPHRASE=third").ok("passwd", "--end-other-sessions", "--json")
	laptop.fails("invalidCredentials", "recover-codes")
	laptop.as("QPQ_PASSPHRASE=second", "QPQ_NEW_PASSPHRASE=wrong").fails("invalidCredentials", "login", "alice")
	laptop.as("QPQ_PASSPHRASE=second", "QPQ_NEW_PASSPHRASE=third").ok("login", "alice", "--json")
	third := laptop.as("QPQ_PASSPHRASE=third")
	fresh := texts(t, third.ok("recover-codes", "--json")[0]["recoveryCodes"])
	if len(fresh) != 8 {
		t.Errorf("%d fresh codes", len(fresh))
	}

	// Everything is lost but the codes.
	phone := c.user().as("QPQ_PASSPHRASE=fourth")
	phone.with("QPQ_CODE="+recovery[0]).fails("invalidCredentials", phone.at("recover", "alice")...) // Replaced.
	phone.with("QPQ_CODE=no code").fails("invalidCode", phone.at("recover", "alice")...)
	if got := phone.with("QPQ_CODE=" + strings.ToLower(fresh[3])).ok(phone.at("recover", "alice", "--json")...)[0]; got["account"] != me["account"] || got["name"] != "alice" {
		t.Errorf("recover prints %v", got)
	}
	again := c.user().as("QPQ_PASSPHRASE=fifth", "QPQ_CODE="+fresh[3])
	again.fails("invalidCredentials", again.at("recover", "alice")...)
	bob.ok("dm", "alice", "two", "--json") // Bob sees no change.

	if got := phone.ok("logout", "--json")[0]; got["loggedOut"] != true {
		t.Errorf("logout prints %v", got)
	}
	phone.fails("loggedOut", "whoami")
	phone.ok("login", "alice", "--json")
	phone.ok("whoami", "--json")
	if code, out, _ := third.as("QPQ_PASSPHRASE=third").run("logout"); code != 0 || !strings.Contains(out, "qpq login alice") {
		t.Errorf("logout for people: exit %d, %q", code, out)
	}
}

func TestProgramInvitation(t *testing.T) {
	t.Parallel()
	c := makeCell(t, func(p *policy.Policy) { p.Signup = policy.SignupInvitation })
	code, _, err := c.admin().Invite(t.Context(), time.Hour, audit.ByAdmin("test"))
	if err != nil {
		t.Fatal(err)
	}
	alice := c.user()
	alice.with("QPQ_CODE=").fails("invalidInvitation", alice.at("signup", "alice")...)
	alice.with("QPQ_CODE=nonsense").fails("invalidCode", alice.at("signup", "alice")...)
	alice.with("QPQ_CODE="+codes.New().Format(codes.Invitation)).fails("invalidInvitation", alice.at("signup", "alice")...)
	alice.ok(alice.at("signup", "alice", "--json", "--invite", code)...)
	bob := c.user()
	bob.with("QPQ_CODE="+code).fails("invalidInvitation", bob.at("signup", "bob")...)
	bob.fails("invalidInvitation", bob.at("signup", "bob", "--invite", code)...)
	if _, err := os.Stat(bob.profile); err == nil {
		t.Error("a refused signup left a profile behind")
	}
}

func TestProgramReset(t *testing.T) {
	t.Parallel()
	c := makeCell(t)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	bob.ok("dm", "alice", "hello", "--json")
	code, _, err := c.admin().ResetCode(t.Context(), "alice", time.Hour, audit.ByOperator())
	if err != nil {
		t.Fatal(err)
	}
	fresh := c.user().as("QPQ_PASSPHRASE=new")
	fresh.with("QPQ_CODE=" + code).ok(fresh.at("reset", "alice", "--json")...)
	bob.fails("rootKeyChanged", "dm", "alice", "secret")
	exit, out, errs := bob.run("read")
	if exit != 0 || !strings.HasSuffix(out, "  * the cell says that alice started over with other keys\n") || strings.Count(errs, "WARNING") != 1 || !strings.Contains(errs, "qpq trust alice") {
		t.Errorf("read: exit %d, %q, %q", exit, out, errs)
	}
	if got := bob.ok("trust", "alice", "--json")[0]; got["changed"] != true || got["oldKey"] == got["newKey"] || got["newKey"] == "" {
		t.Errorf("trust prints %v", got)
	}
	if got := bob.ok("trust", "alice", "--json")[0]; got["changed"] != false {
		t.Errorf("trust prints %v", got)
	}
	bob.ok("dm", "alice", "welcome back", "--json")
	if got := fresh.ok("read", "--json"); len(got) != 1 || got[0]["text"] != "welcome back" {
		t.Errorf("read prints %v", got)
	}
	if _, err := os.Stat(alice.profile); err != nil {
		t.Error(err)
	}
}
