package manifest

import (
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// explainUnknown words a field that the schema does not have: with the name
// that was probably meant, or the place where a field of that name stands, or
// the fields that there are.
func (r *rules) explainUnknown(path string) *Problem {
	parent, name := splitPath(path)
	var siblings []string
	if node := schemaAt(r.schema, parent); node != nil {
		siblings = fieldNames(node)
	}
	if nearest(name, siblings) == "" {
		if place := placeOf(r.schema, "", name); place != "" {
			return &Problem{shorten(path, 200), "there is no such field here", "move it to " + place}
		}
	}
	return noSuchField(path, siblings)
}

func noSuchField(path string, siblings []string) *Problem {
	_, name := splitPath(path)
	problem := &Problem{Path: shorten(path, 200), Wrong: "there is no such field", Remedy: "remove it"}
	if near := nearest(name, siblings); near != "" {
		problem.Remedy = "write " + near
	} else if len(siblings) > 0 {
		problem.Remedy = "write one of " + strings.Join(siblings, ", ") + ", or remove it"
	}
	return problem
}

// splitPath cuts the last name off a path.
func splitPath(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// placeOf finds the only field of the spec with this name. Names that stand
// in several places, such as "name", are nobody's.
func placeOf(node *structuralschema.Structural, path, name string) string {
	var places []string
	var walk func(node *structuralschema.Structural, path string)
	walk = func(node *structuralschema.Structural, path string) {
		for _, child := range fieldNames(node) {
			if path == "" && child != "spec" {
				continue
			}
			at := strings.TrimPrefix(path+"."+child, ".")
			if strings.EqualFold(child, name) {
				places = append(places, at)
			}
			next := node.Properties[child]
			walk(&next, at)
		}
	}
	walk(node, path)
	if len(places) != 1 {
		return ""
	}
	return places[0]
}

// nearest returns the candidate that name is probably a misspelling of, or
// "". Case does not count, and of longer names a third may differ.
func nearest(name string, candidates []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", max(1, (len(name)+1)/3)+1
	for _, candidate := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is the least number of single-byte insertions, deletions and
// substitutions that turn a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
