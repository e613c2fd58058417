package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

func (w *world) runningImage(name string) string {
	w.Helper()
	var d appsv1.Deployment
	w.must(w.Get(w.Context(), w.key(name), &d))
	return d.Spec.Template.Spec.Containers[0].Image
}

func (w *world) awaitsImage(name, image string) {
	w.Helper()
	w.eventually("servers of "+image, func() error {
		if got := w.runningImage(name); got != image {
			return fmt.Errorf("they are of %s", got)
		}
		return nil
	})
}

// A new image migrates the schema first and rolls out after that.
func TestImageChangeMigratesThenRollsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	first := w.cell("demo").Status.Migration
	w.apply("demo", "{image: 'test/cell:v2'}")
	job := w.job("demo", "test/cell:v2")
	w.awaitsCondition("demo", v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaits("demo", status.InProgressStatus)
	// Meanwhile the old servers serve, and everything else of the spec is done.
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.apply("demo", "{image: 'test/cell:v2', replicas: 2}")
	w.eventually("two servers", func() error {
		var d appsv1.Deployment
		w.must(w.Get(t.Context(), w.key("demo"), &d))
		if *d.Spec.Replicas != 2 {
			return fmt.Errorf("%d", *d.Spec.Replicas)
		}
		return nil
	})
	if got := w.runningImage("demo"); got != images.Cell {
		t.Fatalf("servers of %s run before the schema is theirs", got)
	}
	w.finish(job, batchv1.JobComplete)
	w.awaitsImage("demo", "test/cell:v2")
	w.awaits("demo", status.InProgressStatus)
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
	if s := w.cell("demo").Status; s.Version != "v2" || s.Migration == first {
		t.Errorf("version %q, migration %q", s.Version, s.Migration)
	}
	w.eventually("one Job", func() error {
		var jobs batchv1.JobList
		w.must(w.List(t.Context(), &jobs, client.InNamespace(w.ns)))
		if len(jobs.Items) != 1 || jobs.Items[0].Name != job.Name {
			return fmt.Errorf("there are %d", len(jobs.Items))
		}
		return nil
	})
	// A finished Job is not made again when it is gone.
	before := w.quiet()
	w.must(w.Delete(t.Context(), job, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.touch("demo")
	if after := w.quiet(); after != before {
		t.Errorf("wrote %v", w.writes.since(before))
	}
}

// A failed migration leaves the old servers alone, says what it said, and is
// tried again when its Job is gone.
func TestFailedMigration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.apply("demo", "{image: 'test/cell:v3'}")
	job := w.job("demo", "test/cell:v3")
	w.jobPod(job, corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error",
		Message: "{\"level\":\"INFO\"}\ncell: migrating the database: column is not there\n"}})
	w.finish(job, batchv1.JobFailed)
	for _, part := range []string{job.Name, "cell: migrating the database: column is not there", "kubectl logs job/"} {
		w.awaitsMessage(v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonMigrationFailed, part)
	}
	w.awaits("demo", status.FailedStatus)
	ready := w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	if !strings.Contains(ready.Message, "SchemaMigrated needs somebody") || w.runningImage("demo") != images.Cell {
		t.Errorf("image %s, message %q", w.runningImage("demo"), ready.Message)
	}
	w.must(w.Delete(t.Context(), job, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.migrate("demo", "test/cell:v3")
	w.awaitsImage("demo", "test/cell:v3")
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
}

// An image that cannot be had does not stay work in progress for ever.
func TestMigrationThatDoesNotStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.apply("demo", "{image: 'test/cell:typo'}")
	job := w.job("demo", "test/cell:typo")
	w.jobPod(job, corev1.PodPending, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}})
	w.awaitsMessage(v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "ImagePullBackOff: no such image")
	w.awaits("demo", status.InProgressStatus)
	w.clock.SetTime(w.clock.Now().Add(6 * time.Minute))
	w.touch("demo")
	w.awaitsMessage(v1alpha1.ConditionSchemaMigrated, metav1.ConditionFalse, v1alpha1.ReasonMigrationFailed, "change spec.image")
	w.awaits("demo", status.FailedStatus)
	w.apply("demo", "{}")
	w.awaits("demo", status.CurrentStatus)
}

// jobPod is a pod of a Job.
func (w *world) jobPod(job *batchv1.Job, phase corev1.PodPhase, state corev1.ContainerState) {
	w.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: job.Name + "-x", Namespace: w.ns, Labels: job.Spec.Template.Labels}, Spec: *job.Spec.Template.Spec.DeepCopy()}
	pod.Labels[batchv1.JobNameLabel] = job.Name
	w.must(w.Create(w.Context(), pod))
	pod.Status = corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "migrate", State: state}}}
	w.must(w.Status().Update(w.Context(), pod))
}

// A rollout that makes no progress says which pod waits for what.
func TestStuckRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", "{}")
	w.runPostgres("demo")
	w.migrate("demo", images.Cell)
	deployment := awaitsObject(w, "demo", &appsv1.Deployment{})
	pod := w.runServer(deployment, 0, "192.0.2.10")
	pod.Status.Conditions[0].Status = corev1.ConditionFalse
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "cell", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}}}}
	w.must(w.Status().Update(t.Context(), pod))
	w.setServers("demo", 0, appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded"})
	w.awaitsMessage(v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonRolloutStuck, pod.Name+" waits: ImagePullBackOff: no such image")
	w.awaits("demo", status.FailedStatus)
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRolloutStuck)
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
}

// No servers is a state that can be asked for: nothing is wrong then.
func TestScaledToZero(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{}")
	w.apply("demo", "{replicas: 0}")
	w.removePods("demo")
	w.eventually("no servers", func() error {
		var d appsv1.Deployment
		w.must(w.Get(t.Context(), w.key("demo"), &d))
		if *d.Spec.Replicas != 0 {
			return fmt.Errorf("%d", *d.Spec.Replicas)
		}
		return nil
	})
	w.setServers("demo", 0)
	w.awaits("demo", status.CurrentStatus)
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonScaledToZero)
	if s := w.cell("demo").Status; s.Replicas != 0 || s.ReadyReplicas != 0 {
		t.Errorf("status is %+v", s)
	}
	before := w.quiet()
	w.touch("demo")
	if after := w.quiet(); after != before {
		t.Errorf("wrote %v", w.writes.since(before))
	}
	w.apply("demo", "{replicas: 1}")
	w.awaitsCondition("demo", v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.rollOut("demo", "192.0.2.10")
	w.awaits("demo", status.CurrentStatus)
}

// A lost server is work in progress as long as others serve.
func TestLostServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bringUp("demo", "{replicas: 3}")
	w.setServers("demo", 2)
	c := w.awaitsCondition("demo", v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	if !strings.HasPrefix(c.Message, "2 of 3 servers serve") {
		t.Errorf("the message is %q", c.Message)
	}
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.awaits("demo", status.InProgressStatus)
	w.setServers("demo", 0)
	w.awaitsCondition("demo", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.setServers("demo", 3)
	w.awaits("demo", status.CurrentStatus)
}
