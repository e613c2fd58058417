package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// members reads a tar: the content of each member, and the headers in order.
func members(t *testing.T, r io.Reader) (map[string][]byte, []*tar.Header) {
	t.Helper()
	content, headers := map[string][]byte{}, []*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return content, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name], headers = b, append(headers, h)
	}
}

func write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, tree, program string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := run([]string{"-o", out, "-t", "a.example/b:1", "-t", "a.example/b:2", "-user", "65532:65532",
		"-entrypoint", "/usr/bin/prog", "-entrypoint", "serve", "-add", program + "=/usr/bin/prog", tree}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
	if err != nil || len(left) != 0 {
		t.Fatalf("temporary files left: %v %v", left, err)
	}
	return b
}

func makeTree(t *testing.T) (tree, program string) {
	t.Helper()
	dir := t.TempDir()
	tree, program = filepath.Join(dir, "tree"), filepath.Join(dir, "prog")
	write(t, filepath.Join(tree, "etc/services"), "domain 53/udp\n", 0o644)
	if err := os.Symlink("usr/bin", filepath.Join(tree, "bin")); err != nil {
		t.Fatal(err)
	}
	write(t, program, "#!/bin/true\n", 0o755)
	return tree, program
}

func TestArchive(t *testing.T) {
	t.Parallel()
	tree, program := makeTree(t)
	archive, _ := members(t, bytes.NewReader(pack(t, tree, program)))

	var manifest []manifestEntry
	if err := json.Unmarshal(archive["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.example/b:1", "a.example/b:2"}; !slices.Equal(manifest[0].RepoTags, want) {
		t.Errorf("tags %v, want %v", manifest[0].RepoTags, want)
	}
	var config imageConfig
	if err := json.Unmarshal(archive[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/usr/bin/prog", "serve"}; !slices.Equal(config.Config.Entrypoint, want) {
		t.Errorf("entrypoint %v, want %v", config.Config.Entrypoint, want)
	}
	if config.Config.User != "65532:65532" {
		t.Errorf("user %q", config.Config.User)
	}
	layer := archive[manifest[0].Layers[0]]
	sum := sha256.Sum256(layer)
	if want := "sha256:" + hex.EncodeToString(sum[:]); config.RootFS.DiffIDs[0] != want {
		t.Errorf("diff ID %s, the layer's digest is %s", config.RootFS.DiffIDs[0], want)
	}

	files, headers := members(t, bytes.NewReader(layer))
	var names []string
	for _, h := range headers {
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: uid %d, gid %d, time %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		if h.Name == "usr/bin/prog" && h.Mode != 0o755 {
			t.Errorf("prog has mode %o", h.Mode)
		}
		if h.Name == "bin" && h.Linkname != "usr/bin" {
			t.Errorf("bin leads to %q", h.Linkname)
		}
	}
	if want := []string{"bin", "etc/", "etc/services", "usr/", "usr/bin/", "usr/bin/prog"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	if string(files["usr/bin/prog"]) != "#!/bin/true\n" {
		t.Errorf("prog is %q", files["usr/bin/prog"])
	}
}

func TestSameFilesSameBytes(t *testing.T) {
	t.Parallel()
	tree, program := makeTree(t)
	first := pack(t, tree, program)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(program, later, later); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, pack(t, tree, program)) {
		t.Error("a later packing of the same files differs")
	}
	write(t, program, "#!/bin/false\n", 0o755)
	if bytes.Equal(first, pack(t, tree, program)) {
		t.Error("other content, the same archive")
	}
}

func TestBadArguments(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "image.tar")
	for _, args := range [][]string{
		{},
		{"-o", out, "-t", "a:1"},
		{"-o", out, "."},
		{"-o", out, "-t", "a:1", "-add", "nowhere"},
		{"-o", out, "-t", "a:1", "-add", "/does/not/exist=/x"},
		{"-o", out, "-t", "a:1", "/does/not/exist"},
	} {
		if err := run(args); err == nil {
			t.Errorf("run(%q) gives no error", args)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("run(%q) wrote an image", args)
		}
	}
}
