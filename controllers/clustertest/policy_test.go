package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// A change of the policy changes one ConfigMap. No server is restarted; the
// cell is current when all have loaded it.
func TestPolicyChangeRestartsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.bringUp("demo", "{replicas: 2}")
	var servers appsv1.Deployment
	w.must(w.Get(t.Context(), w.key("demo"), &servers))
	before := w.quiet()
	w.servers.freeze()
	w.apply("demo", "{replicas: 2, limits: {requestsPerSecond: 7}}")

	w.awaitsMessage(v1alpha1.ConditionPolicyApplied, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "2 of 2 servers")
	w.awaits("demo", status.InProgressStatus)
	w.eventually("nudged pods", func() error {
		for _, pod := range w.serverPods("demo") {
			if pod.Annotations["messaging.quicproquo.dev/files-hash"] == "" {
				return fmt.Errorf("pod %s is not", pod.Name)
			}
		}
		return nil
	})
	w.servers.each(func(s *fakeServer) { s.frozen = false })
	w.awaits("demo", status.CurrentStatus)

	cell := w.cell("demo")
	if cell.Status.PolicyHash == old.Status.PolicyHash {
		t.Error("the hash of the policy is the old one")
	}
	w.must(w.generation("demo", &appsv1.Deployment{}, servers.Generation))
	for _, request := range w.writes.since(before) {
		if !strings.HasSuffix(request, "/configmaps/demo-policy") && !strings.HasSuffix(request, "/messagingcells/demo/status") &&
			!strings.Contains(request, "/pods/demo-") && !strings.Contains(request, "/events") {
			t.Errorf("also wrote %s", request)
		}
	}
}

func (w *world) serverPods(name string) []corev1.Pod {
	w.Helper()
	var list corev1.PodList
	w.must(w.List(w.Context(), &list, client.InNamespace(w.ns), client.MatchingLabels{resources.CellLabel: name, resources.ComponentLabel: resources.ComponentServer}))
	return list.Items
}

// Servers that cannot be asked do not keep a cell from being ready for ever,
// but the conditions say that nobody looked.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")
	w.runPostgres("demo")
	w.migrate("demo", images.Cell)
	w.rollOut("demo", "192.0.2.10")
	w.servers.each(func(s *fakeServer) { s.silent = true })
	w.touch("demo")
	w.awaitsCondition("demo", v1alpha1.ConditionPolicyApplied, metav1.ConditionUnknown, v1alpha1.ReasonUnobservable)
	w.awaitsCondition("demo", v1alpha1.ConditionEndpointReady, metav1.ConditionFalse, v1alpha1.ReasonCertificatePending)
	w.clock.SetTime(w.clock.Now().Add(2 * time.Minute))
	w.touch("demo")
	c := w.awaitsCondition("demo", v1alpha1.ConditionEndpointReady, metav1.ConditionTrue, v1alpha1.ReasonUnobservable)
	if !strings.Contains(c.Message, "no route to host") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaits("demo", status.CurrentStatus)
}
