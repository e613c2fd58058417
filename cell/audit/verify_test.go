package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quicproquo.dev/schema/ids"
)

// world is a log in memory: chains that move, and checkpoints over them.
type world struct {
	keys  *keyring
	cell  ids.ID
	heads map[ids.ID]Head
	moves map[ids.ID]*Move
	prev  Hash
	n     uint64
	now   time.Time
	steps []step
}

// step is a row or a checkpoint.
type step struct {
	row    *Row
	signed *Signed
	number uint64
}

func newWorld() *world {
	return &world{keys: newKeyring(), cell: id("cell-of-the-test"), heads: map[ids.ID]Head{}, moves: map[ids.ID]*Move{}, now: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
}

func (w *world) row(t testing.TB, writer ids.ID, e Event) {
	t.Helper()
	w.now = w.now.Add(time.Second)
	record, err := e.Record(w.now, w.keys)
	must(t, err)
	body, err := record.Encode()
	must(t, err)
	r := w.keys.Next(w.cell, writer, w.heads[writer], body)
	if w.moves[writer] == nil {
		w.moves[writer] = &Move{Writer: writer, From: w.heads[writer]}
	}
	w.heads[writer] = Head{r.Seq, r.Hash}
	w.moves[writer].To = w.heads[writer]
	w.steps = append(w.steps, step{row: &r})
}

func (w *world) checkpoint() *Checkpoint {
	c := &Checkpoint{Cell: w.cell, RestoreEpoch: 1, Number: w.n + 1, Prev: w.prev, At: w.now}
	for _, m := range w.moves {
		c.Moves = append(c.Moves, *m)
	}
	slices.SortFunc(c.Moves, func(a, b Move) int { return a.Writer.Compare(b.Writer) })
	return c
}

func (w *world) sign() {
	c := w.checkpoint()
	s := w.keys.Sign(c)
	w.n, w.prev, w.moves = c.Number, s.Hash(), map[ids.ID]*Move{}
	w.steps = append(w.steps, step{signed: &s, number: c.Number})
}

// makeWorld has three chains, three checkpoints and two rows after them.
func makeWorld(t testing.TB) *world {
	w := newWorld()
	a, b, c := id("aaaaaaaaaaaaaaaa"), id("bbbbbbbbbbbbbbbb"), id("cccccccccccccccc")
	for _, writer := range []ids.ID{a, b, a, a} {
		w.row(t, writer, LoginSucceeded(marked.account))
	}
	w.sign()
	for _, writer := range []ids.ID{b, c, b, c} {
		w.row(t, writer, LoginFailed(ids.ID{}, ReasonUnknownName))
	}
	w.sign()
	for _, writer := range []ids.ID{a, a, c} {
		w.row(t, writer, SessionStarted(marked.account, marked.device, marked.session))
	}
	w.sign()
	w.row(t, a, ChainEnded())
	w.row(t, b, ChainEnded())
	return w
}

func (w *world) verify(steps []step, anchors ...Anchor) (Report, error) {
	v := &Verifier{Trust: w.keys.Trust(), Keys: w.keys.Keys, Cell: w.cell, Anchors: anchors}
	for _, s := range steps {
		if s.row != nil {
			if err := v.Row(s.row); err != nil {
				return v.report, err
			}
			continue
		}
		if _, err := v.Begin(s.number, s.signed); err != nil {
			return v.report, err
		}
		if err := v.End(); err != nil {
			return v.report, err
		}
	}
	return v.Finish()
}

func TestAGoodLogVerifies(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	r, err := w.verify(w.steps)
	if err != nil || r.Rows != 13 || r.Unsigned != 2 || r.Checkpoints != 3 || r.Chains != 3 || r.Last.Number != 3 || r.First != 1 || len(r.Notes) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := w.verify(w.steps, r.Last); err != nil {
		t.Errorf("with its own anchor: %v", err)
	}
}

// at finds the step of a row or, with a zero writer, of a checkpoint.
func (w *world) at(writer ids.ID, n uint64) int {
	return slices.IndexFunc(w.steps, func(s step) bool {
		return s.row != nil && s.row.Writer == writer && s.row.Seq == n || s.signed != nil && writer.IsZero() && s.number == n
	})
}

func TestFaultsAreFoundAndNamed(t *testing.T) {
	t.Parallel()
	a, b, c := id("aaaaaaaaaaaaaaaa"), id("bbbbbbbbbbbbbbbb"), id("cccccccccccccccc")
	drop := func(w *world, f func(s step) bool) { w.steps = slices.DeleteFunc(w.steps, f) }
	rehash := func(r *Row) { r.Hash = r.Sum() }
	for name, x := range map[string]struct {
		change     func(w *world)
		kind       FaultKind
		writer     ids.ID
		seq        uint64
		checkpoint uint64
	}{
		"an edited body": {func(w *world) { w.steps[w.at(a, 2)].row.Body[20] ^= 1 }, FaultEdited, a, 2, 0},
		"an edited body with its hash": {func(w *world) {
			r := w.steps[w.at(a, 2)].row
			r.Body[20] ^= 1
			rehash(r)
		}, FaultNotOurs, a, 2, 0},
		"a row deleted in the middle": {func(w *world) {
			drop(w, func(s step) bool { return s.row != nil && s.row.Writer == a && s.row.Seq == 2 })
		}, FaultMissing, a, 2, 0},
		"a deleted tail": {func(w *world) {
			drop(w, func(s step) bool { return s.row != nil && s.row.Writer == a && s.row.Seq >= 5 })
		}, FaultMissing, a, 5, 3},
		"a deleted beginning": {func(w *world) {
			drop(w, func(s step) bool { return s.row != nil && s.row.Writer == b && s.row.Seq == 1 })
		}, FaultMissingChain, b, 1, 1},
		"a deleted chain": {func(w *world) { drop(w, func(s step) bool { return s.row != nil && s.row.Writer == c }) }, FaultMissingChain, c, 1, 2},
		"two rows reordered": {func(w *world) {
			i, j := w.at(a, 2), w.at(a, 3)
			w.steps[i].row.Seq, w.steps[j].row.Seq = 3, 2
			w.steps[i], w.steps[j] = w.steps[j], w.steps[i]
		}, FaultEdited, a, 2, 0},
		"two rows swapped": {func(w *world) {
			i, j := w.at(a, 2), w.at(a, 3)
			w.steps[i], w.steps[j] = w.steps[j], w.steps[i]
		}, FaultMissing, a, 2, 0},
		"a row twice":     {func(w *world) { w.steps = slices.Insert(w.steps, w.at(a, 3), w.steps[w.at(a, 2)]) }, FaultOutOfOrder, a, 2, 0},
		"a row too early": {func(w *world) { w.steps = slices.Insert(w.steps, w.at(ids.ID{}, 1), w.steps[w.at(b, 2)]) }, FaultUnsigned, b, 2, 1},
		"a row of a chain the checkpoint does not have": {func(w *world) { w.steps = slices.Insert(w.steps, w.at(ids.ID{}, 1), w.steps[w.at(c, 1)]) }, FaultUnsigned, c, 1, 1},
		"a row moved to another chain":                  {func(w *world) { w.steps[w.at(c, 1)].row.Writer = id("dddddddddddddddd") }, FaultEdited, id("dddddddddddddddd"), 1, 0},
		"a forged checkpoint":                           {func(w *world) { w.steps[w.at(ids.ID{}, 2)].signed.Body[70] ^= 1 }, FaultForgedCheckpoint, ids.ID{}, 0, 2},
		"a forged signature":                            {func(w *world) { w.steps[w.at(ids.ID{}, 2)].signed.Signature[3] ^= 1 }, FaultForgedCheckpoint, ids.ID{}, 0, 2},
		"a checkpoint of another key": {func(w *world) {
			s := w.steps[w.at(ids.ID{}, 2)].signed
			cp, _ := DecodeCheckpoint(s.Body)
			*s = testKeys(7).Sign(cp)
		}, FaultForeignKey, ids.ID{}, 0, 2},
		"a deleted checkpoint":         {func(w *world) { drop(w, func(s step) bool { return s.number == 2 }) }, FaultMissingCheckpoint, ids.ID{}, 0, 2},
		"the first of them":            {func(w *world) { drop(w, func(s step) bool { return s.number == 1 }) }, FaultMissingCheckpoint, ids.ID{}, 0, 1},
		"a checkpoint twice":           {func(w *world) { w.steps = slices.Insert(w.steps, w.at(ids.ID{}, 2), w.steps[w.at(ids.ID{}, 1)]) }, FaultOutOfOrder, ids.ID{}, 0, 1},
		"a checkpoint renumbered":      {func(w *world) { w.steps[w.at(ids.ID{}, 2)].number = 4 }, FaultCopy, ids.ID{}, 0, 4},
		"a checkpoint of another cell": {func(w *world) { w.cell = id("another cell....") }, FaultUnlinked, a, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := makeWorld(t)
			x.change(w)
			_, err := w.verify(w.steps)
			var f *Fault
			if !errors.As(err, &f) {
				t.Fatalf("got %v", err)
			}
			if f.Kind != x.kind || f.Writer != x.writer || f.Seq != x.seq || f.Checkpoint != x.checkpoint {
				t.Errorf("got %v", f)
			}
		})
	}
}

// Whoever has no keys but can rewrite a chain from some row on, hashes and all, is found at the next checkpoint by who
// has no keys either.
func TestARewrittenChainIsFoundWithoutTheKeys(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	a := id("aaaaaaaaaaaaaaaa")
	prev := w.steps[w.at(a, 1)].row.Hash
	for n := uint64(2); n <= 3; n++ {
		r := w.steps[w.at(a, n)].row
		r.Body[20] ^= 1
		r.Prev = prev
		r.Hash = r.Sum()
		prev = r.Hash
	}
	w.keys.Keys, _ = NewKeys(bytes.Repeat([]byte{1}, 32))
	v := &Verifier{Trust: w.keys.Trust(), Cell: w.cell}
	err := feed(v, w.steps)
	var f *Fault
	if !errors.As(err, &f) || f.Kind != FaultRewritten || f.Writer != a || f.Seq != 1 || f.Checkpoint != 1 || !strings.Contains(f.Error(), "up to row 3") {
		t.Fatalf("got %v", err)
	}
}

func feed(v *Verifier, steps []step) error {
	for _, s := range steps {
		var err error
		if s.row != nil {
			err = v.Row(s.row)
		} else if _, err = v.Begin(s.number, s.signed); err == nil {
			err = v.End()
		}
		if err != nil {
			return err
		}
	}
	_, err := v.Finish()
	return err
}

func TestAnchorsShowForksAndCuts(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	second := w.at(ids.ID{}, 2)
	kept := Anchor{3, w.steps[w.at(ids.ID{}, 3)].signed.Hash()}
	cut := w.steps[:second+1] // Restored to the second checkpoint: by itself a good log.
	if _, err := w.verify(cut); err != nil {
		t.Fatalf("a shorter log: %v", err)
	}
	_, err := w.verify(cut, kept)
	var f *Fault
	if !errors.As(err, &f) || f.Kind != FaultFork || f.Checkpoint != 3 {
		t.Errorf("cut off: %v", err)
	}
	other := makeWorld(t) // Goes on otherwise from the second checkpoint.
	*other = *w
	other.steps = slices.Clone(cut)
	other.n, other.prev, other.moves, other.heads = 2, cut[second].signed.Hash(), map[ids.ID]*Move{}, map[ids.ID]Head{}
	other.row(t, id("eeeeeeeeeeeeeeee"), ChainStarted(1))
	other.sign()
	if _, err := other.verify(other.steps); err != nil {
		t.Fatalf("the fork by itself: %v", err)
	}
	if _, err = other.verify(other.steps, kept); !errors.As(err, &f) || f.Kind != FaultFork || f.Checkpoint != 3 {
		t.Errorf("forked: %v", err)
	}
	if a, err := ParseAnchor(kept.String()); err != nil || a != kept {
		t.Errorf("%v, %v", a, err)
	}
	for _, bad := range []string{"", "3", "x:" + kept.Hash.String(), "0:" + kept.Hash.String(), "3:abc"} {
		if _, err := ParseAnchor(bad); err == nil {
			t.Errorf("%q is an anchor", bad)
		}
	}
}

func TestClocksAndRestoresAreNoted(t *testing.T) {
	t.Parallel()
	w := newWorld()
	a := id("aaaaaaaaaaaaaaaa")
	w.row(t, a, ChainStarted(1))
	w.sign()
	w.row(t, a, ChainEnded().At(w.now.Add(time.Hour)))
	c := w.checkpoint()
	c.RestoreEpoch = 2
	s := w.keys.Sign(c)
	r, err := w.verify(append(w.steps, step{signed: &s, number: 2}))
	if err != nil || len(r.Notes) != 2 || !strings.Contains(r.Notes[0], "restored") || !strings.Contains(r.Notes[1], "out of step") {
		t.Errorf("%q, %v", r.Notes, err)
	}
}

// export writes the world's log, all of it that is signed after a checkpoint.
func (w *world) export(t testing.TB, after uint64, f Filter) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := NewExporter(&out, w.cell, after, false)
	must(t, err)
	e.Filter = f
	var rows []*Row
	for _, s := range w.steps {
		if s.row != nil {
			rows = append(rows, s.row)
			continue
		}
		if s.number > after {
			c, err := DecodeCheckpoint(s.signed.Body)
			must(t, err)
			_, err = e.File(&Filed{Signed: *s.signed, Number: s.number, At: c.At})
			must(t, err)
			for _, r := range rows {
				must(t, e.Row(r))
			}
			must(t, e.End())
		}
		rows = nil
	}
	return out.Bytes()
}

func (w *world) verifyExport(b []byte, anchors ...Anchor) (Report, error) {
	return VerifyExport(bytes.NewReader(b), &Verifier{Trust: w.keys.Trust(), Anchors: anchors}, nil)
}

func TestExportsVerifyOffline(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	all := w.export(t, 0, Filter{})
	r, err := w.verifyExport(all)
	if err != nil || r.Rows != 11 || r.Checkpoints != 3 || r.Skipped != 0 || r.First != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for after := range uint64(3) { // Each part by itself, and behind the one before.
		part := w.export(t, after, Filter{})
		r, err := w.verifyExport(part)
		if err != nil || r.First != after+1 || r.Last.Number != 3 {
			t.Errorf("after %d: %+v, %v", after, r, err)
		}
		if after == 0 {
			continue
		}
		lines := bytes.SplitAfter(all, []byte("\n"))
		var before []byte
		for _, l := range lines {
			before = append(before, l...)
			if bytes.Contains(l, fmt.Appendf(nil, `"type":"checkpoint","number":%d,`, after)) {
				break
			}
		}
		if r, err := w.verifyExport(append(before, part...)); err != nil || r.Rows != 11 {
			t.Errorf("resumed after %d: %+v, %v", after, r, err)
		}
		if _, err := w.verifyExport(append(slices.Clone(all), part...)); err == nil {
			t.Error("a part that repeats is taken")
		}
	}
	if _, err := (VerifyExport(bytes.NewReader(all), &Verifier{Trust: testKeys(9).Trust()}, nil)); err == nil {
		t.Error("with another's public key it verifies")
	}
}

func TestFilteredExportsVerifyOffline(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	for name, x := range map[string]struct {
		f      Filter
		events int
	}{
		"kind":    {Filter{Kinds: []Kind{KindLogin}}, 8},
		"account": {Filter{Account: w.keys.subjects[marked.account].Account()}, 7},
		"time":    {Filter{Since: time.Date(2026, 5, 6, 7, 8, 12, 0, time.UTC), Until: time.Date(2026, 5, 6, 7, 8, 15, 0, time.UTC)}, 3},
		"none":    {Filter{Kinds: []Kind{KindAuditPruned}}, 0},
	} {
		b := w.export(t, 0, x.f)
		if n := bytes.Count(b, []byte(`"type":"event"`)); n != x.events {
			t.Errorf("%s: %d events, want %d", name, n, x.events)
		}
		r, err := w.verifyExport(b)
		if err != nil || r.Rows != 11 || int(r.Skipped) != 11-x.events {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	var out bytes.Buffer
	_, err := NewExporter(&out, w.cell, 0, true)
	must(t, err)
	if _, err := w.verifyExport(out.Bytes()); !errors.Is(err, ErrOnlyMatching) {
		t.Errorf("only what matches: %v", err)
	}
}

// Whatever byte of an export is changed, line dropped, doubled or moved: it is found. (But for its last lines: that an
// export ends too early shows only against an anchor.)
func TestAnyChangeOfAnExportIsFound(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	for _, f := range []Filter{{}, {Kinds: []Kind{KindLogin}}} {
		all := w.export(t, 0, f)
		last := Anchor{3, w.steps[w.at(ids.ID{}, 3)].signed.Hash()}
		rapid.Check(t, func(t *rapid.T) {
			b := slices.Clone(all)
			lines := bytes.SplitAfter(b, []byte("\n"))
			lines = lines[:len(lines)-1]
			i := rapid.IntRange(0, len(lines)-1).Draw(t, "line")
			switch rapid.SampledFrom([]string{"byte", "drop", "double", "move"}).Draw(t, "how") {
			case "byte":
				at := rapid.IntRange(0, len(b)-2).Draw(t, "at")
				with := rapid.Byte().Draw(t, "with")
				if b[at] == with || with == '\n' || b[at] == '\n' {
					return
				}
				b[at] = with
				lines = [][]byte{b}
			case "drop":
				lines = slices.Delete(lines, i, i+1)
			case "double":
				i = max(i, 1) // A second header says the same once more.
				lines = slices.Insert(lines, i, lines[i])
			case "move":
				j := rapid.IntRange(0, len(lines)-1).Draw(t, "to")
				if i == j || i > 0 && j > 0 && sameChainless(lines[min(i, j):max(i, j)+1]) {
					return
				}
				lines[i], lines[j] = lines[j], lines[i]
			}
			if _, err := w.verifyExport(bytes.Join(lines, nil), last); err == nil {
				t.Fatalf("not found:\n%s", bytes.Join(lines, nil))
			}
		})
	}
}

// sameChainless reports whether lines are rows of which no two are of one chain: their order means nothing.
func sameChainless(lines [][]byte) bool {
	seen := map[string]bool{}
	for _, l := range lines {
		_, rest, ok := bytes.Cut(l, []byte(`"writer":"`))
		if !ok || seen[string(rest[:32])] {
			return false
		}
		seen[string(rest[:32])] = true
	}
	return true
}

func FuzzVerifyExport(f *testing.F) {
	w := newWorld() // A small one: the fuzzer shortens what it finds, line by line.
	w.row(f, id("aaaaaaaaaaaaaaaa"), LoginSucceeded(marked.account))
	w.sign()
	w.row(f, id("aaaaaaaaaaaaaaaa"), ChainEnded())
	w.sign()
	f.Add(w.export(f, 0, Filter{}))
	f.Add(w.export(f, 1, Filter{Kinds: []Kind{KindLogin}}))
	good, err := w.verifyExport(w.export(f, 0, Filter{}))
	must(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := w.verifyExport(b)
		if err == nil && r.Last.Number == good.Last.Number && r.Last != good.Last {
			t.Errorf("a log with another last checkpoint verifies: %+v", r)
		}
	})
}

func TestPublicKeysGoOutAndIn(t *testing.T) {
	t.Parallel()
	k := testKeys(2, 1)
	b, err := k.Trust().PEM()
	must(t, err)
	again, err := ParseTrust(append([]byte("a comment\n"), b...))
	if err != nil || len(again) != 2 || !again[0].Equal(k.Trust()[0]) || !again[1].Equal(testKeys(1).Trust()[0]) {
		t.Errorf("%v, %v", again, err)
	}
	for _, bad := range []string{"", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		if _, err := ParseTrust([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", k, k, k); s != "(secret) (secret) (secret)" {
		t.Errorf("keys are printed: %s", s)
	}
}

// What was signed and vouched for before a rotation verifies after it, and admins keep their pseudonyms.
func TestRotatedKeysVerifyWhatWasBefore(t *testing.T) {
	t.Parallel()
	w := makeWorld(t)
	before := w.keys.Admin("x")
	w.keys.Keys = testKeys(5, 1)
	w.row(t, id("aaaaaaaaaaaaaaaa"), ChainEnded())
	w.sign()
	if _, err := w.verify(w.steps); err != nil {
		t.Error(err)
	}
	if w.keys.Admin("x") != before {
		t.Error("an admin has another pseudonym")
	}
	if last := w.steps[len(w.steps)-1].signed; !last.Key.Equal(testKeys(5).Trust()[0]) {
		t.Error("the old key signs")
	}
}
