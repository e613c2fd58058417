package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// EndpointSpec is where clients reach the cell.
type EndpointSpec struct {
	// port is the UDP port of the Service, where QUIC is spoken.
	// +kubebuilder:default=4201
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// serviceType is how the Service is reached: from inside the cluster
	// (ClusterIP), on the nodes that run a server (NodePort: the address of a
	// single server moves with its pod) or through a load balancer.
	// +kubebuilder:default=NodePort
	// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer
	// +optional
	ServiceType corev1.ServiceType `json:"serviceType,omitempty"`

	// host is the public DNS name or IP address of the cell. It goes into the
	// certificate and into status.endpoint. Left out, the address is found.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == '' || isIP(self) || !format.dns1123Subdomain().validate(self).hasValue()",message="is neither a DNS name nor an IP address; write one such as chat.example.org, without scheme and port"
	// +optional
	Host string `json:"host,omitempty"`

	// tls is where the certificate comes from.
	// +kubebuilder:default={}
	// +optional
	TLS EndpointTLS `json:"tls,omitzero"`
}

// EndpointTLS is where the cell's certificate comes from.
type EndpointTLS struct {
	// secretName is a Secret of type kubernetes.io/tls in the same namespace.
	// Left out, the cell gets a CA of its own that issues and renews it, and
	// clients know the cell by status.pin.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self == '' || !format.dns1123Subdomain().validate(self).hasValue()",message="is not the name of a Secret; write lower-case letters, digits, dashes and dots, such as chat-tls, or leave it out for a CA of the cell's own"
	// +optional
	SecretName string `json:"secretName,omitempty"`
}
