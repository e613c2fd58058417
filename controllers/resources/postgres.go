package resources

import (
	"path"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

// PostgresOptions are what the embedded PostgreSQL needs to know beside the
// cell's spec.
type PostgresOptions struct {
	// Image is the one of hack/images/postgres, or another whose entrypoint
	// takes the same environment.
	Image string
	// PasswordHash changes with the password, which is set at the start.
	PasswordHash string
	// Claim is the volume claim template that a StatefulSet already has and
	// that cannot be changed; nil for a new one.
	Claim *corev1.PersistentVolumeClaimSpec
}

const (
	postgresVolume    = "data"
	postgresDataDir   = "/var/lib/postgresql/data"
	postgresRunDir    = "/run/postgresql"
	postgresGrace     = 120 // Seconds: the last checkpoint is written.
	postgresStartTime = 900 // Seconds: recovery after a crash reads the log since the last checkpoint.
)

// Postgres is the StatefulSet of the embedded PostgreSQL: one server with one
// volume, which stays when the StatefulSet goes.
func Postgres(cell *v1alpha1.MessagingCell, o PostgresOptions) *appsv1.StatefulSet {
	claim := postgresClaim(cell)
	if o.Claim != nil {
		claim = *o.Claim.DeepCopy()
	}
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: objectMeta(cell, PostgresName(cell), ComponentPostgres),
		Spec: appsv1.StatefulSetSpec{
			Replicas:            ptr.To[int32](1),
			ServiceName:         PostgresName(cell),
			PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy:      appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
			Selector:            &metav1.LabelSelector{MatchLabels: Selector(cell, ComponentPostgres)},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
				WhenScaled:  appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: podMeta(cell, ComponentPostgres, map[string]string{StartupAnnotation: o.PasswordHash}),
				Spec:       postgresPod(cell, o.Image),
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: postgresVolume, Labels: Labels(cell, ComponentPostgres)},
				Spec:       claim,
			}},
		},
	}
}

func postgresClaim(cell *v1alpha1.MessagingCell) corev1.PersistentVolumeClaimSpec {
	storage := storageOf(cell)
	return corev1.PersistentVolumeClaimSpec{
		AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: storage.StorageClassName,
		VolumeMode:       ptr.To(corev1.PersistentVolumeFilesystem),
		Resources: corev1.VolumeResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceStorage: PostgresStorage(cell)},
		},
	}
}

func storageOf(cell *v1alpha1.MessagingCell) v1alpha1.StorageSpec {
	if cell.Spec.Database.Embedded == nil {
		return v1alpha1.StorageSpec{}
	}
	return cell.Spec.Database.Embedded.Storage
}

// PostgresStorage is the size of the volume that the spec asks for.
func PostgresStorage(cell *v1alpha1.MessagingCell) resource.Quantity {
	if size := storageOf(cell).Size; !size.IsZero() {
		return size
	}
	return resource.MustParse("10Gi")
}

func postgresPod(cell *v1alpha1.MessagingCell, image string) corev1.PodSpec {
	pod := podSpec(cell)
	pod.TerminationGracePeriodSeconds = ptr.To[int64](postgresGrace)
	pod.Containers = []corev1.Container{postgresContainer(image)}
	attach(&pod,
		secretMount("database", DatabaseName(cell), databaseDir, corev1.KeyToPath{Key: DatabasePasswordKey, Path: DatabasePasswordKey}),
		scratchMount("run", postgresRunDir), scratchMount("tmp", "/tmp"))
	c := &pod.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: postgresVolume, MountPath: postgresDataDir})
	return pod
}

func postgresContainer(image string) corev1.Container {
	c := container("postgres", image)
	c.Args = []string{"-c", "max_connections=200"}
	c.Env = []corev1.EnvVar{
		{Name: "PGDATA", Value: path.Join(postgresDataDir, "pgdata")}, // The volume itself may hold lost+found.
		{Name: "POSTGRES_USER", Value: postgresUser},
		{Name: "POSTGRES_DB", Value: postgresDatabase},
		{Name: "POSTGRES_PASSWORD_FILE", Value: path.Join(databaseDir, DatabasePasswordKey)},
	}
	c.Ports = []corev1.ContainerPort{{Name: postgresPortName, ContainerPort: PostgresPort, Protocol: corev1.ProtocolTCP}}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	c.StartupProbe = readyProbe(startPeriod, postgresStartTime/startPeriod)
	c.ReadinessProbe = readyProbe(probePeriod, probeFailures)
	// A busy database answers late, and is made no faster by being killed.
	c.LivenessProbe = readyProbe(4*probePeriod, 4*probeFailures)
	return c
}

func readyProbe(period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
			Command: []string{"pg_isready", "--quiet", "--host=127.0.0.1", "--username=" + postgresUser, "--dbname=" + postgresDatabase, "--timeout=4"},
		}},
		PeriodSeconds:    period,
		FailureThreshold: failures,
		SuccessThreshold: 1,
		TimeoutSeconds:   2 * probeTimeout,
	}
}
