package clustertest

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/controllers"
)

// A new operator restarts no pod whose image it does not choose, and brings
// the others to its own, schema first.
func TestOperatorUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("pinned", "{image: 'test/cell:v1'}")
	w.bringUp("follows", "{}")
	var postgres appsv1.StatefulSet
	var servers appsv1.Deployment
	w.must(w.Get(t.Context(), w.key("pinned"), &servers))
	w.must(w.Get(t.Context(), w.key("pinned-postgres"), &postgres))
	w.quiet()
	w.stop()
	w.images = controllers.Images{Cell: "test/cell:v2", Postgres: images.Postgres, Version: "v2"}
	before := w.writes.total()
	w.startOperator()
	w.migrate("follows", "test/cell:v2")
	w.awaitsImage("follows", "test/cell:v2")
	w.rollOut("follows", "192.0.2.10")
	w.awaits("follows", status.CurrentStatus)
	if v := w.cell("follows").Status.Version; v != "v2" {
		t.Errorf("the version is %q", v)
	}
	w.must(w.generation("pinned", &servers, servers.Generation))
	w.must(w.generation("pinned-postgres", &postgres, postgres.Generation))
	if w.quiet(); len(w.writes.to(before, "/pinned")) > 0 {
		t.Errorf("wrote %v", w.writes.to(before, "/pinned"))
	}
}
