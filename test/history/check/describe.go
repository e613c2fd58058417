package check

import (
	"fmt"
	"os"
	"strings"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// short is enough of an id to tell it from others.
func short(id string) string {
	if len(id) > 8 {
		return id[len(id)-8:]
	}
	return id
}

// describe tells an operation in a line, with the time of its call.
func describe(o *record.Op) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.6fs %s", float64(o.Call)/1e9, o.Kind)
	for _, f := range []struct{ name, value string }{
		{"device", short(o.Device)}, {"from", short(o.From)}, {"id", short(o.ID)}, {"content", short(o.Content)}, {"channel", short(o.Channel)}} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s %s", f.name, f.value)
		}
	}
	if o.Generation > 0 {
		fmt.Fprintf(&b, " generation %d", o.Generation)
	}
	if o.Epoch > 0 {
		fmt.Fprintf(&b, " epoch %d", o.Epoch)
	}
	if len(o.Packages) > 0 {
		fmt.Fprintf(&b, " of %d", len(o.Packages))
	}
	if o.LastResort {
		b.WriteString(" last resort")
	}
	return b.String() + outcome(o)
}

func outcome(o *record.Op) string {
	switch {
	case o.Outcome == record.Refused:
		return " -> " + o.Code
	case o.Outcome == record.Unknown:
		return " -> ?"
	case o.Kind == record.Quiet:
		return fmt.Sprintf(" -> %d again", o.Count)
	case o.Duplicate:
		return fmt.Sprintf(" -> %d, duplicate", o.Seq)
	case o.Seq > 0 && o.Prev > 0:
		return fmt.Sprintf(" -> %d after %d", o.Seq, o.Prev)
	case o.Seq > 0:
		return fmt.Sprintf(" -> %d", o.Seq)
	}
	return ""
}

// Visualize writes porcupine's page about the finding; faults are shown beside the operations.
func (f *Finding) Visualize(path string, h *record.History) error {
	var notes []porcupine.Annotation
	for i := range h.Ops {
		if o := &h.Ops[i]; o.Kind == record.Fault {
			notes = append(notes, porcupine.Annotation{Tag: "faults", Start: o.Call, End: o.Return, Description: o.Text, BackgroundColor: "#ffaaaa"})
		}
	}
	f.info.AddAnnotations(notes)
	w, err := os.Create(path) //nolint:gosec // the caller's choice
	if err != nil {
		return err
	}
	if err := porcupine.Visualize(f.model, f.info, w); err != nil {
		_ = w.Close()
		return err
	}
	return w.Close()
}
