package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// maxFileBytes is more than any policy needs and as much as a ConfigMap holds.
const maxFileBytes = 1 << 20

// Parse reads a policy file. The error wraps one *FieldError for each wrong
// field, one a line, so that a file can be put right in one go; on error the
// policy is nil, and the one in use stays in use. Fields that are absent, null
// or zero take the value of Default.
func Parse(b []byte) (*Policy, error) {
	tree, err := decode(b)
	if err != nil {
		return nil, err
	}
	p := &Policy{Retention: Retention{History: true}}
	faults := p.load(tree)
	p.fillDefaults()
	faults = append(faults, p.fieldFaults()...)
	if len(faults) == 0 {
		faults = p.relationFaults()
	}
	if err := joinFaults(faults); err != nil {
		return nil, err
	}
	return p, nil
}

// Validate reports what Parse would report about the file of this policy,
// without taking zero values as defaults.
func (p *Policy) Validate() error {
	faults := p.fieldFaults()
	if len(faults) == 0 {
		faults = p.relationFaults()
	}
	return joinFaults(faults)
}

// Marshal returns the canonical bytes of the policy: every field written,
// keys sorted, zero values replaced by defaults. Equal policies have equal
// bytes. The error is that of Validate.
func (p *Policy) Marshal() ([]byte, error) {
	full := *p
	if full.Version == "" {
		full.Version = Version
	}
	full.fillDefaults()
	if err := full.Validate(); err != nil {
		return nil, err
	}
	b, err := yaml.Marshal(&full)
	if err != nil {
		return nil, fmt.Errorf("encode policy: %w", err)
	}
	return b, nil
}

// Hash returns the SHA-256 of the canonical bytes in lower-case hex, by which
// a pod tells which policy it runs. It is empty for a policy that is not valid.
func (p *Policy) Hash() string {
	b, err := p.Marshal()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// decode turns the file into nested maps.
func decode(b []byte) (map[string]any, error) {
	if len(b) > maxFileBytes {
		return nil, &FieldError{"", fmt.Sprintf("the file has %d bytes", len(b)), fmt.Sprintf("write at most %d", maxFileBytes)}
	}
	if documents(b) > 1 {
		return nil, &FieldError{"", "the file holds more than one document", "write one, without a further --- line"}
	}
	asJSON, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, syntaxFault(err)
	}
	var value any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(asJSON, &value); err != nil {
		return nil, syntaxFault(err)
	}
	tree, ok := value.(map[string]any)
	if !ok {
		return nil, &FieldError{"", "the file is empty or not a mapping of fields", "begin it with version: " + Version}
	}
	return tree, nil
}

// syntaxFault tells the decoder's complaint, which can be as long as the file.
func syntaxFault(err error) *FieldError {
	const most = 500
	text := err.Error()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return &FieldError{"", "the file is not valid YAML: " + text, "write each field once, as name: value"}
}

// documents counts YAML documents: the decoder would silently stop after the
// first. A line of three dashes or dots at its beginning is never part of a
// value.
func documents(b []byte) int {
	n, content, ended := 1, false, false
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, " \t\r\n")
		marker, rest := cutMarker(line)
		if marker {
			ended, line = ended || content, rest
		}
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' || line[0] == '%' && !content {
			continue
		}
		if ended {
			n++
		}
		content, ended = true, false
	}
	return n
}

// cutMarker reports whether a line begins or ends a document, and what else
// stands on it.
func cutMarker(line []byte) (bool, []byte) {
	for _, marker := range []string{"---", "..."} {
		rest, ok := bytes.CutPrefix(line, []byte(marker))
		if ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t') {
			return true, bytes.TrimSpace(rest)
		}
	}
	return false, line
}

// load takes every field that the file states, and reports those that it
// cannot take and those that it does not know.
func (p *Policy) load(tree map[string]any) []*FieldError {
	var faults []*FieldError
	given := map[string]any{}
	flatten(given, "", tree)
	fields := p.fields()
	for _, f := range fields {
		value, ok := given[f.path()]
		delete(given, f.path())
		if !ok || value == nil {
			continue
		}
		if fault := f.load(value); fault != nil {
			faults = append(faults, fault)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(given)) {
		if fault := unknown(path, given[path], fields); fault != nil {
			faults = append(faults, fault)
		}
	}
	return faults
}

// plainKey is what a field's name can look like. Any other key is quoted in
// its path, so that one with a dot in it cannot pass for a field of a section.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// flatten collects the leaves of the tree under their dotted names. A section
// is at most one level deep; what is deeper stays a leaf, for load to refuse.
func flatten(into map[string]any, prefix string, tree map[string]any) {
	for key, value := range tree {
		if !plainKey.MatchString(key) {
			key = describe(key)
		}
		section, ok := value.(map[string]any)
		if ok && prefix == "" {
			if len(section) == 0 {
				into[key] = nil
			}
			flatten(into, key+".", section)
			continue
		}
		into[prefix+key] = value
	}
}

// unknown judges a leaf that no field claimed: an empty section says nothing
// and is fine, everything else is an error that names the fields there are.
func unknown(path string, value any, fields []field) *FieldError {
	section, _, nested := strings.Cut(path, ".")
	var siblings []string
	isSection := false
	for _, f := range fields {
		parent, name, sub := strings.Cut(f.path(), ".")
		isSection = isSection || sub && parent == path
		switch {
		case nested && sub && parent == section:
			siblings = append(siblings, name)
		case !nested && !slices.Contains(siblings, parent):
			siblings = append(siblings, parent)
		}
	}
	switch {
	case isSection && value == nil:
		return nil
	case isSection:
		return &FieldError{path, describe(value) + " is not a section", "write its fields below it, indented"}
	case len(siblings) == 0:
		return &FieldError{path, "there is no such field", "remove it"}
	}
	return &FieldError{path, "there is no such field", "write one of " + strings.Join(siblings, ", ") + ", or remove it"}
}

func (p *Policy) fillDefaults() {
	for _, f := range p.fields() {
		f.fill()
	}
}

// fieldFaults judges each field by itself.
func (p *Policy) fieldFaults() []*FieldError {
	var faults []*FieldError
	for _, f := range p.fields() {
		if fault := f.check(); fault != nil {
			faults = append(faults, fault)
		}
	}
	return faults
}

// relationFaults judges what two valid fields must agree about.
func (p *Policy) relationFaults() []*FieldError {
	var faults []*FieldError
	if m := &p.MLS; m.LastResortLifetime < m.KeyPackageLifetime {
		faults = append(faults, &FieldError{
			"mls.lastResortLifetime",
			fmt.Sprintf("%s is shorter than mls.keyPackageLifetime", m.LastResortLifetime),
			fmt.Sprintf("write %s or more", m.KeyPackageLifetime),
		})
	}
	if s := &p.Sessions; s.RefreshTokenTTL <= s.AccessTokenTTL {
		faults = append(faults, &FieldError{
			"sessions.refreshTokenTTL",
			fmt.Sprintf("%s is not longer than sessions.accessTokenTTL", s.RefreshTokenTTL),
			fmt.Sprintf("write more than %s", s.AccessTokenTTL),
		})
	}
	if fault := p.Access.fault(); fault != nil {
		faults = append(faults, fault)
	}
	return faults
}

// maxFaults is how many faults one error tells: enough to put a file right,
// not enough to fill a log.
const maxFaults = 20

func joinFaults(faults []*FieldError) error {
	var errs []error
	for i, fault := range faults {
		if i == maxFaults {
			errs = append(errs, fmt.Errorf("and %d more", len(faults)-maxFaults))
			break
		}
		errs = append(errs, fault)
	}
	return errors.Join(errs...)
}
