package controllers

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"quicproquo.dev/api/v1alpha1"
)

// allGood are the conditions of a cell that serves.
func allGood(changes ...metav1.Condition) []metav1.Condition {
	var list []metav1.Condition
	for _, aspect := range aspects {
		c := metav1.Condition{Type: aspect, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}
		for _, change := range changes {
			if change.Type == aspect {
				c = change
			}
		}
		list = append(list, c)
	}
	return list
}

func is(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "because of " + reason}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const (
		yes, no, unknown = metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown
		progressing      = v1alpha1.ReasonProgressing
	)
	for name, tc := range map[string]struct {
		conditions           []metav1.Condition
		replicas             int32
		serving              bool
		failed               error
		ready                metav1.ConditionStatus
		reason               string
		stalled, reconciling string
	}{
		"serves": {conditions: allGood(), replicas: 1, serving: true, ready: yes, reason: "Succeeded"},
		"database does not answer": {
			conditions: allGood(is("DatabaseReady", no, progressing)), replicas: 1, serving: true, ready: no, reason: progressing, reconciling: progressing},
		"database unknown": {
			conditions: allGood(is("DatabaseReady", unknown, progressing)), replicas: 1, serving: true, ready: yes, reason: "Succeeded"},
		"a server is missing": {
			conditions: allGood(is("Available", no, progressing)), replicas: 3, serving: true, ready: yes, reason: "Succeeded", reconciling: progressing},
		"all servers are missing": {
			conditions: allGood(is("Available", no, progressing)), replicas: 3, ready: no, reason: progressing, reconciling: progressing},
		"servers without the right certificate": {
			conditions: allGood(is("EndpointReady", no, "CertificatePending")), replicas: 1, serving: true, ready: no, reason: "CertificatePending", reconciling: "CertificatePending"},
		"policy is not loaded": {
			conditions: allGood(is("PolicyApplied", no, progressing)), replicas: 1, serving: true, ready: yes, reason: "Succeeded", reconciling: progressing},
		"nobody could look": {
			conditions: allGood(is("PolicyApplied", unknown, "Unobservable")), replicas: 1, serving: true, ready: yes, reason: "Succeeded"},
		"upgrade failed while the old release serves": {
			conditions: allGood(is("SchemaMigrated", no, "MigrationFailed")), replicas: 1, serving: true, ready: yes, reason: "Succeeded", stalled: "MigrationFailed"},
		"first migration failed": {
			conditions: allGood(is("SchemaMigrated", no, "MigrationFailed"), is("Available", no, "DependencyNotReady")), replicas: 1, ready: no, reason: "MigrationFailed", stalled: "MigrationFailed"},
		"something stuck behind something in progress": {
			conditions: allGood(is("DatabaseReady", no, progressing), is("EndpointReady", no, "SecretInvalid")), replicas: 1, ready: no, reason: "SecretInvalid", stalled: "SecretInvalid"},
		"a volume that cannot grow": {
			conditions: allGood(is("DatabaseReady", yes, "ApplyFailed")), replicas: 1, serving: true, ready: yes, reason: "Succeeded", stalled: "ApplyFailed"},
		"no pin": {
			conditions: allGood(is("SecretsReady", yes, "PinUnknown")), replicas: 1, serving: true, ready: yes, reason: "Succeeded"},
		"the API server's bad moment": {
			conditions: allGood(), replicas: 1, serving: true, failed: errors.New("timeout"), ready: yes, reason: "Succeeded", reconciling: "ApplyFailed"},
		"asked for none": {
			conditions: allGood(), ready: yes, reason: "ScaledToZero"},
		"asked for none, not there yet": {
			conditions: allGood(is("Available", no, progressing)), ready: no, reason: progressing, reconciling: progressing},
		"nothing is known": {
			replicas: 1, ready: no, reason: progressing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := judge(tc.conditions, tc.replicas, tc.serving, tc.failed)
			if v.ready.Status != tc.ready || v.ready.Reason != tc.reason || v.ready.Message == "" {
				t.Errorf("Ready is %+v, want %s %s", v.ready, tc.ready, tc.reason)
			}
			if got := reasonOf(v.stalled); got != tc.stalled {
				t.Errorf("Stalled for %q, want %q", got, tc.stalled)
			}
			if got := reasonOf(v.reconciling); got != tc.reconciling {
				t.Errorf("Reconciling for %q, want %q", got, tc.reconciling)
			}
		})
	}
}

func reasonOf(c *metav1.Condition) string {
	if c == nil {
		return ""
	}
	return c.Reason
}

// Of what phases say about one condition the first complaint stays.
func TestFirstComplaintStays(t *testing.T) {
	t.Parallel()
	s := &scope{verdicts: map[string]metav1.Condition{}}
	s.good("A", "fine")
	s.bad("A", "First", "one")
	s.bad("A", "Second", "two")
	s.good("A", "fine again")
	if got := s.verdicts["A"]; got.Reason != "First" || got.Status != metav1.ConditionFalse {
		t.Errorf("the verdict is %+v", got)
	}
}
