package e2elocal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/client"
	"quicproquo.dev/schema/wire"
)

func asking(p *policy.Policy) { p.Contacts = policy.ContactsRequest }

// pends sends a text that must wait.
func (p *person) pends(to *person, text string) {
	p.t.Helper()
	_, err := p.SendDM(p.t.Context(), to.name, text)
	var waits *client.PendingError
	if !errors.As(err, &waits) || waits.Name != to.name || client.Code(err) != "contactPending" {
		p.t.Fatalf("%s to %s: %v", p.name, to.name, err)
	}
}

// contact is how a person stands to another.
func (p *person) contact(to *person) client.ContactState {
	p.t.Helper()
	list, err := p.Contacts(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range list {
		if c.Name == to.name {
			return c.State
		}
	}
	return ""
}

// What is written to a stranger waits, in order, and comes once after the acceptance, with what is written then.
func TestTextsWaitForAnAcceptance(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.pends(bob, "one")
	alice.pends(bob, "two")
	alice.again().pends(bob, "three")
	alice.expect()
	bob.expect()
	if a, b := alice.contact(bob), bob.contact(alice); a != client.ContactRequested || b != client.ContactAsked {
		t.Fatalf("%s, %s", a, b)
	}
	if err := bob.AcceptContact(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	alice.dm(bob, "four")
	bob.expect("one", "two", "three", "four")
	bob.dm(alice, "five")
	alice.expect("five")
}

// Reading sends what waited, once, though many do it at once.
func TestReadingSendsWhatWaited(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.signup("alice"), c.signup("bob")
	for i := range 5 {
		alice.pends(bob, fmt.Sprint(i))
	}
	if err := bob.AcceptContact(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 3 {
		other := alice.again()
		all.Go(func() {
			if err := other.Read(t.Context(), false, func(client.Message) error { return nil }); err != nil && !errors.Is(err, client.ErrReplaced) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	bob.expect("0", "1", "2", "3", "4")
}

// Both write first: neither waits for ever.
func TestBothWriteFirst(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.pends(bob, "hello bob")
	bob.dm(alice, "hello alice")
	alice.expect("hello alice")
	alice.expect()
	bob.expect("hello bob")
}

func TestABlockedContactIsPending(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.signup("alice"), c.signup("bob")
	alice.pends(bob, "before")
	if err := bob.BlockContact(t.Context(), "alice", true); err != nil {
		t.Fatal(err)
	}
	alice.pends(bob, "after")
	alice.expect()
	if err := bob.BlockContact(t.Context(), "alice", false); err != nil {
		t.Fatal(err)
	}
	alice.pends(bob, "asks again")
	if err := bob.AcceptContact(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	alice.expect()
	bob.expect("before", "after", "asks again")
	if err := bob.BlockContact(t.Context(), "alice", true); err != nil {
		t.Fatal(err)
	}
	alice.pends(bob, "in the outbox")
	alice.expect() // Reading goes on.
	if err := bob.BlockContact(t.Context(), "alice", false); err != nil {
		t.Fatal(err)
	}
	alice.expect()
	bob.expect("in the outbox")
	for name, err := range map[string]error{"nobody": bob.AcceptContact(t.Context(), "nobody"), "bob": bob.AcceptContact(t.Context(), "bob")} {
		if !wire.HasCode(err, wire.CodeNotFound) && !errors.Is(err, client.ErrSelf) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQpqContacts(t *testing.T) {
	t.Parallel()
	c := makeCell(t, asking)
	alice, bob := c.user().signup("alice"), c.user().signup("bob")
	if code, out, errs := alice.run("dm", "bob", "hello"); code != 0 || errs != "" || !strings.HasPrefix(out, "pending: bob") {
		t.Errorf("exit %d: %q, %q", code, out, errs)
	}
	if got := alice.ok("--json", "dm", "bob", "again")[0]; got["pending"] != true || got["to"] != "bob" {
		t.Errorf("%v", got)
	}
	state := func(u *user, want string) {
		t.Helper()
		list := u.ok("--json", "contacts", "list")
		if len(list) != 1 || list[0]["state"] != want {
			t.Errorf("%v, want %s", list, want)
		}
	}
	state(alice, "requested")
	state(bob, "asked")
	if _, out, _ := bob.run("contacts"); !strings.HasPrefix(out, "asked      alice  since ") {
		t.Errorf("%q", out)
	}
	for verb, after := range map[string]string{"accept": "accepted"} {
		bob.ok("--json", "contacts", verb, "alice")
		state(bob, after)
	}
	alice.ok("--json", "read")
	got := bob.ok("--json", "read")
	if len(got) != 3 || got[0]["notice"] != "contactRequested" || got[1]["text"] != "hello" || got[2]["text"] != "again" {
		t.Errorf("%v", got)
	}
	bob.ok("--json", "contacts", "block", "alice")
	state(bob, "blocked")
	bob.ok("--json", "contacts", "unblock", "alice")
	state(bob, "accepted")
	for _, args := range [][]string{{"contacts", "accept"}, {"contacts", "allow", "alice"}, {"contacts", "list", "alice"}} {
		if code, _, errs := bob.run(args...); code != 2 || errs == "" {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
}
