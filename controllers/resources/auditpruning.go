package resources

import (
	"fmt"
	"hash/fnv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

const (
	// pruningAttempts is how often a pruning is tried again on the same day.
	pruningAttempts = 2
	// pruningDeadline is how long it may take, in seconds: it verifies what it
	// removes.
	pruningDeadline = 3 * 3600
	// pruningLate is how much later than planned it may begin, in seconds.
	pruningLate = 4 * 3600
)

// AuditPruning is the CronJob that removes, once a day, what the audit log has
// kept for as long as the policy says. It runs with the credentials of the
// migration: those of the role that owns the tables.
func AuditPruning(cell *v1alpha1.MessagingCell, image string) *batchv1.CronJob {
	pod := podSpec(cell)
	pod.RestartPolicy = corev1.RestartPolicyNever
	c := container("prune", image)
	c.Args = []string{"audit", "prune", "--config", configFile}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
	}
	pod.Containers = []corev1.Container{c}
	attach(&pod, configMount(cell), policyMount(cell), keysMount(cell), databaseMount(cell))
	return &batchv1.CronJob{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		ObjectMeta: objectMeta(cell, AuditPruningName(cell), ComponentPruning),
		Spec: batchv1.CronJobSpec{
			Schedule:                   pruningSchedule(cell),
			ConcurrencyPolicy:          batchv1.ForbidConcurrent,
			StartingDeadlineSeconds:    ptr.To[int64](pruningLate),
			SuccessfulJobsHistoryLimit: ptr.To[int32](1),
			FailedJobsHistoryLimit:     ptr.To[int32](3),
			JobTemplate: batchv1.JobTemplateSpec{
				ObjectMeta: podMeta(cell, ComponentPruning, nil),
				Spec: batchv1.JobSpec{
					BackoffLimit:          ptr.To[int32](pruningAttempts),
					ActiveDeadlineSeconds: ptr.To[int64](pruningDeadline),
					Template:              corev1.PodTemplateSpec{ObjectMeta: podMeta(cell, ComponentPruning, nil), Spec: pod},
				},
			},
		},
	}
}

// pruningSchedule is a time between midnight and six, the same for a cell at
// all times, and not the same for all cells.
func pruningSchedule(cell *v1alpha1.MessagingCell) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(cell.Namespace + "/" + cell.Name)) // A hash takes everything.
	minute := h.Sum32() % (6 * 60)
	return fmt.Sprintf("%d %d * * *", minute%60, minute/60)
}
