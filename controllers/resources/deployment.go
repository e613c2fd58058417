package resources

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

// ServersOptions are what a Deployment of servers needs to know beside the
// cell's spec.
type ServersOptions struct {
	// Image is the image to run.
	Image string
	// StartupHash is the hash of what servers read only at their start.
	StartupHash string
}

// Seconds that a server gets.
const (
	startPeriod, startFailures = 2, 150 // Five minutes to start: the database may be recovering.
	probePeriod, probeFailures = 5, 3
	probeTimeout               = 3
	rolloutDeadline            = 600
)

// Servers is the Deployment of the delivery servers. A new server is ready
// before an old one goes.
func Servers(cell *v1alpha1.MessagingCell, o ServersOptions) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: objectMeta(cell, ServersName(cell), ComponentServer),
		Spec: appsv1.DeploymentSpec{
			Replicas:                ptr.To(Replicas(cell)),
			Selector:                &metav1.LabelSelector{MatchLabels: Selector(cell, ComponentServer)},
			ProgressDeadlineSeconds: ptr.To[int32](rolloutDeadline),
			RevisionHistoryLimit:    ptr.To[int32](5),
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.FromInt32(1)),
				},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: podMeta(cell, ComponentServer, map[string]string{StartupAnnotation: o.StartupHash}),
				Spec:       serverPod(cell, o.Image),
			},
		},
	}
}

// Replicas is how many servers the spec asks for.
func Replicas(cell *v1alpha1.MessagingCell) int32 { return ptr.Deref(cell.Spec.Replicas, 1) }

func serverPod(cell *v1alpha1.MessagingCell, image string) corev1.PodSpec {
	pod := podSpec(cell)
	pod.TerminationGracePeriodSeconds = ptr.To(int64(gracePeriod.Seconds()))
	pod.TopologySpreadConstraints = spread(cell)
	pod.Containers = []corev1.Container{serverContainer(image)}
	attach(&pod, configMount(cell), policyMount(cell), keysMount(cell),
		secretMount("tls", TLSName(cell), tlsDir,
			corev1.KeyToPath{Key: corev1.TLSCertKey, Path: corev1.TLSCertKey}, corev1.KeyToPath{Key: corev1.TLSPrivateKeyKey, Path: corev1.TLSPrivateKeyKey}),
		databaseMount(cell))
	if ref, key := ClientCARef(cell); ref.Kind != "" {
		attach(&pod, clientCAMount(ref, key))
	}
	return pod
}

func serverContainer(image string) corev1.Container {
	c := container("cell", image)
	c.Args = []string{"serve", "--config", configFile}
	c.Ports = []corev1.ContainerPort{
		{Name: quicPortName, ContainerPort: QUICPort, Protocol: corev1.ProtocolUDP},
		{Name: opsPortName, ContainerPort: OpsPort, Protocol: corev1.ProtocolTCP},
	}
	// The collector keeps well below the limit at which the kernel kills.
	c.Env = []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "900MiB"}}
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	c.StartupProbe = httpProbe("/readyz", startPeriod, startFailures)
	c.ReadinessProbe = httpProbe("/readyz", probePeriod, probeFailures)
	c.LivenessProbe = httpProbe("/livez", 2*probePeriod, 2*probeFailures)
	return c
}

func httpProbe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString(opsPortName), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds:    period,
		FailureThreshold: failures,
		SuccessThreshold: 1,
		TimeoutSeconds:   probeTimeout,
	}
}

// spread keeps servers of one revision on different nodes and in different
// zones where that is possible, and runs them anyway where it is not.
func spread(cell *v1alpha1.MessagingCell) []corev1.TopologySpreadConstraint {
	over := func(key string) corev1.TopologySpreadConstraint {
		return corev1.TopologySpreadConstraint{
			TopologyKey:       key,
			MaxSkew:           1,
			WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector:     &metav1.LabelSelector{MatchLabels: Selector(cell, ComponentServer)},
			MatchLabelKeys:    []string{"pod-template-hash"},
		}
	}
	return []corev1.TopologySpreadConstraint{over(corev1.LabelHostname), over(corev1.LabelTopologyZone)}
}
