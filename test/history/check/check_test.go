package check

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quicproquo.dev/test/history/record"
)

var worlds = map[string]func(seed uint64, n int) *record.History{"messages": messages, "creations": creations, "commits": commits, "claims": claims}

// What a cell may do is not refused, however calls overlap and answers get lost.
func TestRightHistoriesPass(t *testing.T) {
	t.Parallel()
	for name, world := range worlds {
		for seed := range uint64(60) {
			h := world(seed, 10+int(seed)*3) //nolint:gosec // small.
			if r := judge(t, h); !r.OK() {
				t.Fatalf("%s %d: %s\n%s", name, seed, r.Findings[0], dump(h))
			}
		}
	}
}

func dump(h *record.History) string {
	var b bytes.Buffer
	_ = h.Write(&b)
	return b.String()
}

// A file says the same as the history it was made from.
func TestAFileIsCheckedAsTheHistoryWas(t *testing.T) {
	t.Parallel()
	h := messages(1, 100)
	h.Name, h.Seed, h.Plan = "a run", 7, map[string]string{"replicas": "2"}
	path := filepath.Join(t.TempDir(), "h.jsonl")
	if err := h.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := record.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if again.Name != h.Name || again.Seed != h.Seed || again.Plan["replicas"] != "2" || fmt.Sprint(again.Ops) != fmt.Sprint(h.Ops) {
		t.Error("the file differs from what was saved")
	}
	if a, b := judge(t, h), judge(t, again); a.Operations != b.Operations || !b.OK() {
		t.Errorf("%+v and %+v", a, b)
	}
	if _, err := record.Read(strings.NewReader("{}\n")); err == nil {
		t.Error("a file of another format is read")
	}
	if _, err := record.Read(strings.NewReader(dump(h)[:5000])); err == nil {
		t.Error("a file that ends in a line is read")
	}
}

func TestAFindingIsShown(t *testing.T) {
	t.Parallel()
	h := messages(3, 60)
	h.Ops = append(h.Ops, record.Op{Kind: record.Fault, Text: "kill -9", Call: 5, Return: 9})
	i := slices.IndexFunc(h.Ops, func(o record.Op) bool { return o.Kind == record.Push })
	h.Ops[i].Content = "not what was sent"
	r := judge(t, h)
	if r.OK() || r.Findings[0].Model != "log" {
		t.Fatalf("%+v", r)
	}
	if s := r.Findings[0].String(); !strings.Contains(s, "push") || !strings.Contains(s, "not to be explained") {
		t.Error(s)
	}
	path := filepath.Join(t.TempDir(), "finding.html")
	if err := r.Findings[0].Visualize(path, h); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte("<html")) || !bytes.Contains(b, []byte("kill -9")) {
		t.Error("the page lacks something:", err)
	}
}

// A crash of the database may forget how far devices were; nothing else may.
func TestACrashMayForgetCursors(t *testing.T) {
	t.Parallel()
	tried := 0
	for seed := range uint64(60) {
		h := messages(seed, 60)
		var again record.Op
		back := subscriptions(h, func(first *record.Op, _, floor uint64) bool {
			if floor == 0 || first.Seq != floor+1 {
				return false
			}
			again = *first
			again.Seq, again.Call, again.Return = floor, first.Call-1, first.Return-1
			first.Prev = floor
			return true
		})
		if !back {
			continue
		}
		tried++
		begun := int64(0)
		for _, o := range h.Ops {
			if o.Kind == record.Subscribe && o.Device == again.Device && o.Call < again.Call {
				begun = max(begun, o.Call)
			}
		}
		h.Ops = append(h.Ops, again)
		cursor := func(f *Finding) bool { return f.Model == "cursor" }
		if r := judge(t, h); !slices.ContainsFunc(r.Findings, cursor) {
			t.Fatalf("seed %d: not noticed without a crash", seed)
		}
		h.Ops = append(h.Ops, record.Op{Kind: record.Fault, Code: CrashOfDatabase, Call: begun - 2, Return: begun - 1})
		if r := judge(t, h); slices.ContainsFunc(r.Findings, cursor) {
			t.Fatalf("seed %d: %s", seed, r.Findings[0])
		}
	}
	if tried < 10 {
		t.Errorf("only %d histories have a place for it", tried)
	}
}
