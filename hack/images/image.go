package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"quicproquo.dev/hack/images/archive"
	"quicproquo.dev/hack/images/debian"
	"quicproquo.dev/hack/images/layer"
)

// user is the account that every image runs as.
const user = 65532

// image is one that we make.
type image struct {
	name        string
	description string
	// plan finds out what goes into the image, cheaply where that is possible.
	plan func(context.Context, options) (plan, error)
}

// plan is what an image will be.
type plan struct {
	config v1.Config
	// inputs decide what tree returns, as far as config does not.
	inputs string
	// tree makes the content.
	tree func() (layer.Tree, error)
}

var images = []image{
	program("operator", "Runs quicproquo messaging cells in a Kubernetes cluster"),
	program("cell", "The delivery server of a quicproquo messaging cell"),
	postgres,
}

func choose(names []string) (list []image, _ error) {
	if len(names) == 0 {
		return images, nil
	}
	for _, n := range names {
		i := slices.IndexFunc(images, func(i image) bool { return i.name == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no image %q; %s", n, usage)
		}
		list = append(list, images[i])
	}
	return list, nil
}

// tagOf is the image's full name.
func (o options) tagOf(i image) (name.Tag, error) {
	tag, err := name.NewTag(strings.TrimSuffix(o.registry, "/") + "/" + i.name + ":" + o.tag)
	if err != nil {
		return tag, fmt.Errorf("%w: write a registry such as registry.example.org/quicproquo and a tag such as v0.1.0", err)
	}
	return tag, nil
}

func (o options) archive(i image) string { return filepath.Join(o.out, i.name+".tar") }

// version is the release, or empty.
func (o options) version() string {
	if o.tag == "dev" {
		return ""
	}
	return o.tag
}

func buildAll(ctx context.Context, o options, list []image) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, i := range list {
		begin := time.Now()
		note, err := build(ctx, o, i)
		if errors.Is(err, debian.ErrFetch) {
			fresh := o
			fresh.maxAge = 0
			note, err = build(ctx, fresh, i)
		}
		if err != nil {
			return fmt.Errorf("image %s: %w", i.name, err)
		}
		fmt.Fprintf(o.log, "%s (%.1f s)\n", note, time.Since(begin).Seconds())
	}
	return nil
}

// build makes the archive, unless the one that is there has the same inputs.
// It returns a line about it.
func build(ctx context.Context, o options, i image) (string, error) {
	tag, err := o.tagOf(i)
	if err != nil {
		return "", err
	}
	p, err := i.plan(ctx, o)
	if err != nil {
		return "", err
	}
	p.config = common(p.config, i, o)
	key, err := p.key(tag, o.arch)
	if err != nil {
		return "", err
	}
	keyFile := strings.TrimSuffix(o.archive(i), ".tar") + ".key"
	if digest, ok := unchanged(o.archive(i), keyFile, key); ok {
		return fmt.Sprintf("%s@%s is up to date", tag, digest), nil
	}
	tree, err := p.tree()
	if err != nil {
		return "", err
	}
	img, err := assemble(tree, p.config, o.arch)
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	if err := archive.Write(o.archive(i), tag, img); err != nil {
		return "", err
	}
	info, err := os.Stat(o.archive(i))
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%s@%s, %d MB", tag, digest, info.Size()>>20)
	return line, os.WriteFile(keyFile, []byte(key+" "+digest.String()+"\n"), 0o644)
}

// key is a digest of everything that decides the archive.
func (p plan) key(tag name.Tag, arch string) (string, error) {
	config, err := json.Marshal(p.config)
	if err != nil {
		return "", err
	}
	const format = "1" // changes with the way that archives are written
	sum := sha256.Sum256([]byte(strings.Join([]string{format, tag.Name(), arch, string(config), p.inputs}, "\x00")))
	return hex.EncodeToString(sum[:]), nil
}

// unchanged returns the digest of the archive made from the same inputs.
func unchanged(path, keyFile, key string) (digest string, ok bool) {
	if _, err := os.Stat(path); err != nil {
		return "", false
	}
	b, err := os.ReadFile(keyFile)
	if err != nil {
		return "", false
	}
	old, digest, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	return digest, ok && old == key
}

// common adds what every image has.
func common(c v1.Config, i image, o options) v1.Config {
	c.User = fmt.Sprintf("%d:%d", user, user)
	c.WorkingDir = "/"
	labels := map[string]string{
		"org.opencontainers.image.title":       "quicproquo " + i.name,
		"org.opencontainers.image.description": i.description,
		"org.opencontainers.image.url":         "https://quicproquo.dev",
		"org.opencontainers.image.vendor":      "The quicproquo Authors",
		"org.opencontainers.image.version":     o.tag,
		"org.opencontainers.image.licenses":    "Apache-2.0",
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	return c
}

// assemble puts an image together, of one layer.
func assemble(tree layer.Tree, config v1.Config, arch string) (v1.Image, error) {
	l, err := tree.Layer()
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: layer.Epoch}, CreatedBy: "quicproquo hack/images"}})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created, file.Config = "linux", arch, v1.Time{Time: layer.Epoch}, config
	return mutate.ConfigFile(img, file)
}
