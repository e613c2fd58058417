package check

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"quicproquo.dev/test/history/record"
)

// lingering is how long a claim without an answer may still hold a KeyPackage in the database.
const lingering = int64(15 * time.Second)

// packageStep is what an operation does to a device's KeyPackages.
type packageStep int

const (
	packagesAdd    packageStep = iota
	packagesTake               // The first answer of a request.
	packagesRepeat             // Any further one.
	packagesNone               // There was none for the device.
)

type packageOp struct {
	step    packageStep
	adds    []int
	last    bool // A last-resort package was added, or handed out.
	one     int  // Handed out.
	request int
	rivals  int // Claims of the device at the same time, which may hold packages that this one passed over.
	op      *record.Op
}

// packageState is what a device has left.
type packageState struct {
	left, taken bits // Packages; requests that were answered with one.
	last        bool
	// answers are fixed by the history: what a request was answered with first.
}

// packageModel is the KeyPackages of one device. A claim that passes over packages which others hold at that moment may find
// none though one of the others fails later: it is held to finding one only if there are more than it has rivals.
func packageModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return packageState{} },
		Step: func(state, input, _ any) (bool, any) {
			return input.(*packageOp).apply(state.(packageState)) //nolint:forcetypeassert // what packageHistory makes.
		},
		Equal: func(a, b any) bool {
			x, y := a.(packageState), b.(packageState) //nolint:forcetypeassert // as above.
			return x.last == y.last && x.left.equal(y.left) && x.taken.equal(y.taken)
		},
		Hash: func(state any) uint64 {
			s := state.(packageState) //nolint:forcetypeassert // as above.
			return s.left.hash() ^ s.taken.hash()*31
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(*packageOp).op) }, //nolint:forcetypeassert // as above.
		DescribeState: func(state any) string {
			s := state.(packageState) //nolint:forcetypeassert // as above.
			return fmt.Sprintf("%d left, %d requests answered", s.left.count(), s.taken.count())
		},
	}
}

func (o *packageOp) apply(s packageState) (bool, packageState) {
	switch o.step {
	case packagesAdd:
		for _, p := range o.adds {
			if s.left.has(p) {
				return false, s
			}
			s.left = s.left.with(p)
		}
		s.last = s.last || o.last
		return true, s
	case packagesRepeat:
		return s.taken.has(o.request), s
	case packagesNone:
		return !s.taken.has(o.request) && !s.last && s.left.count() <= o.rivals, s
	}
	if s.taken.has(o.request) {
		return false, s
	}
	s.taken = s.taken.with(o.request)
	if o.last {
		return s.last && s.left.count() <= o.rivals, s
	}
	if !s.left.has(o.one) {
		return false, s
	}
	s.left = s.left.without(o.one)
	return true, s
}

// packageHistory makes the operations on one device's KeyPackages from what was recorded of it.
func packageHistory(ops []*record.Op) []porcupine.Operation {
	h := &packageBuilder{packages: map[string]int{}, requests: map[string]*request{}, handed: map[string]int64{}, uploads: map[string]*upload{}}
	for _, o := range ops {
		h.sort(o)
	}
	for _, u := range h.uploadOrder {
		h.upload(u)
	}
	for _, r := range h.order {
		h.resolve(r)
	}
	return h.out
}

// request is everything that is known of a claim's request id.
type request struct {
	index int
	asked []*record.Op
}

// upload is everything that is known of one set of packages.
type upload struct {
	op    *record.Op // The first attempt.
	known int64      // When it was certain that they were stored; 0: never.
}

type packageBuilder struct {
	packages    map[string]int
	requests    map[string]*request
	order       []*request
	uploads     map[string]*upload
	uploadOrder []*upload
	handed      map[string]int64 // Packages: when one was first seen with a claimer.
	out         []porcupine.Operation
}

func (h *packageBuilder) pack(name string) int {
	i, ok := h.packages[name]
	if !ok {
		i = len(h.packages)
		h.packages[name] = i
	}
	return i
}

func (h *packageBuilder) sort(o *record.Op) {
	switch o.Kind { //nolint:exhaustive // the others are not about packages.
	case record.Upload:
		h.sortUpload(o)
	case record.Claim:
		r, ok := h.requests[o.From+o.ID]
		if !ok {
			r = &request{index: len(h.order)}
			h.requests[o.From+o.ID] = r
			h.order = append(h.order, r)
		}
		r.asked = append(r.asked, o)
		if t, ok := h.handed[o.Content]; o.Outcome == record.OK && o.Content != "" && (!ok || o.Return < t) {
			h.handed[o.Content] = o.Return
		}
	}
}

func (h *packageBuilder) sortUpload(o *record.Op) {
	key := fmt.Sprint(o.Packages, o.Content)
	u, ok := h.uploads[key]
	if !ok {
		u = &upload{op: o}
		h.uploads[key] = u
		h.uploadOrder = append(h.uploadOrder, u)
	}
	// That a package was uploaded before says so of an earlier attempt.
	stored := o.Outcome == record.OK || o.Outcome == record.Refused && o.Code == codeReusedPackage && ok
	if stored && (u.known == 0 || o.Return < u.known) {
		u.known = o.Return
	}
}

// upload adds a set of packages, if it is certain that they were stored; at the latest when one of them was handed out.
func (h *packageBuilder) upload(u *upload) {
	add := packageOp{step: packagesAdd, last: u.op.Content != "", op: u.op}
	known := u.known
	for _, p := range append([]string{u.op.Content}, u.op.Packages...) {
		if t, ok := h.handed[p]; ok && p != "" && (known == 0 || t < known) {
			known = t
		}
	}
	if known == 0 {
		return
	}
	for _, p := range u.op.Packages {
		add.adds = append(add.adds, h.pack(p))
	}
	h.add(u.op.Call, known, add)
}

func (h *packageBuilder) add(call, ret int64, o packageOp) {
	h.out = append(h.out, porcupine.Operation{ClientId: o.op.Client, Input: &o, Call: call, Return: max(call, ret)})
}

// resolve adds a request's answers. The first that names a package is when it was taken, or an attempt before it whose
// outcome is unknown took it.
func (h *packageBuilder) resolve(r *request) {
	var first, begun *record.Op
	for _, o := range r.asked {
		switch {
		case o.Outcome == record.Unknown:
			if begun == nil || o.Call < begun.Call {
				begun = o
			}
		case o.Outcome == record.OK && o.Content != "" && (first == nil || o.Return < first.Return):
			first = o
		}
	}
	for _, o := range r.asked {
		switch {
		case o == first:
			call := o.Call
			if begun != nil {
				call = min(call, begun.Call)
			}
			// An answer of another attempt may be on its way already: this one is the first that arrived.
			for _, p := range r.asked {
				if p.Outcome == record.OK && p.Content != "" {
					call = min(call, p.Call)
				}
			}
			h.add(call, o.Return, h.take(r, o))
		case o.Outcome != record.OK: // Refused for another reason, or not known.
		case o.Content == "":
			h.add(o.Call, o.Return, packageOp{step: packagesNone, request: r.index, rivals: h.rivals(r, o), op: o})
		case first.Content == o.Content && first.LastResort == o.LastResort:
			h.add(o.Call, o.Return, packageOp{step: packagesRepeat, request: r.index, op: o})
		default: // Another package for the same request: it cannot be taken twice.
			h.add(o.Call, o.Return, h.take(r, o))
		}
	}
}

func (h *packageBuilder) take(r *request, o *record.Op) packageOp {
	t := packageOp{step: packagesTake, last: o.LastResort, request: r.index, op: o}
	if o.LastResort {
		t.rivals = h.rivals(r, o)
	} else {
		t.one = h.pack(o.Content)
	}
	return t
}

// rivals counts the requests that were, or may have been, under way at the same time as o.
func (h *packageBuilder) rivals(of *request, o *record.Op) int {
	begin := o.Call
	for _, p := range of.asked {
		begin = min(begin, p.Call)
	}
	n := 0
	for _, r := range h.order {
		for _, p := range r.asked {
			end := p.Return
			if p.Outcome == record.Unknown {
				end += lingering
			}
			if r != of && p.Call <= o.Return && end >= begin {
				n++
				break
			}
		}
	}
	return n
}
