package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// The refusals that the models know, by their names on the wire.
const (
	codeReused             = "deliveryIdReused"
	codeEpochConflict      = "epochConflict"
	codeGenerationConflict = "generationConflict"
	codeReusedPackage      = "reusedKeyPackage"
)

// patience is for one part of a history; explaining what is found in it gets less.
const (
	patience        = 60 * time.Second
	explainPatience = 5 * time.Second
)

// Finding is a part of a history that no order explains, or that could not be decided in time.
type Finding struct {
	Model, Part string
	Undecided   bool
	Why         string // The operation at which the longest explanation ends, and what came before it.

	model porcupine.Model
	info  porcupine.LinearizationInfo
}

// String tells of the finding in a few lines.
func (f *Finding) String() string {
	verdict := "no order of the operations explains"
	if f.Undecided {
		verdict = "could not be decided in time:"
	}
	return fmt.Sprintf("%s: %s %s\n%s", f.Model, verdict, f.Part, f.Why)
}

// Report is the judgement of a history.
type Report struct {
	Parts, Operations int // That were checked.
	Findings          []*Finding
}

// OK says that there is nothing to find fault with.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// part is what one model is asked about.
type part struct {
	model, name string
	ops         []*record.Op
}

// kind is one of the models.
type kind struct {
	name    string
	model   func() porcupine.Model
	history func([]*record.Op) []porcupine.Operation
	// parts names the parts that an operation belongs to.
	part func(*record.Op) string
	// all says that an operation belongs to all parts, or to all of its device.
	all func(*record.Op) bool
}

func kinds() []kind {
	return []kind{
		{"log", logModel, logHistory, logPart, nil},
		{"cursor", cursorModel, cursorHistory, cursorPart, func(o *record.Op) bool {
			return o.Kind == record.Subscribe || o.Kind == record.Fault && o.Code == CrashOfDatabase
		}},
		{"group", groupModel, groupHistory, groupPart, nil},
		{"pair", pairModel, pairHistory, pairPart, nil},
		{"packages", packageModel, packageHistory, packagePart, nil},
	}
}

func logPart(o *record.Op) string {
	switch o.Kind { //nolint:exhaustive // none of the others.
	case record.Enqueue, record.Commit, record.Push, record.CaughtUp, record.Complete:
		return o.Channel
	case record.Open:
		if o.Outcome == record.OK {
			return o.Channel
		}
	}
	return ""
}

func cursorPart(o *record.Op) string {
	switch o.Kind { //nolint:exhaustive // none of the others.
	case record.Push, record.Ack, record.Quiet:
		return o.Device + " " + o.Channel
	case record.Welcome, record.Notice:
		return o.Device + " " + o.Device
	}
	return ""
}

func groupPart(o *record.Op) string {
	switch o.Kind { //nolint:exhaustive // none of the others.
	case record.Create, record.Commit, record.Welcome, record.Complete:
		return o.Channel
	case record.Open:
		if o.Outcome == record.OK {
			return o.Channel
		}
	case record.Push:
		if o.Epoch > 0 { // Of a Commit.
			return o.Channel
		}
	}
	return ""
}

func pairPart(o *record.Op) string { return o.Pair }

func packagePart(o *record.Op) string {
	if o.Kind == record.Upload || o.Kind == record.Claim {
		return o.Device
	}
	return ""
}

// parts divides a history for a model.
func (k *kind) parts(ops []*record.Op) []*part {
	found := map[string]*part{}
	var order []*part
	for _, o := range ops {
		name := k.part(o)
		if name == "" {
			continue
		}
		p, ok := found[name]
		if !ok {
			p = &part{model: k.name, name: name}
			found[name] = p
			order = append(order, p)
		}
		p.ops = append(p.ops, o)
	}
	if k.all != nil {
		k.spread(ops, order)
	}
	return order
}

// CrashOfDatabase is the Code of a Fault at whose end the database may have forgotten what it need not keep.
const CrashOfDatabase = "database"

// spread gives each part the operations that belong to all parts, or to all of its device.
func (k *kind) spread(ops []*record.Op, parts []*part) {
	of := map[string][]*part{}
	for _, p := range parts {
		device := p.ops[0].Device
		of[device] = append(of[device], p)
	}
	for _, o := range ops {
		switch {
		case !k.all(o):
		case o.Device != "":
			for _, p := range of[o.Device] {
				p.ops = append(p.ops, o)
			}
		default:
			for _, p := range parts {
				p.ops = append(p.ops, o)
			}
		}
	}
	for _, p := range parts {
		slices.SortStableFunc(p.ops, func(a, b *record.Op) int { return cmp.Compare(a.Call, b.Call) })
	}
}

// History judges a history.
func History(h *record.History) *Report { return within(h, patience) }

func within(h *record.History, d time.Duration) *Report {
	ops := make([]*record.Op, len(h.Ops))
	for i := range h.Ops {
		ops[i] = &h.Ops[i]
	}
	slices.SortStableFunc(ops, func(a, b *record.Op) int { return cmp.Compare(a.Call, b.Call) })
	r := &Report{}
	for _, k := range kinds() {
		for _, p := range k.parts(ops) {
			r.check(&k, p, d)
		}
	}
	return r
}

func (r *Report) check(k *kind, p *part, d time.Duration) {
	model, history := k.model(), k.history(p.ops)
	r.Parts++
	r.Operations += len(history)
	if len(history) == 0 {
		return
	}
	result := porcupine.CheckOperationsTimeout(model, history, d)
	if result == porcupine.Ok {
		return
	}
	_, info := porcupine.CheckOperationsVerbose(model, history, explainPatience)
	f := &Finding{Model: k.name, Part: partName(k.name, p.name), Undecided: result == porcupine.Unknown, model: model, info: info}
	f.Why = explain(model, history, info)
	r.Findings = append(r.Findings, f)
}

func partName(model, name string) string {
	words := strings.Fields(name)
	for i, w := range words {
		words[i] = short(w)
	}
	what := map[string]string{"log": "channel", "cursor": "device and channel", "group": "channel", "pair": "accounts", "packages": "device"}[model]
	return what + " " + strings.Join(words, ", ")
}

// explain finds where the longest partial order ends: the operation that had to come next and could not.
func explain(model porcupine.Model, history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []int
	for _, partition := range info.PartialLinearizations() {
		for _, l := range partition {
			if len(l) > len(longest) {
				longest = l
			}
		}
	}
	done := make([]bool, len(history))
	for _, i := range longest {
		done[i] = true
	}
	stuck := -1
	for i := range history {
		if !done[i] && (stuck < 0 || history[i].Return < history[stuck].Return) {
			stuck = i
		}
	}
	var b strings.Builder
	for _, i := range longest[max(0, len(longest)-3):] {
		fmt.Fprintf(&b, "  explained: %s\n", model.DescribeOperation(history[i].Input, nil))
	}
	if stuck >= 0 {
		fmt.Fprintf(&b, "  not to be explained after that: %s\n", model.DescribeOperation(history[stuck].Input, nil))
	}
	return b.String()
}
