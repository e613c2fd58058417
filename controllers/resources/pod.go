package resources

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

// user is the uid and gid of every process of a cell. The images have it too:
// PostgreSQL wants an account of its number in /etc/passwd.
const user = 65532

// readable lets the group, which is fsGroup, read a mounted secret, and nobody
// else.
const readable = 0o440

// podSpec is what all pods of a cell have in common: the restricted Pod
// Security Standard and no way to the API server.
func podSpec(cell *v1alpha1.MessagingCell) corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName:           ServiceAccountName(cell),
		AutomountServiceAccountToken: ptr.To(false),
		EnableServiceLinks:           ptr.To(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:        ptr.To(true),
			RunAsUser:           ptr.To[int64](user),
			RunAsGroup:          ptr.To[int64](user),
			FSGroup:             ptr.To[int64](user),
			FSGroupChangePolicy: ptr.To(corev1.FSGroupChangeOnRootMismatch),
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// container is what all containers of a cell have in common. What a program
// said last stands in the pod's status, from where it reaches the cell's
// conditions.
func container(name, image string) corev1.Container {
	return corev1.Container{
		Name:                     name,
		Image:                    image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			RunAsNonRoot:             ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// mount is one volume and where a container sees it.
type mount struct {
	volume corev1.Volume
	path   string
	write  bool
}

func (m mount) volumeMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: m.volume.Name, MountPath: m.path, ReadOnly: !m.write}
}

// attach adds mounts to a pod's first container.
func attach(pod *corev1.PodSpec, mounts ...mount) {
	c := &pod.Containers[0]
	for _, m := range mounts {
		pod.Volumes = append(pod.Volumes, m.volume)
		c.VolumeMounts = append(c.VolumeMounts, m.volumeMount())
	}
}

func configMapMount(volume, configMap, path string, items ...corev1.KeyToPath) mount {
	return mount{path: path, volume: corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap}, DefaultMode: ptr.To[int32](readable), Items: items,
	}}}}
}

// secretMount shows the given keys of a Secret, under their own names or, as
// a pair of key and name, another.
func secretMount(volume, secret, path string, items ...corev1.KeyToPath) mount {
	return mount{path: path, volume: corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: secret, DefaultMode: ptr.To[int32](readable), Items: items,
	}}}}
}

func scratchMount(volume, path string) mount {
	return mount{path: path, write: true, volume: corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

// The files that a server and the migration read.
func configMount(cell *v1alpha1.MessagingCell) mount {
	return configMapMount("config", ConfigName(cell), configDir)
}

func policyMount(cell *v1alpha1.MessagingCell) mount {
	return configMapMount("policy", PolicyName(cell), policyDir)
}

// clientCAMount is of a cell that asks for client certificates.
func clientCAMount(ref Ref, key string) mount {
	item := corev1.KeyToPath{Key: key, Path: CAKey}
	if ref.Kind == "Secret" {
		return secretMount("client-ca", ref.Name, clientCADir, item)
	}
	return configMapMount("client-ca", ref.Name, clientCADir, item)
}

func keysMount(cell *v1alpha1.MessagingCell) mount {
	return secretMount("keys", KeysName(cell), keysDir)
}

func databaseMount(cell *v1alpha1.MessagingCell) mount {
	return secretMount("database", DatabaseName(cell), databaseDir, corev1.KeyToPath{Key: DatabaseKey(cell), Path: DatabaseURIKey})
}
