package ours

import (
	"testing"

	"quicproquo.dev/test/interop"
)

// TestAgainstItself shows that the scenarios themselves are sound: all pass when
// both sides are our engine, but for what it does not offer.
func TestAgainstItself(t *testing.T) {
	t.Parallel()
	s := interop.Suite{Us: Engine{}, Them: other{}}
	s.Run(t, "", false)
}

// other is our engine under another name.
type other struct{ Engine }

func (other) Name() string { return "ours too" }
