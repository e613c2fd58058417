package controllers

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// begin writes the status of a spec that has not been judged yet, so that
// nobody takes the verdict about an earlier one for it.
func (s *scope) begin(ctx context.Context) error {
	status := &s.cell.Status
	if status.ObservedGeneration == s.cell.Generation && meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady) != nil {
		return nil
	}
	status.ObservedGeneration = s.cell.Generation
	if meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady) == nil {
		s.set(metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotReconciled, Message: "the operator has begun to look at the cell"})
	}
	meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionStalled)
	s.set(metav1.Condition{Type: v1alpha1.ConditionReconciling, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonProgressing, Message: "the operator has begun to work on this spec"})
	return s.writeStatus(ctx)
}

func (s *scope) set(c metav1.Condition) {
	c.ObservedGeneration = s.cell.Generation
	meta.SetStatusCondition(&s.cell.Status.Conditions, c)
}

// writeStatus writes the status if it differs from what was read or written
// last.
func (s *scope) writeStatus(ctx context.Context) error {
	if equality.Semantic.DeepEqual(s.before.Status, s.cell.Status) {
		return nil
	}
	written := s.before.DeepCopy()
	written.Status = *s.cell.Status.DeepCopy()
	if err := s.Status().Patch(ctx, written, client.MergeFrom(s.before), client.FieldOwner(resources.Manager)); err != nil {
		return client.IgnoreNotFound(err)
	}
	s.before = written
	s.memory.change(s.key(), func(r *remembered) { r.written = written.ResourceVersion })
	return nil
}

// aspects are the conditions that phases set, in the order in which a cell
// comes up: the first that does not hold is what keeps the cell from the rest.
var aspects = []string{
	v1alpha1.ConditionSecretsReady,
	v1alpha1.ConditionDatabaseReady,
	v1alpha1.ConditionSchemaMigrated,
	v1alpha1.ConditionPolicyApplied,
	v1alpha1.ConditionAvailable,
	v1alpha1.ConditionEndpointReady,
}

// stalling are the reasons that stay until somebody does something.
var stalling = []string{
	v1alpha1.ReasonInvalidSpec,
	v1alpha1.ReasonSecretNotFound,
	v1alpha1.ReasonSecretInvalid,
	v1alpha1.ReasonSecretLost,
	v1alpha1.ReasonNameTaken,
	v1alpha1.ReasonMigrationFailed,
	v1alpha1.ReasonRolloutStuck,
	v1alpha1.ReasonApplyFailed,
}

// conclude puts the verdicts of this pass into the status, and from them
// whether the cell is ready, still on its way, or stuck.
func (s *scope) conclude(failed error) {
	for _, aspect := range aspects {
		if verdict, ok := s.verdicts[aspect]; ok {
			s.set(verdict)
		}
	}
	verdict := judge(s.cell.Status.Conditions, resources.Replicas(s.cell), s.serving(), failed)
	s.set(verdict.ready)
	s.setOrRemove(v1alpha1.ConditionStalled, verdict.stalled)
	s.setOrRemove(v1alpha1.ConditionReconciling, verdict.reconciling)
	s.cell.Status.ObservedGeneration = s.cell.Generation
	s.tell()
}

func (s *scope) setOrRemove(kind string, c *metav1.Condition) {
	if c == nil {
		meta.RemoveStatusCondition(&s.cell.Status.Conditions, kind)
		return
	}
	c.Type, c.Status = kind, metav1.ConditionTrue
	s.set(*c)
}

func (s *scope) serving() bool { return s.servers != nil && s.servers.Status.AvailableReplicas > 0 }

// verdict is what kstatus and people look at.
type verdict struct {
	ready                metav1.Condition
	stalled, reconciling *metav1.Condition
}

// judge draws the conclusion from the conditions that phases set. Ready is
// about the service that clients get now, Stalled and Reconciling about the
// way to the spec: a cell whose upgrade fails goes on serving. At most one of
// the latter two is there.
func judge(conditions []metav1.Condition, replicas int32, serving bool, failed error) verdict {
	var v verdict
	stuck := first(conditions, func(c metav1.Condition) bool { return slices.Contains(stalling, c.Reason) })
	open := first(conditions, func(c metav1.Condition) bool { return c.Status == metav1.ConditionFalse })
	switch {
	case stuck != nil:
		v.stalled = &metav1.Condition{Reason: stuck.Reason, Message: stuck.Message}
	case open != nil:
		v.reconciling = &metav1.Condition{Reason: open.Reason, Message: open.Message}
	case failed != nil:
		v.reconciling = &metav1.Condition{Reason: v1alpha1.ReasonApplyFailed, Message: shorten("trying again: " + failed.Error())}
	}
	v.ready = ready(conditions, replicas, serving, stuck, open)
	return v
}

func ready(conditions []metav1.Condition, replicas int32, serving bool, stuck, open *metav1.Condition) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}
	switch {
	case replicas == 0 && open == nil:
		c.Reason, c.Message = v1alpha1.ReasonScaledToZero, "no servers run, as spec.replicas asks; the data is kept"
	case serving && holds(conditions, v1alpha1.ConditionEndpointReady) && !fails(conditions, v1alpha1.ConditionDatabaseReady):
		c.Reason, c.Message = v1alpha1.ReasonSucceeded, "clients can sign up, send and receive"
		if stuck != nil {
			c.Message = shorten(c.Message + "; but " + stuck.Type + " needs somebody: " + stuck.Message)
		}
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonProgressing, "the operator works on it"
		if cause := cmpFirst(stuck, open); cause != nil {
			c.Reason, c.Message = cause.Reason, cause.Message
		}
	}
	return c
}

func cmpFirst(a, b *metav1.Condition) *metav1.Condition {
	if a != nil {
		return a
	}
	return b
}

// first returns the first aspect that matches, nil if none does.
func first(conditions []metav1.Condition, matches func(metav1.Condition) bool) *metav1.Condition {
	for _, aspect := range aspects {
		if c := meta.FindStatusCondition(conditions, aspect); c != nil && matches(*c) {
			return c
		}
	}
	return nil
}

func holds(conditions []metav1.Condition, kind string) bool {
	return meta.IsStatusConditionTrue(conditions, kind)
}

func fails(conditions []metav1.Condition, kind string) bool {
	return meta.IsStatusConditionFalse(conditions, kind)
}

// told are the conditions whose changes are worth an event.
var told = []string{v1alpha1.ConditionReady, v1alpha1.ConditionStalled, v1alpha1.ConditionDurabilityReduced}

// tell makes events of what changed.
func (s *scope) tell() {
	for _, kind := range told {
		was := meta.FindStatusCondition(s.before.Status.Conditions, kind)
		is := meta.FindStatusCondition(s.cell.Status.Conditions, kind)
		if is == nil || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		level := corev1.EventTypeNormal
		if kind != v1alpha1.ConditionReady || is.Status == metav1.ConditionFalse && slices.Contains(stalling, is.Reason) {
			level = corev1.EventTypeWarning
		}
		s.event(level, is.Reason, "Judge", "%s is %s: %s", kind, is.Status, is.Message)
	}
}

// event tells an admin what was done; it never carries a secret.
func (s *scope) event(level, reason, action, note string, args ...any) {
	s.Recorder.Eventf(s.cell, nil, level, reason, action, note, args...)
}

func (s *scope) did(ctx context.Context, reason, action, note string, args ...any) {
	ctrl.LoggerFrom(ctx).Info("did", "reason", reason, "action", action)
	s.event(corev1.EventTypeNormal, reason, action, note, args...)
}
