package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// epoch is when everything in an image was made, so that its digest depends on
// its content alone.
var epoch = time.Unix(0, 0).UTC()

// An entry is one file, directory or symbolic link of an image. Source is
// where it is here; it is empty for a directory made up on the way to a file.
type entry struct {
	name   string
	source string
}

// collect lists what is in dir (if any) and the added files, each "FILE=PATH",
// in the order of their names. An added file hides one of the same name in dir.
func collect(dir string, adds []string) ([]entry, error) {
	found := map[string]string{}
	if dir != "" {
		err := filepath.WalkDir(dir, func(at string, _ fs.DirEntry, err error) error {
			if err != nil || at == dir {
				return err
			}
			name, err := filepath.Rel(dir, at)
			found[filepath.ToSlash(name)] = at
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, add := range adds {
		source, target, ok := strings.Cut(add, "=")
		if !ok {
			return nil, fmt.Errorf("-add %q: want FILE=PATH", add)
		}
		name := strings.TrimPrefix(path.Clean("/"+target), "/")
		found[name] = source
		for up := path.Dir(name); up != "."; up = path.Dir(up) {
			if _, ok := found[up]; !ok {
				found[up] = ""
			}
		}
	}
	entries := make([]entry, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		entries = append(entries, entry{name, found[name]})
	}
	return entries, nil
}

// writeLayer writes the entries as one tar, all owned by root.
func writeLayer(w io.Writer, entries []entry) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := writeEntry(t, e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return t.Close()
}

func writeEntry(t *tar.Writer, e entry) error {
	if e.source == "" {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: e.name + "/", Mode: 0o755, ModTime: epoch})
	}
	info, err := os.Lstat(e.source)
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(e.source); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name, header.ModTime = e.name, epoch
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	if info.IsDir() {
		header.Name += "/"
	}
	if err := t.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return copyFile(t, e.source)
}

func copyFile(w io.Writer, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	_, err = io.Copy(w, f)
	return err
}
