package client

import (
	"slices"
	"testing"
	"time"
)

// A Welcome that waited for as long as the cell may keep it opens the group, though the KeyPackage has long expired: the private half
// is kept, through refills, and what the cell took in time is in time.
func TestALateWelcome(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		after time.Duration
		joins bool
	}{"a month later": {31 * 24 * time.Hour, true}, "long after the cell has dropped it": {24*time.Hour + keepExpired + time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := makePair(t)
			later := time.Now().Add(x.after)
			p.bob.opts.Now = func() time.Time { return later }
			_, fresh, err := p.bob.makeKeyPackage(later, 24*time.Hour, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.bob.keepBundles(t.Context(), &session{}, []bundleRecord{fresh}); err != nil {
				t.Fatal(err)
			}
			r, _, err := get[keyPackagesRecord](t.Context(), p.bob.store, keyPackagesName)
			if err != nil || len(r.Bundles) != map[bool]int{true: 2, false: 1}[x.joins] || !slices.Equal(r.Bundles[len(r.Bundles)-1].Ref, fresh.Ref) {
				t.Fatalf("%d private halves are kept: %v", len(r.Bundles), err)
			}
			if !x.joins {
				return
			}
			p.join()
			p.receive(1, p.send("while you were away"))
			p.expect(p.record(), "while you were away")
		})
	}
}
