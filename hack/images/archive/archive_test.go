package archive

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func makeImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
}

func mustTag(t *testing.T, s string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func digest(t *testing.T, f func() (v1.Hash, error)) string {
	t.Helper()
	h, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// TestRoundTrip reads what was written, once as we do and once as Docker does.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	path, tag, img := filepath.Join(t.TempDir(), "image.tar"), mustTag(t, "localhost/quicproquo/cell:dev"), makeImage(t)
	if err := Write(path, tag, img); err != nil {
		t.Fatal(err)
	}
	got, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Tag != tag || digest(t, got.Digest) != digest(t, img.Digest) {
		t.Errorf("%s@%s was written as %s@%s", got.Tag, digest(t, got.Digest), tag, digest(t, img.Digest))
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	docker, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if digest(t, docker.ConfigName) != digest(t, img.ConfigName) {
		t.Error("Docker sees another configuration")
	}
	if err := validate.Image(docker); err != nil {
		t.Errorf("as Docker reads it: %v", err)
	}
}

func TestWriteIsReproducible(t *testing.T) {
	t.Parallel()
	dir, img := t.TempDir(), makeImage(t)
	var files [2][]byte
	for i := range files {
		path := filepath.Join(dir, "image.tar")
		if err := Write(path, mustTag(t, "localhost/cell:dev"), img); err != nil {
			t.Fatal(err)
		}
		var err error
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if string(files[0]) != string(files[1]) {
		t.Error("two archives of one image differ")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v is left (%v)", left, err)
	}
}

// TestFamiliar: runtimes call Docker Hub docker.io.
func TestFamiliar(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]string{
		"localhost/quicproquo/cell:dev": "localhost/quicproquo/cell:dev",
		"docker.io/someone/cell:v1":     "docker.io/someone/cell:v1",
		"someone/cell:v1":               "docker.io/someone/cell:v1",
		"r.example:5000/cell:v1":        "r.example:5000/cell:v1",
	} {
		if got := familiar(mustTag(t, tag)); got != want {
			t.Errorf("%s is called %s, want %s", tag, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noTar := filepath.Join(dir, "text.tar")
	if err := os.WriteFile(noTar, []byte("no archive at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(dir, "docker.tar")
	if err := tarball.WriteToFile(docker, mustTag(t, "localhost/cell:dev"), makeImage(t)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{noTar, docker, filepath.Join(dir, "none.tar")} {
		if img, err := Open(path); err == nil {
			img.Close()
			t.Errorf("%s is taken", path)
		}
	}
}
