package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing to put right in a manifest.
type Problem struct {
	// Path names the field, as in "spec.limits.requestsPerSecond"; empty when
	// the whole object is meant.
	Path string
	// Wrong is what is wrong with it.
	Wrong string
	// Remedy is what to write instead.
	Remedy string
}

// Error returns "path: what is wrong; what to write".
func (p *Problem) Error() string {
	text := p.Wrong + "; " + p.Remedy
	if p.Path != "" {
		text = p.Path + ": " + text
	}
	return text
}

// onePerPath keeps the first problem of each field, sorted by field: a value
// that a rule refuses in its own words may be refused by the schema in general
// ones too.
func onePerPath(problems []*Problem) []*Problem {
	seen := map[string]bool{}
	kept := problems[:0]
	for _, p := range problems {
		if p.Path != "" && seen[p.Path] {
			continue
		}
		seen[p.Path] = true
		kept = append(kept, p)
	}
	slices.SortStableFunc(kept, func(a, b *Problem) int { return strings.Compare(a.Path, b.Path) })
	return kept
}

// describe names a value as a person would who looks at the file.
func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "nothing"
	case string:
		return quote(v)
	case map[string]any:
		return "a section"
	case []any:
		return "a list"
	default:
		return fmt.Sprint(v)
	}
}

// quote is for text from the file, which may be anything.
func quote(text string) string { return fmt.Sprintf("%q", shorten(text, 64)) }

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
