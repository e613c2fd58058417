// Package layer makes layers of container images that depend on their content
// alone: entries are sorted, times are fixed, owners are numbers. The same
// files give the same digest on every machine with the same Go release, whose
// gzip decides the last byte.
package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Epoch is the time of every file in an image, and of the image itself.
var Epoch = time.Unix(0, 0).UTC()

// Entry is a file, directory, symbolic link or hard link.
type Entry struct {
	// Type is tar.TypeReg, tar.TypeDir, tar.TypeSymlink or tar.TypeLink.
	Type byte
	// Mode holds permission, setuid, setgid and sticky bits as in a tar
	// header, not as in fs.FileMode.
	Mode int64
	// UID and GID own the entry.
	UID, GID int
	// Target is where a link points: for a hard link a path in the tree.
	Target string
	// Body is what a file holds.
	Body []byte
}

// Tree is the content of a layer by path, without leading or trailing slash.
// The zero value is not usable; make one with make or a literal.
type Tree map[string]Entry

// File adds a file that root owns.
func (t Tree) File(name string, mode int64, body []byte) {
	t[name] = Entry{Type: tar.TypeReg, Mode: mode, Body: body}
}

// Dir adds a directory.
func (t Tree) Dir(name string, mode int64, uid, gid int) {
	t[name] = Entry{Type: tar.TypeDir, Mode: mode, UID: uid, GID: gid}
}

// Symlink adds a symbolic link.
func (t Tree) Symlink(name, target string) {
	t[name] = Entry{Type: tar.TypeSymlink, Mode: 0o777, Target: target}
}

// Resolve follows symbolic links, also in the middle of a path, and returns
// the path that name leads to. It reports whether that exists.
func (t Tree) Resolve(name string) (string, bool) {
	const tooMany = 40 // as in Linux's path_resolution(7)
	for links := 0; links < tooMany; links++ {
		link, rest := t.firstLink(name)
		if link == "" {
			_, ok := t[name]
			return name, ok
		}
		target := t[link].Target
		if !strings.HasPrefix(target, "/") {
			target = "/" + path.Join(path.Dir(link), target)
		}
		name = strings.TrimPrefix(path.Join(target, rest), "/")
	}
	return name, false
}

// firstLink splits a path behind its first symbolic link, if there is one.
func (t Tree) firstLink(name string) (link, rest string) {
	for end := 0; end <= len(name); end++ {
		if end < len(name) && name[end] != '/' {
			continue
		}
		if t[name[:end]].Type == tar.TypeSymlink {
			return name[:end], name[end:]
		}
	}
	return "", ""
}

// writeTar writes the tree as a tar. Directories that are missing on the way to
// an entry come with it, mode 0755.
func (t Tree) writeTar(w io.Writer) error {
	full := maps.Clone(t)
	for name := range t {
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("%q is not a clean path", name)
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := full[dir]; !ok {
				full.Dir(dir, 0o755, 0, 0)
			}
		}
	}
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(full)) {
		if err := full.writeEntry(tw, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return tw.Close()
}

func (t Tree) writeEntry(tw *tar.Writer, name string) error {
	e := t[name]
	if e.Type == tar.TypeLink {
		// Hard links are written as files would be read: after their target.
		if target, ok := t[e.Target]; !ok || target.Type != tar.TypeReg || e.Target > name {
			return fmt.Errorf("a hard link to %q, which is no file before it", e.Target)
		}
	}
	h := &tar.Header{Typeflag: e.Type, Name: name, Linkname: e.Target, Mode: e.Mode, Uid: e.UID, Gid: e.GID, ModTime: Epoch, Size: int64(len(e.Body))}
	if e.Type == tar.TypeDir {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(e.Body)
	return err
}

// Layer packs the tree. The layer keeps what it needs in memory.
func (t Tree) Layer() (v1.Layer, error) {
	var b bytes.Buffer
	if err := t.writeTar(&b); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
