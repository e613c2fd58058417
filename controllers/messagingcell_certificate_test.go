package controllers

import (
	"net"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/pki"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func makeCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", epoch, caLifetime)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// makeCertificate is one of the CA for two hosts, as it would be judged at the
// moment it is issued.
func makeCertificate(t *testing.T, ca *pki.CA) certificate {
	t.Helper()
	chain, _, err := ca.IssueServer([]string{"a.example.org", "192.0.2.1"}, epoch, certificateLifetime)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pki.ParseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	return certificate{leaf: leaf, there: true, ca: ca.Certificate(), hosts: []string{"a.example.org", "192.0.2.1"}, now: epoch}
}

func TestIssueReason(t *testing.T) {
	t.Parallel()
	ca, other := makeCA(t), makeCA(t)
	for want, change := range map[string]func(*certificate){
		"":               func(c *certificate) { c.now = epoch.Add(59 * day) },
		"Missing":        func(c *certificate) { c.there, c.leaf = false, nil },
		"Unusable":       func(c *certificate) { c.leaf = nil },
		"OtherAuthority": func(c *certificate) { c.ca = other.Certificate() },
		"HostMissing":    func(c *certificate) { c.hosts = append(c.hosts, "192.0.2.2") },
		"RenewalDue":     func(c *certificate) { c.now = epoch.Add(60 * day) },
	} {
		c := makeCertificate(t, ca)
		change(&c)
		if got := issueReason(c); got != want {
			t.Errorf("reason %q, want %q", got, want)
		}
	}
	c := makeCertificate(t, ca)
	c.hosts = c.hosts[:1] // One that went away is no reason.
	if got := issueReason(c); got != "" {
		t.Errorf("reason %q for fewer hosts", got)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	pods := []corev1.Pod{onNode("192.0.2.2", true), onNode("192.0.2.1", false), onNode("", false), onNode("192.0.2.2", true)}
	inside := []string{"demo", "demo.chat", "demo.chat.svc", "demo.chat.svc.cluster.local"}
	for name, tc := range map[string]struct {
		cell *v1alpha1.MessagingCell
		svc  *corev1.Service
		want []string
	}{
		"node port":      {makeCell(corev1.ServiceTypeNodePort, ""), service(corev1.ServiceTypeNodePort, "10.0.0.1"), append([]string{"10.0.0.1", "192.0.2.1", "192.0.2.2"}, inside...)},
		"cluster":        {makeCell(corev1.ServiceTypeClusterIP, ""), service(corev1.ServiceTypeClusterIP, "10.0.0.1"), append([]string{"10.0.0.1"}, inside...)},
		"headless":       {makeCell(corev1.ServiceTypeClusterIP, ""), service(corev1.ServiceTypeClusterIP, "None"), inside},
		"no Service yet": {makeCell(corev1.ServiceTypeClusterIP, ""), nil, inside},
		"balancer":       {makeCell(corev1.ServiceTypeLoadBalancer, "a.example.org"), service(corev1.ServiceTypeLoadBalancer, "10.0.0.1", "198.51.100.1"), append([]string{"10.0.0.1", "198.51.100.1", "a.example.org"}, inside...)},
	} {
		if got := hosts(tc.cell, tc.svc, pods, nil); !slices.Equal(got, tc.want) {
			t.Errorf("%s: hosts %v, want %v", name, got, tc.want)
		}
	}
}

// A cell that is applied again keeps the addresses that it was reached at, so
// that its servers need not wait for yet another certificate.
func TestHostsOfAReturningCell(t *testing.T) {
	t.Parallel()
	leaf := makeCertificate(t, makeCA(t)).leaf // For 192.0.2.1.
	port, inside := makeCell(corev1.ServiceTypeNodePort, ""), makeCell(corev1.ServiceTypeClusterIP, "")
	want := func(addresses ...string) []string {
		return append(addresses, "demo", "demo.chat", "demo.chat.svc", "demo.chat.svc.cluster.local")
	}
	for name, tc := range map[string]struct {
		cell *v1alpha1.MessagingCell
		pods []corev1.Pod
		want []string
	}{
		"no pods":      {port, nil, want("10.0.0.9", "192.0.2.1")},
		"unscheduled":  {port, []corev1.Pod{onNode("", false)}, want("10.0.0.9", "192.0.2.1")},
		"on a node":    {port, []corev1.Pod{onNode("", false), onNode("192.0.2.2", false)}, want("10.0.0.9", "192.0.2.2")},
		"not by nodes": {inside, nil, want("10.0.0.9")},
	} {
		svc := service(tc.cell.Spec.Endpoint.ServiceType, "10.0.0.9")
		if got := hosts(tc.cell, svc, tc.pods, leaf); !slices.Equal(got, tc.want) {
			t.Errorf("%s: hosts %v, want %v", name, got, tc.want)
		}
	}
	for range 100 {
		leaf.IPAddresses = append(leaf.IPAddresses, leaf.IPAddresses[0])
		leaf.IPAddresses[0] = net.IPv4(192, 0, 2, byte(len(leaf.IPAddresses)))
	}
	if got := len(nodeAddresses(nil, leaf)); got > 16 {
		t.Errorf("%d addresses are kept", got)
	}
}

func makeCell(kind corev1.ServiceType, host string) *v1alpha1.MessagingCell {
	return &v1alpha1.MessagingCell{
		ObjectMeta: metav1.ObjectMeta{Name: "demo", Namespace: "chat"},
		Spec:       v1alpha1.MessagingCellSpec{Endpoint: v1alpha1.EndpointSpec{Port: 4201, ServiceType: kind, Host: host}},
	}
}

func service(kind corev1.ServiceType, clusterIP string, ingress ...string) *corev1.Service {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, Ports: []corev1.ServicePort{{Port: 4201, NodePort: 30001}}}}
	for _, ip := range ingress {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	return svc
}

func onNode(ip string, ready bool) corev1.Pod {
	pod := corev1.Pod{Status: corev1.PodStatus{HostIP: ip}}
	if ready {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return pod
}

// Nothing that reads a Secret quotes it.
func TestParsePairErrors(t *testing.T) {
	t.Parallel()
	for want, data := range map[string]map[string][]byte{
		"it has no key tls.crt": {"tls.key": []byte("SECRET")},
		"it has no key tls.key": {"tls.crt": []byte("SECRET")},
		"tls.crt and tls.key are no certificate and key in PEM that belong together": {"tls.crt": []byte("SECRET"), "tls.key": []byte("SECRET")},
	} {
		if _, _, err := parsePair(&corev1.Secret{Data: data}); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
