package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"quicproquo.dev/controllers"
	"quicproquo.dev/controllers/resources"
)

const patience = 30 * time.Second

var images = controllers.Images{Cell: "test/cell:v1", Postgres: "test/postgres:v1", Version: "v1"}

// world is a namespace with an operator that works in it as the user that its
// Role makes it, and what tests need to play the rest of a cluster.
type world struct {
	*testing.T
	client.Client // An admin's, without a cache.
	ns            string
	clock         *clocktesting.FakePassiveClock
	servers       *fakeServers
	writes        *writes
	images        controllers.Images
	user          *envtest.AuthenticatedUser
	stop          func()
}

var namespaces atomic.Int64

// newWorld makes a namespace of its own, in which an operator runs.
func newWorld(t *testing.T) *world {
	t.Helper()
	scheme, err := controllers.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(cluster.admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Client: admin, ns: fmt.Sprintf("chat-%d", namespaces.Add(1)), images: images, writes: &writes{},
		clock: clocktesting.NewFakePassiveClock(time.Now()), stop: func() {}}
	w.servers = &fakeServers{w: w, known: map[string]*fakeServer{}}
	// The API server is the judge of the pods: what is not restricted is refused.
	w.must(w.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.ns, Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted",
	}}}))
	w.user = w.operatorUser()
	w.startOperator()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// operatorUser is a user with the Role of config/rbac/cells and no other right.
func (w *world) operatorUser() *envtest.AuthenticatedUser {
	w.Helper()
	name := "operator-of-" + w.ns
	w.grant(name, "cells/role.yaml")
	cluster.users.Lock() // The authority that signs for them is not made for several.
	defer cluster.users.Unlock()
	user, err := cluster.env.AddUser(envtest.User{Name: name}, &rest.Config{QPS: 1000, Burst: 2000})
	w.must(err)
	return user
}

// grant gives a user the first Role of a file of config/rbac.
func (w *world) grant(user, file string) {
	w.Helper()
	text, err := os.ReadFile("../../config/rbac/" + file)
	w.must(err)
	var role rbacv1.Role
	w.must(utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096).Decode(&role))
	role.Namespace = w.ns
	w.must(w.Create(w.Context(), &role))
	w.must(w.Create(w.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name, Namespace: w.ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
	}))
}

// startOperator runs an operator until w.stop, or the test, ends.
func (w *world) startOperator() {
	w.Helper()
	user := rest.CopyConfig(w.user.Config())
	user.Wrap(w.writes.count)
	scheme, err := controllers.Scheme()
	w.must(err)
	mgr, err := ctrl.NewManager(user, ctrl.Options{
		Scheme:                 scheme,
		Cache:                  controllers.CacheOptions([]string{w.ns}),
		Client:                 controllers.ClientOptions(),
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Controller:             config.Controller{SkipNameValidation: ptr.To(true)},
	})
	w.must(err)
	reconciler := &controllers.MessagingCellReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder(resources.Manager),
		Images: w.images, Clock: w.clock, Servers: w.servers,
	}
	w.must(reconciler.SetupWithManager(mgr))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the operator ended: %v", err)
		}
	})
}

// eventually waits until what holds, and fails with what it said last.
func (w *world) eventually(what string, holds func() error) {
	w.Helper()
	err := poll(patience, holds)
	if err != nil {
		w.Fatalf("%s: %v", what, err)
	}
}

func poll(patience time.Duration, holds func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := holds()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond) // The API server says when, not this.
	}
}

// quiet waits until the operator has written nothing for a while, and returns
// how many writes there were in all.
func (w *world) quiet() int {
	w.Helper()
	const calm = 1500 * time.Millisecond
	deadline := time.Now().Add(patience)
	for last, since := w.writes.total(), time.Now(); ; time.Sleep(20 * time.Millisecond) {
		now := w.writes.total()
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > calm {
			return last
		}
		if time.Now().After(deadline) {
			w.Fatalf("the operator does not stop writing: %v", w.writes.since(last-10))
		}
	}
}

// writes counts what the operator writes, by looking at its requests.
type writes struct {
	mu       sync.Mutex
	requests []string
}

func (c *writes) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			c.mu.Lock()
			c.requests = append(c.requests, r.Method+" "+r.URL.Path)
			c.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

func (c *writes) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

// since returns the requests after the first n.
func (c *writes) since(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.requests[max(n, 0):]...)
}

// to filters requests by a part of their path.
func (c *writes) to(n int, part string) []string {
	var found []string
	for _, request := range c.since(n) {
		if strings.Contains(request, part) {
			found = append(found, request)
		}
	}
	return found
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
