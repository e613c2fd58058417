package interop

import (
	"errors"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	fault := Fault{Error: "no path", Why: "it should have one"}
	for _, c := range []struct {
		name   string
		err    error
		faulty bool
		want   string // empty: the test fails
	}{
		{"passes", nil, false, "pass"},
		{"fails", errors.New("no path"), false, ""},
		{"cannot", Cannot("them", "no API"), false, "them cannot"},
		{"known fault", errors.New("member: no path"), true, "peer is wrong"},
		{"another fault", errors.New("no tag"), true, ""},
		{"mended", nil, true, ""},
		{"cannot, though listed as a fault", Cannot("them", "no API"), true, ""},
	} {
		var r row
		err := r.judge(c.err, fault, c.faulty)
		if r.result != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v; want %q", c.name, r.result, err, c.want)
		}
	}
}

func TestStatesThatDiffer(t *testing.T) {
	t.Parallel()
	with := func(change func(*State)) State {
		s := State{
			Epoch: 3, Authenticator: []byte("authenticator"), Exported: make([]byte, ExportLength), Active: true,
			Members: []Leaf{{0, "a"}, {2, "b"}},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	first := with(nil)
	if err := first.differs(with(nil)); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*State){
		"epoch":         func(s *State) { s.Epoch++ },
		"authenticator": func(s *State) { s.Authenticator = []byte("another") },
		"exported":      func(s *State) { s.Exported = nil },
		"active":        func(s *State) { s.Active = false },
		"members":       func(s *State) { s.Members = s.Members[:1] },
		"leaf":          func(s *State) { s.Members = []Leaf{{0, "a"}, {1, "b"}} },
	} {
		if first.differs(with(change)) == nil {
			t.Errorf("%s: the difference is not seen", name)
		}
	}
}
