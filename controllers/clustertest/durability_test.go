package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

// A database whose settings may lose what was acknowledged is a condition that
// says what to set, beside a cell that is otherwise as it should be.
func TestReducedDurabilityIsACondition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cell := w.bringUp("demo", "{replicas: 2}")
	if c := meta.FindStatusCondition(cell.Status.Conditions, v1alpha1.ConditionDurabilityReduced); c != nil {
		t.Fatalf("with safe settings: %+v", c)
	}
	w.servers.each(func(s *fakeServer) { s.unsafe = `fsync is "off": set fsync = on in postgresql.conf` })
	w.clock.SetTime(w.clock.Now().Add(3 * time.Minute))
	w.apply("demo", "{replicas: 2, limits: {requestsPerSecond: 7}}")
	c := w.awaitsCondition("demo", v1alpha1.ConditionDurabilityReduced, metav1.ConditionTrue, v1alpha1.ReasonDatabaseSettings)
	if !strings.Contains(c.Message, "set fsync = on") {
		t.Errorf("%+v", c)
	}
	// A tool that waits for the cell waits no longer, and is not told of a failure.
	w.awaits("demo", status.CurrentStatus)
	w.awaitsEvent("demo", corev1.EventTypeWarning, "DurabilityReduced is True: fsync is")
	if ready := meta.FindStatusCondition(w.cell("demo").Status.Conditions, v1alpha1.ConditionReady); ready == nil || ready.Status != metav1.ConditionTrue {
		t.Errorf("the cell serves nevertheless: %+v", ready)
	}
	// Nobody to ask is no reason to think better of it.
	w.servers.each(func(s *fakeServer) { s.unsafe, s.silent = "", true })
	w.clock.SetTime(w.clock.Now().Add(3 * time.Minute))
	w.touch("demo")
	w.quiet()
	w.awaitsCondition("demo", v1alpha1.ConditionDurabilityReduced, metav1.ConditionTrue, v1alpha1.ReasonDatabaseSettings)
	w.servers.each(func(s *fakeServer) { s.silent = false })
	w.clock.SetTime(w.clock.Now().Add(3 * time.Minute))
	w.apply("demo", "{replicas: 2, limits: {requestsPerSecond: 8}}")
	w.eventually("the condition goes", func() error {
		if c := meta.FindStatusCondition(w.cell("demo").Status.Conditions, v1alpha1.ConditionDurabilityReduced); c != nil {
			return fmt.Errorf("still there: %+v", c)
		}
		return nil
	})
}

// awaitsEvent waits for an event about a cell whose text begins so.
func (w *world) awaitsEvent(cell, level, begins string) {
	w.Helper()
	w.eventually("an event", func() error {
		var list eventsv1.EventList
		if err := w.List(w.Context(), &list, client.InNamespace(w.ns)); err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Name == cell && e.Type == level && strings.HasPrefix(e.Note, begins) {
				return nil
			}
			notes = append(notes, e.Type+" "+e.Note)
		}
		return fmt.Errorf("there are %q", notes)
	})
}
