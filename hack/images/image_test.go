package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"quicproquo.dev/hack/images/archive"
)

// testOptions share the downloads of everyday builds.
func testOptions(t *testing.T) options {
	t.Helper()
	o, _, err := parseFlags([]string{"-source", "../..", "-out", t.TempDir()}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// buildImage builds and reads back an image.
func buildImage(t *testing.T, o options, i image) v1.Image {
	t.Helper()
	if err := buildAll(t.Context(), o, []image{i}); err != nil {
		t.Fatal(err)
	}
	img, err := archive.Open(o.archive(i))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// unpackImage writes an image's files with their owners, as a runtime does.
func unpackImage(t *testing.T, img v1.Image) (root string) {
	t.Helper()
	root = t.TempDir()
	// The account in the image must be able to pass through.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = unpackEntry(root, h, tr)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	return root
}

func unpackEntry(root string, h *tar.Header, body io.Reader) error {
	path := filepath.Join(root, h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		return os.Link(filepath.Join(root, h.Linkname), path)
	default:
		b, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	if err := os.Chown(path, h.Uid, h.Gid); err != nil {
		return err
	}
	return syscall.Chmod(path, uint32(h.Mode))
}
