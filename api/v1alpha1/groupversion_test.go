package v1alpha1

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

func TestSchemeKnowsTheKinds(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{Kind, Kind + "List"} {
		if !scheme.Recognizes(GroupVersion.WithKind(kind)) {
			t.Errorf("%s is not known", kind)
		}
	}
}

// A client that builds a cell in Go states nothing it did not set: zeros
// would be refused by the ranges, or override the defaults.
func TestZeroCellStatesNothing(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(MessagingCell{})
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "{}" {
		t.Errorf("the zero cell is written as %s", b)
	}
}

func TestDeepCopyIsIndependent(t *testing.T) {
	t.Parallel()
	one := int32(1)
	cell := &MessagingCell{Spec: MessagingCellSpec{Replicas: &one, Limits: LimitsSpec{TrustedRanges: []string{"10.0.0.0/8"}}}}
	copied := cell.DeepCopy()
	*copied.Spec.Replicas = 2
	copied.Spec.Limits.TrustedRanges[0] = "::/0"
	if *cell.Spec.Replicas != 1 || cell.Spec.Limits.TrustedRanges[0] != "10.0.0.0/8" {
		t.Errorf("the original changed: %+v", cell.Spec)
	}
}
