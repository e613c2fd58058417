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
	"runtime"
	"time"
)

// processConfig is the part of the image configuration that says what to run
// (OCI image specification, "config").
type processConfig struct {
	Entrypoint []string `json:",omitempty"`
	Env        []string `json:",omitempty"`
	User       string   `json:",omitempty"`
}

// imageConfig is the OCI image configuration.
type imageConfig struct {
	Architecture string         `json:"architecture"`
	OS           string         `json:"os"`
	Created      time.Time      `json:"created"`
	Config       processConfig  `json:"config"`
	RootFS       rootFS         `json:"rootfs"`
	History      []historyEntry `json:"history"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type historyEntry struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// manifestEntry is one image in the manifest.json of a docker-archive.
type manifestEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeArchive writes an image of one layer to the file out, which appears
// only when it is whole.
func writeArchive(out string, tags []string, process processConfig, entries []entry) (err error) {
	layer, err := os.CreateTemp(filepath.Dir(out), ".layer-*")
	if err != nil {
		return err
	}
	archive, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return errors.Join(err, discard(layer))
	}
	defer func() { err = errors.Join(err, discard(layer), discard(archive)) }()

	digest := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, digest), entries); err != nil {
		return err
	}
	if err := assemble(archive, layer, hex.EncodeToString(digest.Sum(nil)), tags, process); err != nil {
		return err
	}
	if err := archive.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(archive.Name(), out)
}

// assemble writes the docker-archive whose one layer is the file layer.
func assemble(w io.Writer, layer *os.File, diffID string, tags []string, process processConfig) error {
	config, err := json.Marshal(imageConfig{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      epoch,
		Config:       process,
		RootFS:       rootFS{Type: "layers", DiffIDs: []string{"sha256:" + diffID}},
		History:      []historyEntry{{Created: epoch, CreatedBy: "mkimage"}},
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(config)
	configName, layerName := hex.EncodeToString(sum[:])+".json", diffID+"/layer.tar"
	manifest, err := json.Marshal([]manifestEntry{{Config: configName, RepoTags: tags, Layers: []string{layerName}}})
	if err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	return errors.Join(
		member(t, configName, int64(len(config)), bytes.NewReader(config)),
		member(t, layerName, size, layer),
		member(t, "manifest.json", int64(len(manifest)), bytes.NewReader(manifest)),
		t.Close(),
	)
}

func member(t *tar.Writer, name string, size int64, content io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: epoch}); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}

// discard closes and removes a temporary file, which may have been renamed.
func discard(f *os.File) error {
	err := f.Close()
	if gone := os.Remove(f.Name()); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
