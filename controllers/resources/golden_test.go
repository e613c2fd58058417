package resources

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/internal/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares what a builder made with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("differs from %s, which -update rewrites; got\n%s\nwant\n%s", path, got, want)
	}
}

// goldenObject is golden for what goes to an API server.
func goldenObject(t *testing.T, name string, object any) {
	t.Helper()
	b, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	delete(tree, "status") // It belongs to others.
	if b, err = yaml.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	golden(t, name, b)
}

// makeCell returns a cell as an API server would store it: with defaults.
func makeCell(t *testing.T, spec string) *v1alpha1.MessagingCell {
	t.Helper()
	cell, err := manifest.Parse([]byte("apiVersion: messaging.quicproquo.dev/v1alpha1\nkind: MessagingCell\nmetadata: {name: demo, namespace: chat}\nspec: "+spec+"\n"), "test")
	if err != nil {
		t.Fatal(err)
	}
	return cell
}
