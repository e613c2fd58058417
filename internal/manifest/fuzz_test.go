package manifest

import (
	"os"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"
)

// FuzzParse feeds Parse arbitrary files. A cell that it accepts must be
// accepted again as it came out, unchanged: defaults are applied once.
func FuzzParse(f *testing.F) {
	b, err := os.ReadFile(sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, tc := range ruleCases {
		f.Add([]byte(manifest("demo", tc.good)))
		f.Add([]byte(manifest("demo", tc.bad)))
	}
	f.Add([]byte("kind: MessagingCell\nmetadata: null\n---\n- a\n...\n%x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cell, err := Parse(b, "fuzz")
		if err != nil {
			return
		}
		out, err := yaml.Marshal(cell)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out, "again")
		if err != nil {
			t.Fatalf("what was accepted is refused: %v\n%s", err, out)
		}
		if !apiequality.Semantic.DeepEqual(cell.Spec, again.Spec) {
			t.Fatalf("spec changed from\n%+v\nto\n%+v", cell.Spec, again.Spec)
		}
	})
}
