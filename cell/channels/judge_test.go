package channels

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"quicproquo.dev/cell/mlspolicy"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/mls"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// Each thing that the store says of a message has its answer, with what the client needs to go on.
func TestRefusals(t *testing.T) {
	t.Parallel()
	open, asking := policy.Default(), policy.Default()
	asking.Contacts = policy.ContactsRequest
	device, unknown := ids.New(), errors.New("the disk is on fire")
	for _, x := range []struct {
		err     error
		policy  *policy.Policy
		code    wire.Code
		details map[string]string
	}{
		{&store.EpochError{Generation: 3, Epoch: 1<<63 + 5, Seq: 42}, open, wire.CodeEpochConflict, map[string]string{"generation": "3", "epoch": "9223372036854775813", "seq": "42"}},
		{fmt.Errorf("storing: %w", &store.RemoveFirstError{Device: device}), open, wire.CodeRemoveFirst, map[string]string{"device": device.String()}},
		{store.ErrMuted, open, wire.CodePermissionDenied, nil},
		{store.ErrMuted, asking, wire.CodeContactPending, nil},
		{store.ErrDeliveryIDReused, open, wire.CodeDeliveryIDReused, nil},
		{store.ErrNotFound, open, wire.CodeNotFound, nil},
		{store.ErrRevoked, open, wire.CodePermissionDenied, nil},
		{store.ErrClosed, open, wire.CodeNotFound, map[string]string{"reason": "accountDeleted"}},
		{store.ErrMoved, open, wire.CodeBusy, nil},
	} {
		var e *wire.Error
		if !errors.As(Refusal(x.err, x.policy, ids.New(), ids.New()), &e) || e.Code != x.code || len(e.Details) != len(x.details) {
			t.Errorf("%v: %+v", x.err, e)
			continue
		}
		for _, d := range e.Details {
			if x.details[d.Key] != d.Value {
				t.Errorf("%v: %s is %q, want %q", x.err, d.Key, d.Value, x.details[d.Key])
			}
		}
	}
	if err := Refusal(nil, open, ids.New(), ids.New()); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	if err := Refusal(unknown, open, ids.New(), ids.New()); !errors.Is(err, unknown) {
		t.Errorf("of another error: %v", err)
	}
}

// How two accounts stand, as one of them may know it.
func TestContactStates(t *testing.T) {
	t.Parallel()
	open, asking := policy.Default(), policy.Default()
	asking.Contacts = policy.ContactsRequest
	me, other := ids.New(), ids.New()
	for _, x := range []struct {
		what         string
		c            store.Contact
		asking, open wire.ContactState
		mayWrite     [2]bool // Where contacts are asked for, and where not.
	}{
		{"strangers", store.Contact{}, wire.ContactNone, wire.ContactAccepted, [2]bool{false, true}},
		{"I have asked", store.Contact{State: store.ContactAsked, Asker: me}, wire.ContactRequested, wire.ContactRequested, [2]bool{false, true}},
		{"I was asked", store.Contact{State: store.ContactAsked, Asker: other}, wire.ContactAsked, wire.ContactAsked, [2]bool{false, true}},
		{"accepted", store.Contact{State: store.ContactAccepted}, wire.ContactAccepted, wire.ContactAccepted, [2]bool{true, true}},
		{"I block", store.Contact{State: store.ContactAccepted, Blocks: true}, wire.ContactBlocked, wire.ContactBlocked, [2]bool{true, true}},
		{"I am blocked", store.Contact{State: store.ContactAccepted, IsBlocks: true}, wire.ContactRequested, wire.ContactRequested, [2]bool{false, false}},
		{"I have asked and am blocked", store.Contact{State: store.ContactAsked, Asker: me, IsBlocks: true}, wire.ContactRequested, wire.ContactRequested, [2]bool{false, false}},
		{"a stranger blocks me", store.Contact{IsBlocks: true}, wire.ContactNone, wire.ContactAccepted, [2]bool{false, false}},
		{"both block", store.Contact{State: store.ContactAccepted, Blocks: true, IsBlocks: true}, wire.ContactBlocked, wire.ContactBlocked, [2]bool{false, false}},
	} {
		x.c.Other = other
		if a, o := contactState(&x.c, asking), contactState(&x.c, open); a != x.asking || o != x.open {
			t.Errorf("%s: %v where contacts are asked for, else %v; want %v, %v", x.what, a, o, x.asking, x.open)
		}
		if got := [2]bool{x.c.MayWrite(true), x.c.MayWrite(false)}; got != x.mayWrite {
			t.Errorf("%s: may write %v, want %v", x.what, got, x.mayWrite)
		}
	}
}

// The last admin does not leave by its own will.
func TestKeepAdmin(t *testing.T) {
	t.Parallel()
	admin, other, member := ids.New(), ids.New(), ids.New()
	one := map[ids.ID]store.Role{admin: store.RoleAdmin, member: store.RoleMember}
	two := map[ids.ID]store.Role{admin: store.RoleAdmin, other: store.RoleAdmin, member: store.RoleMember}
	set := func(list ...ids.ID) map[ids.ID]bool {
		m := map[ids.ID]bool{}
		for _, id := range list {
			m[id] = true
		}
		return m
	}
	for _, x := range []struct {
		what            string
		members         map[ids.ID]store.Role
		leaves, willing map[ids.ID]bool
		joins           map[ids.ID]bool
		kept            bool
	}{
		{"a member leaves", one, set(member), set(member), nil, true},
		{"the last admin leaves", one, set(admin), set(admin), nil, false},
		{"one of two admins leaves", two, set(admin), set(admin), nil, true},
		{"both admins leave", two, set(admin, other), set(admin, other), nil, false},
		{"the last admin's devices are all revoked", one, set(admin), set(), nil, true},
		{"everybody leaves", one, set(admin, member), set(admin, member), nil, true},
		{"everybody leaves, and somebody comes", one, set(admin, member), set(admin, member), set(other), false},
	} {
		e := &effects{h: &store.GroupHead{Members: x.members}, leaves: x.leaves, joins: x.joins}
		if err := e.keepAdmin(x.willing); x.kept != (err == nil) {
			t.Errorf("%s: %v", x.what, err)
		}
	}
}

// The cache gives out a state only for the epoch and the proposals that the database has, and keeps its bounds.
func TestTheStateCache(t *testing.T) {
	t.Parallel()
	_, signer, err := ed25519.GenerateKey(nil)
	must(t, err)
	group, err := mls.CreateGroup(mls.GroupOptions{GroupID: []byte("group"), Credential: mls.BasicCredential([]byte("me")), Signer: signer})
	must(t, err)
	info, err := group.GroupInfo()
	must(t, err)
	m, err := mls.ParseMessage(info)
	must(t, err)
	public, err := mls.NewPublicGroup(m.GroupInfo, nil, nil)
	must(t, err)
	encoded, err := public.MarshalBinary()
	must(t, err)
	st, err := mlspolicy.OpenState(encoded, nil)
	must(t, err)
	c := newStateCache()
	channel := ids.New()
	c.put(channel, 2, st, 10)
	if c.get(channel, 2, 0, 0) != st {
		t.Fatal("it is not there")
	}
	if c.get(channel, 1, 0, 0) != nil || c.get(channel, 2, 1, 0) != nil || c.get(channel, 2, 0, 1) != nil || c.get(ids.New(), 2, 0, 0) != nil {
		t.Error("another state is given out")
	}
	c.put(channel, 2, st, 20)
	if c.bytes != 20 || c.order.Len() != 1 {
		t.Errorf("%d bytes in %d states", c.bytes, c.order.Len())
	}
	for range 2 * cachedStates {
		c.put(ids.New(), 1, st, 1)
		if c.get(channel, 2, 0, 0) == nil {
			t.Fatal("one that is used all the time is dropped")
		}
	}
	if c.order.Len() != cachedStates || len(c.entries) != cachedStates {
		t.Errorf("%d states", c.order.Len())
	}
	for range 5 {
		c.put(ids.New(), 1, st, cachedBytes/3)
	}
	if c.bytes > cachedBytes {
		t.Errorf("%d bytes", c.bytes)
	}
	c.put(ids.New(), 1, st, 2*cachedBytes) // Larger than all: it alone stays.
	if c.order.Len() != 1 {
		t.Errorf("%d states", c.order.Len())
	}
}
