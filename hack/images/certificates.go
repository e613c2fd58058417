package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quicproquo.dev/hack/images/debian"
	"quicproquo.dev/hack/images/layer"
)

const (
	// bundlePath is where Go's crypto/x509 and OpenSSL look on Debian.
	bundlePath = "etc/ssl/certs/ca-certificates.crt"
	// authorities is where Debian's package has the certificates.
	authorities = "usr/share/ca-certificates/mozilla/"
)

// apt is the resolver with the options' cache.
func (o options) apt() *debian.Apt {
	return &debian.Apt{Dir: filepath.Join(o.cache, "debian-"+debian.Release+"-"+o.arch), Arch: o.arch, Mirror: o.mirror, SecurityMirror: o.security, MaxAge: o.maxAge, Log: o.log}
}

// once finds the certificates out at the first call. The calls come one after
// the other.
func once(o options) func(context.Context) ([]byte, error) {
	var bundle []byte
	return func(ctx context.Context) ([]byte, error) {
		if bundle != nil {
			return bundle, nil
		}
		b, err := certificates(ctx, o)
		bundle = b
		return b, err
	}
}

// certificates returns the public CAs that Debian trusts: those of the package,
// or, where there is no apt, of this machine's copy of it. The machine's own
// bundle will not do: what its admin trusts is not what our users trust.
func certificates(ctx context.Context, o options) ([]byte, error) {
	apt := o.apt()
	if unusable := apt.Check(); unusable != nil {
		bundle, err := localBundle("/" + authorities)
		if err != nil {
			return nil, fmt.Errorf("no CA certificates: %w, and %w", unusable, err)
		}
		return bundle, nil
	}
	if err := apt.Update(ctx); err != nil {
		return nil, err
	}
	list, err := apt.Resolve(ctx, []string{"ca-certificates"}, nil)
	if err != nil {
		return nil, err
	}
	// Certificates need no other package.
	list = slices.DeleteFunc(list, func(p debian.Package) bool { return p.Name != "ca-certificates" })
	if err := apt.Fetch(ctx, list); err != nil {
		return nil, err
	}
	tree, err := apt.Root(ctx, list, func(_, name string) bool {
		return strings.HasPrefix(name, authorities) && strings.HasSuffix(name, ".crt")
	})
	if err != nil {
		return nil, err
	}
	return bundle(tree)
}

// bundle joins the certificates in the order of their names.
func bundle(tree layer.Tree) ([]byte, error) {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if strings.HasPrefix(name, authorities) {
			b = append(b, tree[name].Body...)
		}
	}
	if len(b) == 0 {
		return nil, errors.New("the package ca-certificates holds no certificate")
	}
	return b, nil
}

func localBundle(dir string) (b []byte, _ error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.crt")) // sorted
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		one, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		b = append(b, one...)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s holds no certificate: install the package ca-certificates", dir)
	}
	return b, nil
}
