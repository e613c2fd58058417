package mls

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The table in the package's documentation names every file of the engine, files
// and tests that exist, and a test for every row.
func TestTableOfSectionsIsTrue(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	columns := regexp.MustCompile(` {2,}`)
	files := map[string]bool{}
	rows := 0
	for line := range strings.Lines(string(doc)) {
		row, ok := strings.CutPrefix(strings.TrimSpace(line), "//\t")
		if !ok || strings.HasPrefix(row, "RFC 9420 ") {
			continue
		}
		rows++
		cells := columns.Split(row, -1)
		if len(cells) != 4 {
			t.Errorf("%d columns, want 4: %s", len(cells), row)
			continue
		}
		for column, cell := range cells[2:] {
			for name := range strings.SplitSeq(cell, ", ") {
				if name == "—" && column == 0 {
					continue
				}
				files[name] = true
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%s: %v", cells[0], err)
				}
				if isTest := strings.HasSuffix(name, "_test.go"); isTest != (column == 1) {
					t.Errorf("%s: %s is in the wrong column", cells[0], name)
				}
			}
		}
	}
	if rows < 30 {
		t.Fatalf("%d rows: the test reads another table", rows)
	}
	missing := slices.DeleteFunc(sourceFiles(t), func(name string) bool { return files[name] || name == "doc.go" })
	if len(missing) > 0 {
		t.Errorf("not in the table: %v", missing)
	}
}

// The design note names a regression test for every fault found in other engines, and
// the tests are there.
func TestDesignNoteNamesTheFaults(t *testing.T) {
	t.Parallel()
	note, err := os.ReadFile("../docs/design/0001-mls-engine.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`TestFault\w+`)
	named := name.FindAllString(string(note), -1)
	var written []string
	for _, path := range []string{"faults_test.go", "faultsbytes_test.go", "faultsecrets_test.go", "unknown_test.go"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (TestFault\w+)`).FindAllStringSubmatch(string(b), -1) {
			written = append(written, m[1])
		}
	}
	slices.Sort(named)
	named = slices.Compact(named)
	slices.Sort(written)
	if !slices.Equal(named, written) {
		t.Errorf("the note names %v, the tests are %v", named, written)
	}
}
