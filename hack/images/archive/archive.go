// Package archive writes one image to one tar file that both worlds read: it
// is an OCI image layout, and at the same time what `docker save` writes. So
// `docker load`, `kind load image-archive` and `ctr images import` take it,
// and the image keeps the digest that a registry would give it.
package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"quicproquo.dev/hack/images/layer"
)

// The annotations by which an importer finds the image's name: containerd's
// own, and the one of the OCI image specification, which holds the tag alone.
const (
	nameAnnotation = "io.containerd.image.name"
	tagAnnotation  = "org.opencontainers.image.ref.name"
)

// dockerManifest is one element of docker's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the image to a file, replacing it in one step.
func Write(path string, tag name.Tag, img v1.Image) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone once renamed.
	err = errors.Join(write(f, tag, img), f.Chmod(0o644), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func write(w io.Writer, tag name.Tag, img v1.Image) error {
	tw := tar.NewWriter(w)
	seen := map[v1.Hash]bool{}
	docker := dockerManifest{RepoTags: []string{familiar(tag)}}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		digest, err := writeLayer(tw, l, seen)
		if err != nil {
			return err
		}
		docker.Layers = append(docker.Layers, blob(digest))
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return err
	}
	docker.Config = blob(configDigest)
	if err := writeFile(tw, docker.Config, config); err != nil {
		return err
	}
	if err := writeIndex(tw, tag, img); err != nil {
		return err
	}
	if err := writeJSON(tw, "manifest.json", []dockerManifest{docker}); err != nil {
		return err
	}
	return tw.Close()
}

// familiar is the full name as container runtimes write it.
func familiar(tag name.Tag) string {
	if rest, ok := strings.CutPrefix(tag.Name(), name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return tag.Name()
}

func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// writeLayer writes a layer's blob, unless an equal one was seen.
func writeLayer(tw *tar.Writer, l v1.Layer, seen map[v1.Hash]bool) (v1.Hash, error) {
	digest, err := l.Digest()
	if err != nil || seen[digest] {
		return digest, err
	}
	seen[digest] = true
	r, err := l.Compressed()
	if err != nil {
		return digest, err
	}
	defer r.Close() // read only
	b, err := io.ReadAll(r)
	if err != nil {
		return digest, err
	}
	return digest, writeFile(tw, blob(digest), b)
}

// writeIndex writes the manifest and what leads to it.
func writeIndex(tw *tar.Writer, tag name.Tag, img v1.Image) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if err := writeFile(tw, blob(digest), manifest); err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest,
		Annotations: map[string]string{nameAnnotation: familiar(tag), tagAnnotation: tag.TagStr()},
		Platform:    &v1.Platform{OS: config.OS, Architecture: config.Architecture},
	}}}
	if err := writeJSON(tw, "index.json", index); err != nil {
		return err
	}
	return writeFile(tw, "oci-layout", []byte(`{"imageLayoutVersion": "1.0.0"}`))
}

func writeJSON(tw *tar.Writer, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(tw, name, b)
}

func writeFile(tw *tar.Writer, name string, body []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: layer.Epoch}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(body)
	return err
}

// Image is an image that was read from an archive. Close it after use.
type Image struct {
	v1.Image
	// Tag is the name that the image was given when it was written.
	Tag name.Tag
	dir string
}

// Close removes the unpacked archive. The image cannot be read afterwards.
func (i *Image) Close() error { return os.RemoveAll(i.dir) }

// Open reads an archive that Write wrote.
func Open(path string) (*Image, error) {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, err
	}
	i := &Image{dir: dir}
	if err := i.open(path); err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", path, err), i.Close())
	}
	return i, nil
}

func (i *Image) open(path string) error {
	if err := unpack(path, i.dir); err != nil {
		return err
	}
	index, err := layout.ImageIndexFromPath(i.dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("it holds %d images, not one", len(manifest.Manifests))
	}
	d := manifest.Manifests[0]
	if i.Tag, err = name.NewTag(d.Annotations[nameAnnotation]); err != nil {
		return err
	}
	i.Image, err = index.Image(d.Digest)
	return err
}

// unpack writes the files of a tar into a directory that must not hold others'
// files: os.Root keeps names from leading out of it.
func unpack(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() // a directory
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if _, err := io.CopyN(&b, tr, h.Size); err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(h.Name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(h.Name, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
}
