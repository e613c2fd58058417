//go:build unix

package embeddedpg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// holdEnv makes the test binary start a server in the named directory and wait
// to be killed.
const holdEnv = "EMBEDDEDPG_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(hold(dir))
	}
	goleak.VerifyTestMain(m)
}

func hold(dir string) int {
	s, err := Start(context.Background(), Options{Dir: dir, Settings: smallSettings()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.PID())
	<-s.Done()
	return 1
}

func smallSettings() map[string]string {
	return map[string]string{"shared_buffers": "16MB", "max_connections": "20"}
}

// startServer starts a server that the test's end stops.
func startServer(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Settings == nil {
		o.Settings = smallSettings()
	}
	s, err := Start(testContext(t), o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { stopServer(t, s) })
	return s
}

func stopServer(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// query runs one statement and returns the first column of its first row, if any.
func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Errorf("closing: %v", err)
		}
	}()
	rows, err := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	var text string
	if rows.Next() {
		text = string(bytes.Clone(rows.RawValues()[0]))
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// startFails expects Start to fail and to say all of want.
func startFails(t *testing.T, o Options, want ...string) {
	t.Helper()
	s, err := Start(testContext(t), o)
	if err == nil {
		stopServer(t, s)
		t.Fatal("Start succeeded")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	if pids, err := serversIn(dirOf(t, o), 0); err == nil && len(pids) > 0 && !strings.Contains(strings.Join(want, " "), "in use") {
		t.Errorf("processes %v were left running", pids)
	}
}

func dirOf(t *testing.T, o Options) string {
	t.Helper()
	return filepath.Join(o.Dir, "data")
}
