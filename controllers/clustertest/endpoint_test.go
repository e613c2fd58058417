package clustertest

import (
	"net"
	"strconv"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/api/v1alpha1"
)

// Where clients reach the cell follows the Service's type, which can change.
func TestEndpointFollowsTheService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	var svc corev1.Service
	w.must(w.Get(t.Context(), w.key("demo"), &svc))
	w.wantEndpoint(net.JoinHostPort("192.0.2.10", strconv.Itoa(int(svc.Spec.Ports[0].NodePort))))

	w.apply("demo", "{endpoint: {serviceType: ClusterIP, port: 443}}")
	w.awaits("demo", status.CurrentStatus)
	w.must(w.Get(t.Context(), w.key("demo"), &svc))
	w.wantEndpoint(net.JoinHostPort(svc.Spec.ClusterIP, "443"))
	if svc.Spec.ExternalTrafficPolicy != "" || svc.Spec.Ports[0].NodePort != 0 {
		t.Errorf("the Service kept %+v", svc.Spec)
	}

	w.apply("demo", "{endpoint: {serviceType: LoadBalancer, port: 443}}")
	w.awaitsMessage(v1alpha1.ConditionEndpointReady, metav1.ConditionFalse, v1alpha1.ReasonEndpointPending, "no load balancers")
	w.awaits("demo", status.InProgressStatus)
	w.wantEndpoint("")
	w.must(w.Get(t.Context(), w.key("demo"), &svc))
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "2001:db8::7"}}
	w.must(w.Status().Update(t.Context(), &svc))
	w.awaits("demo", status.CurrentStatus)
	w.wantEndpoint("[2001:db8::7]:443")
	if err := w.leaf("demo-tls").VerifyHostname("2001:db8::7"); err != nil {
		t.Error(err)
	}
}

func (w *world) wantEndpoint(want string) {
	w.Helper()
	if got := w.cell("demo").Status.Endpoint; got != want {
		w.Errorf("the endpoint is %s, want %s", got, want)
	}
}

// The node that is told stays while it has a server, and changes when it has
// none: others do not answer.
func TestEndpointIsOnANodeWithAServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{replicas: 2}")
	told := func() string { host, _, _ := net.SplitHostPort(w.cell("demo").Status.Endpoint); return host }
	if told() != "192.0.2.10" {
		t.Fatalf("told is %s", told())
	}
	deployment := awaitsObject(w, "demo", &appsv1.Deployment{})
	w.runServer(deployment, 8, "192.0.2.1") // Sorts before, and changes nothing.
	w.quiet()
	if told() != "192.0.2.10" {
		t.Errorf("told is %s, though the node told before has a server", told())
	}
	for _, pod := range w.serverPods("demo") {
		if pod.Status.HostIP == "192.0.2.10" {
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			w.must(w.Status().Update(t.Context(), &pod))
		}
	}
	w.quiet()
	if told() != "192.0.2.1" {
		t.Errorf("told is %s", told())
	}
	w.awaits("demo", status.CurrentStatus)
}
