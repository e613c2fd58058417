package server_test

import (
	"testing"

	"go.uber.org/goleak"

	"quicproquo.dev/internal/embeddedpg/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }
