package resources

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"quicproquo.dev/api/v1alpha1"
)

// ServiceAccount is who the cell's pods are. It may do nothing: no pod of a
// cell talks to the API server. Registry credentials can be added to its
// imagePullSecrets; the operator leaves that field alone.
func ServiceAccount(cell *v1alpha1.MessagingCell) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta:                     metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta:                   objectMeta(cell, ServiceAccountName(cell), ComponentServer),
		AutomountServiceAccountToken: ptr.To(false),
	}
}
