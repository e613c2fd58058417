package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// contents is what of the cluster decides who may talk to whom.
type contents struct {
	pods       []*corev1.Pod
	namespaces []*corev1.Namespace
	policies   []*networkingv1.NetworkPolicy
}

// A direction of traffic: how its rules are told apart in nftables.
type direction struct {
	name     networkingv1.PolicyType
	chain    string // prefix of its chains' names
	self     string // which address is the pod's that a policy is about
	peer     string // which is the other side's
	priority string
	// What its rules do not apply to.
	except string
}

var (
	egress  = direction{name: networkingv1.PolicyTypeEgress, chain: "from", self: "saddr", peer: "daddr", priority: "filter - 2"}
	ingress = direction{
		name: networkingv1.PolicyTypeIngress, chain: "to", self: "daddr", peer: "saddr", priority: "filter - 1",
		// The kubelet's probes come from the node's own address.
		except: "fib saddr type != local ",
	}
)

// ruleset is the whole nftables table of a node, in the form nft reads: first
// the old table is deleted, then the new one made.
func ruleset(node, podSubnet string, c contents) string {
	var b strings.Builder
	b.WriteString("add table ip qpq\ndelete table ip qpq\ntable ip qpq {\n")
	fmt.Fprintf(&b, ` chain leaving {
  type nat hook postrouting priority srcnat + 1; policy accept;
  ip saddr %s ip daddr != %s fib daddr type != local oifname != "veth*" masquerade
 }
`, podSubnet, podSubnet)
	p := newPolicing(c)
	for _, d := range []direction{egress, ingress} {
		p.direct(&b, node, d)
	}
	b.WriteString("}\n")
	return b.String()
}

// policing is contents in a fixed order and without what has no address.
type policing struct {
	pods       []*corev1.Pod
	namespaces map[string]labels.Set
	policies   []*networkingv1.NetworkPolicy
}

func newPolicing(c contents) policing {
	p := policing{namespaces: map[string]labels.Set{}, policies: slices.Clone(c.policies)}
	for _, ns := range c.namespaces {
		p.namespaces[ns.Name] = ns.Labels
	}
	for _, pod := range c.pods {
		done := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !done {
			p.pods = append(p.pods, pod)
		}
	}
	slices.SortFunc(p.pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Status.PodIP, b.Status.PodIP) })
	slices.SortFunc(p.policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return p
}

// direct writes the chains of one direction: one for each pod of the node that
// a policy isolates, and the one that leads there.
func (p policing) direct(b *strings.Builder, node string, d direction) {
	var jumps []string
	for _, pod := range p.pods {
		if pod.Spec.NodeName != node {
			continue
		}
		accepts, isolated := p.accepts(pod, d)
		if !isolated {
			continue
		}
		chain := d.chain + "-" + strings.ReplaceAll(pod.Status.PodIP, ".", "-")
		fmt.Fprintf(b, " chain %s { # %s/%s\n", chain, pod.Namespace, pod.Name)
		for _, match := range accepts {
			fmt.Fprintf(b, "  %saccept\n", match)
		}
		b.WriteString("  drop\n }\n")
		jumps = append(jumps, fmt.Sprintf("  ip %s %s %sjump %s\n", d.self, pod.Status.PodIP, d.except, chain))
	}
	fmt.Fprintf(b, " chain %s-pods {\n  type filter hook forward priority %s; policy accept;\n", d.chain, d.priority)
	b.WriteString("  ct state established,related accept\n")
	b.WriteString(strings.Join(jumps, "") + " }\n")
}

// accepts lists the matches of what policies let through to or from a pod, and
// whether any policy is about that at all: without one, everything passes.
func (p policing) accepts(pod *corev1.Pod, d direction) (matches []string, isolated bool) {
	for _, policy := range p.policies {
		if policy.Namespace != pod.Namespace || !selects(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		if !slices.Contains(policy.Spec.PolicyTypes, d.name) {
			continue
		}
		isolated = true
		for _, r := range rules(policy, d) {
			for _, peer := range p.peers(policy.Namespace, r.peers, d) {
				for _, port := range p.ports(pod, r.ports, d) {
					matches = append(matches, peer+port)
				}
			}
		}
	}
	return matches, isolated
}

// A rule of either direction.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rules(policy *networkingv1.NetworkPolicy, d direction) (all []rule) {
	if d.name == ingress.name {
		for _, r := range policy.Spec.Ingress {
			all = append(all, rule{r.From, r.Ports})
		}
		return all
	}
	for _, r := range policy.Spec.Egress {
		all = append(all, rule{r.To, r.Ports})
	}
	return all
}

// peers lists the matches of a rule's other sides. No peers at all means any;
// peers that nobody is means none.
func (p policing) peers(namespace string, peers []networkingv1.NetworkPolicyPeer, d direction) []string {
	if len(peers) == 0 {
		return []string{""}
	}
	var matches, addresses []string
	for _, peer := range peers {
		if block := peer.IPBlock; block != nil {
			matches = append(matches, blockMatch(block, d))
			continue
		}
		for _, pod := range p.pods {
			if p.isPeer(pod, namespace, peer) && !slices.Contains(addresses, pod.Status.PodIP) {
				addresses = append(addresses, pod.Status.PodIP)
			}
		}
	}
	if len(addresses) > 0 {
		slices.Sort(addresses)
		matches = append(matches, fmt.Sprintf("ip %s { %s } ", d.peer, strings.Join(addresses, ", ")))
	}
	return matches
}

func blockMatch(block *networkingv1.IPBlock, d direction) string {
	match := fmt.Sprintf("ip %s %s ", d.peer, block.CIDR)
	if len(block.Except) > 0 {
		match += fmt.Sprintf("ip %s != { %s } ", d.peer, strings.Join(block.Except, ", "))
	}
	return match
}

func (p policing) isPeer(pod *corev1.Pod, namespace string, peer networkingv1.NetworkPolicyPeer) bool {
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !selects(peer.NamespaceSelector, p.namespaces[pod.Namespace]) {
		return false
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}

// ports lists the matches of a rule's ports. A port's name is that of a
// container port of the receiving pod: of pod for ingress; for egress it could
// be any pod's, which this network does not support and lets nothing through.
func (p policing) ports(pod *corev1.Pod, ports []networkingv1.NetworkPolicyPort, d direction) (matches []string) {
	if len(ports) == 0 {
		return []string{""}
	}
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		switch {
		case port.Port == nil:
			matches = append(matches, "meta l4proto "+protocol+" ")
		case port.Port.Type == intstr.Int && port.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s dport %d-%d ", protocol, port.Port.IntVal, *port.EndPort))
		case port.Port.Type == intstr.Int:
			matches = append(matches, fmt.Sprintf("%s dport %d ", protocol, port.Port.IntVal))
		case d.name == ingress.name:
			for _, number := range numbers(pod, port.Port.StrVal, protocol) {
				matches = append(matches, fmt.Sprintf("%s dport %d ", protocol, number))
			}
		}
	}
	return matches
}

// numbers are the container ports of a pod that have a name and a protocol.
func numbers(pod *corev1.Pod, name, protocol string) (all []int32) {
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			is := strings.ToLower(cmp.Or(string(port.Protocol), "tcp"))
			if port.Name == name && is == protocol {
				all = append(all, port.ContainerPort)
			}
		}
	}
	return all
}

// selects reports whether a selector matches. The API server lets no invalid
// one pass.
func selects(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}
