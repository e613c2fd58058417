package resources

import (
	corev1 "k8s.io/api/core/v1"

	"quicproquo.dev/api/v1alpha1"
)

// CASecretAnnotation is on the ConfigMap of CA and names the Secret with the
// CA's key, if the CA is the cell's own.
const CASecretAnnotation = "messaging.quicproquo.dev/ca-secret"

// CA is the ConfigMap that publishes the CA certificate, PEM, that clients of
// the cell trust: what `qpq --ca` takes. secretName names the Secret with its
// key; it is empty for a CA that is not the cell's own.
func CA(cell *v1alpha1.MessagingCell, certPEM []byte, secretName string) *corev1.ConfigMap {
	cm := configMap(cell, CAName(cell), ComponentServer, map[string]string{CAKey: string(certPEM)})
	if secretName != "" {
		cm.Annotations = map[string]string{CASecretAnnotation: secretName}
	}
	return cm
}
