package layer

import (
	"archive/tar"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func makeTree() Tree {
	t := Tree{}
	t.File("usr/bin/program", 0o4755, []byte("binary"))
	t.Symlink("bin", "usr/bin")
	t.Dir("var/data", 0o700, 65532, 65532)
	t["usr/bin/program2"] = Entry{Type: tar.TypeLink, Mode: 0o755, Target: "usr/bin/program"}
	return t
}

func headers(t *testing.T, tree Tree) (list []*tar.Header) {
	t.Helper()
	l, err := tree.Layer()
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h)
	}
}

func TestLayerHoldsTheTree(t *testing.T) {
	t.Parallel()
	var names []string
	for _, h := range headers(t, makeTree()) {
		names = append(names, h.Name)
		if !h.ModTime.Equal(Epoch) || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: time %v, owner's name %q, group's %q", h.Name, h.ModTime, h.Uname, h.Gname)
		}
		switch h.Name {
		case "usr/bin/program":
			if h.Mode != 0o4755 || h.Size != 6 || h.Uid != 0 {
				t.Errorf("%+v", h)
			}
		case "var/data/":
			if h.Mode != 0o700 || h.Uid != 65532 || h.Gid != 65532 {
				t.Errorf("%+v", h)
			}
		case "usr/":
			if h.Mode != 0o755 || h.Typeflag != tar.TypeDir {
				t.Errorf("%+v", h)
			}
		}
	}
	if want := []string{"bin", "usr/", "usr/bin/", "usr/bin/program", "usr/bin/program2", "var/", "var/data/"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

// TestSameTreeSameDigest makes the tree again and again, since Go's maps are
// walked in random order.
func TestSameTreeSameDigest(t *testing.T) {
	t.Parallel()
	digest := func(tree Tree) string {
		l, err := tree.Layer()
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	first := digest(makeTree())
	for range 20 {
		if got := digest(makeTree()); got != first {
			t.Fatalf("%s, then %s", first, got)
		}
	}
	other := makeTree()
	other.File("usr/bin/program", 0o755, []byte("binary"))
	if digest(other) == first {
		t.Error("another mode, the same digest")
	}
}

func TestLayerRefuses(t *testing.T) {
	t.Parallel()
	for name, tree := range map[string]Tree{
		"a path from the root":  {"/etc/passwd": {Type: tar.TypeReg}},
		"a path that leads out": {"../etc/passwd": {Type: tar.TypeReg}},
		"an empty path":         {"": {Type: tar.TypeReg}},
		"a link to nothing":     {"b": {Type: tar.TypeLink, Target: "a"}},
		"a link before its file": {
			"a": {Type: tar.TypeLink, Target: "b"}, "b": {Type: tar.TypeReg},
		},
	} {
		if _, err := tree.Layer(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	tree := Tree{}
	tree.File("usr/lib/x86/libc.so.6", 0o755, nil)
	tree.Symlink("lib", "usr/lib")
	tree.Symlink("lib64/ld.so", "/lib/x86/libc.so.6")
	tree.Symlink("usr/lib/x86/libc.so", "libc.so.6")
	tree.Symlink("up", "usr/lib/x86/../x86/libc.so")
	tree.Symlink("round", "about")
	tree.Symlink("about", "round")
	for name, want := range map[string]string{
		"usr/lib/x86/libc.so.6": "usr/lib/x86/libc.so.6",
		"lib/x86/libc.so":       "usr/lib/x86/libc.so.6",
		"lib64/ld.so":           "usr/lib/x86/libc.so.6",
		"up":                    "usr/lib/x86/libc.so.6",
		"lib/x86/libm.so":       "",
		"round":                 "",
	} {
		got, ok := tree.Resolve(name)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s leads to %s (%v), want %s", name, got, ok, want)
		}
		if strings.HasPrefix(got, "/") {
			t.Errorf("%s leads to %s", name, got)
		}
	}
}
