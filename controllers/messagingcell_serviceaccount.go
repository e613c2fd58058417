package controllers

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/controllers/resources"
)

// reconcileServiceAccount makes who the cell's pods are.
func reconcileServiceAccount(ctx context.Context, s *scope) (ctrl.Result, error) {
	_, err := apply(ctx, s, resources.ServiceAccount(s.cell))
	return ctrl.Result{}, err
}
