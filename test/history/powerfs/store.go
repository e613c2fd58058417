//go:build linux

package powerfs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// writtenBack is how often, as one in so many, a page that is written again had been written back before.
const writtenBack = 8

// Options says how the disk behaves.
type Options struct {
	// SyncDelay is the most that a sync takes; it is somewhere between a tenth of that and all of it.
	SyncDelay time.Duration
	// Lie makes syncs do nothing, as a disk does that acknowledges what it only has in its cache.
	Lie bool
	// Seed decides what is lost, together with what is written.
	Seed uint64
	// Under is the directory, relative to the mount, whose files lose something; those beside it do not. Empty: all do.
	Under string
}

// Stats counts what happened since the mount.
type Stats struct {
	Writes, Syncs int
}

// Loss is what a PowerLoss threw away.
type Loss struct {
	Files   int // With unsynced pages.
	Pages   int // Unsynced.
	Lost    int // Of those, put back or torn.
	Torn    int // Of those, in part.
	Changes int // Unsynced creations, removals, renames.
	Undone  int // Of those.
}

// store is what the filesystem knows about unsynced writes. It is safe for concurrent use.
type store struct {
	o    Options
	root string // The backing directory.

	mu      sync.Mutex
	rand    *rand.Rand
	files   map[uint64]*file // By inode number.
	journal []change
	graves  string // Where removed files wait, in case their removal is undone.
	serial  int
	stats   Stats
	gone    bool // The power is.
}

// file is one that was written since it was synced.
type file struct {
	f      *os.File
	synced int64            // Length.
	pages  map[int64][]byte // What was in the written pages: shorter or empty where the file ended.
	cut    bool             // It was shortened.
}

// change is one of a directory.
type change struct {
	what string
	undo func() error
}

func newStore(root, graves string, o Options) *store {
	return &store{o: o, root: root, graves: graves, rand: rand.New(rand.NewPCG(o.Seed, 0)), files: map[uint64]*file{}} //nolint:gosec // a test's dice.
}

// keeps says that a path (absolute, in the backing directory) never loses anything.
func (s *store) keeps(path string) bool {
	rel, err := filepath.Rel(filepath.Join(s.root, s.o.Under), path)
	return err != nil || s.o.Under != "" && !filepath.IsLocal(rel)
}

// touched returns what is known of an open file, beginning to know it. It needs mu.
func (s *store) touched(f *os.File) (*file, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if t, ok := s.files[st.Ino]; ok {
		return t, nil
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	t := &file{f: os.NewFile(uintptr(fd), f.Name()), synced: st.Size, pages: map[int64][]byte{}}
	s.files[st.Ino] = t
	return t, nil
}

func (t *file) size() (int64, error) {
	var st syscall.Stat_t
	err := syscall.Fstat(int(t.f.Fd()), &st)
	return st.Size, err
}

// page reads a page as it is now.
func (t *file) page(n int64) ([]byte, error) {
	b := make([]byte, pageSize)
	got, err := t.f.ReadAt(b, n*pageSize)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:got], err
}

// remember keeps what is in the pages of a range that is about to change.
func (s *store) remember(t *file, off, length int64) error {
	for n := off / pageSize; n*pageSize < off+length; n++ {
		_, known := t.pages[n]
		if known && s.rand.IntN(writtenBack) > 0 {
			continue
		}
		b, err := t.page(n)
		if err != nil {
			return err
		}
		if !known && n*pageSize+int64(len(b)) > t.synced {
			b = b[:max(0, min(int64(len(b)), t.synced-n*pageSize))] // What was written behind the end is not synced either.
		}
		t.pages[n] = b
		if known {
			t.synced = max(t.synced, n*pageSize+int64(len(b)))
		}
	}
	return nil
}

// write is pwrite.
func (s *store) write(f *os.File, path string, data []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, syscall.EIO
	}
	s.stats.Writes++
	if !s.keeps(path) {
		t, err := s.touched(f)
		if err != nil {
			return 0, err
		}
		if err := s.remember(t, off, int64(len(data))); err != nil {
			return 0, err
		}
	}
	return f.WriteAt(data, off)
}

// resize is ftruncate, both ways.
func (s *store) resize(f *os.File, path string, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return syscall.EIO
	}
	if !s.keeps(path) {
		t, err := s.touched(f)
		if err != nil {
			return err
		}
		now, err := t.size()
		if err != nil {
			return err
		}
		if size < now {
			if err := s.remember(t, size, now-size); err != nil {
				return err
			}
			t.cut = t.cut || size < t.synced
		}
	}
	return f.Truncate(size)
}

// sync makes everything durable that was written to the file, and all changes of directories.
func (s *store) sync(f *os.File) error {
	if d := s.o.SyncDelay; d > 0 {
		s.mu.Lock()
		d = d/10 + time.Duration(s.rand.Int64N(int64(d*9/10)+1))
		s.mu.Unlock()
		time.Sleep(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return syscall.EIO
	}
	s.stats.Syncs++
	if s.o.Lie {
		return nil
	}
	if f != nil {
		var st syscall.Stat_t
		if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		if t, ok := s.files[st.Ino]; ok {
			_ = t.f.Close()
			delete(s.files, st.Ino)
		}
	}
	return s.commit()
}

// commit makes the changes of directories durable. It needs mu.
func (s *store) commit() error {
	s.journal = nil
	graves, err := os.ReadDir(s.graves)
	for _, g := range graves {
		path := filepath.Join(s.graves, g.Name())
		s.forget(path)
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// forget drops what is known of a file that is gone for good.
func (s *store) forget(path string) {
	var st syscall.Stat_t
	if syscall.Lstat(path, &st) != nil || st.Nlink > 1 {
		return
	}
	if t, ok := s.files[st.Ino]; ok {
		_ = t.f.Close()
		delete(s.files, st.Ino)
	}
}

// do makes a change of a directory, which undo takes back.
func (s *store) do(path, what string, change, undo func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return syscall.EIO
	}
	return s.doLocked(path, what, change, undo)
}

func (s *store) doLocked(path, what string, change, undo func() error) error {
	if err := change(); err != nil {
		return err
	}
	if !s.keeps(path) {
		s.journal = append(s.journal, changeOf(what+" "+path, undo))
	}
	return nil
}

func changeOf(what string, undo func() error) change {
	return change{what, func() error {
		if err := undo(); err != nil {
			return fmt.Errorf("undoing %s: %w", what, err)
		}
		return nil
	}}
}

// grave is a new name for a file that is removed. It needs mu.
func (s *store) grave() string {
	s.serial++
	return filepath.Join(s.graves, fmt.Sprint(s.serial))
}

// remove is unlink.
func (s *store) remove(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return syscall.EIO
	}
	if s.keeps(path) {
		return syscall.Unlink(path)
	}
	grave := s.grave()
	return s.doLocked(path, "remove", func() error { return syscall.Rename(path, grave) }, func() error { return syscall.Rename(grave, path) })
}

// rename replaces what is there.
func (s *store) rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return syscall.EIO
	}
	var there syscall.Stat_t
	replaces := syscall.Lstat(to, &there) == nil && there.Mode&syscall.S_IFMT != syscall.S_IFDIR
	if !replaces || s.keeps(to) {
		return s.doLocked(to, "rename", func() error { return syscall.Rename(from, to) }, func() error { return syscall.Rename(to, from) })
	}
	grave := s.grave()
	return s.doLocked(to, "rename", func() error {
		if err := syscall.Link(to, grave); err != nil { // Nobody may find nothing under the name meanwhile.
			return err
		}
		return syscall.Rename(from, to)
	}, func() error { return errors.Join(syscall.Rename(to, from), syscall.Rename(grave, to)) })
}
