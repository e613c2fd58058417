package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

// reconcileServers rolls out the delivery servers.
func reconcileServers(ctx context.Context, s *scope) (ctrl.Result, error) {
	_, budget := apply(ctx, s, resources.DisruptionBudget(s.cell))
	live, err := find(ctx, s, resources.Servers(s.cell, resources.ServersOptions{}))
	if err != nil {
		return ctrl.Result{}, errors.Join(budget, err)
	}
	options, waits := serversOptions(s, live)
	if waits != "" {
		s.waits(v1alpha1.ConditionAvailable, "%s", waits)
		s.count(&appsv1.Deployment{})
		return ctrl.Result{}, budget
	}
	if s.servers, err = apply(ctx, s, resources.Servers(s.cell, options)); err != nil {
		return ctrl.Result{}, errors.Join(budget, err)
	}
	s.count(s.servers)
	s.judgeServers()
	return ctrl.Result{}, budget
}

// serversOptions decides which image and which files the servers run with:
// those that the spec asks for once the schema is ready for them, until then
// what runs. Without either it says what is waited for.
func serversOptions(s *scope, live *appsv1.Deployment) (o resources.ServersOptions, waits string) {
	if s.migrated && s.policy != "" && s.leaf != nil && s.clientCAs {
		return resources.ServersOptions{
			Image:       s.image(),
			StartupHash: s.keys.digest("startup", []byte(s.config), s.keys.file, s.uri),
		}, ""
	}
	if live != nil && len(live.Spec.Template.Spec.Containers) > 0 {
		return resources.ServersOptions{
			Image:       live.Spec.Template.Spec.Containers[0].Image,
			StartupHash: live.Spec.Template.Annotations[resources.StartupAnnotation],
		}, ""
	}
	switch {
	case s.leaf == nil:
		return o, "waits for the certificate"
	case !s.clientCAs:
		return o, "waits for the CAs of client certificates"
	case s.policy == "":
		return o, "waits for a valid policy"
	}
	return o, "waits for the schema migration"
}

// count copies into the status what autoscalers and people read there.
func (s *scope) count(servers *appsv1.Deployment) {
	status := &s.cell.Status
	status.Replicas, status.ReadyReplicas = servers.Status.Replicas, servers.Status.ReadyReplicas
	status.Selector = labels.SelectorFromSet(resources.Selector(s.cell, resources.ComponentServer)).String()
	if rolledOut(servers, resources.Replicas(s.cell)) && status.Replicas > 0 {
		status.Version = s.versionOf(servers.Spec.Template.Spec.Containers[0].Image)
	}
}

// versionOf is the release of an image: the operator's own, or its tag.
func (s *scope) versionOf(image string) string {
	if image == s.Images.Cell && s.Images.Version != "" {
		return s.Images.Version
	}
	image, digest, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	if digest != "" {
		return digest
	}
	return "latest"
}

// rolledOut reports whether exactly as many servers serve as are asked for,
// all of the newest revision.
func rolledOut(d *appsv1.Deployment, replicas int32) bool {
	return d.Generation > 0 && d.Status.ObservedGeneration >= d.Generation &&
		d.Status.UpdatedReplicas == replicas && d.Status.AvailableReplicas == replicas && d.Status.Replicas == replicas
}

func (s *scope) judgeServers() {
	want, d := resources.Replicas(s.cell), s.servers
	switch {
	case rolledOut(d, want) && want == 0:
		s.say(v1alpha1.ConditionAvailable, metav1.ConditionTrue, v1alpha1.ReasonScaledToZero, "no servers run, as spec.replicas asks")
	case rolledOut(d, want):
		s.good(v1alpha1.ConditionAvailable, "%s", fmt.Sprintf("%d of %d servers serve", want, want))
	case deadlineExceeded(d):
		s.bad(v1alpha1.ConditionAvailable, v1alpha1.ReasonRolloutStuck, "%d of %d servers serve, %d of the newest revision, and no more come%s: see kubectl describe pods -l %s",
			d.Status.AvailableReplicas, want, d.Status.UpdatedReplicas, trouble(s.pods), s.cell.Status.Selector)
	default:
		s.progressing(v1alpha1.ConditionAvailable, "%d of %d servers serve, %d of the newest revision%s",
			d.Status.AvailableReplicas, want, d.Status.UpdatedReplicas, trouble(s.pods))
	}
}

// deadlineExceeded reports that a rollout made no progress for long.
func deadlineExceeded(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration >= d.Generation && slices.ContainsFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded"
	})
}
