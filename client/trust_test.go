package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"quicproquo.dev/client/conn"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestRootKeyIsTrustedOnFirstSight(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	c := a.makeDevice(t)
	know(t, c, b)
	know(t, c, b)
	for name, change := range map[string]func(*wire.Account){
		"other root key":              func(x *wire.Account) { x.RootKey = makeAccount(t, "x").RootKey },
		"other name":                  func(x *wire.Account) { x.Name = "carol" },
		"the name of another account": func(x *wire.Account) { x.AccountID = ids.New() },
		"own account, other root key": func(x *wire.Account) { x.AccountID = a.AccountID },
	} {
		changed := b.Account
		change(&changed)
		if err := c.remember(t.Context(), &changed); !isRootKeyChanged(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	know(t, c, b)
	know(t, c, makeAccount(t, "carol"))
}

// answering is a caller whose cell knows one account.
type answering struct {
	account wire.Account
	asked   int
}

func (a *answering) Call(_ context.Context, req wire.Request) (wire.Response, error) {
	a.asked++
	if r, ok := req.(*wire.GetAccountRequest); !ok || !strings.EqualFold(r.Name, a.account.Name) {
		return nil, wire.Errorf(wire.CodeNotFound, "no such account")
	}
	return &a.account, nil
}

// Who is known is not looked up for every message.
func TestAKnownNameIsNotLookedUp(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	c := a.makeDevice(t)
	cell := &answering{account: b.Account}
	for i, x := range []struct {
		name  string
		asked int
	}{{"bob", 1}, {"bob", 1}, {"BOB", 2}, {"bob", 2}} {
		if id, err := c.accountOf(t.Context(), cell, x.name); err != nil || id != b.AccountID || cell.asked != x.asked {
			t.Errorf("%d: %v, %v, asked %d times", i, id, err, cell.asked)
		}
	}
	if _, err := c.accountOf(t.Context(), cell, "carol"); !wire.HasCode(err, wire.CodeNotFound) {
		t.Error(err)
	}
}

func TestClaimedKeyPackageMustBeTheDevices(t *testing.T) {
	t.Parallel()
	a, b := makeAccount(t, "alice"), makeAccount(t, "bob")
	alice, bob := a.makeDevice(t), b.makeDevice(t)
	know(t, alice, b)
	message := func(c *Client) []byte {
		m, err := keyPackage(t, c).MarshalMessage()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	good := message(bob)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	expired, _, err := bob.makeKeyPackage(time.Now().Add(-2*time.Hour), time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	imposter := *b
	_, imposter.root, _ = ed25519.GenerateKey(nil)
	imposter.RootKey = imposter.root.Public().(ed25519.PublicKey)
	device := bob.self.DeviceID
	for name, tc := range map[string]struct {
		p  wire.ClaimedKeyPackage
		ok bool
	}{
		"good":           {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: good}, true},
		"other device":   {wire.ClaimedKeyPackage{DeviceID: ids.New(), KeyPackage: good}, false},
		"flipped":        {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: flipped}, false},
		"garbage":        {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: []byte("x")}, false},
		"expired":        {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: expired}, false},
		"other account":  {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: message(alice)}, false},
		"other root key": {wire.ClaimedKeyPackage{DeviceID: device, KeyPackage: message(imposter.makeDevice(t))}, false},
	} {
		_, err := alice.checkClaimed(t.Context(), &session{}, b.AccountID, tc.p)
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrappedRootKey(t *testing.T) {
	t.Parallel()
	a := makeAccount(t, "alice")
	exportKey := bytes.Repeat([]byte{1}, 64)
	wrapped, err := wrapRoot(a.root, exportKey, a.AccountID)
	if err != nil || len(wrapped) > wire.MaxWrappedKey {
		t.Fatalf("%d bytes, %v", len(wrapped), err)
	}
	got, err := unwrapRoot(wrapped, exportKey, a.AccountID)
	if err != nil || !got.Equal(a.root) {
		t.Fatalf("unwrapping: %v", err)
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := unwrapRoot(bad, exportKey, a.AccountID); err == nil {
			t.Errorf("a flip in byte %d goes unnoticed", i)
		}
	}
	for n := range wrapped {
		if _, err := unwrapRoot(wrapped[:n], exportKey, a.AccountID); err == nil {
			t.Errorf("%d bytes of it unwrap", n)
		}
	}
	if _, err := unwrapRoot(wrapped, exportKey, ids.New()); err == nil {
		t.Error("another account's wrapped key unwraps")
	}
	if _, err := unwrapRoot(wrapped, bytes.Repeat([]byte{2}, 64), a.AccountID); err == nil {
		t.Error("another export key unwraps")
	}
}

func TestPaddedSize(t *testing.T) {
	t.Parallel()
	const most = wire.MaxPayload
	for _, tc := range []struct{ n, want int }{
		{0, 256}, {256, 256}, {257, 1024}, {1025, 4096}, {64 << 10, 64 << 10}, {64<<10 + 1, 256 << 10},
		{1 << 20, 1 << 20}, {1<<20 + 1, 3 << 19}, {5<<20 - 600<<10, 9 << 19}, {most - messageOverhead, most - messageOverhead},
		{most - messageOverhead + 1, 0}, {most, 0},
	} {
		if got, ok := paddedSize(tc.n, most); got != tc.want || ok != (tc.want > 0) {
			t.Errorf("paddedSize(%d) = %d, %t, want %d", tc.n, got, ok, tc.want)
		}
	}
	if got, ok := paddedSize(17000, 20000); !ok || got != 20000-messageOverhead {
		t.Errorf("under a small limit: %d, %t", got, ok)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var b backoff
	for range 20 {
		base := min(max(2*b.next, firstBackoff), maxBackoff)
		if wait := b.after(&conn.LostError{}); wait < base/2 || wait > 3*base/2 {
			t.Errorf("wait %v with a base of %v", wait, base)
		}
	}
	if b.next != maxBackoff {
		t.Errorf("the base ends at %v", b.next)
	}
	b.reset()
	if wait := b.after(wire.RetryAfterf(wire.CodeBusy, time.Minute, "later")); wait < time.Minute {
		t.Errorf("wait %v although the cell asked for a minute", wait)
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		b.reset()
		wait := b.after(&conn.RefusedError{})
		if wait < refusedPause || wait > 2*refusedPause {
			t.Errorf("wait %v after a refused connection", wait)
		}
		seen[wait] = true
	}
	if len(seen) < 10 {
		t.Errorf("who was refused comes back at %d different times", len(seen))
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"notFound":       wire.Errorf(wire.CodeNotFound, "x"),
		"rootKeyChanged": &badWelcome{&RootKeyChangedError{}},
		"connectionLost": &QueuedError{Cause: &conn.LostError{Cause: errors.New("x")}},
		"wrongPin":       errors.Join(conn.ErrWrongPin, errors.New("x")),
		"failed":         errors.New("x"),
	} {
		if got := Code(err); got != want {
			t.Errorf("Code(%v) = %s, want %s", err, got, want)
		}
	}
}
