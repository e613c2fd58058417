package e2elocal

import (
	"testing"
	"time"

	"quicproquo.dev/client"
)

// Whoever follows is told of requests and acceptances, and what waited is sent at once, without another call: not when it is
// tried every 15 seconds anyway.
func TestAnAcceptanceSendsWhatWaited(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.signup("alice"), c.signup("bob")
	mine, theirs := alice.follow(), bob.follow()
	begun := time.Now()
	writer := alice.again()
	writer.pends(bob, "one")
	if m := theirs.notice(); m.Notice.Kind != client.ContactAsks || m.From != "alice" || m.Notice.Own || m.Account != alice.Whoami().AccountID {
		t.Errorf("bob is told %+v, %+v", m, m.Notice)
	}
	writer.pends(bob, "two")
	if err := bob.again().AcceptContact(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	theirs.expect("one", "two")
	took := time.Since(begun)
	t.Logf("the texts had come %v after following began", took)
	if took > 14*time.Second {
		t.Error("too late to tell whether the notice did it")
	}
	if m := mine.notice(); m.Notice.Kind != client.ContactAccepts || m.From != "bob" {
		t.Errorf("alice is told %+v, %+v", m, m.Notice)
	}
	mine.stop()
	theirs.stop()
	bob.expect()
}

// Without anybody who follows, the sender's next command of any kind that reads or writes sends it, once.
func TestTheNextCommandSendsWhatWaited(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	if code, out, _ := alice.run("dm", "bob", "hello"); code != 0 || out == "" {
		t.Fatalf("exit %d, %q", code, out)
	}
	if got := bob.ok("--json", "read"); len(got) != 1 || got[0]["notice"] != "contactRequested" || got[0]["name"] != "alice" {
		t.Errorf("bob reads %v", got)
	}
	bob.ok("--json", "contacts", "accept", "alice")
	if got := alice.ok("--json", "read"); len(got) != 1 || got[0]["notice"] != "contactAccepted" || got[0]["name"] != "bob" {
		t.Errorf("alice reads %v", got)
	}
	if got := bob.ok("--json", "read"); len(got) != 1 || got[0]["text"] != "hello" {
		t.Errorf("bob reads %v", got)
	}
	alice.ok("--json", "read")
	if got := bob.ok("--json", "read"); len(got) != 0 {
		t.Errorf("once more: %v", got)
	}
}
