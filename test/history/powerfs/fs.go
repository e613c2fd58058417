//go:build linux

package powerfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fsName marks our mounts, for Sweep.
const fsName = "qpq-powerfs"

// FS is a mounted filesystem.
type FS struct {
	store  *store
	server *fuse.Server
	mount  string
	once   sync.Once
	err    error
}

// Usable says why a filesystem cannot be mounted here; nil when it can.
func Usable() error {
	sweep()
	dir, err := os.MkdirTemp("", "powerfs-probe-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	backing, mount := filepath.Join(dir, "backing"), filepath.Join(dir, "mount")
	f, err := Mount(backing, mount, Options{})
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(mount, "probe"), []byte("probe"), 0o600)
	return errors.Join(err, f.Unmount())
}

// Mount shows the directory backing at the directory mount. Both are made if they are missing. Beside backing lies a directory
// of what was removed and may come back.
func Mount(backing, mount string, o Options) (*FS, error) {
	graves := backing + ".removed"
	for _, d := range []string{backing, mount, graves} {
		if err := os.MkdirAll(d, 0o755); err != nil { //nolint:gosec // the database's user has to get through.
			return nil, err
		}
	}
	f := &FS{store: newStore(backing, graves, o), mount: mount}
	tree := &fs.LoopbackRoot{Path: backing}
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, err
	}
	tree.Dev = st.Dev
	root := &node{LoopbackNode: fs.LoopbackNode{RootData: tree}, store: f.store}
	tree.RootNode = root
	second := time.Second
	server, err := fs.Mount(mount, root, &fs.Options{EntryTimeout: &second, AttrTimeout: &second, MountOptions: fuse.MountOptions{
		AllowOther: true, DirectMountStrict: true, FsName: fsName, Name: "powerfs", DisableXAttrs: true, Options: []string{"default_permissions"}}})
	if err != nil {
		return nil, fmt.Errorf("mounting a FUSE filesystem: %w", err)
	}
	f.server = server
	return f, nil
}

// Stats returns the counts so far.
func (f *FS) Stats() Stats {
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	return f.store.stats
}

// PowerLoss unmounts and throws away some of what was not synced, as r decides. All programs that used the files must have
// been killed before. The same directory can be mounted again.
func (f *FS) PowerLoss(m Mode, r *rand.Rand) (Loss, error) {
	if err := f.Unmount(); err != nil {
		return Loss{}, err
	}
	return f.store.lose(m, r)
}

// Unmount ends the filesystem and loses nothing. A file that is still open somewhere is waited for.
func (f *FS) Unmount() error {
	f.once.Do(func() { f.err = f.unmount() })
	return f.err
}

const (
	unmountPatience = 10 * time.Second
	unmountPoll     = 5 * time.Millisecond
)

func (f *FS) unmount() error {
	var err error
	for end := time.Now().Add(unmountPatience); ; time.Sleep(unmountPoll) {
		if err = unix.Unmount(f.mount, 0); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("unmounting %s: %w", f.mount, err), unix.Unmount(f.mount, unix.MNT_DETACH))
	}
	f.server.Wait()
	return err
}
