package keys

import (
	"testing"
	"time"

	"quicproquo.dev/cell/store"
	"quicproquo.dev/schema/ids"
	"quicproquo.dev/schema/wire"
)

// What has expired is not handed out, swept or not: neither one-time nor last-resort.
func TestExpiredKeyPackagesAreNotHandedOut(t *testing.T) {
	t.Parallel()
	s := makeService(t)
	alice, bob := s.person(t), s.person(t)
	s.stock(t, bob, 2, time.Hour)
	must(t, s.store.AddKeyPackages(t.Context(), bob.DeviceID, []store.KeyPackage{{Ref: []byte("last"), InitKey: []byte("last"), LastResort: true,
		ExpiresAt: s.now.Add(2 * time.Hour), Package: []byte("last resort")}}, s.rules.MLS.MaxKeyPackagesPerDevice, s.now))
	claim := func() (*wire.ClaimKeyPackagesResponse, error) {
		return s.Claim(t.Context(), alice, &wire.ClaimKeyPackagesRequest{RequestID: ids.New(), AccountID: bob.AccountID})
	}
	begun := s.now
	for _, x := range []struct {
		after time.Duration
		want  string
	}{{time.Hour - time.Second, "p"}, {time.Hour, "last resort"}, {2*time.Hour - time.Second, "last resort"}, {2 * time.Hour, ""}} {
		s.now = begun.Add(x.after)
		r, err := claim()
		switch {
		case x.want == "" && !wire.HasCode(err, wire.CodeNoKeyPackage):
			t.Errorf("after %s: %v, %v", x.after, r, err)
		case x.want != "" && (err != nil || len(r.Packages) != 1 || string(r.Packages[0].KeyPackage) != x.want || r.Packages[0].LastResort != (x.want != "p")):
			t.Errorf("after %s: %+v, %v, want %s", x.after, r, err, x.want)
		}
	}
	must(t, s.store.SweepKeyPackages(t.Context(), s.now, s.now, store.FewKeyPackages(12)))
	if r, err := claim(); !wire.HasCode(err, wire.CodeNoKeyPackage) {
		t.Errorf("%v, %v", r, err)
	}
}
