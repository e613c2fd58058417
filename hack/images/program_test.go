package main

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// programOptions stand for a product with two small programs.
func programOptions(t *testing.T) options {
	t.Helper()
	o := testOptions(t)
	o.source = t.TempDir()
	write(t, filepath.Join(o.source, "go.mod"), "module quicproquo.dev\n\ngo 1.26\n")
	write(t, filepath.Join(o.source, "internal/version/version.go"), "package version\n\nvar Version = \"none\"\n")
	for _, name := range []string{"cell", "operator"} {
		write(t, filepath.Join(o.source, "cmd", name, "main.go"), fmt.Sprintf(`package main

import (
	"os"

	"quicproquo.dev/internal/version"
)

func main() { os.Stdout.WriteString("%s " + version.Version + "\n") }
`, name))
	}
	return o
}

func TestProgramImage(t *testing.T) {
	t.Parallel()
	o := programOptions(t)
	o.tag = "v0.1.0"
	img := buildImage(t, o, images[1])
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := file.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/cell"}) || c.Labels["org.opencontainers.image.version"] != "v0.1.0" {
		t.Errorf("configuration %+v", c)
	}
	root := unpackImage(t, img)
	var names []string
	if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"cell", "etc/group", "etc/passwd", bundlePath}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	checkStatic(t, filepath.Join(root, "cell"))
	checkBundle(t, filepath.Join(root, bundlePath))
	if os.Getuid() != 0 {
		return
	}
	cmd := exec.Command("/cell")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "cell v0.1.0\n" {
		t.Errorf("in its root it says %q (%v)", out, err)
	}
}

func checkStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s asks for a dynamic linker", path)
		}
	}
}

func checkBundle(t *testing.T, path string) {
	t.Helper()
	rest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
		n++
	}
	if n < 50 || len(bytes.TrimSpace(rest)) > 0 {
		t.Errorf("%d certificates, and %d bytes that are none", n, len(rest))
	}
}

// TestReproducible: a build from nothing gives the same digest, one of another
// source another.
func TestReproducible(t *testing.T) {
	t.Parallel()
	digest := func(o options) string {
		o.out = t.TempDir()
		h, err := buildImage(t, o, images[1]).Digest()
		if err != nil {
			t.Fatal(err)
		}
		return h.String()
	}
	o := programOptions(t)
	first := digest(o)
	if second := digest(o); second != first {
		t.Errorf("the same source gives %s and %s", first, second)
	}
	// A release does not depend on where its source lay.
	here, there := o, programOptions(t)
	here.tag, there.tag = "v0.1.0", "v0.1.0"
	if a, b := digest(here), digest(there); a != b {
		t.Errorf("a release from two directories gives %s and %s", a, b)
	}
	write(t, filepath.Join(o.source, "internal/version/version.go"), "package version\n\nvar Version = \"other\"\n")
	if other := digest(o); other == first {
		t.Error("another source gives the same digest")
	}
}

func TestUpToDate(t *testing.T) {
	t.Parallel()
	o := programOptions(t)
	line := func() string {
		l, err := build(t.Context(), o, images[1])
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := line(); strings.Contains(l, "up to date") {
		t.Error(l)
	}
	if l := line(); !strings.Contains(l, "up to date") {
		t.Error(l)
	}
	o.registry = "registry.example.org/chat"
	if l := line(); strings.Contains(l, "up to date") || !strings.HasPrefix(l, "registry.example.org/chat/cell:dev@sha256:") {
		t.Error(l)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		nil, {"make"}, {"build", "nothing"}, {"build", "-tag", "no tag", "cell"}, {"build", "-registry", "Not A Registry", "cell"},
	} {
		if err := run(t.Context(), append(args, "-source=/nowhere"), io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
