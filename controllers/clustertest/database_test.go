package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"quicproquo.dev/api/v1alpha1"
)

func (w *world) putSecret(name string, data map[string]string) {
	w.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.ns}}
	err := w.Get(w.Context(), w.key(name), secret)
	secret.StringData = data
	if err != nil {
		w.must(w.Create(w.Context(), secret))
		return
	}
	w.must(w.Update(w.Context(), secret))
}

// Every fault of a database Secret says what to do, is seen when it is put
// right, and tells nothing of its content.
func TestOwnDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const spec = "{database: {secretRef: {name: chat-database, key: DSN}}}"
	w.apply("demo", spec)
	c := w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	if !strings.Contains(c.Message, "kubectl create secret generic chat-database --from-literal=DSN=postgres://") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaits("demo", status.FailedStatus)

	w.putSecret("chat-database", map[string]string{"uri": "postgres://u:hunter2secret@db/chat"})
	w.awaitsMessage(v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound, "has no key DSN")
	for _, bad := range []string{"mysql://u:hunter2secret@db/chat", "postgres://u:hunter2secret@/chat", "postgres://u:hunter2secret@db", "postgres://u:hunter2%secret@db/chat"} {
		w.putSecret("chat-database", map[string]string{"DSN": bad})
		c := w.awaitsMessage(v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonSecretInvalid, "write postgres://USER:PASSWORD@HOST:5432/DATABASE")
		if strings.Contains(fmt.Sprintf("%+v", w.cell("demo").Status), "hunter2") {
			t.Errorf("the password is told: %q", c.Message)
		}
	}
	w.awaits("demo", status.FailedStatus)

	w.putSecret("chat-database", map[string]string{"DSN": "postgres://u:hunter2secret@db/chat"})
	w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionUnknown, v1alpha1.ReasonProgressing)
	w.awaits("demo", status.InProgressStatus)
	w.migrate("demo", images.Cell)
	w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	if err := w.gone(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "demo-postgres", Namespace: w.ns}}); err != nil {
		t.Error(err)
	}
	w.checkDatabaseMoves()
	w.checkPooling()
}

// checkDatabaseMoves: another URI is migrated, and then the servers restart
// with it, for they read it at their start.
func (w *world) checkDatabaseMoves() {
	w.Helper()
	var servers appsv1.Deployment
	w.must(w.Get(w.Context(), w.key("demo"), &servers))
	w.putSecret("chat-database", map[string]string{"DSN": "postgres://u:hunter3secret@db2/chat"})
	w.migrate("demo", images.Cell)
	w.eventually("another revision", func() error { return w.generation("demo", &servers, servers.Generation+1) })
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
}

// checkPooling: servers restart to learn of a pooler; the database is the same
// and is not migrated again, nor is the policy another.
func (w *world) checkPooling() {
	w.Helper()
	before := w.cell("demo").Status
	var servers appsv1.Deployment
	w.must(w.Get(w.Context(), w.key("demo"), &servers))
	w.apply("demo", "{database: {secretRef: {name: chat-database, key: DSN}, pooling: transaction}}")
	w.eventually("another revision", func() error { return w.generation("demo", &servers, servers.Generation+1) })
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	var config corev1.ConfigMap
	w.must(w.Get(w.Context(), w.key("demo-config"), &config))
	if text := config.Data["cell.yaml"]; !strings.Contains(text, "databasePooling: transaction\n") {
		w.Errorf("servers are told\n%s", text)
	}
	if now := w.cell("demo").Status; now.Migration != before.Migration || now.PolicyHash != before.PolicyHash {
		w.Errorf("the status was %+v and is %+v", before, now)
	}
}

// An embedded database that stops answering is seen.
func TestDatabaseLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.postgres("demo", 0)
	w.awaitsCondition("demo", v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaits("demo", status.InProgressStatus)
	w.postgres("demo", 1)
	w.awaits("demo", status.CurrentStatus)
}

// A larger volume is asked for at the claim, since a StatefulSet's template
// cannot change; where it cannot grow, the cell says so and serves on.
func TestVolumeGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for class, grows := range map[string]bool{"grows-" + w.ns: true, "fixed-" + w.ns: false} {
		w.must(w.Create(t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: "test/none", AllowVolumeExpansion: ptr.To(grows)}))
		name := strings.Split(class, "-")[0]
		spec := "{database: {embedded: {storage: {storageClassName: " + class + ", size: %s}}}}"
		w.bringUp(name, fmt.Sprintf(spec, "10Gi"))
		var claim corev1.PersistentVolumeClaim
		w.must(w.Get(t.Context(), w.key("data-"+name+"-postgres-0"), &claim))
		claim.Status.Phase = corev1.ClaimBound
		w.must(w.Status().Update(t.Context(), &claim))
		w.apply(name, fmt.Sprintf(spec, "25Gi"))
		if !grows {
			w.awaitsCondition(name, v1alpha1.ConditionDatabaseReady, metav1.ConditionTrue, v1alpha1.ReasonApplyFailed)
			w.awaits(name, status.FailedStatus)
			w.awaitsCondition(name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
			continue
		}
		w.eventually("a larger claim", func() error {
			w.must(w.Get(t.Context(), w.key(claim.Name), &claim))
			if got := claim.Spec.Resources.Requests.Storage().String(); got != "25Gi" {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
		w.awaits(name, status.CurrentStatus)
		w.heals(name+"-postgres", &appsv1.StatefulSet{}) // Made with the new size, on the old volume.
		w.postgres(name, 1)
		w.awaits(name, status.CurrentStatus)
	}
}

// A database that finds no place is somebody's affair after a while.
func TestPostgresThatDoesNotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")
	set := awaitsObject(w, "demo-postgres", &appsv1.StatefulSet{})
	pod := w.postgresPod(set, "demo-postgres-1")
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no volume"}}}
	w.must(w.Status().Update(t.Context(), pod))
	w.postgres("demo", 0)
	w.awaitsMessage(v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "finds no node: no volume")
	w.clock.SetTime(w.clock.Now().Add(6 * time.Minute))
	w.touch("demo")
	w.awaitsMessage(v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonRolloutStuck, "finds no node: no volume")
	w.awaits("demo", status.FailedStatus)
}

// postgresPod is the pod of the database, of a revision.
func (w *world) postgresPod(set *appsv1.StatefulSet, revision string) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: set.Name + "-0", Namespace: w.ns, Labels: set.Spec.Template.Labels}, Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	pod.Labels[appsv1.StatefulSetRevisionLabel] = revision
	w.must(w.Create(w.Context(), pod))
	return pod
}

// A pod of an old revision that will never be ready makes room for the next.
func TestStuckPostgresIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")
	set := awaitsObject(w, "demo-postgres", &appsv1.StatefulSet{})
	pod := w.postgresPod(set, "demo-postgres-0")
	w.postgres("demo", 0)
	w.eventually("its removal", func() error { return w.gone(pod) })
}
