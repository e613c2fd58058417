//go:build linux

package powerfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// usable ends a test that this machine cannot run.
func usable(t *testing.T) {
	t.Helper()
	if err := Usable(); err != nil {
		t.Skipf("NOT RUN: no FUSE filesystem can be mounted here: %v", err)
	}
}

// disk is a mounted filesystem and what it must remember.
type disk struct {
	*rand.Rand
	t       *testing.T
	fs      *FS
	backing string
	mount   string
	open    map[string]*inode // The tree as it is: names in one directory.
	durable map[string]*inode // The tree as of the last sync.
	lost    bool              // Nothing was asked to be synced.
}

// inode is a file's content: now, when it was last synced, and everything that each sector held since.
type inode struct {
	now, synced []byte
	sectors     map[int][][]byte
	lengths     []int
	cut         bool
}

func newDisk(t *testing.T, seed uint64, o Options) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{Rand: rand.New(rand.NewPCG(seed, 9)), t: t, backing: filepath.Join(dir, "backing"), mount: filepath.Join(dir, "mount"), //nolint:gosec // tests.
		open: map[string]*inode{}, durable: map[string]*inode{}}
	o.Seed = seed
	d.must2(Mount(d.backing, d.mount, o))
	return d
}

func (d *disk) must2(f *FS, err error) {
	d.t.Helper()
	d.must(err)
	d.fs = f
	d.t.Cleanup(func() { _ = f.Unmount() })
}

func (d *disk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) path(name string) string { return filepath.Join(d.mount, name) }

func (d *disk) any() string {
	names := slices.Sorted(maps.Keys(d.open))
	if len(names) == 0 {
		return ""
	}
	return names[d.IntN(len(names))]
}

// act does something to a file, and notes what must come of it.
func (d *disk) act() {
	name := d.any()
	switch n := d.IntN(12); {
	case n == 0 || name == "":
		d.create(fmt.Sprint("f", d.IntN(8)))
	case n == 1:
		d.must(os.Remove(d.path(name)))
		delete(d.open, name)
	case n == 2:
		to := fmt.Sprint("f", d.IntN(8))
		if to != name {
			d.must(os.Rename(d.path(name), d.path(to)))
			d.open[to] = d.open[name]
			delete(d.open, name)
		}
	case n == 3:
		size := d.IntN(40_000)
		d.must(os.Truncate(d.path(name), int64(size)))
		d.open[name].resize(size)
	case n == 4:
		d.sync(name)
	default:
		d.write(name)
	}
}

func (d *disk) create(name string) {
	if d.open[name] != nil {
		return
	}
	d.must(os.WriteFile(d.path(name), nil, 0o600))
	d.open[name] = &inode{sectors: map[int][][]byte{}, lengths: []int{0}}
}

func (d *disk) write(name string) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	off, b := d.IntN(30_000), make([]byte, 1+d.IntN(9000))
	for i := range b {
		b[i] = byte(d.Uint32())
	}
	_, err = f.WriteAt(b, int64(off))
	d.must(err)
	d.open[name].write(off, b)
}

func (d *disk) sync(name string) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	d.must(err)
	defer f.Close()
	d.must(f.Sync())
	if !d.lost {
		d.open[name].sync()
		d.durable = maps.Clone(d.open)
	}
}

func (i *inode) note(from, to int) {
	for s := from / sectorSize; s*sectorSize < to; s++ {
		i.sectors[s] = append(i.sectors[s], i.sector(s))
	}
	i.lengths = append(i.lengths, len(i.now))
}

func (i *inode) sector(s int) []byte { return sectorOf(i.now, s) }

func sectorOf(b []byte, s int) []byte {
	out := make([]byte, sectorSize)
	if s*sectorSize < len(b) {
		copy(out, b[s*sectorSize:])
	}
	return out
}

func (i *inode) write(off int, b []byte) {
	if off+len(b) > len(i.now) {
		i.now = append(i.now, make([]byte, off+len(b)-len(i.now))...)
	}
	copy(i.now[off:], b)
	i.note(off, off+len(b))
}

func (i *inode) resize(n int) {
	from := min(n, len(i.now))
	i.cut = i.cut || n < len(i.synced)
	i.now = append(slices.Clone(i.now[:from]), make([]byte, n-from)...)
	i.note(from, n)
}

func (i *inode) sync() {
	i.synced, i.sectors, i.lengths, i.cut = slices.Clone(i.now), map[int][][]byte{}, []int{len(i.now)}, false
}

// tree reads the directory that the filesystem showed.
func (d *disk) tree() map[string][]byte {
	got := map[string][]byte{}
	entries, err := os.ReadDir(d.backing)
	d.must(err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(d.backing, e.Name()))
		d.must(err)
		got[e.Name()] = b
	}
	return got
}

// Without a loss it is a filesystem like any other.
func TestNothingIsLostWithoutALoss(t *testing.T) {
	t.Parallel()
	usable(t)
	d := newDisk(t, 1, Options{})
	for range 600 {
		d.act()
	}
	for name, i := range d.open {
		b, err := os.ReadFile(d.path(name))
		d.must(err)
		if !bytes.Equal(b, i.now) {
			t.Fatalf("%s differs", name)
		}
	}
	d.must(d.fs.Unmount())
	if got := d.tree(); len(got) != len(d.open) {
		t.Fatalf("%d files, want %d", len(got), len(d.open))
	}
}

// When all is lost that was not synced, what is there is what was synced, to the byte: contents by file, names by the
// last sync of any.
func TestWhatWasSyncedIsAllThatIsLeft(t *testing.T) {
	t.Parallel()
	usable(t)
	for seed := range uint64(25) {
		d := newDisk(t, seed, Options{})
		for range 40 + d.IntN(120) {
			d.act()
		}
		_, err := d.fs.PowerLoss(All, d.Rand)
		d.must(err)
		got := d.tree()
		if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(d.durable)); !slices.Equal(g, w) {
			t.Fatalf("seed %d: files %v, want %v", seed, g, w)
		}
		for name, i := range d.durable {
			if !bytes.Equal(got[name], i.synced) && !i.backed(got[name]) {
				t.Fatalf("seed %d: %s has %d bytes, synced were %d", seed, name, len(got[name]), len(i.synced))
			}
		}
	}
}

// backed says that a content is made of sectors that the file had since its last sync: a page that was written more than
// once may have been written back in between.
func (i *inode) backed(b []byte) bool {
	for s := 0; s*sectorSize < max(len(b), len(i.synced)); s++ {
		end := min(sectorSize, max(0, len(b)-s*sectorSize))
		fits := func(v []byte) bool { return bytes.Equal(v[:end], sectorOf(b, s)[:end]) }
		if !fits(sectorOf(i.synced, s)) && !slices.ContainsFunc(i.sectors[s], fits) && !fits(make([]byte, sectorSize)) {
			return false
		}
	}
	return true
}

// When something is lost, each sector is one that was there since the last sync, or zeros behind the old end; and of a
// file that was not written since, nothing is.
func TestALossLeavesOnlyWhatWasWritten(t *testing.T) {
	t.Parallel()
	usable(t)
	var sum Loss
	for seed := range uint64(40) {
		d := newDisk(t, seed, Options{})
		for range 40 + d.IntN(120) {
			d.act()
		}
		d.create("anchor")
		d.write("anchor")
		d.sync("anchor")
		for range 12 {
			if name := d.any(); name != "anchor" {
				d.write(name)
			}
		}
		l, err := d.fs.PowerLoss(Any, d.Rand)
		d.must(err)
		sum.Lost, sum.Torn, sum.Pages = sum.Lost+l.Lost, sum.Torn+l.Torn, sum.Pages+l.Pages
		got := d.tree()
		for name, i := range d.open { // After the sync only contents changed.
			b, ok := got[name]
			if !ok || !i.backed(b) {
				t.Fatalf("seed %d: %s, %t, is nothing that was written", seed, name, ok)
			}
			if len(i.sectors) == 0 && !bytes.Equal(b, i.synced) {
				t.Fatalf("seed %d: %s lost what was synced", seed, name)
			}
		}
	}
	if sum.Lost == 0 || sum.Torn == 0 || sum.Lost == sum.Pages {
		t.Errorf("%+v is no mixture", sum)
	}
}

// The last changes of names may be undone, from the last backwards, and no further than to the last sync.
func TestChangesOfNamesAreUndoneInOrder(t *testing.T) {
	t.Parallel()
	usable(t)
	seen := map[int]bool{}
	for seed := range uint64(60) {
		d := newDisk(t, seed, Options{})
		d.create("a")
		d.sync("a")
		steps := []map[string]bool{{"a": true}}
		for _, step := range []func() error{
			func() error { return os.WriteFile(d.path("b"), []byte("b"), 0o600) },
			func() error { return os.Rename(d.path("b"), d.path("a")) },
			func() error { return os.Mkdir(d.path("c"), 0o700) },
			func() error { return os.Remove(d.path("a")) },
			func() error { return os.Remove(d.path("c")) },
		} {
			d.must(step())
			now := map[string]bool{}
			entries, err := os.ReadDir(d.mount)
			d.must(err)
			for _, e := range entries {
				now[e.Name()] = true
			}
			steps = append(steps, now)
		}
		_, err := d.fs.PowerLoss(Any, d.Rand)
		d.must(err)
		left := map[string]bool{}
		entries, err := os.ReadDir(d.backing)
		d.must(err)
		for _, e := range entries {
			left[e.Name()] = true
		}
		i := slices.IndexFunc(steps, func(s map[string]bool) bool { return maps.Equal(s, left) })
		if i < 0 {
			t.Fatalf("seed %d: %v is none of %v", seed, left, steps)
		}
		seen[i] = true
	}
	if len(seen) < 4 {
		t.Errorf("only states %v were seen", seen)
	}
}

func TestADiskThatLiesLosesWhatWasSynced(t *testing.T) {
	t.Parallel()
	usable(t)
	d := newDisk(t, 1, Options{Lie: true})
	d.lost = true
	d.create("a")
	d.write("a")
	d.sync("a")
	_, err := d.fs.PowerLoss(All, d.Rand)
	d.must(err)
	if _, err := os.Stat(filepath.Join(d.backing, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is there:", err)
	}
	if s := d.fs.Stats(); s.Syncs == 0 || s.Writes == 0 {
		t.Errorf("%+v", s)
	}
}

// A directory that was mounted, and lost its power, is mounted again; what is kept loses nothing.
func TestAgainAndKept(t *testing.T) {
	t.Parallel()
	usable(t)
	d := newDisk(t, 1, Options{Under: "not"})
	d.must(os.WriteFile(d.path("kept"), []byte("kept"), 0o600))
	d.must(os.Mkdir(d.path("not"), 0o700))
	d.must(os.WriteFile(d.path("not/kept"), []byte("not"), 0o600))
	_, err := d.fs.PowerLoss(All, d.Rand)
	d.must(err)
	d.must2(Mount(d.backing, d.mount, Options{}))
	b, err := os.ReadFile(d.path("kept"))
	if err != nil || string(b) != "kept" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(d.path("not")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the other is there:", err)
	}
	d.must(d.fs.Unmount())
}

// A filesystem in a process of its own does the same, and goes when its maker does.
func TestAHelperServesAndLosesThePower(t *testing.T) {
	t.Parallel()
	usable(t)
	dir := t.TempDir()
	backing, mount := filepath.Join(dir, "backing"), filepath.Join(dir, "mount")
	for round := range uint64(2) {
		h, err := Spawn(backing, mount, Options{Seed: round})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(mount, fmt.Sprint("synced", round)))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close(), os.WriteFile(filepath.Join(mount, fmt.Sprint("lost", round)), []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if s, err := h.Stats(); err != nil || s.Syncs != 1 || s.Writes != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		l, err := h.PowerLoss(All, 1)
		if err != nil || l.Undone != 1 || l.Lost != 1 {
			t.Errorf("%+v, %v", l, err)
		}
	}
	entries, err := os.ReadDir(backing)
	if err != nil || len(entries) != 2 || entries[0].Name() != "synced0" || entries[1].Name() != "synced1" {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := Spawn(filepath.Join(mount, "\x00"), mount, Options{}); err == nil {
		t.Error("a directory that cannot be is mounted")
	}
}
