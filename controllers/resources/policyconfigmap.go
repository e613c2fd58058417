package resources

import (
	corev1 "k8s.io/api/core/v1"

	"quicproquo.dev/api/v1alpha1"
)

// Policy is the ConfigMap that brings the policy file, as PolicyFile makes it,
// to running servers.
func Policy(cell *v1alpha1.MessagingCell, file []byte) *corev1.ConfigMap {
	return configMap(cell, PolicyName(cell), ComponentServer, map[string]string{PolicyKey: string(file)})
}
