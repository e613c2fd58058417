package schema_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/schema/internal/idl"
)

var update = flag.Bool("update", false, "add what is new in the schema to testdata/baseline.txt; what stands there never changes")

const baselineFile = "testdata/baseline.txt"

// entries returns the schema as lines that sort by declaration and ordinal, one for each thing that peers rely on.
func entries(decls []idl.Decl) []string {
	var all []string
	for _, d := range decls {
		all = append(all, fmt.Sprintf("%s %s", d.Kind, d.Name))
		for _, m := range d.Members {
			line := fmt.Sprintf("%s %s @%03d %s", d.Kind, d.Name, m.Ordinal, m.Name)
			if m.Type != "" {
				line += " :" + m.Type
			}
			if m.Union {
				line += " (union)"
			}
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return all
}

// key is the part of an entry that may have one meaning only: a declaration, or an ordinal in it.
func key(entry string) string {
	parts := strings.SplitN(entry, " ", 4)
	return strings.Join(parts[:min(len(parts), 3)], " ")
}

// compare reports what of the baseline is gone or has changed, and what is new.
func compare(baseline, now []string) (broken, added []string) {
	current := map[string]string{}
	for _, e := range now {
		if other, twice := current[key(e)]; twice {
			broken = append(broken, fmt.Sprintf("%q and %q share one ordinal", other, e))
		}
		current[key(e)] = e
	}
	for _, was := range baseline {
		switch is, ok := current[key(was)]; {
		case !ok:
			broken = append(broken, fmt.Sprintf("%q was removed, or got another ordinal", was))
		case is != was:
			broken = append(broken, fmt.Sprintf("%q became %q", was, is))
		}
	}
	for _, e := range now {
		if !slices.Contains(baseline, e) {
			added = append(added, e)
		}
	}
	return broken, added
}

func parse(t *testing.T, text string) []string {
	t.Helper()
	decls, err := idl.Parse("test", text)
	if err != nil {
		t.Fatal(err)
	}
	return entries(decls)
}

// VERSIONING.md: what peers rely on is never removed, renumbered, renamed or retyped.
func TestSchemaKeepsItsBaseline(t *testing.T) {
	t.Parallel()
	decls, err := idl.ParseDir(".")
	if err != nil {
		t.Fatal(err)
	}
	now := entries(decls)
	b, err := os.ReadFile(baselineFile)
	if err != nil && !(os.IsNotExist(err) && *update) {
		t.Fatal(err)
	}
	baseline := strings.Split(string(bytes.TrimSpace(b)), "\n")
	if len(b) == 0 {
		baseline = nil
	}
	broken, added := compare(baseline, now)
	for _, problem := range broken {
		t.Errorf("%s: peers in the field rely on it (schema/VERSIONING.md); append instead", problem)
	}
	if len(added) > 0 && *update && len(broken) == 0 {
		if err := os.WriteFile(baselineFile, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil { //nolint:gosec // no secret.
			t.Fatal(err)
		}
	} else if len(added) > 0 {
		t.Logf("not in the baseline yet; once this is to be released run `go test ./schema -run Baseline -update`:\n%s", strings.Join(added, "\n"))
	}
	if len(now) < 150 {
		t.Errorf("only %d entries were found in the schema", len(now))
	}
}

// Ordinals count up without a gap in each declaration, as the compiler demands too.
func TestOrdinalsHaveNoGaps(t *testing.T) {
	t.Parallel()
	decls, err := idl.ParseDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decls {
		seen := make([]bool, len(d.Members))
		for _, m := range d.Members {
			if m.Ordinal >= len(seen) || seen[m.Ordinal] {
				t.Errorf("%s.%s has ordinal %d among %d members", d.Name, m.Name, m.Ordinal, len(seen))
				continue
			}
			seen[m.Ordinal] = true
		}
	}
}

func TestCompareFindsWhatBreaksPeers(t *testing.T) {
	t.Parallel()
	const before = `
		@0xb34110edcb744840;
		using Other = import "other.capnp"; # A comment; with a semicolon.
		struct A {
		  x @0 :Text;
		  y @1 :UInt32 = 5;
		  union { none @2 :Void; z @3 :List(Other.Thing); }
		  enum Kind { first @0; second @1; }
		  struct Inner { v @0 :Data; }
		}`
	cases := []struct {
		name, old, new string
		broken, added  int
	}{
		{"nothing", "", "", 0, 0},
		{"a comment", "# A comment", "# Another comment", 0, 0},
		{"places in the file", "x @0 :Text;\n\t\t  y @1 :UInt32 = 5;", "y @1 :UInt32 = 5;\n\t\t  x @0 :Text;", 0, 0},
		{"a field appended", "y @1 :UInt32 = 5;", "y @1 :UInt32 = 5; new @4 :Text;", 0, 1},
		{"a member of the union appended", "none @2 :Void;", "none @2 :Void; new @4 :Text;", 0, 1},
		{"an enumerant appended", "second @1;", "second @1; third @2;", 0, 1},
		{"a struct added", "struct Inner", "struct New { a @0 :Text; } struct Inner", 0, 2},
		{"a field removed", "x @0 :Text;", "", 1, 0},
		{"a field retyped", "x @0 :Text;", "x @0 :Data;", 1, 1},
		{"a field renamed", "x @0 :Text;", "w @0 :Text;", 1, 1},
		{"a list retyped", "Other.Thing", "Other.Thong", 1, 1},
		{"a default changed", "= 5", "= 6", 1, 1},
		{"a default dropped", " = 5", "", 1, 1},
		{"a field moved into the union", "y @1 :UInt32 = 5;\n\t\t  union {", "union { y @1 :UInt32 = 5;", 1, 1},
		{"two fields exchanged", "x @0 :Text;\n\t\t  y @1 :UInt32 = 5;", "x @1 :Text; y @0 :UInt32 = 5;", 2, 2},
		{"an ordinal reused", "x @0 :Text;\n\t\t  y @1 :UInt32 = 5;", "x @0 :Text; y @0 :UInt32 = 5;", 3, 1},
		{"enumerants exchanged", "first @0; second @1;", "second @0; first @1;", 2, 2},
		{"a struct removed", "struct Inner { v @0 :Data; }", "", 2, 0},
		{"a struct renamed", "struct Inner", "struct Outer", 2, 2},
	}
	for _, c := range cases {
		if !strings.Contains(before, c.old) {
			t.Fatalf("%s: %q is not in the text", c.name, c.old)
		}
		broken, added := compare(parse(t, before), parse(t, strings.Replace(before, c.old, c.new, 1)))
		if len(broken) != c.broken || len(added) != c.added {
			t.Errorf("%s: broken %q, added %q; want %d and %d", c.name, broken, added, c.broken, c.added)
		}
	}
}
