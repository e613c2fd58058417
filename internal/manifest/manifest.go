// Package manifest reads a MessagingCell from a file and judges it as a
// cluster would: by the schema and the CEL rules of the very
// CustomResourceDefinition that the cluster gets, with its defaults applied.
// Unknown fields, which a cluster drops or warns about, are errors here.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"quicproquo.dev/api/v1alpha1"
)

// maxFileBytes is more than an API server takes in one request.
const maxFileBytes = 3 << 20

// Load reads the one MessagingCell of a YAML or JSON file; other objects in
// the file are passed over. The cell has its defaults, and the status of a
// cell that no operator has seen.
//
// When the object is wrong the error wraps one *Problem for each thing to put
// right and prints them one a line, "field: what is wrong; what to write".
func Load(path string) (*v1alpha1.MessagingCell, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return Parse(b, path)
}

// Parse is Load for bytes that were read already; name stands for them in
// errors.
func Parse(b []byte, name string) (*v1alpha1.MessagingCell, error) {
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("%s: the file is longer than %d bytes; write the MessagingCell into a file of its own", name, maxFileBytes)
	}
	doc, err := find(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	object, err := doc.decode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	rules, err := loadRules()
	if err != nil {
		return nil, err
	}
	if problems := rules.admit(object, nil); len(problems) > 0 {
		return nil, fmt.Errorf("%s is not a valid MessagingCell:\n%w", name, join(problems))
	}
	return toCell(object)
}

// join makes one error of many problems.
func join(problems []*Problem) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

func toCell(object map[string]any) (*v1alpha1.MessagingCell, error) {
	b, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode a valid MessagingCell: %w", err)
	}
	cell := &v1alpha1.MessagingCell{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(b, cell); err != nil {
		return nil, fmt.Errorf("decode a valid MessagingCell: %w", err)
	}
	return cell, nil
}

// document is one YAML document of a file.
type document struct {
	text  []byte
	place string // "document 2", or "" in a file of one
	kind  string
}

// find returns the only document that is meant to be a MessagingCell.
func find(b []byte) (*document, error) {
	docs := split(b)
	var cells, others []*document
	for _, d := range docs {
		if err := d.readKind(); err != nil {
			return nil, err
		}
		switch {
		case d.kind == v1alpha1.Kind:
			cells = append(cells, d)
		case d.kind != "":
			others = append(others, d)
		}
	}
	switch {
	case len(cells) == 1:
		return cells[0], nil
	case len(cells) > 1:
		return nil, fmt.Errorf("holds %d MessagingCells; write each into a file of its own", len(cells))
	}
	return nil, errors.New("holds no MessagingCell" + meant(others) + "; write one that begins with\napiVersion: " +
		v1alpha1.GroupVersion.String() + "\nkind: " + v1alpha1.Kind)
}

// meant tells what was found instead of a MessagingCell.
func meant(others []*document) string {
	const most = 5
	var kinds []string
	for _, d := range others {
		kinds = append(kinds, quote(d.kind))
	}
	switch {
	case len(kinds) == 0:
		return ""
	case len(kinds) > most:
		return fmt.Sprintf(", but %s and %d more objects", strings.Join(kinds[:most], ", "), len(kinds)-most)
	}
	return ", but " + strings.Join(kinds, ", ")
}

// split cuts a file at its document marks and drops what holds only comments.
func split(b []byte) []*document {
	var docs []*document
	current := &document{}
	for line := range bytes.Lines(b) {
		if rest, ok := cutMark(line); ok {
			docs = append(docs, current)
			current = &document{text: bytes.Clone(rest)}
			continue
		}
		current.text = append(current.text, line...)
	}
	docs = append(docs, current)
	kept := docs[:0]
	for _, d := range docs {
		if !isBlank(d.text) {
			kept = append(kept, d)
		}
	}
	if len(kept) > 1 {
		for i, d := range kept {
			d.place = fmt.Sprintf("document %d", i+1)
		}
	}
	return kept
}

// cutMark reports whether a line begins or ends a document, and what else
// stands on it. At the beginning of a line the marks are never part of a value.
func cutMark(line []byte) ([]byte, bool) {
	for _, mark := range []string{"---", "..."} {
		rest, ok := bytes.CutPrefix(line, []byte(mark))
		if ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n")) {
			return rest, true
		}
	}
	return nil, false
}

// isBlank tells text that says nothing: comments, and directives for the
// reader of the YAML.
func isBlank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// readKind fails on what is not YAML at all; what is YAML but no object
// simply has no kind.
func (d *document) readKind() error {
	asJSON, err := yaml.YAMLToJSON(d.text)
	if err != nil {
		return d.syntax(err)
	}
	var head struct {
		Kind any `json:"kind"`
	}
	if json.Unmarshal(asJSON, &head) == nil {
		d.kind, _ = head.Kind.(string)
	}
	return nil
}

// decode turns the document into nested maps, refusing a field that stands
// twice.
func (d *document) decode() (map[string]any, error) {
	asJSON, err := yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return nil, d.syntax(err)
	}
	var object map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(asJSON, &object); err != nil {
		return nil, d.syntax(err)
	}
	return object, nil
}

func (d *document) syntax(err error) error {
	place := d.place
	if place != "" {
		place = " in " + place
	}
	text := shorten(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), 500)
	return fmt.Errorf("is not valid YAML%s: %s; write each field once, as name: value, indented with spaces", place, text)
}
