package manifest

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/config/crd"
)

// rules are the schema of the CustomResourceDefinition, compiled. They are
// safe for concurrent use.
type rules struct {
	schema  *structuralschema.Structural
	openAPI validation.SchemaValidator
	cel     *cel.Validator
}

// loadRules compiles the embedded CustomResourceDefinition, once.
var loadRules = sync.OnceValues(func() (*rules, error) {
	r, err := compile(crd.MessagingCell)
	if err != nil {
		return nil, fmt.Errorf("compile the MessagingCell definition: %w", err)
	}
	return r, nil
})

func compile(definition []byte) (*rules, error) {
	var parsed apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(definition, &parsed); err != nil {
		return nil, err
	}
	for _, v := range parsed.Spec.Versions {
		if v.Name == v1alpha1.GroupVersion.Version && v.Schema != nil {
			return compileSchema(v.Schema.OpenAPIV3Schema)
		}
	}
	return nil, fmt.Errorf("it has no schema for version %s", v1alpha1.GroupVersion.Version)
}

func compileSchema(props *apiextensionsv1.JSONSchemaProps) (*rules, error) {
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(&internal)
	if err != nil {
		return nil, err
	}
	if err := defaulting.PruneDefaults(structural); err != nil {
		return nil, err
	}
	openAPI, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, err
	}
	return &rules{
		schema:  structural,
		openAPI: openAPI,
		cel:     cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, nil
}

// admit does to an object what an API server does on create, or on update
// when old is not nil: it drops status, applies defaults, and judges the
// result. The order is that of the API server, since each step relies on the
// one before. The object is changed; old must have been admitted before.
func (r *rules) admit(object, old map[string]any) []*Problem {
	if problems := checkType(object); len(problems) > 0 {
		return problems
	}
	delete(object, "status")
	problems := checkMeta(object)
	problems = append(problems, r.unknownFields(object)...)
	defaulting.PruneNonNullableNullsWithoutDefaults(object, r.schema)
	defaulting.Default(object, r.schema)

	faults := validation.ValidateCustomResource(nil, object, r.openAPI)
	faults = append(faults, listtype.ValidateListSetsAndMaps(nil, r.schema, object)...)
	blocked := blocksRules(faults)
	if !blocked {
		problems = append(problems, r.brokenRules(object, old)...)
	}
	problems = append(problems, r.explainSchema(faults, object)...)
	problems = onePerPath(problems)
	if blocked {
		problems = append(problems, &Problem{
			Wrong:  "not every rule could be checked",
			Remedy: "correct the fields above and try again",
		})
	}
	return problems
}

// brokenRules evaluates the CEL rules. An object whose name is missing or no
// string is given one meanwhile, since the rules rely on it and checkMeta has
// reported it.
func (r *rules) brokenRules(object, old map[string]any) []*Problem {
	judged := object
	if name, _ := valueAt(object, "metadata.name"); !isName(name) {
		judged = maps.Clone(object)
		judged["metadata"] = map[string]any{"name": "unnamed"}
	}
	var before any
	if old != nil {
		before = old
	}
	faults, _ := r.cel.Validate(context.Background(), nil, r.schema, judged, before, celconfig.RuntimeCELCostBudget)
	return explainRules(faults, object)
}

func isName(value any) bool {
	name, ok := value.(string)
	return ok && name != ""
}

// unknownFields removes and reports the fields that the schema does not have.
func (r *rules) unknownFields(object map[string]any) []*Problem {
	paths := pruning.PruneWithOptions(object, r.schema, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	var problems []*Problem
	for _, path := range paths {
		problems = append(problems, r.explainUnknown(path))
	}
	return problems
}

// blocksRules tells whether CEL rules cannot be evaluated on an object with
// these faults: they rely on types, lengths and required fields.
func blocksRules(faults field.ErrorList) bool {
	for _, f := range faults {
		switch f.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong,
			field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// readMeta reads metadata as an API server does. Unknown fields come back as
// paths, a field of a wrong type as the error.
func readMeta(object map[string]any) (*objectMeta, []string, error) {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil || !found || meta == nil {
		return &objectMeta{}, unknown, err
	}
	return meta, unknown, nil
}
