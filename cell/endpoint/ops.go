package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Ops is the HTTP port for the cluster's own eyes: /livez, /readyz, /metrics, /policy, /durability.
type Ops struct {
	listener net.Listener
	server   *http.Server
}

// Probes answer the ops port's questions.
type Probes struct {
	// Ready says why this pod cannot take connections, or nil. It is about this pod alone: a database that is away
	// makes requests busy, not the pod unready, or every connection would be cut.
	Ready func() error
	// PolicyHash is the hash of the policy in use.
	PolicyHash func() string
	// Durability is what the database does for a commit, as JSON. Nil: it is not asked for.
	Durability func() any
	Metrics    prometheus.Gatherer
}

// ListenOps opens the TCP address and serves until Close.
func ListenOps(address string, p Probes) (*Ops, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on TCP %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /policy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, p.PolicyHash()) })
	mux.HandleFunc("GET /durability", func(w http.ResponseWriter, r *http.Request) {
		if p.Durability == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.Durability()) // Whoever asked may be gone.
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{}))
	o := &Ops{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}}
	return o, nil
}

// Addr is the address that is listened on.
func (o *Ops) Addr() net.Addr { return o.listener.Addr() }

// Serve answers until Close.
func (o *Ops) Serve() error {
	if err := o.server.Serve(o.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close finishes answers under way, within ctx.
func (o *Ops) Close(ctx context.Context) error { return o.server.Shutdown(ctx) }
