package mls

import (
	"bytes"
	"testing"
)

// A proposal without anything random in it, made twice, is one proposal: the
// signatures are equal, and so are the messages.
func TestProposedTwice(t *testing.T) {
	t.Parallel()
	peers := newGroup(t, 4)
	a, b := peers[0], peers[1]
	target := LeafIndex(3)
	var messages [2][]byte
	for i := range messages {
		m, err := a.Propose(ProposeOptions{Remove: &target})
		if err != nil {
			t.Fatal(err)
		}
		messages[i] = m
		a.Group = reload(t, a.Group)
	}
	if !bytes.Equal(messages[0], messages[1]) {
		t.Fatal("two messages: the test is about equal ones")
	}
	if n := len(a.cur.received); n != 1 {
		t.Errorf("%d proposals are kept, want 1", n)
	}
	b.mustProcess(t, messages[0])
	peers[2].mustProcess(t, messages[0])
	c := a.mustCommit(t, CommitOptions{})
	spread(t, peers[:3], a, c)
	wantAgreement(t, peers[:3])
	if len(a.Members()) != 3 {
		t.Errorf("%d members, want 3", len(a.Members()))
	}
}
