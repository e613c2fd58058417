package clustertest

import (
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"quicproquo.dev/api/v1alpha1"
)

// The API server itself refuses what the definition's rules are about. Every
// rule has its cases in internal/manifest; these show that a cluster judges
// the same way.
func TestAPIServerRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for spec, want := range map[string]string{
		`{replicas: 101}`: "spec.replicas",
		`{image: "a b"}`:  "is not an image reference",
		`{endpoint: {host: "https://chat.example.org"}}`:         "is neither a DNS name nor an IP address",
		`{endpoint: {serviceType: ExternalName}}`:                "Unsupported value",
		`{database: {secretRef: {name: a}, embedded: {}}}`:       "needs exactly one kind of database",
		`{database: {embedded: {storage: {size: 1Mi}}}}`:         "is less than 1Gi",
		`{retention: {messages: 8d}}`:                            "is not a duration",
		`{limits: {maxPayloadBytes: 6000000}}`:                   "spec.limits.maxPayloadBytes",
		`{limits: {messagesPerChannel: -1}}`:                     "spec.limits.messagesPerChannel",
		`{database: {embedded: {}, pooling: transaction}}`:       "the embedded one has none; write pooling: session",
		`{database: {secretRef: {name: a}, pooling: statement}}`: "Unsupported value",
		`{limits: {requestPerSecond: 1}}`:                        "requestPerSecond",
		`{mls: {keyPackageLifetime: 2h, lastResortLifetime: x}}`: "is not a duration",
	} {
		if err := w.tryApply("demo", spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %q", spec, err, want)
		}
	}
	if err := w.tryApply(strings.Repeat("a", 41), "{}"); err == nil || !strings.Contains(err.Error(), "metadata.name cannot begin") {
		t.Errorf("a long name: %v", err)
	}
}

func TestAPIServerRefusesChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply("demo", `{database: {embedded: {storage: {size: 20Gi, storageClassName: fast}}}}`)
	for spec, want := range map[string]string{
		`{database: {embedded: {storage: {size: 10Gi, storageClassName: fast}}}}`: "a volume cannot shrink",
		`{database: {embedded: {storage: {size: 20Gi, storageClassName: slow}}}}`: "a volume cannot change its storage class",
		`{database: {secretRef: {name: own}}}`:                                    "cannot change between secretRef and embedded",
	} {
		if err := w.tryApply("demo", spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error about %q", spec, err, want)
		}
	}
}

// A cell that no operator has looked at is not taken for one that is current.
func TestCellIsBornUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.apply("demo", "{}")
	if got, message := w.kstatus("demo"); got != status.InProgressStatus {
		t.Errorf("kstatus says %s (%s)", got, message)
	}
	if cell := w.cell("demo"); cell.Status.ObservedGeneration != -1 || *cell.Spec.Replicas != 1 || cell.Spec.Database.Embedded == nil {
		t.Errorf("the cell is %+v", cell)
	}
}

func TestScaleSubresource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cell := w.bringUp("demo", "{}")
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
	w.must(w.SubResource("scale").Update(t.Context(), cell, client.WithSubResourceBody(scale)))
	w.awaitsCondition("demo", v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.awaits("demo", status.InProgressStatus)
	w.rollOut("demo", "192.0.2.10", "192.0.2.11", "192.0.2.12")
	w.awaits("demo", status.CurrentStatus)
	w.must(w.SubResource("scale").Get(t.Context(), cell, scale))
	if scale.Status.Replicas != 3 || scale.Status.Selector != w.cell("demo").Status.Selector || scale.Status.Selector == "" {
		t.Errorf("scale is %+v", scale.Status)
	}
}
