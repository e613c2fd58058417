package channels

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quicproquo.dev/cell/audit"
	"quicproquo.dev/cell/identity"
	"quicproquo.dev/cell/policy"
	"quicproquo.dev/cell/store"
	"quicproquo.dev/internal/embeddedpg/pgtest"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tallies are the kinds of what was tallied.
type tallies struct {
	audit.Sink
	kinds []audit.Kind
}

func (s *tallies) Tally(_ context.Context, e audit.Event) { s.kinds = append(s.kinds, e.Kind()) }

// person makes an account with a device.
func person(t *testing.T, s *store.Store, name string) identity.Principal {
	t.Helper()
	now := time.Now()
	p := identity.Principal{AccountID: ids.New(), DeviceID: ids.New()}
	must(t, s.CreateAccount(t.Context(), store.Account{ID: p.AccountID, Name: name, RootKey: make([]byte, 32), CreatedAt: now, Skeleton: name},
		store.Device{ID: p.DeviceID, AccountID: p.AccountID, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: now},
		store.Session{ID: ids.New(), DeviceID: p.DeviceID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}))
	return p
}

// A channel is recorded when it is made, not when it is opened again; and so is who may not use it.
func TestTheAuditLogOfAChannel(t *testing.T) {
	t.Parallel()
	sealer, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	must(t, err)
	st, err := store.Open(t.Context(), store.Options{URI: pgtest.New(t), Sealer: sealer})
	must(t, err)
	t.Cleanup(st.Close)
	must(t, st.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	keys, err := audit.NewKeys(make([]byte, 32))
	must(t, err)
	must(t, st.EnableAudit(t.Context(), keys))
	s := New(st, policy.Default, func(n string) (string, error) { return n, nil }, nil, time.Now)
	sink := &tallies{Sink: audit.Discard}
	s.Audit(sink)

	alice, bob, eve := person(t, st, "alice"), person(t, st, "bob"), person(t, st, "eve")
	var channel ids.ID
	for _, p := range []identity.Principal{alice, bob, alice} {
		other := bob.AccountID
		if p.AccountID == bob.AccountID {
			other = alice.AccountID
		}
		c, err := s.OpenDM(t.Context(), p, &wire.OpenDMRequest{AccountID: other})
		must(t, err)
		channel = c.ChannelID
	}
	for p, code := range map[*identity.Principal]wire.Code{&eve: wire.CodeNotFound, &alice: wire.CodeInvalidMessage} {
		if _, err := s.CreateGroup(t.Context(), *p, &wire.CreateGroupRequest{ChannelID: channel, Generation: 1, GroupInfo: []byte("x")}); !wire.HasCode(err, code) {
			t.Errorf("want %s, got %v", code, err)
		}
	}
	slices.Sort(sink.kinds)
	if !slices.Equal(sink.kinds, []audit.Kind{audit.KindGroupCreated, audit.KindChannelAccess}) {
		t.Errorf("refusals: %v", sink.kinds)
	}
	_, err = st.CheckpointAudit(t.Context(), time.Now())
	must(t, err)
	cell, err := st.Cell(t.Context())
	must(t, err)
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, cell.ID, 0, false)
	must(t, err)
	must(t, st.VisitAudit(t.Context(), 0, x))
	if n := strings.Count(out.String(), `"kind":"channel.direct_opened"`); n != 1 {
		t.Errorf("%d channels are recorded:\n%s", n, out.String())
	}
}
