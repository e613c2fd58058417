package controllers

import (
	"context"

	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/controllers/resources"
)

// reconcileAuditPruning has what the audit log has kept for long enough removed
// once a day. It runs the image that the servers run, once there is a schema
// for it; until then what there is stays.
func reconcileAuditPruning(ctx context.Context, s *scope) (ctrl.Result, error) {
	if !s.migrated || s.policy == "" {
		return ctrl.Result{}, nil // A condition says why.
	}
	_, err := apply(ctx, s, resources.AuditPruning(s.cell, s.image()))
	return ctrl.Result{}, err
}
