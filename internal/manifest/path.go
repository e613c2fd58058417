package manifest

import (
	"strconv"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// normalPath turns the ways in which the validators write a path into one.
func normalPath(path string) string {
	if path == "<nil>" {
		return ""
	}
	return strings.ReplaceAll(strings.TrimPrefix(path, "."), "..", ".")
}

// steps cuts "spec.list[2].name" into "spec", "list", "[2]", "name".
func steps(path string) []string {
	var out []string
	for _, part := range strings.Split(path, ".") {
		name, index, found := strings.Cut(part, "[")
		if name != "" {
			out = append(out, name)
		}
		if found {
			out = append(out, "["+index)
		}
	}
	return out
}

func isIndex(step string) (int, bool) {
	digits, ok := strings.CutPrefix(step, "[")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(digits, "]"))
	return n, err == nil
}

// valueAt returns what stands at a path of the object.
func valueAt(object any, path string) (any, bool) {
	for _, step := range steps(path) {
		switch at := object.(type) {
		case map[string]any:
			next, ok := at[step]
			if !ok {
				return nil, false
			}
			object = next
		case []any:
			i, ok := isIndex(step)
			if !ok || i < 0 || i >= len(at) {
				return nil, false
			}
			object = at[i]
		default:
			return nil, false
		}
	}
	return object, true
}

// schemaAt returns the schema of a path, or nil where there is none.
func schemaAt(node *structuralschema.Structural, path string) *structuralschema.Structural {
	for _, step := range steps(path) {
		if node == nil {
			return nil
		}
		if _, ok := isIndex(step); ok {
			node = node.Items
			continue
		}
		next, ok := node.Properties[step]
		if !ok {
			return nil
		}
		node = &next
	}
	return node
}
