package clustertest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// Whatever of a cell is deleted comes back, as it was.
func TestDeletedChildrenComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{replicas: 2}")
	for name, child := range map[string]client.Object{
		"demo-config": &corev1.ConfigMap{}, "demo-policy": &corev1.ConfigMap{}, "demo-ca": &corev1.ConfigMap{},
		"demo-tls": &corev1.Secret{}, "demo-ops": &corev1.Service{}, "demo-postgres": &corev1.Service{},
	} {
		w.heals(name, child)
	}
	for _, child := range []client.Object{&corev1.ServiceAccount{}, &corev1.Service{}, &policyv1.PodDisruptionBudget{}, &appsv1.Deployment{}} {
		w.heals("demo", child)
	}
	w.heals("demo-postgres", &appsv1.StatefulSet{})
	w.runPostgres("demo")
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	w.checkStatus(w.cell("demo"))
}

// heals deletes an object and waits for another of its name.
func (w *world) heals(name string, object client.Object) {
	w.Helper()
	w.must(w.Get(w.Context(), w.key(name), object))
	old := object.GetUID()
	w.must(w.Delete(w.Context(), object, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.eventually(fmt.Sprintf("another %T %s", object, name), func() error {
		if err := w.Get(w.Context(), w.key(name), object); err != nil {
			return err
		}
		if object.GetUID() == old {
			return fmt.Errorf("it is the old one")
		}
		return nil
	})
}

// A lost password is made anew, set at the database's restart, and the servers
// and the migration follow.
func TestDatabasePasswordComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	var set appsv1.StatefulSet
	var servers appsv1.Deployment
	w.must(w.Get(t.Context(), w.key("demo-postgres"), &set))
	w.must(w.Get(t.Context(), w.key("demo"), &servers))
	w.heals("demo-database", &corev1.Secret{})
	w.eventually("a changed StatefulSet", func() error { return w.generation("demo-postgres", &appsv1.StatefulSet{}, set.Generation+1) })
	w.postgres("demo", 1)
	w.migrate("demo", images.Cell)
	w.eventually("a changed Deployment", func() error { return w.generation("demo", &appsv1.Deployment{}, servers.Generation+1) })
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
}

func (w *world) generation(name string, object client.Object, want int64) error {
	if err := w.Get(w.Context(), w.key(name), object); err != nil {
		return err
	}
	if got := object.GetGeneration(); got != want {
		return fmt.Errorf("generation %d, want %d", got, want)
	}
	return nil
}

// Fields that others change are put right; what others add stays.
func TestDriftIsCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	var budget policyv1.PodDisruptionBudget
	w.must(w.Get(t.Context(), w.key("demo"), &budget))
	patch := []byte(`{"metadata":{"labels":{"team":"chat","messaging.quicproquo.dev/cell":null}},"spec":{"maxUnavailable":5}}`)
	w.must(w.Patch(t.Context(), &budget, client.RawPatch("application/merge-patch+json", patch)))
	w.eventually("the budget put right", func() error {
		w.must(w.Get(t.Context(), w.key("demo"), &budget))
		if budget.Spec.MaxUnavailable.IntValue() != 1 || budget.Labels[resources.CellLabel] != "demo" || budget.Labels["team"] != "chat" {
			return fmt.Errorf("it is %v with labels %v", budget.Spec.MaxUnavailable, budget.Labels)
		}
		return nil
	})
}

// Keys that data was sealed with cannot be made again, and are not.
func TestLostKeysAreNotReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	var secret corev1.Secret
	w.must(w.Get(t.Context(), w.key("demo-keys"), &secret))
	kept := secret.DeepCopy()
	w.must(w.Delete(t.Context(), &secret))

	c := w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretLost)
	if !strings.Contains(c.Message, "demo-keys") || !strings.Contains(c.Message, "restore it from a backup") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaits("demo", status.FailedStatus)
	// What runs goes on serving.
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)

	restored := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: kept.Name, Namespace: kept.Namespace, Labels: kept.Labels}, Data: kept.Data, Type: kept.Type}
	w.must(w.Create(t.Context(), restored))
	w.awaits("demo", status.CurrentStatus)
	w.must(w.Get(t.Context(), w.key("demo-keys"), &secret))
	if !bytes.Equal(secret.Data["keys.yaml"], kept.Data["keys.yaml"]) {
		t.Error("the restored keys were replaced")
	}
}

// A CA that clients have pinned is replaced only when somebody says so.
func TestLostCAIsNotReplacedUnasked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pin := w.bringUp("demo", "{}").Status.Pin
	var secret corev1.Secret
	w.must(w.Get(t.Context(), w.key("demo-ca-key"), &secret))
	w.must(w.Delete(t.Context(), &secret))
	c := w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonSecretLost)
	w.awaits("demo", status.FailedStatus)
	if got := w.cell("demo").Status.Pin; got != pin || !strings.Contains(c.Message, "delete ConfigMap demo-ca") {
		t.Errorf("pin %q was %q; message %q", got, pin, c.Message)
	}
	w.must(w.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "demo-ca", Namespace: w.ns}}))
	w.eventually("another pin", func() error {
		if got := w.cell("demo").Status.Pin; got == pin || got == "" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	w.awaits("demo", status.CurrentStatus)
	w.checkStatus(w.cell("demo"))
}

// What carries a name that the cell needs, and is somebody else's, is left
// alone.
func TestForeignObjectsAreLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "demo-config", Namespace: w.ns}, Data: map[string]string{"a": "b"}}
	w.must(w.Create(t.Context(), foreign))
	keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "demo-keys", Namespace: w.ns}, Data: map[string][]byte{"a": []byte("b")}}
	w.must(w.Create(t.Context(), keys))
	w.apply("demo", "{}")
	w.awaitsCondition("demo", v1alpha1.ConditionPolicyApplied, metav1.ConditionFalse, v1alpha1.ReasonNameTaken)
	c := w.awaitsCondition("demo", v1alpha1.ConditionSecretsReady, metav1.ConditionFalse, v1alpha1.ReasonNameTaken)
	if !strings.Contains(c.Message, "Secret demo-keys exists and does not belong to this cell") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaits("demo", status.FailedStatus)
	w.must(w.Get(t.Context(), w.key("demo-config"), foreign))
	if len(foreign.Data) != 1 || len(foreign.OwnerReferences) > 0 {
		t.Errorf("it was changed: %+v", foreign)
	}
	w.must(w.Delete(t.Context(), foreign))
	w.must(w.Delete(t.Context(), keys))
	w.bringUp("demo", "{}")
}

// A deleted cell leaves its secrets and its volume, and takes the rest along.
// Applied again it is the same cell: its pin, its keys, its data.
func TestDeletedCellIsAdoptedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cell := w.bringUp("demo", "{}")
	before := w.secretData()
	w.must(w.Delete(t.Context(), cell))
	w.collects(cell)
	for _, object := range []client.Object{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "demo-policy"}}, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "demo"}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "demo-postgres"}}, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}} {
		object.SetNamespace(w.ns)
		w.eventually("deletion", func() error { return w.gone(object) })
	}
	w.must(w.Get(t.Context(), w.key("data-demo-postgres-0"), &corev1.PersistentVolumeClaim{}))

	again := w.bringUp("demo", "{}")
	if again.UID == cell.UID || again.Status.Pin != cell.Status.Pin || meta.FindStatusCondition(again.Status.Conditions, v1alpha1.ConditionReady) == nil {
		t.Errorf("pin %q, was %q", again.Status.Pin, cell.Status.Pin)
	}
	after := w.secretData()
	for name, data := range before {
		if !bytes.Equal(after[name], data) && !strings.HasPrefix(name, "demo-tls/") {
			t.Errorf("%s changed", name)
		}
	}
}

// secretData is the content of all Secrets, and checks that no cell owns one.
func (w *world) secretData() map[string][]byte {
	w.Helper()
	var list corev1.SecretList
	w.must(w.List(w.Context(), &list, client.InNamespace(w.ns)))
	all := map[string][]byte{}
	for _, secret := range list.Items {
		if len(secret.OwnerReferences) > 0 {
			w.Errorf("Secret %s goes with %v", secret.Name, secret.OwnerReferences)
		}
		for key, value := range secret.Data {
			all[secret.Name+"/"+key] = value
		}
	}
	if len(all) < 8 {
		w.Errorf("there are only %d secrets", len(all))
	}
	return all
}
