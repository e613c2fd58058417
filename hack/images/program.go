package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"quicproquo.dev/hack/images/layer"
)

// program is the image of one of our own programs: static, with a CA bundle,
// an account that is not root, and no shell.
func program(name, description string) image {
	return image{name: name, description: description, plan: func(ctx context.Context, o options) (plan, error) {
		bundle, err := o.bundle(ctx)
		if err != nil {
			return plan{}, err
		}
		binary, err := compile(ctx, o, name)
		if err != nil {
			return plan{}, err
		}
		tree := func() (layer.Tree, error) { return programTree(name, binary, bundle), nil }
		return plan{config: programConfig(name), inputs: sum(binary) + sum(bundle), tree: tree}, nil
	}}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func programConfig(name string) v1.Config {
	return v1.Config{
		Entrypoint: []string{"/" + name},
		Env:        []string{"PATH=/", "SSL_CERT_FILE=/" + bundlePath},
	}
}

func programTree(name string, binary, bundle []byte) layer.Tree {
	tree := layer.Tree{}
	tree.File(name, 0o755, binary)
	tree.File(bundlePath, 0o644, bundle)
	account(tree, "quicproquo", "/", "/sbin/nologin")
	tree.Dir("tmp", 0o1777, 0, 0)
	return tree
}

// account writes the users of the image: root, and the one that it runs as.
func account(tree layer.Tree, name, home, shell string) {
	tree.File("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/root:/sbin/nologin\n%s:x:%d:%d::%s:%s\n", name, user, user, home, shell))
	tree.File("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\n%s:x:%d:\n", name, user))
}

// compile returns the static program. Two compilations of the same source give
// the same bytes: the version control's state is left out, for it tells of
// uncommitted changes elsewhere. Releases also leave out where the source lay;
// that takes a build cache of its own, so everyday builds do without.
func compile(ctx context.Context, o options, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "quicproquo-"+name)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory.
	flags, out := "-s -w", filepath.Join(dir, name)
	args := []string{"build", "-buildvcs=false"}
	if v := o.version(); v != "" {
		flags += " -X quicproquo.dev/internal/version.Version=" + v
		args = append(args, "-trimpath")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-v", "-ldflags", flags, "-o", out, "./cmd/"+name)...) //nolint:gosec // the names are ours.
	cmd.Dir = o.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.arch)
	if err := runShowing(cmd, o.log, "compiling "+name); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}
