package mls

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// crashProcess is one life of the member.
type crashProcess struct {
	cmd    *exec.Cmd
	in     *gob.Encoder
	out    *gob.Decoder
	stderr bytes.Buffer
}

func startCrashMember(t *testing.T) *crashProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &crashProcess{cmd: exec.Command(exe, "-test.run=^TestCrashMember$")}
	p.cmd.Env = append(os.Environ(), crashEnv+"=1", "GORACE=atexit_sleep_ms=0", "GOMAXPROCS=1")
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = gob.NewEncoder(in), gob.NewDecoder(out)
	return p
}

func (p *crashProcess) kill() { _ = p.cmd.Process.Kill() }

// do asks for one thing and handles everything that comes out until it is done, or
// until the process is dead. What was written before it died is read all the same.
func (p *crashProcess) do(w *crashWorld, r crashRequest) (alive bool, err error) {
	_ = p.in.Encode(r) // a dead process shows when its output ends
	for {
		var e crashEvent
		if err := p.out.Decode(&e); err != nil {
			return false, nil //nolint:nilerr // it is dead, that is how it shows
		}
		if e.Kind == "point" {
			p.kill()
		}
		if err := w.handle(e); err != nil {
			return true, err
		}
		if e.Kind == "done" || e.Kind == "ready" {
			return true, nil
		}
	}
}

// live starts the member, asks for this and that until it is killed, and looks at
// what it leaves behind. last, if not nil, ends the life in peace.
func (w *crashWorld) live(last func(*crashProcess) error) error {
	w.t.Helper()
	c := w.config
	var after time.Duration
	switch {
	case last != nil:
	case w.rng.IntN(5) < 3:
		c.StopAt = 1 + w.rng.IntN(40)
	default: // anywhere, mostly early
		after = time.Microsecond << w.rng.IntN(16)
		after += time.Duration(w.rng.Int64N(int64(after)))
	}
	p := startCrashMember(w.t)
	alive, err := p.do(w, crashRequest{Op: "start", Config: c})
	if after > 0 {
		defer time.AfterFunc(after, p.kill).Stop()
	}
	for n := 0; alive && err == nil && last == nil; n++ {
		if n == 60 { // the point lies beyond what was asked for
			break
		}
		var r crashRequest
		if r, err = w.draw(); err == nil && r.Op != "" {
			w.counts[r.Op]++
			alive, err = p.do(w, r)
		}
	}
	if last != nil && err == nil {
		err = last(p)
	}
	p.kill()
	_ = p.cmd.Wait()
	if after > 0 {
		w.kills["any time"]++
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.stderr.Bytes())
	}
	return w.inspect()
}

// draw chooses what happens next. An empty request: it happened among the others.
func (w *crashWorld) draw() (crashRequest, error) {
	s, leaf := w.status, w.leaf()
	behind := len(w.log) - s.Cursor
	waits := s.Joining || s.Active != (leaf != nil) // for something in the log
	switch {
	case len(w.members) == 0:
		return w.drawCreation(), nil
	case w.welcome != nil && s.Cursor >= w.welcomeAt:
		w.welcome = nil
		return crashRequest{}, nil
	case w.welcome != nil:
		return crashRequest{Op: "join", Data: w.welcome, From: w.welcomeAt}, nil
	case behind > 0 && (waits || w.epoch() >= s.Epoch+3 || w.rng.IntN(2) == 0):
		return w.sync(1 + w.rng.IntN(min(behind, 6))), nil
	case leaf == nil && !s.Active && !s.Joining:
		return w.drawEntrance(), nil
	case waits:
		return crashRequest{}, fmt.Errorf("%w: the others have the member at %v, it is active: %v", errCrashLost, leaf, s.Active)
	}
	return w.drawOp(w.ops[w.rng.IntN(len(w.ops))], leaf), nil
}

func (w *crashWorld) sync(n int) crashRequest {
	r := crashRequest{Op: "sync", From: w.status.Cursor}
	for _, e := range w.log[r.From : r.From+n] {
		r.Entries = append(r.Entries, e.message)
	}
	return r
}

// drawCreation lets the member make the group and add the others.
func (w *crashWorld) drawCreation() crashRequest {
	if !w.status.InGroup {
		return crashRequest{Op: "create"}
	}
	w.waiting = []*peer{w.newcomer(), w.newcomer()}
	return crashRequest{Op: "commit", KeyPackages: w.waitingPackages()}
}

func (w *crashWorld) waitingPackages() (out [][]byte) {
	for _, p := range w.waiting {
		b, err := p.bundle.KeyPackage().MarshalMessage()
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// drawEntrance brings the member into the group.
func (w *crashWorld) drawEntrance() crashRequest {
	switch {
	case w.rng.IntN(3) == 0 && slices.Contains(w.ops, "external"):
		return w.externalJoin(nil)
	case len(w.packages) == 0:
		return crashRequest{Op: "keypackage"}
	}
	last := len(w.packages) - 1
	c := w.otherCommits(CommitOptions{Adds: w.packages[last:]})
	w.packages = w.packages[:last]
	w.welcome, w.welcomeAt = c.Welcome, len(w.log)
	return crashRequest{}
}

func (w *crashWorld) externalJoin(resync []LeafIndex) crashRequest {
	gi, err := w.members[0].Group.GroupInfo()
	if err != nil {
		w.t.Fatal(err)
	}
	return crashRequest{Op: "external", Data: gi, Resync: resync}
}

// drawOp fills in a request of the given kind.
func (w *crashWorld) drawOp(op string, leaf []LeafIndex) crashRequest {
	w.t.Helper()
	busy := w.status.Pending
	switch op {
	case "chat":
		w.otherSends()
	case "encrypt":
		r := crashRequest{Op: op, Keep: w.rng.IntN(2) == 0}
		for range 1 + w.rng.IntN(3) {
			w.counts["texts"]++
			r.Texts = append(r.Texts, fmt.Sprintf("text %d", w.counts["texts"]))
		}
		return r
	case "propose", "keypackage":
		return crashRequest{Op: op}
	case "others propose":
		w.otherProposes()
	case "others commit":
		w.otherCommits(CommitOptions{ForcePath: true})
	case "remove":
		w.otherCommits(CommitOptions{Removes: leaf})
	case "external":
		if !busy {
			return w.externalJoin(leaf)
		}
	case "commit":
		if !busy {
			return w.drawCommit()
		}
	}
	return crashRequest{}
}

func (w *crashWorld) drawCommit() crashRequest {
	r := crashRequest{Op: "commit"}
	switch last := len(w.members) - 1; {
	case last > 4:
		if gone := w.members[last]; gone.Epoch() == w.status.Epoch {
			r.Removes = []LeafIndex{gone.OwnIndex()}
		}
	case w.rng.IntN(2) == 0:
		w.waiting = []*peer{w.newcomer()}
		r.KeyPackages = w.waitingPackages()
	}
	return r
}

// inspect looks at what is on the disk after a death.
func (w *crashWorld) inspect() error {
	files, err := os.ReadDir(w.config.Dir)
	if err != nil {
		w.t.Fatal(err)
	}
	found := false
	for _, f := range files {
		found = found || f.Name() == crashFile
		b, err := os.ReadFile(filepath.Join(w.config.Dir, f.Name()))
		if err != nil {
			w.t.Fatal(err)
		}
		disk, err := decodeCrashDisk(b)
		if f.Name() == crashTemp { // perhaps half a file; it never replaces the whole one
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errCrashLost, f.Name(), err)
		}
		if err := w.inspectFile(b, &disk); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	if w.saved && !found {
		return fmt.Errorf("%w: there is no file", errCrashLost)
	}
	return nil
}

func (w *crashWorld) inspectFile(b []byte, disk *crashDisk) error {
	if err := w.inspectSecrets(b, disk); err != nil {
		return err
	}
	if disk.Group == nil {
		return nil
	}
	g, err := UnmarshalGroup(disk.Group, w.config.Signer, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errCrashLost, err)
	}
	if disk.Pending != nil {
		if _, err := g.UnmarshalPendingCommit(disk.Pending); err != nil {
			return fmt.Errorf("%w: pending commit: %w", errCrashLost, err)
		}
	}
	if want := w.auth[g.Epoch()]; want != nil && !bytes.Equal(g.EpochAuthenticator(), want) {
		return fmt.Errorf("%w: another state in epoch %d", errCrashLost, g.Epoch())
	}
	return w.inspectRead(g, disk)
}

// inspectRead tries to read again whatever was read before.
func (w *crashWorld) inspectRead(g *Group, disk *crashDisk) error {
	once := map[int]bool{}
	for _, i := range disk.Read {
		if once[i] {
			return fmt.Errorf("%w: entry %d was read twice", errCrashReadable, i)
		}
		once[i] = true
	}
	for i, e := range w.log {
		if i >= disk.Cursor && !w.read[i] || e.key == nil {
			continue
		}
		_, err := g.Process(mustParse(w.t, e.message), testNow)
		switch {
		case err == nil:
			return fmt.Errorf("%w: entry %d", errCrashReadable, i)
		case errors.Is(err, ErrReplay), errors.Is(err, ErrPastEpoch):
		case !g.Active() && errors.Is(err, ErrFutureEpoch): // sent after the member's removal
		default:
			return fmt.Errorf("entry %d again: %w", i, err)
		}
		w.counts["tried again"]++
	}
	for i := range w.read {
		if !once[i] {
			return fmt.Errorf("entry %d was reported and is not saved", i)
		}
	}
	return nil
}

// inspectSecrets looks for the bytes of keys that are gone.
func (w *crashWorld) inspectSecrets(b []byte, disk *crashDisk) error {
	for i, e := range w.log[:disk.Cursor] {
		if e.key != nil && slices.Contains(disk.Read, i) && bytes.Contains(b, e.key) {
			return fmt.Errorf("%w: the key of entry %d is there", errCrashReadable, i)
		}
	}
	for _, key := range w.spent {
		if bytes.Contains(b, key) {
			return fmt.Errorf("%w: the key of a sent message is there", errCrashKeyReused)
		}
	}
	for _, saved := range disk.Bundles {
		bundle, err := UnmarshalKeyPackageBundle(saved)
		if err != nil {
			return fmt.Errorf("%w: %w", errCrashLost, err)
		}
		if !slices.ContainsFunc(w.inits, func(k []byte) bool { return bytes.Equal(k, bundle.initPrivate) }) {
			w.inits = append(w.inits, bundle.initPrivate)
		}
	}
	kept := bytes.Join(disk.Bundles, nil)
	for _, key := range w.inits {
		if !bytes.Contains(kept, key) && bytes.Contains(b, key) {
			return fmt.Errorf("%w: the init key of a used key package is there", errCrashReadable)
		}
	}
	return w.inspectEpochs(b, disk)
}

func (w *crashWorld) inspectEpochs(b []byte, disk *crashDisk) error {
	if disk.Group == nil {
		return nil
	}
	g, err := UnmarshalGroup(disk.Group, w.config.Signer, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errCrashLost, err)
	}
	for _, e := range w.ended {
		for _, secret := range e.secrets {
			if e.number < g.Epoch() && bytes.Contains(b, secret) {
				return fmt.Errorf("a secret of epoch %d is there in epoch %d", e.number, g.Epoch())
			}
		}
	}
	return nil
}

// settle brings the member up to date, and talks with it.
func (w *crashWorld) settle(p *crashProcess) (err error) {
	w.t.Helper()
	for range 1000 {
		s, leaf := w.status, w.leaf()
		var r crashRequest
		switch behind := len(w.log) - s.Cursor; {
		case len(w.members) > 0 && w.welcome == nil && behind > 0:
			r = w.sync(behind)
		case leaf == nil || w.welcome != nil || !s.Active || s.Joining || len(w.members) == 0:
			if r, err = w.draw(); err != nil {
				return err
			}
		case s.Epoch != w.epoch() || !bytes.Equal(s.Authenticator, w.auth[s.Epoch]):
			return fmt.Errorf("%w: the member is in epoch %d, the others in %d", errCrashLost, s.Epoch, w.epoch())
		case w.counts["greeted"] < 2:
			w.counts["greeted"]++
			w.otherSends()
			r = crashRequest{Op: "encrypt", Texts: []string{"the end"}}
		default:
			return nil
		}
		if r.Op == "" {
			continue
		}
		if _, err = p.do(w, r); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the member does not come back", errCrashLost)
}

var allCrashOps = []string{
	"chat", "chat", "chat", "encrypt", "encrypt", "propose", "keypackage", "others propose", "others commit",
	"remove", "external", "commit", "commit",
}

// A member is killed again and again, at every point of a save and at any moment.
// Nothing is lost, and no key is used twice. Which operations there are, and at
// which points the member is killed, is drawn from the seed; what a death at "any
// time" interrupts depends on the machine.
func TestCrash(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t, seed, faultNone, allCrashOps...)
			for n := range 50 * historiesFactor(t) {
				if err := w.live(nil); err != nil {
					t.Fatalf("life %d: %v", n, err)
				}
			}
			if err := w.live(w.settle); err != nil {
				t.Fatal(err)
			}
			t.Logf("seed %d: %d entries in %d epochs; killed %v; %v", seed, len(w.log), w.epoch(), w.kills, w.counts)
		})
	}
}

// A member that breaks the contract is found out.
func TestCrashIsNoticed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault, at string
		ops       []string
		want      error
	}{
		"messages sent before saving":     {faultSendFirst, "sent", []string{"encrypt"}, errCrashKeyReused},
		"commits sent before saving":      {faultSendFirst, "commit", []string{"commit"}, errCrashLost},
		"external commits before saving":  {faultSendFirst, "commit", []string{"external"}, errCrashLost},
		"proposals sent before saving":    {faultSendFirst, "proposal", []string{"propose", "others commit"}, errCrashLost},
		"key packages sent before saving": {faultSendFirst, "keypackage", []string{"remove"}, errCrashLost},
		"messages read and not saved":     {faultNoSave, "", []string{"chat"}, errCrashReadable},
		"the file is written in place":    {faultInPlace, "", []string{"chat", "encrypt"}, errCrashLost},
		"the file before is kept":         {faultBackup, "", []string{"chat"}, errCrashReadable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t, 1, tt.fault, tt.ops...)
			w.config.FaultAt = tt.at
			for n := range 100 {
				err := w.live(nil)
				if err == nil {
					continue
				}
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				t.Logf("noticed in life %d: %v", n, err)
				return
			}
			t.Errorf("nobody noticed, after %v", w.kills)
		})
	}
}
