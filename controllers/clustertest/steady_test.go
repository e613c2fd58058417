package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

// touch makes the operator look at a cell of which nothing has changed.
func (w *world) touch(name string) {
	w.Helper()
	cell := w.cell(name)
	changed := cell.DeepCopy()
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, "test/touched", time.Now().String())
	w.must(w.Patch(w.Context(), changed, client.MergeFrom(cell)))
}

// A converged cell makes the operator write nothing: neither when it looks
// again, nor when it starts anew. Not an object, not the status, not an event.
func TestSteadyStateWritesNothing(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{
		"default":  "{}",
		"balancer": `{replicas: 2, endpoint: {serviceType: LoadBalancer, host: chat.example.org}, limits: {trustedRanges: ["10.0.0.0/8"]}, retention: {history: false}}`,
		"internal": `{endpoint: {serviceType: ClusterIP, port: 443}, database: {embedded: {storage: {size: 20Gi, storageClassName: fast}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if name == "balancer" {
				w.balance("demo", "198.51.100.7")
			}
			w.bringUp("demo", spec)
			before := w.quiet()
			for range 3 {
				w.touch("demo")
				w.quiet()
			}
			w.stop()
			w.startOperator()
			w.touch("demo")
			if after := w.quiet(); after != before {
				t.Errorf("wrote %d times: %v\n%s", after-before, w.writes.since(before), reasons(w.ns))
			}
		})
	}
}

// reasons are why objects of a namespace were applied last.
func reasons(namespace string) string {
	var lines []string
	for line := range strings.Lines(logged.String()) {
		if strings.Contains(line, `"`+namespace+`"`) && strings.Contains(line, "because") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-5):], "")
}

// balance plays a load balancer, once the Service is there.
func (w *world) balance(name, ip string) {
	go func() {
		_ = poll(patience, func() error {
			var svc corev1.Service
			if err := w.Get(w.Context(), w.key(name), &svc); err != nil {
				return err
			}
			svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
			return w.Status().Update(w.Context(), &svc)
		})
	}()
}

// The status is written before anything else, and the cell itself never.
func TestOperatorWritesStatusFirstAndSpecNever(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.apply("demo", "{limits: {requestBurst: 7}}")
	w.awaitsCondition("demo", v1alpha1.ConditionPolicyApplied, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	requests := w.writes.since(0)
	if len(requests) == 0 || !strings.HasSuffix(requests[0], "/messagingcells/demo/status") {
		t.Errorf("the first write is %q", requests[:1])
	}
	for _, request := range requests {
		if strings.Contains(request, "/messagingcells/") && !strings.HasSuffix(request, "/status") {
			t.Errorf("the cell was written: %s", request)
		}
	}
}

// What Secrets hold is nowhere else: not in the log, in events or in a status.
func TestSecretsAreNotTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	var secrets corev1.SecretList
	w.must(w.List(t.Context(), &secrets, client.InNamespace(w.ns)))
	var events eventsv1.EventList
	w.eventually("events", func() error {
		w.must(w.List(t.Context(), &events, client.InNamespace(w.ns)))
		if len(events.Items) < 4 {
			return fmt.Errorf("there are %d", len(events.Items))
		}
		return nil
	})
	told := logged.String() + fmt.Sprintf("%+v %+v", events.Items, w.cell("demo"))
	if !strings.Contains(told, "demo-keys") || !strings.Contains(logged.String(), "applying") {
		t.Fatal("nothing is told at all")
	}
	checked := 0
	for _, secret := range secrets.Items {
		for key, value := range secret.Data {
			for line := range strings.Lines(string(value)) {
				line = strings.TrimSpace(line)
				if len(line) < 20 || strings.HasSuffix(key, ".crt") || strings.HasPrefix(line, "-----") || strings.HasPrefix(line, "version:") {
					continue
				}
				checked++
				if strings.Contains(told, strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])) {
					t.Errorf("a line of Secret %s, key %s, is told", secret.Name, key)
				}
			}
		}
	}
	if checked < 8 {
		t.Errorf("only %d lines of Secrets were looked for", checked)
	}
}
