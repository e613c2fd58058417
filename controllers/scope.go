package controllers

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

// scope is one pass over one cell: the cell, and what phases found out for
// those after them. Fields are zero until the phase that is named has run, and
// stay zero if it could not tell.
type scope struct {
	*MessagingCellReconciler
	// cell is a copy whose status the pass changes. before is as it was read.
	cell, before *v1alpha1.MessagingCell
	now          time.Time
	verdicts     map[string]metav1.Condition
	unwanted     map[reference]bool

	endpoint  *corev1.Service   // services: the UDP Service as it is.
	pods      []corev1.Pod      // services: the servers' pods, by name.
	keys      *keyring          // keys: the cell's own keys.
	clientCAs bool              // client CAs: there are those that the spec names.
	leaf      *x509.Certificate // certificate: the first of the chain to present.
	pin       string            // certificate
	uri       []byte            // database: the connection URI, a secret.
	claim     string            // database: which volume the embedded one has.
	database  bool              // database: it answers, as far as known.
	config    string            // configuration: the configuration file.
	policy    string            // configuration: the hash of the policy file.
	migrated  bool              // migration: the schema is what the image needs.
	servers   *appsv1.Deployment
}

func newScope(r *MessagingCellReconciler, cell *v1alpha1.MessagingCell) *scope {
	return &scope{
		MessagingCellReconciler: r, cell: cell.DeepCopy(), before: cell, now: r.Clock.Now(),
		verdicts: map[string]metav1.Condition{}, unwanted: map[reference]bool{},
	}
}

func (s *scope) key() client.ObjectKey { return client.ObjectKeyFromObject(s.cell) }

// named is the key of an object of that name beside the cell.
func (s *scope) named(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: s.cell.Namespace, Name: name}
}

// image is the image that the servers should run.
func (s *scope) image() string {
	if image := s.cell.Spec.Image; image != "" {
		return image
	}
	return s.Images.Cell
}

// say records what this pass thinks of a condition. Of several verdicts about
// one, the first that is not True stays.
func (s *scope) say(condition string, status metav1.ConditionStatus, reason, format string, args ...any) {
	if has, ok := s.verdicts[condition]; ok && has.Status != metav1.ConditionTrue {
		return
	}
	s.verdicts[condition] = metav1.Condition{Type: condition, Status: status, Reason: reason, Message: shorten(fmt.Sprintf(format, args...))}
}

func (s *scope) good(condition, format string, args ...any) {
	s.say(condition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, format, args...)
}

func (s *scope) bad(condition, reason, format string, args ...any) {
	s.say(condition, metav1.ConditionFalse, reason, format, args...)
}

// progressing is for what needs nobody's help.
func (s *scope) progressing(condition, format string, args ...any) {
	s.bad(condition, v1alpha1.ReasonProgressing, format, args...)
}

// waits is for a phase that needs what an earlier one could not give.
func (s *scope) waits(condition, format string, args ...any) {
	s.bad(condition, v1alpha1.ReasonDependencyNotReady, format, args...)
}

// again looks once more after a while, for what no watch tells. Why stands in
// a condition.
func again(after time.Duration) ctrl.Result { return ctrl.Result{RequeueAfter: after} }

// failed records the error of a phase. One that passes by itself leaves the
// condition as it was: the API server's bad moment is not the cell's.
func (s *scope) failed(p phase, err error) {
	if passing(err) {
		return
	}
	reason := v1alpha1.ReasonApplyFailed
	if isTaken(err) {
		reason = v1alpha1.ReasonNameTaken
	}
	s.bad(p.condition, reason, "%s", err)
}

// maxMessage bounds a condition's message; the API takes 32768 bytes, people
// less.
const maxMessage = 1024

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}
