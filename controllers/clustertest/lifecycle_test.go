package clustertest

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/pki"
)

// A cell comes up in the order of its phases, and kstatus calls it in progress
// until clients can use it.
func TestCellComesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")

	w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaitsCondition("demo", v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonDependencyNotReady)
	w.awaits("demo", status.InProgressStatus)

	w.runPostgres("demo")
	w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.awaitsCondition("demo", v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaitsCondition("demo", v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonDependencyNotReady)
	w.awaits("demo", status.InProgressStatus)

	w.migrate("demo", images.Cell)
	w.awaitsCondition("demo", v1alpha1.ConditionSchemaMigrated, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.awaitsCondition("demo", v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaitsCondition("demo", v1alpha1.ConditionEndpointReady, metav1.ConditionFalse, v1alpha1.ReasonEndpointPending)
	w.awaits("demo", status.InProgressStatus)

	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.checkStatus(w.cell("demo"))
}

// checkStatus compares the status with what it tells people to use.
func (w *world) checkStatus(cell *v1alpha1.MessagingCell) {
	w.Helper()
	var ca corev1.ConfigMap
	w.must(w.Get(w.Context(), w.key(cell.Name+"-ca"), &ca))
	cert, err := pki.ParseCertificate([]byte(ca.Data["ca.crt"]))
	w.must(err)
	if cell.Status.Pin != pki.PinOf(cert) {
		w.Errorf("pin %q is not that of ConfigMap %s", cell.Status.Pin, ca.Name)
	}
	var svc corev1.Service
	w.must(w.Get(w.Context(), w.key(cell.Name), &svc))
	if !strings.HasPrefix(cell.Status.Endpoint, "192.0.2.1") {
		w.Errorf("endpoint %q is not on a node with a server", cell.Status.Endpoint)
	}
	if s := cell.Status; s.Version != "v1" || s.ReadyReplicas != s.Replicas || s.Replicas != *cell.Spec.Replicas || len(s.PolicyHash) != 64 ||
		!strings.Contains(s.Selector, "app.kubernetes.io/instance="+cell.Name) || s.ObservedGeneration != cell.Generation {
		w.Errorf("status is %+v", s)
	}
	for _, c := range cell.Status.Conditions {
		if c.Status != metav1.ConditionTrue || c.ObservedGeneration != cell.Generation || c.Type == v1alpha1.ConditionReconciling || c.Type == v1alpha1.ConditionStalled {
			w.Errorf("condition %+v", c)
		}
	}
}
