package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"

	"quicproquo.dev/hack/images/layer"
)

// merged are the directories that in a merged /usr lie below it.
var merged = []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"}

// Root unpacks the packages into one tree with a merged /usr. keep decides
// which files of which package are taken. Each package's control file goes to
// /var/lib/dpkg/status.d, where scanners for vulnerabilities look when there is
// no dpkg.
func (a *Apt) Root(ctx context.Context, list []Package, keep func(pkg, name string) bool) (layer.Tree, error) {
	tree := layer.Tree{}
	for _, p := range list {
		if err := a.unpack(ctx, p, tree, keep); err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", p.File, err)
		}
		control, err := output(ctx, a.Dir, "dpkg-deb", "--field", a.Path(p))
		if err != nil {
			return nil, err
		}
		tree.File("var/lib/dpkg/status.d/"+p.Name, 0o644, control)
	}
	for _, dir := range merged {
		if _, ok := tree["usr/"+dir]; ok {
			tree.Symlink(dir, "usr/"+dir)
		}
	}
	return tree, nil
}

// unpack adds a package's files.
func (a *Apt) unpack(ctx context.Context, p Package, tree layer.Tree, keep func(pkg, name string) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", a.Path(p)) //nolint:gosec // a package we downloaded.
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := readTar(out, tree, func(name string) bool { return keep(p.Name, name) }); err != nil {
		cancel()
		return errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return nil
}

func readTar(r io.Reader, tree layer.Tree, keep func(string) bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// dpkg-deb must be able to write its padding.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		name := merge(h.Name)
		if name == "" || !keep(name) {
			continue
		}
		if err := add(tree, name, h, tr); err != nil {
			return err
		}
	}
}

// merge returns a tar entry's clean path in a merged /usr.
func merge(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, top) {
		return "usr/" + name
	}
	return name
}

func add(tree layer.Tree, name string, h *tar.Header, body io.Reader) error {
	e := layer.Entry{Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Target: h.Linkname}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeSymlink:
	case tar.TypeLink:
		e.Target = merge(h.Linkname)
	case tar.TypeReg:
		b, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		e.Body = b
	default:
		return fmt.Errorf("%s is of type %q", name, h.Typeflag)
	}
	tree[name] = e
	return nil
}
