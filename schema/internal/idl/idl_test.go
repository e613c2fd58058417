package idl

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse("file", `
		# A comment with struct X { in it.
		@0xb34110edcb744840;
		using Go = import "/go.capnp";
		$Go.package("schema");
		struct A {
		  a @0 :List(Other.B);      # Why.
		  union {
		    b @1 :Void;
		    c @2 :Text;
		  }
		  enum E { one @0; two @1;# Close.
		  }
		  d @3 :UInt16 = 7;
		}
		struct Empty {}`)
	want := []Decl{
		{"struct", "file.A", []Member{{"a", 0, "List(Other.B)", false}, {"b", 1, "Void", true}, {"c", 2, "Text", true}, {"d", 3, "UInt16=7", false}}},
		{"enum", "file.A.E", []Member{{"one", 0, "", false}, {"two", 1, "", false}}},
		{"struct", "file.Empty", nil},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What the parser does not know must not be passed over in silence: a test that reads nothing finds nothing.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"an interface":        `interface I { f @0 (); }`,
		"a constant":          `const x :Text = "a";`,
		"a group":             `struct A { g :group { a @0 :Text; } }`,
		"a named union":       `struct A { u :union { a @0 :Text; } }`,
		"a field's end":       `struct A { a @0 :Text`,
		"a struct's end":      `struct A { a @0 :Text;`,
		"no ordinal":          `struct A { a :Text; }`,
		"an ordinal of words": `struct A { a @x :Text; }`,
		"an enum with types":  `enum E { a @0 :Text; }`,
		"an open string":      `using X = import "a`,
	} {
		if got, err := Parse("file", text); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestParseDir(t *testing.T) {
	t.Parallel()
	if got, err := ParseDir("../.."); err != nil || len(got) < 40 {
		t.Errorf("the schema: %d declarations, %v", len(got), err)
	}
	if _, err := ParseDir(t.TempDir()); err == nil {
		t.Error("a folder without schema files was read")
	}
}
