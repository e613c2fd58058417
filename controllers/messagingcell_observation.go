package controllers

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/pki"
)

// ServerProbe asks running delivery servers what they use.
type ServerProbe interface {
	// Policy returns the hash of the policy in use at a pod's address.
	Policy(ctx context.Context, ip string) (string, error)
	// Chain returns the certificates, DER, that a pod's QUIC endpoint presents
	// to a client that asks for host.
	Chain(ctx context.Context, ip, host string) ([][]byte, error)
	// Durability returns what is wrong with the settings of the database that the
	// server at a pod's address uses, and what to do; nothing when they are safe.
	Durability(ctx context.Context, ip string) (string, error)
}

const (
	probePatience = 3 * time.Second
	probesAtOnce  = 8
	// reloadPause is between two looks at servers that have not yet loaded new
	// files, which they look for every ten seconds.
	reloadPause = 5 * time.Second
	// silencePause is between two looks at servers that cannot be asked, and
	// how long after a server became ready its silence is put down to a network
	// that is not ready yet.
	silencePause = time.Minute
	// filesAnnotation is put on a pod that has not loaded its new files: a
	// changed pod makes the kubelet renew its volumes at once rather than
	// within its minute.
	filesAnnotation = "messaging.quicproquo.dev/files-hash"
)

// sighting is what a server was seen to use: a policy, and a certificate that
// is valid for a host under a pin.
type sighting struct{ policy, host, pin string }

// answer is what asking one server gave.
type answer struct {
	policy, certificate bool  // Whether it uses what it should.
	silent              error // It could not be asked.
}

// observeServers finds out whether servers have loaded the policy and present
// a certificate that is valid where clients connect.
func observeServers(ctx context.Context, s *scope) (ctrl.Result, error) {
	host, _, _ := net.SplitHostPort(s.cell.Status.Endpoint) //nolint:errcheck // Without an endpoint there is no host.
	want := sighting{policy: s.policy, host: host, pin: s.pin}
	var ready []corev1.Pod
	for i := range s.pods {
		if podReady(&s.pods[i]) {
			ready = append(ready, s.pods[i])
		}
	}
	answers := s.ask(ctx, ready, want)
	result := lowest(s.judgePolicy(answers), s.judgeEndpoint(ready, answers, host))
	return result, s.nudge(ctx, ready, answers)
}

// ask asks those servers that have not been seen to use what they should.
func (s *scope) ask(ctx context.Context, pods []corev1.Pod, want sighting) []answer {
	known, seen := s.memory.recall(s.key()).seen, map[types.UID]sighting{}
	answers := make([]answer, len(pods))
	var group errgroup.Group
	group.SetLimit(probesAtOnce)
	for i := range pods {
		if known[pods[i].UID] == want {
			answers[i] = answer{policy: true, certificate: true}
			continue
		}
		group.Go(func() error {
			answers[i] = s.askOne(ctx, pods[i].Status.PodIP, want)
			return nil
		})
	}
	_ = group.Wait() // Answers carry the errors.
	for i := range pods {
		if answers[i].policy && answers[i].certificate && answers[i].silent == nil {
			seen[pods[i].UID] = want
		}
	}
	s.memory.change(s.key(), func(r *remembered) { r.seen = seen })
	return answers
}

func (s *scope) askOne(ctx context.Context, ip string, want sighting) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	hash, err := s.Servers.Policy(ctx, ip)
	if err != nil {
		return answer{silent: err}
	}
	a.policy = want.policy == "" || hash == want.policy
	if want.host == "" {
		a.certificate = true
		return a
	}
	chain, err := s.Servers.Chain(ctx, ip, want.host)
	a.silent = err
	a.certificate = err == nil && presents(chain, want, s.now)
	return a
}

// presents reports whether a client at host that has the pin would take a
// chain; without a pin, whether the certificate is for the host.
func presents(chain [][]byte, want sighting, now time.Time) bool {
	if pin, err := pki.ParsePin(want.pin); err == nil {
		return pki.VerifyPinned(chain, pin, want.host, now) == nil
	}
	if len(chain) == 0 {
		return false
	}
	leaf, err := x509.ParseCertificate(chain[0])
	return err == nil && leaf.VerifyHostname(want.host) == nil
}

func (s *scope) judgePolicy(answers []answer) ctrl.Result {
	stale, silent := 0, error(nil)
	for _, a := range answers {
		switch {
		case a.silent != nil && !a.policy:
			silent = a.silent
		case !a.policy:
			stale++
		}
	}
	switch {
	case stale > 0:
		s.progressing(v1alpha1.ConditionPolicyApplied, "%d of %d servers have not yet loaded the policy", stale, len(answers))
		return again(reloadPause)
	case silent != nil:
		s.say(v1alpha1.ConditionPolicyApplied, metav1.ConditionUnknown, v1alpha1.ReasonUnobservable, "servers cannot be asked which policy they use: %s: let the operator reach port %d of their pods", silent, resources.OpsPort)
		return again(silencePause)
	}
	s.good(v1alpha1.ConditionPolicyApplied, "every server uses the policy of status.policyHash")
	return ctrl.Result{}
}

// judgeEndpoint looks at the servers to which status.endpoint leads.
func (s *scope) judgeEndpoint(pods []corev1.Pod, answers []answer, host string) ctrl.Result {
	if resources.Replicas(s.cell) == 0 {
		return ctrl.Result{} // The phase of the endpoint has said so.
	}
	if host == "" || len(pods) == 0 {
		s.waits(v1alpha1.ConditionEndpointReady, "waits for a server that is ready")
		return ctrl.Result{}
	}
	silent := error(nil)
	for i, a := range answers {
		switch {
		case !leadsTo(s.cell, host, &pods[i]):
		case a.silent != nil && s.justReady(&pods[i]):
			s.bad(v1alpha1.ConditionEndpointReady, v1alpha1.ReasonCertificatePending, "waits for server %s to answer", pods[i].Name)
			return again(reloadPause)
		case a.silent != nil:
			silent = a.silent
		case !a.certificate:
			s.bad(v1alpha1.ConditionEndpointReady, v1alpha1.ReasonCertificatePending, "server %s has not yet loaded the certificate that is valid for %s", pods[i].Name, host)
			return again(reloadPause)
		}
	}
	if silent != nil {
		s.say(v1alpha1.ConditionEndpointReady, metav1.ConditionTrue, v1alpha1.ReasonUnobservable, "clients connect to %s; the operator cannot see which certificate they get: %s", s.cell.Status.Endpoint, silent)
		return again(silencePause)
	}
	s.good(v1alpha1.ConditionEndpointReady, "clients connect to %s", s.cell.Status.Endpoint)
	return ctrl.Result{}
}

// leadsTo reports whether clients at host may reach a pod: on a node's address
// only those of the node.
func leadsTo(cell *v1alpha1.MessagingCell, host string, pod *corev1.Pod) bool {
	return !nodePortEndpoint(cell) || cell.Spec.Endpoint.Host != "" || pod.Status.HostIP == host
}

func (s *scope) justReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return s.now.Sub(c.LastTransitionTime.Time) < silencePause
		}
	}
	return false
}

// nudge makes the kubelets of servers with old files renew them, once for each
// change.
func (s *scope) nudge(ctx context.Context, pods []corev1.Pod, answers []answer) error {
	if s.leaf == nil {
		return nil
	}
	sum := sha256.Sum256([]byte(s.policy + s.leaf.SerialNumber.String()))
	files := hex.EncodeToString(sum[:8])
	var errs []error
	for i, a := range answers {
		if a.silent != nil || a.policy && a.certificate || pods[i].Annotations[filesAnnotation] == files {
			continue
		}
		changed := pods[i].DeepCopy()
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, filesAnnotation, files)
		if err := s.Patch(ctx, changed, client.MergeFrom(&pods[i]), client.FieldOwner(resources.Manager)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", changed.Name, err))
		}
	}
	return errors.Join(errs...)
}

// lowest returns the sooner of two requeues.
func lowest(a, b ctrl.Result) ctrl.Result {
	if a.RequeueAfter == 0 || b.RequeueAfter != 0 && b.RequeueAfter < a.RequeueAfter {
		return b
	}
	return a
}
