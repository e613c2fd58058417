package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// explainRules words what CEL rules refused. Their messages are written as
// "what is wrong; what to write", and those that begin with "is" want the
// value before them.
func explainRules(faults field.ErrorList, object map[string]any) []*Problem {
	var problems []*Problem
	for _, fault := range faults {
		path := normalPath(fault.Field)
		wrong, remedy, ok := strings.Cut(fault.Detail, "; ")
		if !ok {
			wrong, remedy = shorten(fault.Detail, 300), "write a value that this rule allows"
		}
		if name, rest, ok := strings.Cut(wrong, " "); path == "" && ok && strings.HasPrefix(name, "metadata.") {
			path, wrong = name, rest
		}
		if value, ok := valueAt(object, path); ok && strings.HasPrefix(wrong, "is ") {
			if _, section := value.(map[string]any); !section {
				wrong = describe(value) + " " + wrong
			}
		}
		problems = append(problems, &Problem{path, wrong, remedy})
	}
	return problems
}

// explainSchema words what the OpenAPI schema refused, from the schema and
// the value at that place.
func (r *rules) explainSchema(faults field.ErrorList, object map[string]any) []*Problem {
	// Of a number in a wrong format the validator complains twice, once without
	// saying where.
	placed := slices.ContainsFunc(faults, func(f *field.Error) bool { return normalPath(f.Field) != "" })
	var problems []*Problem
	for _, fault := range faults {
		path := normalPath(fault.Field)
		if path == "" && placed {
			continue
		}
		node := schemaAt(r.schema, path)
		value, _ := valueAt(object, path)
		problems = append(problems, &Problem{path, whatIsWrong(fault, node, value), whatToWrite(fault, node)})
	}
	return problems
}

func whatIsWrong(fault *field.Error, node *structuralschema.Structural, value any) string {
	switch fault.Type {
	case field.ErrorTypeRequired:
		return "is missing"
	case field.ErrorTypeDuplicate:
		return describe(fault.BadValue) + " stands there twice"
	case field.ErrorTypeTooLong:
		return "is too long"
	case field.ErrorTypeTooMany:
		return "has too many entries"
	case field.ErrorTypeNotSupported:
		return describe(value) + " is not one of the choices"
	case field.ErrorTypeTypeInvalid:
		return describe(value) + " is not " + typeName(node)
	}
	lowest, highest := bounds(node)
	switch n, isNumber := number(value); {
	case isNumber && lowest != nil && n < *lowest:
		return describe(value) + " is below the least allowed"
	case isNumber && highest != nil && n > *highest:
		return describe(value) + " is above the most allowed"
	}
	return shorten(describe(value)+": "+fault.Detail, 300)
}

func whatToWrite(fault *field.Error, node *structuralschema.Structural) string {
	switch {
	case fault.Type == field.ErrorTypeDuplicate:
		return "remove one of them"
	case node == nil:
		return "write what the schema allows there"
	case fault.Type == field.ErrorTypeTooLong && node.ValueValidation != nil && node.ValueValidation.MaxLength != nil:
		return fmt.Sprintf("write at most %d characters", *node.ValueValidation.MaxLength)
	case fault.Type == field.ErrorTypeTooMany && node.ValueValidation != nil && node.ValueValidation.MaxItems != nil:
		return fmt.Sprintf("write at most %d", *node.ValueValidation.MaxItems)
	}
	return "write " + allowed(node) + example(node)
}

// allowed says what a field takes.
func allowed(node *structuralschema.Structural) string {
	if v := node.ValueValidation; v != nil && len(v.Enum) > 0 {
		var choices []string
		for _, choice := range v.Enum {
			choices = append(choices, fmt.Sprint(choice.Object))
		}
		return strings.Join(choices, " or ")
	}
	lowest, highest := bounds(node)
	if lowest != nil && highest != nil {
		return fmt.Sprintf("%s from %s to %s", typeName(node), plain(*lowest), plain(*highest))
	}
	if node.Type == "object" && len(node.Properties) > 0 {
		return "its fields below it, indented: " + strings.Join(fieldNames(node), ", ")
	}
	return typeName(node)
}

// example is the default of a field where it helps: choices and true or false
// need none.
func example(node *structuralschema.Structural) string {
	if node.Default.Object == nil || node.Type == "object" || node.Type == "boolean" {
		return ""
	}
	if node.ValueValidation != nil && len(node.ValueValidation.Enum) > 0 {
		return ""
	}
	return fmt.Sprintf(", such as %v", node.Default.Object)
}

func typeName(node *structuralschema.Structural) string {
	switch {
	case node == nil:
		return "of the right type"
	case node.XIntOrString:
		return "a quantity"
	}
	switch node.Type {
	case "integer":
		return "a whole number"
	case "boolean":
		return "true or false"
	case "string":
		return "a string"
	case "object":
		return "a section"
	case "array":
		return "a list"
	}
	return node.Type
}

func bounds(node *structuralschema.Structural) (lowest, highest *float64) {
	if node == nil || node.ValueValidation == nil {
		return nil, nil
	}
	return node.ValueValidation.Minimum, node.ValueValidation.Maximum
}

func number(value any) (float64, bool) {
	switch v := value.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func fieldNames(node *structuralschema.Structural) []string {
	var names []string
	for name := range node.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
