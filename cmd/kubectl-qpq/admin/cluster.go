package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// cluster is what a kubeconfig leads to.
type cluster struct {
	client.Client
	namespace string
}

// connect finds the cluster as kubectl does. Nothing is asked of it yet.
func (f *flags) connect() (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.context}
	overrides.Context.Namespace = f.namespace
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	namespace, _, err := config.Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	rest, err := config.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("there is no kubeconfig: name one with --kubeconfig or KUBECONFIG, or a cell without a cluster with --connection FILE")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.New(rest, client.Options{Scheme: scheme, Mapper: mapper()})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return &cluster{c, namespace}, nil
}

// mapper knows the kinds that are asked for, so that the cluster need not be asked what it has.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{v1alpha1.GroupVersion.WithKind(v1alpha1.Kind), corev1.SchemeGroupVersion.WithKind("Secret"), corev1.SchemeGroupVersion.WithKind("ConfigMap")} {
		m.Add(kind, meta.RESTScopeNamespace)
	}
	return m
}

// fromCluster reads the cell's status and the Secret that the operator keeps.
func (f *flags) fromCluster(ctx context.Context) (place, error) {
	c, err := f.connect()
	if err != nil {
		return place{}, err
	}
	cell, err := c.cell(ctx, f.cell)
	if err != nil {
		return place{}, err
	}
	p := place{endpoint: cell.Status.Endpoint, pin: cell.Status.Pin}
	if p.endpoint == "" && f.endpoint == "" {
		return p, fmt.Errorf("MessagingCell %s has no endpoint yet%s; wait until it is ready, or name one with --endpoint HOST:PORT", cell.Name, because(cell))
	}
	if p.pin == "" && f.ca == "" && f.pin == "" {
		if p.ca, err = c.publishedCA(ctx, cell); err != nil {
			return p, err
		}
	}
	if f.clientCert == "" {
		p.token, p.where, err = c.token(ctx, cell, f.auditor)
	}
	return p, err
}

// because is why a cell is not ready, in brackets.
func because(cell *v1alpha1.MessagingCell) string {
	ready := meta.FindStatusCondition(cell.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status == metav1.ConditionTrue {
		return ""
	}
	return " (" + ready.Message + ")"
}

func (c *cluster) cell(ctx context.Context, name string) (*v1alpha1.MessagingCell, error) {
	if name == "" {
		return c.onlyCell(ctx)
	}
	var cell v1alpha1.MessagingCell
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &cell)
	if apierrors.IsNotFound(err) && !unknownKind(err) {
		return nil, fmt.Errorf("there is no MessagingCell %s in namespace %s; kubectl get messagingcells -A lists them", name, c.namespace)
	}
	return &cell, c.explain("get", "messagingcells", err)
}

// onlyCell is for who names none.
func (c *cluster) onlyCell(ctx context.Context) (*v1alpha1.MessagingCell, error) {
	var list v1alpha1.MessagingCellList
	if err := c.List(ctx, &list, client.InNamespace(c.namespace)); err != nil {
		return nil, c.explain("list", "messagingcells", err)
	}
	switch len(list.Items) {
	case 0:
		return nil, fmt.Errorf("there is no MessagingCell in namespace %s; name another with -n", c.namespace)
	case 1:
		return &list.Items[0], nil
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("there are several MessagingCells in namespace %s: name one with --cell (%s)", c.namespace, strings.Join(names, ", "))
}

// token reads what makes whoever may read it an admin.
func (c *cluster) token(ctx context.Context, cell *v1alpha1.MessagingCell, auditor bool) (token, where string, err error) {
	key := resources.AdminTokenKey
	if auditor {
		key = resources.AuditorTokenKey
	}
	name := resources.AdminName(cell)
	where = fmt.Sprintf("Secret %s in namespace %s", name, c.namespace)
	var secret corev1.Secret
	err = c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &secret)
	if apierrors.IsNotFound(err) {
		return "", where, fmt.Errorf("there is no %s: the operator makes it; see whether it runs, and kubectl describe messagingcell %s", where, cell.Name)
	}
	if err != nil {
		return "", where, c.explain("get", "secret "+name, err)
	}
	if len(secret.Data[key]) == 0 {
		return "", where, fmt.Errorf("%s has no key %s: delete it, and the operator makes it anew", where, key)
	}
	return string(secret.Data[key]), where, nil
}

// publishedCA is for a cell whose certificate chain does not say which CA to pin.
func (c *cluster) publishedCA(ctx context.Context, cell *v1alpha1.MessagingCell) ([]byte, error) {
	var published corev1.ConfigMap
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: resources.CAName(cell)}, &published)
	if err != nil || published.Data[resources.CAKey] == "" {
		return nil, fmt.Errorf("MessagingCell %s has no pin%s: give its CA's certificate with --ca FILE", cell.Name, because(cell))
	}
	return []byte(published.Data[resources.CAKey]), nil
}

// unknownKind tells a cluster that does not know a kind from one that has no object of that name.
func unknownKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// explain says which right is missing.
func (c *cluster) explain(verb, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return fmt.Errorf("your account in the cluster may not %s %s in namespace %s; who administers cells needs to get messagingcells and the Secret <cell>-admin (%w)", verb, what, c.namespace, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the cluster does not take your credentials: log in to it (%w)", err)
	case unknownKind(err):
		return errors.New("this cluster has no MessagingCells: install the operator, or choose another cluster with --context")
	}
	return fmt.Errorf("asking the cluster: %w", err)
}
