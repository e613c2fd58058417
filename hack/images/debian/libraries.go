package debian

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"quicproquo.dev/hack/images/layer"
)

// CheckLibraries reports every shared library that a program or library in the
// tree asks for and the tree does not have. Without it, a package too many
// left out would show only when the program runs.
func CheckLibraries(tree layer.Tree) error {
	missing := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		needs, dirs, err := dynamic(tree[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, library := range needs {
			if missing[library] == "" && !found(tree, library, path.Dir(name), dirs) {
				missing[library] = name
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var list []string
	for _, library := range slices.Sorted(maps.Keys(missing)) {
		list = append(list, library+" (for "+missing[library]+")")
	}
	return fmt.Errorf("shared libraries are missing: %s", strings.Join(list, ", "))
}

// dynamic returns what an ELF file asks the dynamic linker for.
func dynamic(e layer.Entry) (needs, dirs []string, err error) {
	if e.Type != tar.TypeReg || !bytes.HasPrefix(e.Body, []byte(elf.ELFMAG)) {
		return nil, nil, nil
	}
	f, err := elf.NewFile(bytes.NewReader(e.Body))
	if err != nil {
		return nil, nil, err
	}
	if f.Type != elf.ET_DYN && f.Type != elf.ET_EXEC {
		return nil, nil, nil
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		list, err := f.DynString(tag)
		if err != nil {
			return nil, nil, err
		}
		for _, l := range list {
			dirs = append(dirs, strings.Split(l, ":")...)
		}
	}
	needs, err = f.ImportedLibraries()
	return needs, dirs, err
}

// found looks where the dynamic linker of Debian looks without a cache.
func found(tree layer.Tree, library, origin string, dirs []string) bool {
	for _, dir := range dirs {
		dir = strings.TrimPrefix(strings.ReplaceAll(dir, "$ORIGIN", "/"+origin), "/")
		if _, ok := tree.Resolve(path.Join(dir, library)); ok {
			return true
		}
	}
	for name := range tree {
		dir, base := path.Split(name)
		if base != library || !strings.HasPrefix(dir, "usr/lib") {
			continue
		}
		parts := strings.Split(strings.Trim(dir, "/"), "/")
		system := len(parts) == 2 || len(parts) == 3 && strings.Contains(parts[2], "-linux-gnu")
		if _, ok := tree.Resolve(name); ok && system {
			return true
		}
	}
	return false
}
