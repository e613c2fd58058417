package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
)

const (
	confDir  = "/etc/cni/net.d"
	confName = "10-qpq.conflist"
	// mtu is that of the nodes' own network, a Docker bridge.
	mtu = 1500
)

type object = map[string]any

// conflist is the CNI configuration of a node: each pod gets a veth and an
// address of the node's pod subnet, and its host ports.
func conflist(podCIDR string) (string, error) {
	b, err := json.MarshalIndent(object{
		"cniVersion": "0.4.0",
		"name":       "qpq",
		"plugins": []object{
			{
				"type": "ptp", "ipMasq": false, "mtu": mtu,
				"ipam": object{
					"type": "host-local", "dataDir": "/run/cni-ipam-state",
					"routes": []object{{"dst": "0.0.0.0/0"}},
					"ranges": [][]object{{{"subnet": podCIDR}}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", " ")
	return string(b), err
}

// connect writes the CNI configuration of this node, and one route per other
// node. The kubelet calls the node ready once the configuration is there.
func (a *agent) connect(nodes []*corev1.Node) error {
	var errs []error
	for _, n := range nodes {
		switch {
		case n.Spec.PodCIDR == "": // not assigned yet; the node will change
		case n.Name == a.node:
			errs = append(errs, a.configure(n.Spec.PodCIDR))
		default:
			errs = append(errs, route(n))
		}
	}
	return errors.Join(errs...)
}

func (a *agent) configure(podCIDR string) error {
	want, err := conflist(podCIDR)
	if err != nil || want == a.conflist {
		return err
	}
	temp := filepath.Join(confDir, ".qpq.new")
	if err := os.WriteFile(temp, []byte(want), 0o644); err != nil { //nolint:gosec // no secret; other programs read it
		return err
	}
	if err := os.Rename(temp, filepath.Join(confDir, confName)); err != nil {
		return err
	}
	a.conflist = want
	slog.Info("pods of this node", "subnet", podCIDR)
	return nil
}

func route(n *corev1.Node) error {
	via := internalIP(n)
	if via == nil {
		return nil // the node has not said yet; it will change
	}
	_, subnet, err := net.ParseCIDR(n.Spec.PodCIDR)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: subnet, Gw: via}); err != nil {
		return fmt.Errorf("route to %s via %s: %w", subnet, via, err)
	}
	return nil
}

// internalIP is the node's IPv4 address, or nil.
func internalIP(n *corev1.Node) net.IP {
	for _, address := range n.Status.Addresses {
		if ip := net.ParseIP(address.Address).To4(); address.Type == corev1.NodeInternalIP && ip != nil {
			return ip
		}
	}
	return nil
}
