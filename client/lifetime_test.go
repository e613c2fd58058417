package client

import (
	"errors"
	"testing"
	"time"

	"quicproquo.dev/mls"
)

// The longest lifetime that a cell can allow is one that every client takes.
func TestKeyPackageLifetimeIsBounded(t *testing.T) {
	t.Parallel()
	var v mls.LifetimeValidator = roots{}
	now := time.Now()
	if err := v.ValidateLifetime(now.Add(-backdate), now.Add(8760*time.Hour)); err != nil {
		t.Error(err)
	}
	for _, life := range []time.Duration{maxKeyPackageLifetime + time.Second, 200 * 365 * 24 * time.Hour} {
		if err := v.ValidateLifetime(now, now.Add(life)); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", life, err)
		}
	}
}
