package manifest

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"quicproquo.dev/api/v1alpha1"
)

type objectMeta = metav1.ObjectMeta

// checkType judges apiVersion and kind; without them nothing else can be
// judged.
func checkType(object map[string]any) []*Problem {
	want := v1alpha1.GroupVersion.String()
	got, given := object["apiVersion"]
	if got == want {
		return nil
	}
	wrong := describe(got) + " is not an API version of " + v1alpha1.Kind
	if !given {
		wrong = "is missing"
	}
	return []*Problem{{"apiVersion", wrong, "write " + want}}
}

// checkMeta judges metadata by the rules for every Kubernetes object; what a
// cell's name must be beyond that is a rule of the schema.
func checkMeta(object map[string]any) []*Problem {
	if given, ok := object["metadata"]; ok && given != nil {
		if _, ok := given.(map[string]any); !ok {
			return []*Problem{{"metadata", describe(given) + " is not a section", "write name: below it, indented"}}
		}
	}
	meta, unknown, err := readMeta(object)
	if err != nil {
		return []*Problem{explainMetaType(err)}
	}
	var problems []*Problem
	for _, path := range unknown {
		problems = append(problems, noSuchField(path, metaFields()))
	}
	if meta.Name == "" {
		return append(problems, &Problem{"metadata.name", "is missing", "write a name such as demo"})
	}
	if meta.Namespace == "" {
		meta.Namespace = metav1.NamespaceDefault // as kubectl does
	}
	for _, fault := range validation.ValidateObjectMeta(meta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata")) {
		problems = append(problems, explainMeta(fault))
	}
	return problems
}

// explainMeta words a fault of metadata. Kubernetes' own words carry the
// regular expressions they were judged by, which help nobody.
func explainMeta(fault *field.Error) *Problem {
	if fault.Field == "metadata.name" {
		return &Problem{fault.Field, describe(fault.BadValue) + " is not a name that Kubernetes takes", "write lower-case letters, digits and dashes, a letter first, such as team-chat"}
	}
	wrong, _, _ := strings.Cut(fault.Detail, " (e.g.")
	wrong = shorten(wrong, 300)
	if text, ok := fault.BadValue.(string); ok {
		wrong = quote(text) + ": " + wrong
	}
	return &Problem{fault.Field, wrong, "write what Kubernetes allows there, or remove it"}
}

// explainMetaType words the error of a decoder that met a wrong type.
func explainMetaType(err error) *Problem {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) && mismatch.Field != "" {
		return &Problem{"metadata." + mismatch.Field, "is a " + mismatch.Value + " where " + kindOf(mismatch.Type) + " belongs", "write " + kindOf(mismatch.Type)}
	}
	return &Problem{"metadata", shorten(err.Error(), 300), "write it as Kubernetes has it: name, namespace, labels, annotations"}
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string in quotes"
	case reflect.Map, reflect.Struct:
		return "a section"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// metaFields are the names that people write below metadata.
func metaFields() []string { return []string{"name", "namespace", "labels", "annotations"} }
