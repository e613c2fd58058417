package resources

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

const (
	// migrationAttempts is how often a migration is tried again, with growing
	// pauses, before its Job counts as failed.
	migrationAttempts = 4
	// migrationDeadline is how long all attempts together may take, in seconds.
	migrationDeadline = 3600
	// migrationKept is how long a finished Job is kept, in seconds. A failed
	// one is made again after that.
	migrationKept = 600
)

// Migration is the Job that brings the database's schema up to what image
// needs. A Job cannot be changed: key, part of its name, must differ for each
// image and each database.
func Migration(cell *v1alpha1.MessagingCell, image, key string) *batchv1.Job {
	pod := podSpec(cell)
	pod.RestartPolicy = corev1.RestartPolicyNever
	c := container("migrate", image)
	c.Args = []string{"migrate", "--config", configFile}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
	}
	pod.Containers = []corev1.Container{c}
	attach(&pod, configMount(cell), keysMount(cell), databaseMount(cell))
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: objectMeta(cell, MigrationName(cell, key), ComponentMigration),
		Spec: batchv1.JobSpec{
			BackoffLimit:            ptr.To[int32](migrationAttempts),
			ActiveDeadlineSeconds:   ptr.To[int64](migrationDeadline),
			TTLSecondsAfterFinished: ptr.To[int32](migrationKept),
			Template:                corev1.PodTemplateSpec{ObjectMeta: podMeta(cell, ComponentMigration, nil), Spec: pod},
		},
	}
}
