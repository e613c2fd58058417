package resources

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/cell/policy"
	"quicproquo.dev/config/crd"
)

type schema = apiextensionsv1.JSONSchemaProps

// fixed are the fields of the policy that no cell can set, and why.
var fixed = map[string]string{
	"version":    "the operator writes the version that it speaks",
	"mls.suites": "the ciphersuite is fixed",
}

// beside are the fields of the policy's sections of a cell that say where
// something is, and stand in the servers' configuration instead.
var beside = []string{"access.clientCASecretRef", "access.clientCAConfigMapRef"}

// leaves are the dotted names of a policy's fields, of a type and of all
// sections in it.
func leaves(of reflect.Type, prefix string) (paths []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Type.Kind() == reflect.Struct {
			paths = append(paths, leaves(f.Type, name+".")...)
			continue
		}
		paths = append(paths, prefix+name)
	}
	return paths
}

// fieldOf finds the schema of a field of spec, nil if there is none.
func fieldOf(spec *schema, path string) *schema {
	for name := range strings.SplitSeq(path, ".") {
		next, ok := spec.Properties[name]
		if !ok {
			return nil
		}
		spec = &next
	}
	return spec
}

func specSchema(t *testing.T) *schema {
	t.Helper()
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(crd.MessagingCell, &definition); err != nil {
		t.Fatal(err)
	}
	spec := definition.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	return &spec
}

// What a policy can say, a cell can say: by the same name, with the same
// values, and with the same default. What a section of the cell has beyond
// that is known.
func TestEveryFieldOfThePolicyIsOneOfTheCell(t *testing.T) {
	t.Parallel()
	spec := specSchema(t)
	paths := leaves(reflect.TypeFor[policy.Policy](), "")
	if len(paths) < 25 {
		t.Fatalf("only %q were found", paths)
	}
	for _, path := range paths {
		field := fieldOf(spec, path)
		switch {
		case fixed[path] != "" && field != nil:
			t.Errorf("spec.%s is there, but %s", path, fixed[path])
		case fixed[path] != "":
		case field == nil:
			t.Errorf("spec.%s is missing: the policy's %s cannot be set by a cell", path, path)
		default:
			if got, want := takes(field), remedyOf(t, path); got != want {
				t.Errorf("spec.%s takes %q, the policy %q", path, got, want)
			}
		}
	}
	for _, section := range []string{"limits", "retention", "mls", "sessions", "access"} {
		for name := range fieldOf(spec, section).Properties {
			if path := section + "." + name; !slices.Contains(paths, path) && !slices.Contains(beside, path) {
				t.Errorf("spec.%s is not a field of the policy", path)
			}
		}
	}
}

// remedyOf is what the policy asks to be written in a field that holds
// something of a type that no field has.
func remedyOf(t *testing.T, path string) string {
	t.Helper()
	section, name, nested := strings.Cut(path, ".")
	file := fmt.Sprintf("version: %s\n%s: [[]]\n", policy.Version, section)
	if nested {
		file = fmt.Sprintf("version: %s\n%s: {%s: [[]]}\n", policy.Version, section, name)
	}
	_, err := policy.Parse([]byte(file))
	if err == nil || !strings.HasPrefix(err.Error(), path) {
		t.Fatalf("%s: %v", file, err)
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	_, remedy, _ := strings.Cut(first, "; ")
	return remedy
}

var durationBounds = regexp.MustCompile(`is not a duration from (\S+) to (\S+);`)

// takes says of a field of the definition what the policy says of its own.
func takes(field *schema) string {
	switch {
	case field.Type == "integer":
		byDefault := "0" // It is for the policy to say what that means.
		if field.Default != nil {
			byDefault = string(field.Default.Raw)
		}
		return fmt.Sprintf("write a whole number from %.0f to %.0f, such as %s", *field.Minimum, *field.Maximum, byDefault)
	case field.Type == "boolean":
		return "write true or false"
	case len(field.Enum) > 0:
		choices := make([]string, len(field.Enum))
		for i, choice := range field.Enum {
			choices[i] = text(choice)
		}
		return "write " + strings.Join(choices, " or ")
	case field.Type == "string":
		bounds := durationBounds.FindStringSubmatch(field.XValidations[0].Message)
		return fmt.Sprintf("write a duration from %s to %s, such as %s (units h, m and s; a day is 24h)", bounds[1], bounds[2], text(*field.Default))
	case field.Items.Schema.Type == "object":
		return "write {name: NAME, role: cellAdmin} or {name: NAME, role: auditor}"
	}
	return "write a list of strings"
}

func text(value apiextensionsv1.JSON) (s string) {
	_ = json.Unmarshal(value.Raw, &s) // What is no string is told by the comparison.
	return s
}

// others are values for fields that no value of their own schema suffices for.
var others = map[string]string{
	"limits.trustedRanges":      `limits: {trustedRanges: ["10.0.0.0/8"]}`,
	"access.clientCertificates": `access: {clientCertificates: optional, clientCASecretRef: {name: a}}`,
	"access.admins":             `access: {clientCertificates: optional, clientCASecretRef: {name: a}, admins: [{name: a, role: auditor}]}`,
}

// What a cell says reaches the policy file: a field that is changed alone
// changes its own field there.
func TestEveryFieldOfTheCellReachesThePolicy(t *testing.T) {
	t.Parallel()
	spec := specSchema(t)
	before := policyTree(t, "{}")
	for _, path := range leaves(reflect.TypeFor[policy.Policy](), "") {
		field := fieldOf(spec, path)
		if fixed[path] != "" || field == nil {
			continue
		}
		change := others[path]
		if change == "" {
			change = strings.Replace(path, ".", ": {", 1) + ": " + otherValue(field) + strings.Repeat("}", strings.Count(path, "."))
		}
		after := policyTree(t, "{"+change+"}")
		if reflect.DeepEqual(after[path], before[path]) {
			t.Errorf("%s: the policy's %s stays %v", change, path, before[path])
		}
		delete(after, path)
		for other := range maps.Keys(after) {
			if others[path] == "" && !reflect.DeepEqual(after[other], before[other]) {
				t.Errorf("%s: the policy's %s becomes %v", change, other, after[other])
			}
		}
	}
}

// otherValue is a valid value of a field that is not its default.
func otherValue(field *schema) string {
	switch {
	case field.Type == "integer" && field.Default != nil && string(field.Default.Raw) == fmt.Sprintf("%.0f", *field.Maximum):
		return fmt.Sprintf("%.0f", *field.Minimum)
	case field.Type == "integer":
		return fmt.Sprintf("%.0f", *field.Maximum)
	case field.Type == "boolean":
		return "false"
	case len(field.Enum) > 0:
		return text(field.Enum[len(field.Enum)-1])
	}
	return durationBounds.FindStringSubmatch(field.XValidations[0].Message)[1] + "1s"
}

// policyTree is the policy file of a cell, by dotted names.
func policyTree(t *testing.T, spec string) map[string]any {
	t.Helper()
	file, err := PolicyFile(makeCell(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(file, &tree); err != nil {
		t.Fatal(err)
	}
	flat := map[string]any{}
	for key, value := range tree {
		section, ok := value.(map[string]any)
		if !ok {
			flat[key] = value
		}
		for name, value := range section {
			flat[key+"."+name] = value
		}
	}
	return flat
}
