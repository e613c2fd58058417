package keys

import (
	"context"
	"log/slog"
	"slices"
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

// KeyPackages that are refused, and ones that are asked for in vain, are told to the audit log; what is asked of oneself
// in vain is not.
func TestTheAuditLogOfRefusedKeyPackages(t *testing.T) {
	t.Parallel()
	sealer, err := store.NewSealer([]store.SealingKey{{ID: 1, Key: make([]byte, store.SealingKeySize)}}, make([]byte, store.SealingKeySize))
	must(t, err)
	st, err := store.Open(t.Context(), store.Options{URI: pgtest.New(t), Sealer: sealer})
	must(t, err)
	t.Cleanup(st.Close)
	must(t, st.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	s := New(st, policy.Default, time.Now)
	sink := &tallies{Sink: audit.Discard}
	s.Audit(sink)
	now := time.Now()
	people := make([]identity.Principal, 2)
	for i := range people {
		p := identity.Principal{AccountID: ids.New(), DeviceID: ids.New()}
		must(t, st.CreateAccount(t.Context(), store.Account{ID: p.AccountID, Name: p.AccountID.String(), RootKey: make([]byte, 32), CreatedAt: now, Skeleton: p.AccountID.String()},
			store.Device{ID: p.DeviceID, AccountID: p.AccountID, Key: make([]byte, 32), Certificate: []byte("c"), CreatedAt: now},
			store.Session{ID: ids.New(), DeviceID: p.DeviceID, RefreshHash: []byte("h"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}))
		people[i] = p
	}
	if _, err := s.Upload(t.Context(), people[0], &wire.UploadKeyPackagesRequest{OneTime: [][]byte{[]byte("no KeyPackage")}}); err == nil {
		t.Error("taken")
	}
	if _, err := s.Claim(t.Context(), people[0], &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: people[1].AccountID}); !wire.HasCode(err, wire.CodeNoKeyPackage) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Claim(t.Context(), people[0], &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: people[0].AccountID}); err != nil {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(sink.kinds, []audit.Kind{audit.KindPackagesUploaded, audit.KindPackagesClaimed}) {
		t.Errorf("%v", sink.kinds)
	}
}
