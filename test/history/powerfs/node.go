//go:build linux

package powerfs

import (
	"context"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or a directory. What changes it goes through the store; the rest is the backing directory's.
type node struct {
	fs.LoopbackNode
	store *store
}

var (
	_ = (fs.NodeWrapChilder)((*node)(nil))
	_ = (fs.NodeCreater)((*node)(nil))
	_ = (fs.NodeOpener)((*node)(nil))
	_ = (fs.NodeMkdirer)((*node)(nil))
	_ = (fs.NodeRmdirer)((*node)(nil))
	_ = (fs.NodeUnlinker)((*node)(nil))
	_ = (fs.NodeRenamer)((*node)(nil))
	_ = (fs.NodeLinker)((*node)(nil))
	_ = (fs.NodeSymlinker)((*node)(nil))
	_ = (fs.NodeMknoder)((*node)(nil))
	_ = (fs.NodeSetattrer)((*node)(nil))
	_ = (fs.NodeFsyncer)((*node)(nil))
	_ = (fs.NodeCopyFileRanger)((*node)(nil))
	_ = (fs.NodeTmpfiler)((*node)(nil))
)

// WrapChild implements fs.NodeWrapChilder: all nodes are like this one.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, store: n.store}
}

func (n *node) path() string { return filepath.Join(n.store.root, n.Path(n.Root())) }

func (n *node) child(name string) string { return filepath.Join(n.path(), name) }

// own gives what the caller made to the caller.
func own(ctx context.Context, path string) error {
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(caller.Uid), int(caller.Gid))
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	path := n.child(name)
	var f *os.File
	err := n.store.do(path, "create", func() (err error) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|int(flags)&(os.O_EXCL|os.O_TRUNC), os.FileMode(mode)) //nolint:gosec // as asked.
		if err == nil {
			err = own(ctx, path)
		}
		return err
	}, func() error { return os.Remove(path) })
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	child, errno := n.Lookup(ctx, name, out)
	if errno != 0 {
		_ = f.Close()
		return nil, nil, 0, errno
	}
	return child, &handle{LoopbackFile: fs.NewLoopbackFileFromOS(f), f: f, of: child.Operations().(*node)}, 0, 0 //nolint:forcetypeassert // WrapChild makes no others.
}

// Open implements fs.NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := os.OpenFile(n.path(), os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	h := &handle{LoopbackFile: fs.NewLoopbackFileFromOS(f), f: f, of: n}
	if flags&syscall.O_TRUNC != 0 {
		err = n.store.resize(f, n.path(), 0)
	}
	return h, 0, fs.ToErrno(err)
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	path := n.child(name)
	err := n.store.do(path, "mkdir", func() error {
		if err := os.Mkdir(path, os.FileMode(mode)); err != nil {
			return err
		}
		return own(ctx, path)
	}, func() error { return syscall.Rmdir(path) })
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.Lookup(ctx, name, out)
}

// Rmdir implements fs.NodeRmdirer.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	path := n.child(name)
	var st syscall.Stat_t
	return fs.ToErrno(n.store.do(path, "rmdir", func() error {
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		return syscall.Rmdir(path)
	}, func() error {
		if err := os.Mkdir(path, os.FileMode(st.Mode&0o777)); err != nil { //nolint:gosec // as it was.
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	}))
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return fs.ToErrno(n.store.remove(n.child(name)))
}

// Rename implements fs.NodeRenamer.
func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	return fs.ToErrno(n.store.rename(n.child(name), to.child(newName)))
}

// Link implements fs.NodeLinker.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	of, ok := target.(*node)
	if !ok {
		return nil, syscall.EXDEV
	}
	path := n.child(name)
	err := n.store.do(path, "link", func() error { return syscall.Link(of.path(), path) }, func() error { return os.Remove(path) })
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.Lookup(ctx, name, out)
}

// Symlink implements fs.NodeSymlinker.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	path := n.child(name)
	err := n.store.do(path, "symlink", func() error {
		if err := os.Symlink(target, path); err != nil {
			return err
		}
		return own(ctx, path)
	}, func() error { return os.Remove(path) })
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.Lookup(ctx, name, out)
}

// Mknod implements fs.NodeMknoder: nobody needs it here.
func (*node) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Tmpfile implements fs.NodeTmpfiler.
func (*node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP
}

// CopyFileRange implements fs.NodeCopyFileRanger: callers copy by reading and writing instead.
func (*node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

// Setattr implements fs.NodeSetattrer. A length is the store's business.
func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	open, isOpen := h.(*handle)
	if size, ok := in.GetSize(); ok {
		if err := n.resize(open, int64(size)); err != nil { //nolint:gosec // the kernel's.
			return fs.ToErrno(err)
		}
		in.Valid &^= fuse.FATTR_SIZE
	}
	if isOpen {
		h = open.LoopbackFile
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

// resize uses the open file if there is one: it may have been removed.
func (n *node) resize(open *handle, size int64) error {
	if open != nil {
		return n.store.resize(open.f, n.path(), size)
	}
	f, err := os.OpenFile(n.path(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return n.store.resize(f, n.path(), size)
}

// Fsync implements fs.NodeFsyncer, for files and directories.
func (n *node) Fsync(_ context.Context, h fs.FileHandle, _ uint32) syscall.Errno {
	if open, ok := h.(*handle); ok {
		return fs.ToErrno(n.store.sync(open.f))
	}
	return fs.ToErrno(n.store.sync(nil))
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	f  *os.File
	of *node
}

// Write implements fs.FileWriter.
func (h *handle) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n, err := h.of.store.write(h.f, h.of.path(), data, off)
	return uint32(n), fs.ToErrno(err) //nolint:gosec // what the kernel gave us.
}

// Writev implements fs.FileWritever.
func (h *handle) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	var all []byte
	for _, d := range data {
		all = append(all, d...)
	}
	return h.Write(ctx, all, off)
}

// Fsync implements fs.FileFsyncer.
func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	return fs.ToErrno(h.of.store.sync(h.f))
}

// Setattr implements fs.FileSetattrer.
func (h *handle) Setattr(ctx context.Context, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return h.of.Setattr(ctx, h, in, out)
}

// Allocate implements fs.FileAllocater: a longer file, of zeros.
func (h *handle) Allocate(_ context.Context, off, size uint64, mode uint32) syscall.Errno {
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	st, err := h.f.Stat()
	if err != nil || st.Size() >= int64(off+size) { //nolint:gosec // the kernel's.
		return fs.ToErrno(err)
	}
	return fs.ToErrno(h.of.store.resize(h.f, h.of.path(), int64(off+size))) //nolint:gosec // the kernel's.
}

// PassthroughFd implements fs.FilePassthroughFder: nothing goes past us.
func (*handle) PassthroughFd() (int, bool) { return 0, false }
