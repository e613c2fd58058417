package controllers

import (
	"context"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileEndpoint finds out where clients reach the cell, and whether the
// certificate is for there.
func reconcileEndpoint(_ context.Context, s *scope) (ctrl.Result, error) {
	status := &s.cell.Status
	if s.pin != "" || s.leaf != nil {
		status.Pin = s.pin
	}
	if s.endpoint == nil {
		return ctrl.Result{}, nil // The phase of the Services has said why.
	}
	address, pending := endpointOf(s.cell, s.endpoint, s.pods)
	switch {
	case resources.Replicas(s.cell) == 0:
		s.say(v1alpha1.ConditionEndpointReady, metav1.ConditionTrue, v1alpha1.ReasonScaledToZero, "no servers run, as spec.replicas asks")
	case pending != "":
		s.bad(v1alpha1.ConditionEndpointReady, v1alpha1.ReasonEndpointPending, "%s", pending)
	}
	status.Endpoint = address
	if given := s.cell.Spec.Endpoint.TLS.SecretName; given != "" && s.leaf != nil && address != "" {
		host, _, _ := net.SplitHostPort(address) //nolint:errcheck // JoinHostPort made it.
		if err := s.leaf.VerifyHostname(host); err != nil {
			s.bad(v1alpha1.ConditionEndpointReady, v1alpha1.ReasonSecretInvalid, "the certificate in Secret %s is not valid for %s (%s): set spec.endpoint.host to a name it has, or have it issued for this one", given, host, err)
		}
	}
	return ctrl.Result{}, nil
}

// endpointOf is the HOST:PORT by which clients reach a cell from where its kind
// of Service lets them, or what is waited for.
func endpointOf(cell *v1alpha1.MessagingCell, svc *corev1.Service, pods []corev1.Pod) (address, pending string) {
	if len(svc.Spec.Ports) == 0 {
		return "", "the Service has no port yet"
	}
	port := svc.Spec.Ports[0]
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return nodeEndpoint(cell, port.NodePort, pods)
	case corev1.ServiceTypeLoadBalancer:
		return balancerEndpoint(cell, svc, port.Port)
	}
	host := cell.Spec.Endpoint.Host
	if host == "" {
		host = svc.Spec.ClusterIP
	}
	return join(host, port.Port, "the Service has no address yet")
}

// nodeEndpoint leads to a node that has a server: others do not answer. It
// stays with the node that was told last as long as that has one.
func nodeEndpoint(cell *v1alpha1.MessagingCell, port int32, pods []corev1.Pod) (string, string) {
	host := cell.Spec.Endpoint.Host
	if host == "" {
		host = nodeOf(cell.Status.Endpoint, pods)
	}
	return join(host, port, "waits for a server that is ready: clients reach the cell on the node of one")
}

func nodeOf(told string, pods []corev1.Pod) string {
	var nodes []string
	for i := range pods {
		if ip := pods[i].Status.HostIP; ip != "" && podReady(&pods[i]) {
			nodes = append(nodes, ip)
		}
	}
	slices.Sort(nodes)
	if host, _, err := net.SplitHostPort(told); err == nil && slices.Contains(nodes, host) {
		return host
	}
	if len(nodes) == 0 {
		return ""
	}
	return nodes[0]
}

func balancerEndpoint(cell *v1alpha1.MessagingCell, svc *corev1.Service, port int32) (string, string) {
	const pending = "the load balancer has no address yet: if it gets none, the cluster has no load balancers; write spec.endpoint.serviceType: NodePort"
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return "", pending
	}
	ingress := svc.Status.LoadBalancer.Ingress[0]
	for _, host := range []string{cell.Spec.Endpoint.Host, ingress.Hostname, ingress.IP} {
		if host != "" {
			return join(host, port, pending)
		}
	}
	return "", pending
}

func join(host string, port int32, pending string) (string, string) {
	if host == "" || port == 0 {
		return "", pending
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), ""
}
