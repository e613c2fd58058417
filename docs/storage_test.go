package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/config/crd"
)

// The fields that storage.md says can be set are fields of a MessagingCell, and
// those of its sections about storage are all there.
func TestStorageNamesTheFieldsOfACell(t *testing.T) {
	t.Parallel()
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(crd.MessagingCell, &definition); err != nil {
		t.Fatal(err)
	}
	spec := definition.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	text := read(t, "storage.md")
	var named []string
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) == 4 {
			for _, m := range regexp.MustCompile("`([\\w.]+)`").FindAllStringSubmatch(cells[1], -1) {
				named = append(named, m[1])
			}
		}
	}
	named = slices.DeleteFunc(named, func(name string) bool { return name == "spec" })
	for _, path := range named {
		node := spec
		for name := range strings.SplitSeq(path, ".") {
			next, ok := node.Properties[name]
			if !ok {
				t.Errorf("spec has no %s", path)
			}
			node = next
		}
	}
	for _, section := range []string{"database", "retention"} {
		for name := range spec.Properties[section].Properties {
			if path := section + "." + name; path != "database.embedded" && !slices.Contains(named, path) {
				t.Errorf("%s is not explained", path)
			}
		}
	}
}
