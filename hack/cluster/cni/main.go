// qpq-cni is the pod network of a local cluster that has no registry to fetch
// another from. On each node it writes the CNI configuration from the node's
// pod subnet, routes to the other nodes' pods, masquerades what leaves the pod
// network, and enforces NetworkPolicies. IPv4 only.
//
// Environment: NODE_NAME is this node, POD_SUBNET the cluster's pod subnet, and
// CONTROL_PLANE_ENDPOINT (optional, host:port) an API server to use before
// kube-proxy serves the usual address.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("giving up", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	node, subnet := os.Getenv("NODE_NAME"), os.Getenv("POD_SUBNET")
	if node == "" {
		return fmt.Errorf("NODE_NAME is not set")
	}
	if ip, _, err := net.ParseCIDR(subnet); err != nil || ip.To4() == nil {
		return fmt.Errorf("POD_SUBNET %q is not an IPv4 subnet", subnet)
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	if endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT"); endpoint != "" {
		config.Host = "https://" + endpoint
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	a, err := newAgent(client, node, subnet)
	if err != nil {
		return err
	}
	return a.run(ctx)
}
