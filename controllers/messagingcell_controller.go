package controllers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

// MessagingCellReconciler reconciles MessagingCells. All fields but the last
// are required. It may be used from several goroutines, one per cell.
type MessagingCellReconciler struct {
	// Client reads from the manager's cache, made with CacheOptions, and
	// Secrets from the API server.
	client.Client
	// Live reads everything from the API server.
	Live client.Reader
	// Recorder tells admins what was done.
	Recorder events.EventRecorder
	// Images are what runs where a spec names no image.
	Images Images
	// Clock judges certificates.
	Clock clock.PassiveClock
	// Servers asks running delivery servers what they use.
	Servers ServerProbe

	memory memory
}

// Images are the images of a cell's pods.
type Images struct {
	// Cell is the delivery server, Postgres the embedded database.
	Cell, Postgres string
	// Version is the release of Cell; empty: its tag tells.
	Version string
}

// phase is one concern of a cell. It says how far it came in its condition;
// an error is for what it could not say there.
type phase struct {
	name      string
	condition string
	run       func(context.Context, *scope) (ctrl.Result, error)
}

// phases run in this order: each may use what those before it found.
var phases = []phase{
	{"service account", v1alpha1.ConditionAvailable, reconcileServiceAccount},
	{"services", v1alpha1.ConditionEndpointReady, reconcileServices},
	{"keys", v1alpha1.ConditionSecretsReady, reconcileKeys},
	{"admin tokens", v1alpha1.ConditionSecretsReady, reconcileAdminTokens},
	{"client CAs", v1alpha1.ConditionSecretsReady, reconcileClientCAs},
	{"certificate", v1alpha1.ConditionSecretsReady, reconcileCertificate},
	{"database", v1alpha1.ConditionDatabaseReady, reconcileDatabase},
	{"configuration", v1alpha1.ConditionPolicyApplied, reconcileConfiguration},
	{"migration", v1alpha1.ConditionSchemaMigrated, reconcileMigration},
	{"servers", v1alpha1.ConditionAvailable, reconcileServers},
	{"audit pruning", v1alpha1.ConditionAvailable, reconcileAuditPruning},
	{"endpoint", v1alpha1.ConditionEndpointReady, reconcileEndpoint},
	{"observation", v1alpha1.ConditionPolicyApplied, observeServers},
	{"durability", v1alpha1.ConditionDatabaseReady, observeDurability},
	{"pruning", v1alpha1.ConditionAvailable, prune},
}

// +kubebuilder:rbac:groups=messaging.quicproquo.dev,namespace=quicproquo,resources=messagingcells,verbs=get;list;watch
// +kubebuilder:rbac:groups=messaging.quicproquo.dev,namespace=quicproquo,resources=messagingcells/status,verbs=get;patch
// +kubebuilder:rbac:groups=messaging.quicproquo.dev,namespace=quicproquo,resources=messagingcells/finalizers,verbs=update
// +kubebuilder:rbac:groups="",namespace=quicproquo,resources=configmaps;services;serviceaccounts,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=quicproquo,resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",namespace=quicproquo,resources=persistentvolumeclaims,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",namespace=quicproquo,resources=pods,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=apps,namespace=quicproquo,resources=deployments;statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=batch,namespace=quicproquo,resources=jobs;cronjobs,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,namespace=quicproquo,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=events.k8s.io,namespace=quicproquo,resources=events,verbs=create;patch

// Reconcile brings one cell a step nearer to its spec. A deleted cell needs
// nothing: what it owns is collected, what it leaves behind stays on purpose.
func (r *MessagingCellReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cell, err := r.read(ctx, req.NamespacedName)
	if err != nil || !cell.DeletionTimestamp.IsZero() {
		r.memory.forget(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	s := newScope(r, cell)
	if err := s.begin(ctx); err != nil {
		return ctrl.Result{}, err
	}
	result, err := s.runPhases(ctx)
	s.conclude(err)
	err = errors.Join(err, s.writeStatus(ctx))
	if err != nil {
		return ctrl.Result{}, err // Tried again with growing pauses.
	}
	return result, nil
}

// read returns the cell from the cache or, where that is behind, from the API
// server.
func (r *MessagingCellReconciler) read(ctx context.Context, name types.NamespacedName) (*v1alpha1.MessagingCell, error) {
	var cell v1alpha1.MessagingCell
	err := r.Get(ctx, name, &cell)
	if err == nil && r.memory.outdated(name, cell.ResourceVersion) {
		cell = v1alpha1.MessagingCell{}
		err = r.Live.Get(ctx, name, &cell)
	}
	return &cell, err
}

// runPhases runs every phase. The soonest requeue wins.
func (s *scope) runPhases(ctx context.Context) (ctrl.Result, error) {
	var soonest ctrl.Result
	var errs []error
	for _, p := range phases {
		result, err := p.run(ctx, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			s.failed(p, err)
		}
		soonest = lowest(soonest, result)
	}
	return soonest, errors.Join(errs...)
}
