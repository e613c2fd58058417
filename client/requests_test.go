package client

import (
	"context"
	"errors"
	"testing"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// A request is shown under the name that the cell gives, unless another account is known by it; it makes nobody trusted.
func TestRequestsToWrite(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	c := a.makeDevice(t)
	know(t, c, b)
	inbox, stranger := c.self.DeviceID, ids.New()
	answers := map[ids.ID]*wire.Account{b.AccountID: {AccountID: b.AccountID, Name: "bob", RootKey: b.RootKey}}
	cell := &directory{answers: answers}
	take := func(seq uint64, kind wire.NoticeKind, account ids.ID) error {
		_, _, err := c.notice(t.Context(), cell, 1, notice(t, seq, inbox, wire.Notice{Kind: kind, AccountID: account}))
		return err
	}
	shown := func() (got []Message) {
		t.Helper()
		if err := c.showChannel(t.Context(), inbox, func(m Message) error { got = append(got, m); return nil }); err != nil {
			t.Fatal(err)
		}
		return got
	}

	cell.fails = &conn.LostError{Cause: errors.New("gone")}
	if err := take(1, wire.NoticeContactRequested, stranger); !conn.Transient(err) {
		t.Errorf("without the cell: %v", err)
	}
	cell.fails = nil
	if err := take(1, wire.NoticeContactRequested, stranger); err != nil || len(shown()) != 0 { // There is none such.
		t.Errorf("of nobody: %v", err)
	}
	answers[stranger] = &wire.Account{AccountID: stranger, Name: "bob", RootKey: a.RootKey}
	if err := take(2, wire.NoticeContactRequested, stranger); err != nil || len(shown()) != 0 {
		t.Errorf("under a friend's name: %v", err)
	}
	answers[stranger].Name = "carol"
	for i, x := range []struct {
		kind    wire.NoticeKind
		account ids.ID
		want    string
		as      NoticeKind
	}{
		{wire.NoticeContactRequested, stranger, "carol", ContactAsks},
		{wire.NoticeContactRequested, b.AccountID, "bob", ContactAsks},
		{wire.NoticeContactAccepted, b.AccountID, "bob", ContactAccepts},
	} {
		if err := take(uint64(3+i), x.kind, x.account); err != nil {
			t.Fatal(err)
		}
		if got := shown(); len(got) != 1 || got[0].From != x.want || got[0].Notice.Kind != x.as || got[0].Account != x.account || got[0].Notice.Own {
			t.Errorf("%d: %+v", i, got)
		}
	}
	known, _, err := get[contactsRecord](t.Context(), c.store, contactsName)
	if _, trusted := known.Accounts[stranger]; err != nil || trusted || len(known.Accounts) != 1 {
		t.Errorf("%+v, %v", known, err)
	}
}

// directory answers requests for accounts.
type directory struct {
	answers map[ids.ID]*wire.Account
	fails   error
}

func (d *directory) Call(_ context.Context, req wire.Request) (wire.Response, error) {
	r, ok := req.(*wire.GetAccountRequest)
	switch {
	case d.fails != nil:
		return nil, d.fails
	case !ok:
		return nil, errors.New("another request")
	case d.answers[r.AccountID] == nil:
		return nil, wire.Errorf(wire.CodeNotFound, "no such account")
	}
	return d.answers[r.AccountID], nil
}
