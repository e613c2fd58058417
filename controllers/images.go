package controllers

import "strings"

const (
	// releaseRegistry is what stands before the names of released images.
	releaseRegistry = "quicproquo.dev"
	// localRegistry is what stands before those of images that were built from
	// a checkout; no registry is asked for them.
	localRegistry, localTag = "localhost/quicproquo", "dev"
)

// DefaultImages are the images of a release: "" stands for a build that is
// none. registry replaces what stands before the images' names, for a private
// mirror: registry.example.org/quicproquo.
func DefaultImages(release, registry string) Images {
	images := Images{Version: release}
	prefix, tag := releaseRegistry, release
	if release == "" {
		prefix, tag = localRegistry, localTag
		images.Version = tag
	}
	if registry != "" {
		prefix = strings.TrimSuffix(registry, "/")
	}
	images.Cell, images.Postgres = prefix+"/cell:"+tag, prefix+"/postgres:"+tag
	return images
}
