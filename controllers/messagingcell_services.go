package controllers

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileServices makes the Services, whose addresses the certificate needs,
// and looks which servers there are.
func reconcileServices(ctx context.Context, s *scope) (ctrl.Result, error) {
	var errs []error
	endpoint, err := apply(ctx, s, resources.Endpoint(s.cell))
	if err == nil {
		s.endpoint = endpoint
	}
	errs = append(errs, err)
	_, err = apply(ctx, s, resources.Ops(s.cell))
	errs = append(errs, err)
	s.pods, err = s.listPods(ctx, resources.ComponentServer)
	return ctrl.Result{}, errors.Join(append(errs, err)...)
}

// listPods lists the pods of a component by name.
func (s *scope) listPods(ctx context.Context, component string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := s.List(ctx, &list, client.InNamespace(s.cell.Namespace), client.MatchingLabels(resources.Selector(s.cell, component)))
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list.Items, err
}

// podReady reports whether a pod serves and is to go on serving.
func podReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// nodePortEndpoint reports whether clients reach the cell on its nodes.
func nodePortEndpoint(cell *v1alpha1.MessagingCell) bool {
	return cell.Spec.Endpoint.ServiceType == corev1.ServiceTypeNodePort
}
