package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"quicproquo.dev/hack/images/archive"
)

// pushAll pushes the archives that build has written, to the registry that
// they are named for. Credentials are those of `docker login` or `podman login`.
func pushAll(ctx context.Context, o options, list []image) error {
	for _, i := range list {
		if err := push(ctx, o, i); err != nil {
			return fmt.Errorf("image %s: %w", i.name, err)
		}
	}
	return nil
}

func push(ctx context.Context, o options, i image) (err error) {
	img, err := archive.Open(o.archive(i))
	if err != nil {
		return fmt.Errorf("%w; build it first", err)
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	want, err := o.tagOf(i)
	if err != nil {
		return err
	}
	if img.Tag != want {
		return fmt.Errorf("%s was built as %s, not as %s; build it again with the same registry and tag", o.archive(i), img.Tag, want)
	}
	tag := img.Tag
	if o.insecure {
		if tag, err = name.NewTag(tag.Name(), name.Insecure); err != nil {
			return err
		}
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(o.log, "pushing %s@%s\n", tag, digest)
	return remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
