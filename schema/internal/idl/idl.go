// Package idl reads Cap'n Proto schema files as far as this schema uses the language: structs, enums, unions and
// annotations at the top of a file. Tests compare what it finds with a committed baseline and with the Go code, so
// that they need no tool.
package idl

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/scanner"
)

// Decl is a struct or an enum.
type Decl struct {
	Kind    string // "struct" or "enum".
	Name    string // With the file and the enclosing structs: "delivery.Delivery.Kind".
	Members []Member
}

// Member is a field of a struct, or an enumerant.
type Member struct {
	Name    string
	Ordinal int
	Type    string // Empty for an enumerant. A default value is part of it.
	Union   bool   // Of the struct's unnamed union.
}

// ParseDir reads every .capnp file in dir, in the order of their names.
func ParseDir(dir string) ([]Decl, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.capnp"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no .capnp file in %s", dir)
	}
	var all []Decl
	for _, path := range paths {
		b, err := os.ReadFile(path) //nolint:gosec // the project's own schema.
		if err != nil {
			return nil, err
		}
		decls, err := Parse(strings.TrimSuffix(filepath.Base(path), ".capnp"), string(b))
		if err != nil {
			return nil, err
		}
		all = append(all, decls...)
	}
	return all, nil
}

// Parse reads one file's text. Anything outside the part of the language that it knows is an error.
func Parse(file, text string) (decls []Decl, err error) {
	p := &parser{file: file}
	p.s.Init(strings.NewReader(stripComments(text)))
	p.s.Filename = file + ".capnp"
	p.s.Mode = scanner.ScanIdents | scanner.ScanInts | scanner.ScanStrings
	p.s.Error = func(s *scanner.Scanner, msg string) { p.fail("%s", msg) }
	defer func() {
		if p.err != nil {
			decls, err = nil, p.err
		}
	}()
	p.next()
	for p.tok != scanner.EOF && p.err == nil {
		p.topLevel()
	}
	return p.decls, nil
}

// stripComments drops what follows # on each line; no string of the schema contains one.
func stripComments(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i], _, _ = strings.Cut(line, "#")
	}
	return strings.Join(lines, "\n")
}

type parser struct {
	s     scanner.Scanner
	tok   rune
	file  string
	decls []Decl
	err   error
}

func (p *parser) next() { p.tok = p.s.Scan() }

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %s", p.s.Pos(), fmt.Sprintf(format, args...))
	}
	p.tok = scanner.EOF
}

func (p *parser) is(text string) bool { return p.tok != scanner.EOF && p.s.TokenText() == text }

func (p *parser) expect(text string) {
	if !p.is(text) {
		p.fail("%q stands where %q belongs", p.s.TokenText(), text)
		return
	}
	p.next()
}

func (p *parser) word() string {
	w := p.s.TokenText()
	if p.tok != scanner.Ident {
		p.fail("%q stands where a name belongs", w)
		return ""
	}
	p.next()
	return w
}

// until returns the text up to an end token, which it skips.
func (p *parser) until(end string) string {
	var b strings.Builder
	for !p.is(end) {
		if p.tok == scanner.EOF {
			p.fail("the file ends before %q", end)
			return ""
		}
		b.WriteString(p.s.TokenText())
		p.next()
	}
	p.next()
	return b.String()
}

func (p *parser) topLevel() {
	switch {
	case p.is("struct"), p.is("enum"):
		p.decl(p.file)
	case p.is("using"), p.is("@"), p.is("$"):
		p.until(";")
	default:
		p.fail("%q is not understood here", p.s.TokenText())
	}
}

func (p *parser) decl(scope string) {
	d := Decl{Kind: p.word()}
	d.Name = scope + "." + p.word()
	at := len(p.decls) // Before what is nested in it.
	p.decls = append(p.decls, d)
	p.expect("{")
	for !p.is("}") && p.err == nil {
		p.member(&d, false)
	}
	p.expect("}")
	if p.err == nil {
		p.decls[at] = d
	}
}

func (p *parser) member(d *Decl, union bool) {
	if p.is("struct") || p.is("enum") {
		p.decl(d.Name)
		return
	}
	name := p.word()
	if name == "union" && p.is("{") {
		p.next()
		for !p.is("}") && p.err == nil {
			p.member(d, true)
		}
		p.expect("}")
		return
	}
	m := Member{Name: name, Ordinal: p.ordinal(), Union: union}
	if d.Kind == "struct" {
		p.expect(":")
		m.Type = p.until(";")
	} else {
		p.expect(";")
	}
	d.Members = append(d.Members, m)
}

func (p *parser) ordinal() int {
	p.expect("@")
	n, err := strconv.Atoi(p.s.TokenText())
	if err != nil {
		p.fail("%q is no ordinal", p.s.TokenText())
		return 0
	}
	p.next()
	return n
}
