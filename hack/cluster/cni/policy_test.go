package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const here, subnet = "node-1", "10.244.0.0/16"

func makePod(namespace, name, node, ip string, podLabels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: podLabels},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "quic", ContainerPort: 4433, Protocol: corev1.ProtocolUDP}},
		}}},
		Status: corev1.PodStatus{PodIP: ip, Phase: corev1.PodRunning},
	}
}

func app(name string) map[string]string { return map[string]string{"app": name} }

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: app(name)}
}

func udp(port intstr.IntOrString) networkingv1.NetworkPolicyPort {
	protocol := corev1.ProtocolUDP
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port}
}

func makePolicy(spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	for _, has := range []struct {
		is   bool
		name networkingv1.PolicyType
	}{{spec.Ingress != nil, networkingv1.PolicyTypeIngress}, {spec.Egress != nil, networkingv1.PolicyTypeEgress}} {
		if has.is {
			spec.PolicyTypes = append(spec.PolicyTypes, has.name)
		}
	}
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: spec}
}

// cellPods are two pods in namespace a, one of them here, and one in b.
func cellPods() contents {
	return contents{
		pods: []*corev1.Pod{
			makePod("a", "cell", here, "10.244.0.5", app("cell")),
			makePod("a", "client", "node-2", "10.244.1.5", app("client")),
			makePod("b", "client", "node-2", "10.244.1.6", app("client")),
		},
		namespaces: []*corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"name": "a"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"name": "b"}}},
		},
	}
}

// chain is the lines of one chain of a ruleset, or nil.
func chain(t *testing.T, rules, name string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(rules, " chain "+name+" {")
	if !ok {
		return nil
	}
	body, _, ok := strings.Cut(rest, "\n }")
	if !ok {
		t.Fatalf("chain %s does not end:\n%s", name, rules)
	}
	var lines []string
	for _, line := range strings.Split(body, "\n")[1:] {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	end := int32(5000)
	ranged := udp(intstr.FromInt32(4433))
	ranged.EndPort = &end
	for _, tc := range []struct {
		name string
		spec networkingv1.NetworkPolicySpec
		// The lines of the chain that the cell's pod gets in each direction; none
		// means that nothing is held back.
		to, from []string
	}{
		{name: "of other pods", spec: networkingv1.NetworkPolicySpec{
			PodSelector: *selector("other"), Ingress: []networkingv1.NetworkPolicyIngressRule{},
		}},
		{name: "nothing in", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{},
		}, to: []string{"drop"}},
		{name: "anybody, one named port", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{Ports: []networkingv1.NetworkPolicyPort{udp(intstr.FromString("quic"))}},
			},
		}, to: []string{"udp dport 4433 accept", "drop"}},
		{name: "a name that the protocol does not have", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{Type: intstr.String, StrVal: "quic"}}}},
			},
		}, to: []string{"drop"}},
		{name: "pods of the same namespace only", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{From: []networkingv1.NetworkPolicyPeer{{PodSelector: selector("client")}}},
			},
		}, to: []string{"ip saddr { 10.244.1.5 } accept", "drop"}},
		{name: "pods of another namespace", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "b"}},
			}}, Ports: []networkingv1.NetworkPolicyPort{ranged}}},
		}, to: []string{"ip saddr { 10.244.1.6 } udp dport 4433-5000 accept", "drop"}},
		{name: "peers that nobody is", spec: networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{From: []networkingv1.NetworkPolicyPeer{{PodSelector: selector("nobody")}}},
			},
		}, to: []string{"drop"}},
		{name: "out to a block", spec: networkingv1.NetworkPolicySpec{
			Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{
				IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}},
			}}, Ports: []networkingv1.NetworkPolicyPort{udp(intstr.FromInt32(53))}}},
		}, from: []string{"ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } udp dport 53 accept", "drop"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := cellPods()
			c.policies = []*networkingv1.NetworkPolicy{makePolicy(tc.spec)}
			rules := ruleset(here, subnet, c)
			for name, want := range map[string][]string{"to-10-244-0-5": tc.to, "from-10-244-0-5": tc.from} {
				got := chain(t, rules, name)
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("chain %s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if jumps := strings.Contains(rules, "jump "+name+"\n"); jumps != (want != nil) {
					t.Errorf("a jump to %s: %v", name, jumps)
				}
			}
			if chain(t, rules, "to-10-244-1-5") != nil {
				t.Error("a chain for a pod of another node")
			}
		})
	}
}

func TestPodsWithoutNetworkOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := cellPods()
	c.policies = []*networkingv1.NetworkPolicy{makePolicy(networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{},
	})}
	c.pods[0].Spec.HostNetwork = true
	done := makePod("a", "job", here, "10.244.0.7", nil)
	done.Status.Phase = corev1.PodSucceeded
	c.pods = append(c.pods, done)
	if rules := ruleset(here, subnet, c); strings.Contains(rules, "jump") {
		t.Errorf("rules for pods that have none:\n%s", rules)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	a, b := cellPods(), cellPods()
	b.pods[0], b.pods[2] = b.pods[2], b.pods[0]
	policy := makePolicy(networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}},
	}})
	a.policies, b.policies = []*networkingv1.NetworkPolicy{policy}, []*networkingv1.NetworkPolicy{policy}
	if x, y := ruleset(here, subnet, a), ruleset(here, subnet, b); x != y {
		t.Errorf("differ:\n%s\n%s", x, y)
	}
}

func TestConflist(t *testing.T) {
	t.Parallel()
	got, err := conflist("10.244.3.0/24")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"subnet": "10.244.3.0/24"`, `"type": "ptp"`, `"portMappings": true`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

func TestInternalIP(t *testing.T) {
	t.Parallel()
	n := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "172.18.0.9"},
		{Type: corev1.NodeInternalIP, Address: "fc00::2"},
		{Type: corev1.NodeInternalIP, Address: "172.18.0.2"},
	}}}
	if got := internalIP(n).String(); got != "172.18.0.2" {
		t.Errorf("address %s", got)
	}
	if got := internalIP(&corev1.Node{}); got != nil {
		t.Errorf("a node without addresses has %v", got)
	}
}
