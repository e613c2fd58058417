package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	const node, cluster, balancer = corev1.ServiceTypeNodePort, corev1.ServiceTypeClusterIP, corev1.ServiceTypeLoadBalancer
	ready := []corev1.Pod{onNode("192.0.2.3", true), onNode("192.0.2.2", true), onNode("192.0.2.1", false)}
	named := service(balancer, "10.0.0.1")
	named.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.org"}}
	noPort := service(node, "10.0.0.1")
	noPort.Spec.Ports[0].NodePort = 0
	for name, tc := range map[string]struct {
		kind       corev1.ServiceType
		host, told string
		svc        *corev1.Service
		pods       []corev1.Pod
		want       string
	}{
		"node of a ready pod":           {kind: node, pods: ready, want: "192.0.2.2:30001"},
		"node that was told":            {kind: node, told: "192.0.2.3:30001", pods: ready, want: "192.0.2.3:30001"},
		"node told lost its server":     {kind: node, told: "192.0.2.1:30001", pods: ready, want: "192.0.2.2:30001"},
		"no pod is ready":               {kind: node, pods: ready[2:]},
		"node port by name":             {kind: node, host: "a.example.org", want: "a.example.org:30001"},
		"node port not given yet":       {kind: node, svc: noPort, pods: ready},
		"inside the cluster":            {kind: cluster, want: "10.0.0.1:4201"},
		"inside the cluster, by name":   {kind: cluster, host: "a.example.org", want: "a.example.org:4201"},
		"cluster without address":       {kind: cluster, svc: service(cluster, "")},
		"IPv6":                          {kind: cluster, svc: service(cluster, "2001:db8::1"), want: "[2001:db8::1]:4201"},
		"balancer pending":              {kind: balancer, host: "a.example.org"},
		"balancer by address":           {kind: balancer, svc: service(balancer, "10.0.0.1", "198.51.100.1"), want: "198.51.100.1:4201"},
		"balancer by its name":          {kind: balancer, svc: named, want: "lb.example.org:4201"},
		"balancer by the name we chose": {kind: balancer, host: "a.example.org", svc: named, want: "a.example.org:4201"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cell := makeCell(tc.kind, tc.host)
			cell.Status.Endpoint = tc.told
			svc := tc.svc
			if svc == nil {
				svc = service(tc.kind, "10.0.0.1")
			}
			got, pending := endpointOf(cell, svc, tc.pods)
			if got != tc.want || (got == "") == (pending == "") {
				t.Errorf("endpoint %q, pending %q, want %q", got, pending, tc.want)
			}
		})
	}
	if got, pending := endpointOf(makeCell(node, ""), &corev1.Service{}, nil); got != "" || pending == "" {
		t.Errorf("a Service without ports: %q, %q", got, pending)
	}
}
