package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/cell/server/celltest"
)

// The connection string of the environment serves, is gone from the environment, and shows nowhere.
func TestTheEnvironmentsConnectionString(t *testing.T) { //nolint:paralleltest // The environment is the process's.
	c := celltest.Prepare(t)
	t.Setenv("QPQ_DATABASE_URI", c.Database)
	if err := os.Remove(c.Dir + "/database-uri"); err != nil {
		t.Fatal(err)
	}
	config := c.Config(t)
	if left, ok := os.LookupEnv("QPQ_DATABASE_URI"); ok {
		t.Errorf("it is in the environment still: %q", left)
	}
	for range 2 { // The configuration has it, however often it is asked.
		if err := server.Migrate(t.Context(), config, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	}
	if err := start(t, c, nil); err == nil || !strings.Contains(err.Error(), "database") {
		t.Errorf("another configuration, after it was taken: %v", err)
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", config, *config, *config), string(encoded)} {
		if strings.Contains(text, c.Database) {
			t.Error("the configuration shows it")
		}
	}
	var log bytes.Buffer
	config.Logger(&log).Info("planted", "error", config, "config", *config)
	if strings.Contains(log.String(), c.Database) || !strings.Contains(log.String(), "is not logged") {
		t.Errorf("the log: %s", &log)
	}
}
