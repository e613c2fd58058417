package endpoint

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quicproquo.dev/cell/telemetry"
)

func TestOpsPort(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	o, err := ListenOps("127.0.0.1:0", Probes{
		Ready: func() error {
			if !ready.Load() {
				return errors.New("not yet")
			}
			return nil
		},
		PolicyHash: func() string { return "0a1b" },
		Metrics:    telemetry.New().Registry,
	})
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- o.Serve() }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	ask := func(method, path string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+o.Addr().String()+path, http.NoBody)
		must(t, err)
		answer, err := client.Do(r)
		must(t, err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		must(t, err)
		return answer.StatusCode, string(b)
	}
	want := func(path string, status int, part string) {
		t.Helper()
		if code, body := ask(http.MethodGet, path); code != status || !strings.Contains(body, part) {
			t.Errorf("%s: %d %.80s", path, code, body)
		}
	}
	want("/livez", http.StatusOK, "ok")
	want("/readyz", http.StatusServiceUnavailable, "not yet")
	ready.Store(true)
	want("/readyz", http.StatusOK, "ok")
	want("/policy", http.StatusOK, "0a1b")
	want("/metrics", http.StatusOK, "qpq_panics_total 0")
	want("/debug/pprof/", http.StatusNotFound, "")
	if code, _ := ask(http.MethodPost, "/readyz"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	if _, err := ListenOps(o.Addr().String(), Probes{}); err == nil || !strings.Contains(err.Error(), "listening on TCP") {
		t.Errorf("a port that is taken: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	must(t, o.Close(ctx))
	must(t, <-served)
}
