// Command images makes the container images of quicproquo without Docker, and
// pushes them to a registry.
//
//	images build [flags] [operator|cell|postgres...]
//	images push  [flags] [operator|cell|postgres...]
//
// The images of programs hold a static program, a CA bundle and nothing else.
// The one of PostgreSQL is a small Debian root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	registry, tag    string
	source           string
	cache, out, arch string
	mirror, security string
	maxAge           time.Duration
	insecure         bool

	log io.Writer
	// bundle returns the CA certificates of all images of a run.
	bundle func(context.Context) ([]byte, error)
}

const usage = "usage: images build|push [flags] [operator|cell|postgres...]"

func run(ctx context.Context, args []string, log io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	verb := map[string]func(context.Context, options, []image) error{"build": buildAll, "push": pushAll}[args[0]]
	if verb == nil {
		return errors.New(usage)
	}
	o, names, err := parseFlags(args[1:], log)
	if err != nil {
		return err
	}
	list, err := choose(names)
	if err != nil {
		return err
	}
	return verb(ctx, o, list)
}

func parseFlags(args []string, log io.Writer) (o options, names []string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return o, nil, err
	}
	o.log = log
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	f.StringVar(&o.registry, "registry", "localhost/quicproquo", "what stands before the image's name")
	f.StringVar(&o.tag, "tag", "dev", "the images' tag; other than dev, it is also the programs' version")
	f.StringVar(&o.source, "source", ".", "the directory of the product's source")
	f.StringVar(&o.cache, "cache", filepath.Join(cache, "quicproquo", "images"), "where downloads and archives are kept")
	f.StringVar(&o.out, "out", "", "where the archives NAME.tar go (default CACHE/TAG)")
	f.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture: amd64 or arm64")
	f.StringVar(&o.mirror, "mirror", "http://deb.debian.org/debian", "mirror of Debian's archive")
	f.StringVar(&o.security, "security-mirror", "http://deb.debian.org/debian-security", "mirror of Debian's security archive")
	f.DurationVar(&o.maxAge, "max-age", 24*time.Hour, "package lists older than this are fetched again")
	f.BoolVar(&o.insecure, "insecure", false, "push without TLS")
	if err := f.Parse(args); err != nil {
		return o, nil, err
	}
	if o.out == "" {
		o.out = filepath.Join(o.cache, o.tag)
	}
	o.bundle = once(o)
	return o, f.Args(), nil
}
