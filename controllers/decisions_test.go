package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/controllers/resources"
)

func TestCheckURI(t *testing.T) {
	t.Parallel()
	for uri, good := range map[string]bool{
		"postgres://u:p@db:5432/chat": true, "postgresql://u:p@db/chat?sslmode=verify-full": true, "postgres://u:p%40x@[2001:db8::1]:5432/chat": true,
		"": false, "host=db user=u": false, "postgres://u:p@/chat": false, "postgres://u:p@db": false, "postgres://u:p@db/": false,
		"postgres://u:sec%ret@db/chat": false, "https://u:secret@db/chat": false,
	} {
		err := checkURI(uri)
		if (err == nil) != good {
			t.Errorf("%q: %v", uri, err)
		}
		if err != nil && strings.Contains(err.Error(), "sec") {
			t.Errorf("%q is quoted: %v", uri, err)
		}
	}
}

func TestPassingErrors(t *testing.T) {
	t.Parallel()
	kind := schema.GroupResource{Resource: "things"}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"conflict":       {apierrors.NewConflict(kind, "a", errors.New("x")), true},
		"exists":         {apierrors.NewAlreadyExists(kind, "a"), true},
		"busy":           {apierrors.NewTooManyRequests("x", 1), true},
		"timeout":        {apierrors.NewTimeoutError("x", 1), true},
		"internal":       {apierrors.NewInternalError(errors.New("x")), true},
		"no connection":  {&url.Error{Op: "Get", URL: "https://x", Err: io.EOF}, true},
		"shut down":      {context.Canceled, true},
		"being removed":  {&leavingError{"Service", "demo"}, true},
		"forbidden":      {apierrors.NewForbidden(kind, "a", errors.New("x")), false},
		"invalid":        {apierrors.NewInvalid(schema.GroupKind{Kind: "Thing"}, "a", nil), false},
		"taken":          {&takenError{"Service", "demo", "demo"}, false},
		"somebody's bug": {errors.New("x"), false},
	} {
		if got := passing(fmt.Errorf("wrapped: %w", tc.err)); got != tc.want {
			t.Errorf("%s: passing %t", name, got)
		}
	}
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	waiting := func(reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	ended := func(code int32, message string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: message}}
	}
	crashed := waiting("CrashLoopBackOff", "back-off")
	crashed.LastTerminationState = ended(1, "first line\ncell: no database\n")
	for name, tc := range map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"starts":         {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting("ContainerCreating", "")}}, ""},
		"no image":       {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting("ErrImagePull", "not found")}}, ": pod p waits: ErrImagePull: not found"},
		"crashes":        {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{crashed}}, ": pod p stopped: cell: no database"},
		"failed":         {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: ended(2, "")}}}, ": pod p stopped: Error"},
		"succeeded":      {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: ended(0, "done")}}}, ""},
		"not scheduled":  {corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no volume"}}}, ": pod p finds no node: no volume"},
		"ready":          {corev1.PodStatus{Conditions: onNode("", true).Status.Conditions, ContainerStatuses: []corev1.ContainerStatus{crashed}}, ""},
		"init container": {corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{crashed}}, ": pod p stopped: cell: no database"},
	} {
		if got := trouble([]corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: tc.status}}); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if got := clip(strings.Repeat("é", 1000)); len(got) > 410 {
		t.Errorf("a long message has %d bytes", len(got))
	}
}

func TestStuck(t *testing.T) {
	t.Parallel()
	pod := func(phase corev1.PodPhase, age time.Duration, reason string) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(epoch.Add(-age))},
			Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
			}}},
		}
	}
	for name, tc := range map[string]struct {
		pods []corev1.Pod
		yes  bool
		look time.Duration
	}{
		"none":                {nil, false, 0},
		"only just":           {[]corev1.Pod{pod(corev1.PodPending, time.Minute, "ErrImagePull")}, false, 4*time.Minute + time.Second},
		"for long":            {[]corev1.Pod{pod(corev1.PodPending, startPatience, "ErrImagePull")}, true, 0},
		"without any trouble": {[]corev1.Pod{pod(corev1.PodPending, time.Hour, "ContainerCreating")}, false, 0},
		"it had started":      {[]corev1.Pod{pod(corev1.PodRunning, time.Hour, "CrashLoopBackOff")}, false, 0},
		"the sooner of two":   {[]corev1.Pod{pod(corev1.PodPending, time.Minute, "A"), pod(corev1.PodPending, 3*time.Minute, "B")}, false, 2*time.Minute + time.Second},
	} {
		if yes, look := stuck(tc.pods, epoch); yes != tc.yes || look.RequeueAfter != tc.look {
			t.Errorf("%s: %t, again after %s", name, yes, look.RequeueAfter)
		}
	}
}

func TestVersionOf(t *testing.T) {
	t.Parallel()
	s := &scope{MessagingCellReconciler: &MessagingCellReconciler{Images: Images{Cell: "localhost/quicproquo/cell:dev", Version: "v1.2.3"}}}
	for image, want := range map[string]string{
		"localhost/quicproquo/cell:dev": "v1.2.3", "registry.example.org:5000/cell:v2": "v2", "registry.example.org:5000/cell": "latest",
		"cell:v3@sha256:0f": "v3", "cell@sha256:0f": "sha256:0f",
	} {
		if got := s.versionOf(image); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestDefaultImages(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ release, registry, cell, postgres, version string }{
		{"", "", "localhost/quicproquo/cell:dev", "localhost/quicproquo/postgres:dev", "dev"},
		{"v1.2.3", "", "quicproquo.dev/cell:v1.2.3", "quicproquo.dev/postgres:v1.2.3", "v1.2.3"},
		{"v1.2.3", "mirror.example.org/qpq/", "mirror.example.org/qpq/cell:v1.2.3", "mirror.example.org/qpq/postgres:v1.2.3", "v1.2.3"},
	} {
		if got, want := DefaultImages(tc.release, tc.registry), (Images{tc.cell, tc.postgres, tc.version}); got != want {
			t.Errorf("%q, %q: %+v, want %+v", tc.release, tc.registry, got, want)
		}
	}
}

func TestStuckRevision(t *testing.T) {
	t.Parallel()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Status: appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new"}}
	for name, tc := range map[string]struct {
		change   func(*appsv1.StatefulSet, *corev1.Pod)
		revision string
		want     bool
	}{
		"old and not ready":      {nil, "old", true},
		"new and not ready":      {nil, "new", false},
		"old and ready":          {func(_ *appsv1.StatefulSet, p *corev1.Pod) { *p = onNode("", true) }, "old", false},
		"old and already going":  {func(_ *appsv1.StatefulSet, p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: epoch} }, "old", false},
		"revision not known yet": {func(s *appsv1.StatefulSet, _ *corev1.Pod) { s.Generation = 3 }, "old", false},
	} {
		s, p := set.DeepCopy(), &corev1.Pod{}
		if tc.change != nil {
			tc.change(s, p)
		}
		p.Labels = map[string]string{appsv1.StatefulSetRevisionLabel: tc.revision}
		if got := stuckRevision(s, p); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestLowestRequeueWins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ a, b, want time.Duration }{{0, 0, 0}, {5, 0, 5}, {0, 5, 5}, {3, 5, 3}, {5, 3, 3}} {
		if got := lowest(ctrl.Result{RequeueAfter: tc.a}, ctrl.Result{RequeueAfter: tc.b}).RequeueAfter; got != tc.want {
			t.Errorf("of %d and %d: %d", tc.a, tc.b, got)
		}
	}
}

// A digest tells different lists apart and nothing to whoever lacks the keys.
func TestDigest(t *testing.T) {
	t.Parallel()
	k, other := &keyring{salt: []byte("a")}, &keyring{salt: []byte("b")}
	seen := map[string]bool{}
	for _, d := range []string{
		k.digest("p", []byte("x"), []byte("y")), k.digest("p", []byte("xy")), k.digest("p", []byte("xy"), nil),
		k.digest("q", []byte("xy")), other.digest("p", []byte("xy")),
	} {
		if seen[d] || len(d) != 16 {
			t.Errorf("digest %q", d)
		}
		seen[d] = true
	}
}

func TestServersOptions(t *testing.T) {
	t.Parallel()
	cell := &v1alpha1.MessagingCell{ObjectMeta: metav1.ObjectMeta{Name: "demo"}, Spec: v1alpha1.MessagingCellSpec{Image: "cell:v2"}}
	live := resources.Servers(cell, resources.ServersOptions{Image: "cell:v1", StartupHash: "old"})
	complete := func() *scope {
		ca := makeCA(t)
		return &scope{cell: cell, keys: &keyring{}, leaf: ca.Certificate(), policy: "p", clientCAs: true, migrated: true}
	}
	for name, tc := range map[string]struct {
		change func(*scope)
		live   *appsv1.Deployment
		image  string
		waits  string
	}{
		"everything is there":       {func(*scope) {}, live, "cell:v2", ""},
		"not migrated, one runs":    {func(s *scope) { s.migrated = false }, live, "cell:v1", ""},
		"not migrated, none runs":   {func(s *scope) { s.migrated = false }, nil, "", "schema migration"},
		"no certificate, one runs":  {func(s *scope) { s.leaf = nil }, live, "cell:v1", ""},
		"no certificate, none runs": {func(s *scope) { s.leaf = nil }, nil, "", "certificate"},
		"no client CAs, one runs":   {func(s *scope) { s.clientCAs = false }, live, "cell:v1", ""},
		"no client CAs, none runs":  {func(s *scope) { s.clientCAs = false }, nil, "", "CAs of client certificates"},
		"no policy, none runs":      {func(s *scope) { s.policy = "" }, nil, "", "policy"},
	} {
		s := complete()
		tc.change(s)
		o, waits := serversOptions(s, tc.live)
		if o.Image != tc.image || (waits == "") != (tc.waits == "") || !strings.Contains(waits, tc.waits) {
			t.Errorf("%s: %+v, %q", name, o, waits)
		}
		if tc.image == "cell:v1" && o.StartupHash != "old" {
			t.Errorf("%s: what runs would be restarted", name)
		}
	}
}
