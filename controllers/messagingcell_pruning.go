package controllers

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/controllers/resources"
)

// reference is an object beside the cell.
type reference struct{ kind, name string }

// ownedLists are lists of every kind that a cell owns.
func ownedLists() map[string]client.ObjectList {
	return map[string]client.ObjectList{
		"ConfigMap":           &corev1.ConfigMapList{},
		"Service":             &corev1.ServiceList{},
		"ServiceAccount":      &corev1.ServiceAccountList{},
		"Deployment":          &appsv1.DeploymentList{},
		"StatefulSet":         &appsv1.StatefulSetList{},
		"Job":                 &batchv1.JobList{},
		"CronJob":             &batchv1.CronJobList{},
		"PodDisruptionBudget": &policyv1.PodDisruptionBudgetList{},
	}
}

// prune removes what the cell owns and no longer wants, such as the Job of an
// image that is not wanted any more. What is wanted follows from the spec, not
// from what earlier phases could do.
func prune(ctx context.Context, s *scope) (ctrl.Result, error) {
	wanted := s.wanted()
	var errs []error
	for kind, list := range ownedLists() {
		if kind == "Job" && !s.databaseKnown() {
			continue // Which one is wanted is not known.
		}
		errs = append(errs, s.pruneKind(ctx, kind, list, wanted))
	}
	return ctrl.Result{}, errors.Join(errs...)
}

func (s *scope) pruneKind(ctx context.Context, kind string, list client.ObjectList, wanted map[reference]bool) error {
	err := s.List(ctx, list, client.InNamespace(s.cell.Namespace), client.MatchingLabels{resources.CellLabel: s.cell.Name})
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		object, ok := item.(client.Object)
		if !ok || !metav1.IsControlledBy(object, s.cell) || object.GetDeletionTimestamp() != nil || wanted[reference{kind, object.GetName()}] {
			return nil
		}
		ctrl.LoggerFrom(ctx).Info("pruning", "kind", kind, "object", object.GetName())
		uid := object.GetUID()
		return client.IgnoreNotFound(s.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	})
}

// wanted is everything that the cell should own.
func (s *scope) wanted() map[reference]bool {
	wanted := map[reference]bool{}
	for _, owned := range resources.Owned(s.cell) {
		wanted[reference{owned.Kind, owned.Name}] = true
	}
	if s.databaseKnown() {
		wanted[reference{"Job", resources.MigrationName(s.cell, s.migrationKey(s.migrationID()))}] = true
	}
	for unwanted := range s.unwanted {
		delete(wanted, unwanted)
	}
	return wanted
}
