package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// apply applies a cell as kubectl does.
func (w *world) apply(name, spec string) {
	w.Helper()
	w.must(w.tryApply(name, spec))
}

func (w *world) tryApply(name, spec string) error {
	w.Helper()
	text := fmt.Sprintf("apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", name, w.ns, spec)
	var tree map[string]any
	w.must(yaml.Unmarshal([]byte(text), &tree))
	return w.Client.Apply(w.Context(), client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: tree}), client.FieldOwner("kubectl"), client.ForceOwnership)
}

func (w *world) cell(name string) *v1alpha1.MessagingCell {
	w.Helper()
	var cell v1alpha1.MessagingCell
	w.must(w.Get(w.Context(), w.key(name), &cell))
	return &cell
}

func (w *world) kstatus(name string) (status.Status, string) {
	w.Helper()
	var u unstructured.Unstructured
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	w.must(w.Get(w.Context(), w.key(name), &u))
	result, err := status.Compute(&u)
	w.must(err)
	return result.Status, result.Message
}

// awaits waits for kstatus's verdict.
func (w *world) awaits(name string, want status.Status) {
	w.Helper()
	w.eventually("kstatus of "+name, func() error {
		got, message := w.kstatus(name)
		if got != want {
			return fmt.Errorf("%s (%s), want %s; conditions %s", got, message, want, conditions(w.cell(name)))
		}
		return nil
	})
}

// awaitsCondition waits for a condition, and returns it.
func (w *world) awaitsCondition(name, kind string, want metav1.ConditionStatus, reason string) metav1.Condition {
	w.Helper()
	var found metav1.Condition
	w.eventually("condition "+kind+" of "+name, func() error {
		cell := w.cell(name)
		c := meta.FindStatusCondition(cell.Status.Conditions, kind)
		if c == nil || c.Status != want || c.Reason != reason || cell.Status.ObservedGeneration != cell.Generation {
			return fmt.Errorf("want %s=%s %s, have generation %d observed %d, %s", kind, want, reason, cell.Generation, cell.Status.ObservedGeneration, conditions(cell))
		}
		found = *c
		return nil
	})
	return found
}

// awaitsMessage is awaitsCondition for one that also says something.
func (w *world) awaitsMessage(kind string, want metav1.ConditionStatus, reason, part string) metav1.Condition {
	w.Helper()
	var c metav1.Condition
	w.eventually("a message with "+part, func() error {
		c = w.awaitsCondition("demo", kind, want, reason)
		if !strings.Contains(c.Message, part) {
			return fmt.Errorf("it is %q", c.Message)
		}
		return nil
	})
	return c
}

func conditions(cell *v1alpha1.MessagingCell) string {
	var text []string
	for _, c := range cell.Status.Conditions {
		text = append(text, fmt.Sprintf("%s=%s %s (%s)", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(text, "\n\t")
}

// awaitsObject waits until an object is there.
func awaitsObject[T client.Object](w *world, name string, object T) T {
	w.Helper()
	w.eventually(fmt.Sprintf("%T %s", object, name), func() error { return w.Get(w.Context(), w.key(name), object) })
	return object
}

// The following play the cluster's own controllers and the kubelet.

// runPostgres makes the embedded database answer.
func (w *world) runPostgres(name string) {
	w.Helper()
	set := awaitsObject(w, name+"-postgres", &appsv1.StatefulSet{})
	claim := &corev1.PersistentVolumeClaim{}
	err := w.Get(w.Context(), w.key("data-"+set.Name+"-0"), claim)
	if apierrors.IsNotFound(err) {
		template := set.Spec.VolumeClaimTemplates[0]
		claim = &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data-" + set.Name + "-0", Namespace: w.ns, Labels: template.Labels},
			Spec:       template.Spec,
		}
		err = w.Create(w.Context(), claim)
	}
	w.must(err)
	w.postgres(name, 1)
}

// postgres sets how many of the embedded database's servers are ready.
func (w *world) postgres(name string, ready int32) {
	w.Helper()
	var set appsv1.StatefulSet
	w.eventually("status of the StatefulSet", func() error {
		if err := w.Get(w.Context(), w.key(name+"-postgres"), &set); err != nil {
			return err
		}
		set.Status = appsv1.StatefulSetStatus{ObservedGeneration: set.Generation, Replicas: 1, ReadyReplicas: ready, AvailableReplicas: ready,
			CurrentRevision: set.Name + "-1", UpdateRevision: set.Name + "-1", UpdatedReplicas: 1, CurrentReplicas: 1}
		return w.Status().Update(w.Context(), &set)
	})
}

// job waits for the migration Job of an image that has not finished.
func (w *world) job(name, image string) *batchv1.Job {
	w.Helper()
	var found batchv1.Job
	w.eventually("migration Job for "+image, func() error {
		var list batchv1.JobList
		w.must(w.List(w.Context(), &list, client.InNamespace(w.ns), client.MatchingLabels{resources.CellLabel: name}))
		for _, job := range list.Items {
			if job.Spec.Template.Spec.Containers[0].Image == image && len(job.Status.Conditions) == 0 && job.DeletionTimestamp == nil {
				found = job
				return nil
			}
		}
		return fmt.Errorf("there are %d Jobs, none of them this", len(list.Items))
	})
	return &found
}

// finish ends a Job.
func (w *world) finish(job *batchv1.Job, how batchv1.JobConditionType) {
	w.Helper()
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	job.Status.StartTime = &now
	add := func(kind batchv1.JobConditionType) {
		job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now, LastProbeTime: now, Reason: "Played"})
	}
	if how == batchv1.JobComplete {
		job.Status.Succeeded, job.Status.CompletionTime = 1, &now
		add(batchv1.JobSuccessCriteriaMet)
	} else {
		add(batchv1.JobFailureTarget)
	}
	add(how)
	w.must(w.Status().Update(w.Context(), job))
}

// migrate lets the migration of an image succeed.
func (w *world) migrate(name, image string) {
	w.Helper()
	w.finish(w.job(name, image), batchv1.JobComplete)
}

// rollOut runs as many servers as the Deployment asks for, on the given nodes
// in turn.
func (w *world) rollOut(name string, nodes ...string) {
	w.Helper()
	deployment := awaitsObject(w, name, &appsv1.Deployment{})
	w.removePods(name)
	for i := range *deployment.Spec.Replicas {
		w.runServer(deployment, int(i), nodes[int(i)%len(nodes)])
	}
	w.setServers(name, *deployment.Spec.Replicas)
}

func (w *world) removePods(name string) {
	w.Helper()
	w.must(w.DeleteAllOf(w.Context(), &corev1.Pod{}, client.InNamespace(w.ns),
		client.MatchingLabels{resources.CellLabel: name, resources.ComponentLabel: resources.ComponentServer}, client.GracePeriodSeconds(0)))
}

var podAddresses = func() func() string {
	next := make(chan int, 1)
	next <- 0
	return func() string {
		n := <-next + 1
		next <- n
		return fmt.Sprintf("10.244.%d.%d", n/250, n%250+1)
	}
}()

func (w *world) runServer(deployment *appsv1.Deployment, number int, node string) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d-%d", deployment.Name, deployment.Generation, number), Namespace: w.ns,
			Labels: deployment.Spec.Template.Labels, Annotations: deployment.Spec.Template.Annotations},
		Spec: *deployment.Spec.Template.Spec.DeepCopy(),
	}
	pod.Spec.NodeName = "node-" + strings.ReplaceAll(node, ".", "-")
	w.must(w.Create(w.Context(), pod))
	ip := podAddresses()
	w.servers.add(ip, deployment.Name)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: node, HostIPs: []corev1.HostIP{{IP: node}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(w.clock.Now())}}}
	w.must(w.Status().Update(w.Context(), pod))
	return pod
}

// setServers sets how many servers of the newest revision are available.
func (w *world) setServers(name string, available int32, extra ...appsv1.DeploymentCondition) {
	w.Helper()
	w.eventually("status of the Deployment", func() error {
		var d appsv1.Deployment
		if err := w.Get(w.Context(), w.key(name), &d); err != nil {
			return err
		}
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: *d.Spec.Replicas, UpdatedReplicas: *d.Spec.Replicas,
			ReadyReplicas: available, AvailableReplicas: available, Conditions: extra}
		return w.Status().Update(w.Context(), &d)
	})
}

// bringUp applies a cell with an embedded database and plays until it is ready.
func (w *world) bringUp(name, spec string) *v1alpha1.MessagingCell {
	w.Helper()
	w.apply(name, spec)
	w.runPostgres(name)
	w.migrate(name, w.images.Cell)
	w.rollOut(name, "192.0.2.10", "192.0.2.11", "192.0.2.12")
	w.awaits(name, status.CurrentStatus)
	return w.cell(name)
}

// collects plays the garbage collector for a deleted cell until the test
// ends: like the real one it comes back, for what an operator that had not
// yet seen the deletion put there in the meantime.
func (w *world) collects(cell *v1alpha1.MessagingCell) {
	w.Helper()
	w.removePods(cell.Name)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	w.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() {
		for ctx.Err() == nil {
			if err := w.collectOnce(ctx, cell); err != nil && ctx.Err() == nil {
				w.Errorf("collecting what %s owned: %v", cell.Name, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

func (w *world) collectOnce(ctx context.Context, cell *v1alpha1.MessagingCell) error {
	for _, list := range []client.ObjectList{&corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.ServiceAccountList{}, &corev1.SecretList{},
		&corev1.PersistentVolumeClaimList{}, &appsv1.DeploymentList{}, &appsv1.StatefulSetList{}, &batchv1.JobList{}, &batchv1.CronJobList{}, &policyv1.PodDisruptionBudgetList{}} {
		if err := w.List(ctx, list, client.InNamespace(w.ns)); err != nil {
			return err
		}
		err := meta.EachListItem(list, func(item runtime.Object) error {
			object := item.(client.Object)
			if !slices.ContainsFunc(object.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == cell.UID }) {
				return nil
			}
			return client.IgnoreNotFound(w.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) gone(object client.Object) error {
	err := w.Get(w.Context(), client.ObjectKeyFromObject(object), object)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return errors.Join(err, fmt.Errorf("%T %s is there", object, object.GetName()))
}
