package server_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"quicproquo.dev/internal/embeddedpg/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(idlersEnv) != "" {
		os.Exit(idlers())
	}
	goleak.VerifyTestMain(pgtest.Wrap(m))
}
