package resources

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"quicproquo.dev/api/v1alpha1"
)

// Endpoint is the UDP Service that clients reach. From outside the cluster it
// leads only to pods of the node that was asked, which keeps the client's
// address: the limits per address need it.
func Endpoint(cell *v1alpha1.MessagingCell) *corev1.Service {
	kind := cell.Spec.Endpoint.ServiceType
	s := service(cell, EndpointName(cell), ComponentServer, corev1.ServicePort{
		Name: quicPortName, Protocol: corev1.ProtocolUDP, Port: cell.Spec.Endpoint.Port, TargetPort: intstr.FromString(quicPortName),
	})
	s.Spec.Type = kind
	if kind != corev1.ServiceTypeClusterIP {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	return s
}

// Ops is the Service of the servers' ops ports, for metrics and health, inside
// the cluster alone.
func Ops(cell *v1alpha1.MessagingCell) *corev1.Service {
	s := service(cell, OpsName(cell), ComponentServer, corev1.ServicePort{
		Name: opsPortName, Protocol: corev1.ProtocolTCP, Port: OpsPort, TargetPort: intstr.FromString(opsPortName),
	})
	s.Spec.Type = corev1.ServiceTypeClusterIP
	return s
}

// PostgresService gives the embedded PostgreSQL its name. The name resolves
// before the server is ready, so that nobody remembers that it did not.
func PostgresService(cell *v1alpha1.MessagingCell) *corev1.Service {
	s := service(cell, PostgresName(cell), ComponentPostgres, corev1.ServicePort{
		Name: postgresPortName, Protocol: corev1.ProtocolTCP, Port: PostgresPort, TargetPort: intstr.FromString(postgresPortName),
	})
	s.Spec.Type = corev1.ServiceTypeClusterIP
	s.Spec.ClusterIP = corev1.ClusterIPNone
	s.Spec.PublishNotReadyAddresses = true
	return s
}

func service(cell *v1alpha1.MessagingCell, name, component string, port corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: objectMeta(cell, name, component),
		Spec:       corev1.ServiceSpec{Selector: Selector(cell, component), Ports: []corev1.ServicePort{port}},
	}
}
