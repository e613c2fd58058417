package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Fault is something that a peer does otherwise than RFC 9420 says. Its row must end
// in the error, or the test fails: then the peer was mended, and the table is old.
type Fault struct {
	// Error is part of the error with which the scenario ends.
	Error string
	// Why says what is wrong, with the section of RFC 9420.
	Why string
}

// Suite is everything that is run against one peer.
type Suite struct {
	Us, Them Engine
	// Faults are by scenario and direction, as in the table.
	Faults map[string]Fault
	// AsIs runs the scenarios about a GroupInfo that the adapter corrects.
	AsIs bool
	// Extras are run after the scenarios.
	Extras []Extra
}

// Extra is a row of one peer alone.
type Extra struct {
	Name, Direction string
	Run             func() error
}

// row is one line of the table.
type row struct{ peer, scenario, direction, result, why string }

func (r row) String() string {
	s := fmt.Sprintf("interop: %s | %s | %s", r.peer, r.key(), r.result)
	if r.why != "" {
		s += " | " + r.why
	}
	return s
}

// Run runs every scenario in both directions, prints the table (with -v) and
// compares it with the one in readme, if that is not empty; update rewrites it.
func (s *Suite) Run(t *testing.T, readme string, update bool) {
	t.Helper()
	all := scenarios
	if s.AsIs {
		all = append(all[:len(all):len(all)], asIs...)
	}
	var table []row
	known := map[string]bool{}
	for _, sc := range all {
		for _, ours := range []bool{true, false} {
			r, w := s.prepare(sc, ours)
			known[r.key()] = true
			t.Run(r.key(), func(t *testing.T) { table = append(table, s.runOne(t, sc, r, w)) })
		}
	}
	for _, e := range s.Extras {
		r := row{peer: s.Them.Name(), scenario: e.Name, direction: e.Direction}
		known[r.key()] = true
		t.Run(r.key(), func(t *testing.T) { table = append(table, s.conclude(t, r, e.Run())) })
	}
	if readme != "" { // else the peer is ourselves
		for _, r := range table {
			t.Log("report:", r)
		}
	}
	for name := range s.Faults {
		if !known[name] {
			t.Errorf("the fault %q is of no scenario", name)
		}
	}
	if readme != "" && !t.Failed() && len(table) == len(known) {
		s.compare(t, table, readme, update)
	}
}

func (r row) key() string { return r.scenario + ", " + r.direction }

func (s *Suite) prepare(sc scenario, ours bool) (row, *world) {
	r := row{peer: s.Them.Name(), scenario: sc.name, direction: "theirs into ours"}
	w := &world{acting: s.Them, other: s.Us, made: map[Engine]int{}}
	if ours {
		r.direction = "ours into theirs"
		w.acting, w.other = s.Us, s.Them
	}
	return r, w
}

func (s *Suite) runOne(t *testing.T, sc scenario, r row, w *world) row {
	t.Helper()
	sc.run(w)
	if w.err == nil && w.agreements == 0 {
		t.Error("nothing was compared")
	}
	return s.conclude(t, r, w.err)
}

func (s *Suite) conclude(t *testing.T, r row, err error) row {
	t.Helper()
	fault, faulty := s.Faults[r.key()]
	if err := r.judge(err, fault, faulty); err != nil {
		t.Error(err)
		r.result, r.why = "FAIL", err.Error()
	}
	return r
}

// judge fills in the result. It returns an error if that is not what it should be.
func (r *row) judge(err error, fault Fault, faulty bool) error {
	var cannot *CannotError
	switch {
	case faulty && err == nil:
		return fmt.Errorf("passes, though it is listed as a fault: %s", fault.Why)
	case faulty && !strings.Contains(err.Error(), fault.Error):
		return fmt.Errorf("want %q in: %w", fault.Error, err)
	case faulty:
		r.result, r.why = "peer is wrong", fault.Why
	case errors.As(err, &cannot):
		r.result, r.why = cannot.Engine+" cannot", cannot.Reason
	case err != nil:
		return err
	default:
		r.result = "pass"
	}
	return nil
}

func (s *Suite) compare(t *testing.T, table []row, readme string, update bool) {
	t.Helper()
	var want bytes.Buffer
	want.WriteString("| scenario | direction | result | why |\n|---|---|---|---|\n")
	for _, r := range table {
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", r.scenario, r.direction, r.result, r.why)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- table of %s -->\n", s.Them.Name()), fmt.Sprintf("<!-- end of %s -->", s.Them.Name())
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of %s", readme, s.Them.Name())
	}
	if old == want.String() {
		return
	}
	if !update {
		t.Fatalf("the table in %s is old: run go test -p 1 ./mlsgo ./tsmls -update in test/interop; it should be\n%s", readme, want.String())
	}
	if err := os.WriteFile(readme, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
