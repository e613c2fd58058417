package controllers

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// cellsAtOnce is how many cells are worked on at the same time.
const cellsAtOnce = 4

// SetupWithManager makes the manager, made with CacheOptions and
// ClientOptions, wake the reconciler by whatever concerns a cell.
func (r *MessagingCellReconciler) SetupWithManager(mgr ctrl.Manager) error {
	ofCell := handler.EnqueueRequestsFromMapFunc(cellOf)
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.MessagingCell{}).
		Owns(&corev1.ConfigMap{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&appsv1.Deployment{}).
		Owns(&appsv1.StatefulSet{}).
		Owns(&batchv1.Job{}).
		Owns(&batchv1.CronJob{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Watches(&corev1.Pod{}, ofCell).
		Watches(&corev1.PersistentVolumeClaim{}, ofCell).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.cellsOfSecret)).
		WithOptions(controller.Options{MaxConcurrentReconciles: cellsAtOnce}).
		Complete(r)
}

// cellOf maps what carries a cell's label to the cell.
func cellOf(_ context.Context, object client.Object) []reconcile.Request {
	name := object.GetLabels()[resources.CellLabel]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}}}
}

// cellsOfSecret maps a Secret to the cells that made it or name it.
func (r *MessagingCellReconciler) cellsOfSecret(ctx context.Context, object client.Object) []reconcile.Request {
	requests := cellOf(ctx, object)
	var cells v1alpha1.MessagingCellList
	if err := r.List(ctx, &cells, client.InNamespace(object.GetNamespace())); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing cells")
		return requests
	}
	for i := range cells.Items {
		cell := &cells.Items[i]
		clientCA, _ := resources.ClientCARef(cell)
		if object.GetName() == resources.TLSName(cell) || object.GetName() == resources.DatabaseName(cell) || clientCA == (resources.Ref{Kind: "Secret", Name: object.GetName()}) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(cell)})
		}
	}
	return requests
}

// Scheme knows every kind that the operator works with.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
}

// CacheOptions are those of the manager's cache: it looks at the given
// namespaces alone, holds of each kind only what the operator made, and of
// Secrets neither content nor annotations. It needs no permission for the
// whole cluster.
func CacheOptions(namespaces []string) cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{resources.ManagedByLabel: resources.Manager})}
	o := cache.Options{
		DefaultNamespaces:           map[string]cache.Config{},
		DefaultTransform:            cache.TransformStripManagedFields(),
		ReaderFailOnMissingInformer: true,
		ByObject:                    map[client.Object]cache.ByObject{&corev1.Secret{}: {Transform: onlyNameAndLabels}},
	}
	for _, namespace := range namespaces {
		o.DefaultNamespaces[namespace] = cache.Config{}
	}
	for _, kind := range []client.Object{&corev1.ConfigMap{}, &corev1.Service{}, &corev1.ServiceAccount{}, &corev1.Pod{}, &corev1.PersistentVolumeClaim{},
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &batchv1.Job{}, &batchv1.CronJob{}, &policyv1.PodDisruptionBudget{}} {
		o.ByObject[kind] = ours
	}
	return o
}

// ClientOptions are those of the manager's client: Secrets are read from the
// API server, when they are needed.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}}
}

// onlyNameAndLabels drops the annotations of a Secret's metadata, in which
// client-side apply keeps a copy of the content.
func onlyNameAndLabels(object any) (any, error) {
	if meta, ok := object.(metav1.Object); ok {
		meta.SetAnnotations(nil)
		meta.SetManagedFields(nil)
	}
	return object, nil
}
