package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	netlisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// Changes come in bursts; one look per burst is enough.
	settle = 200 * time.Millisecond
	// After a failure, and now and then in case somebody else flushed a table.
	retry  = time.Second
	resync = 10 * time.Minute
)

// An agent keeps one node's network as the cluster's objects say.
type agent struct {
	node, subnet string
	factory      informers.SharedInformerFactory
	nodes        corelisters.NodeLister
	pods         corelisters.PodLister
	namespaces   corelisters.NamespaceLister
	policies     netlisters.NetworkPolicyLister
	changed      chan struct{} // holds one element when there is something to do

	conflist, rules string // as last written
}

func newAgent(client kubernetes.Interface, node, subnet string) (*agent, error) {
	factory := informers.NewSharedInformerFactory(client, resync)
	core, networking := factory.Core().V1(), factory.Networking().V1()
	a := &agent{
		node: node, subnet: subnet, factory: factory,
		nodes: core.Nodes().Lister(), pods: core.Pods().Lister(), namespaces: core.Namespaces().Lister(),
		policies: networking.NetworkPolicies().Lister(),
		changed:  make(chan struct{}, 1),
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { a.poke() },
		UpdateFunc: func(any, any) { a.poke() },
		DeleteFunc: func(any) { a.poke() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Nodes().Informer(), core.Pods().Informer(), core.Namespaces().Informer(),
		networking.NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *agent) poke() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (a *agent) run(ctx context.Context) error {
	a.factory.Start(ctx.Done())
	a.factory.WaitForCacheSync(ctx.Done())
	a.poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.changed:
		}
		pause := settle
		if err := a.reconcile(ctx); err != nil {
			slog.ErrorContext(ctx, "reconcile", "error", err)
			pause = retry
			a.poke()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (a *agent) reconcile(ctx context.Context) error {
	nodes, err := a.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	return errors.Join(a.connect(nodes), a.enforce(ctx))
}

// enforce replaces the node's nftables table if it must change. nft applies a
// file as one transaction, so that no packet meets half a policy.
func (a *agent) enforce(ctx context.Context) error {
	c, err := a.snapshot()
	if err != nil {
		return err
	}
	rules := ruleset(a.node, a.subnet, c)
	if rules == a.rules {
		return nil
	}
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	var stderr bytes.Buffer
	nft.Stdin, nft.Stderr = strings.NewReader(rules), &stderr
	if err := nft.Run(); err != nil {
		return fmt.Errorf("nft: %w: %s, given:\n%s", err, stderr.String(), rules)
	}
	a.rules = rules
	return nil
}

func (a *agent) snapshot() (contents, error) {
	var c contents
	var errs [3]error
	c.pods, errs[0] = a.pods.List(labels.Everything())
	c.namespaces, errs[1] = a.namespaces.List(labels.Everything())
	c.policies, errs[2] = a.policies.List(labels.Everything())
	return c, errors.Join(errs[:]...)
}
