package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileConfiguration publishes the servers' configuration, and the policy
// that running servers load again. A policy that is not valid never replaces
// one that is.
func reconcileConfiguration(ctx context.Context, s *scope) (ctrl.Result, error) {
	config, err := resources.Config(s.cell)
	if err != nil {
		return ctrl.Result{}, err
	}
	if _, err := apply(ctx, s, config); err != nil {
		return ctrl.Result{}, err
	}
	s.config = config.Data[resources.ConfigKey]
	file, err := resources.PolicyFile(s.cell)
	if err != nil {
		s.bad(v1alpha1.ConditionPolicyApplied, v1alpha1.ReasonInvalidSpec, "%s: change the spec; the servers keep the policy they have", errors.Unwrap(err))
		return ctrl.Result{}, nil
	}
	if _, err := apply(ctx, s, resources.Policy(s.cell, file)); err != nil {
		return ctrl.Result{}, err
	}
	sum := sha256.Sum256(file)
	s.policy = hex.EncodeToString(sum[:])
	s.cell.Status.PolicyHash = s.policy
	return ctrl.Result{}, nil
}
