package main

import (
	"context"
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"quicproquo.dev/hack/images/debian"
	"quicproquo.dev/hack/images/layer"
)

// postgresMajor is the PostgreSQL of debian.Release.
const postgresMajor = "15"

const (
	postgresPrograms = "usr/lib/postgresql/" + postgresMajor + "/bin"
	postgresLibrary  = "usr/lib/postgresql/" + postgresMajor + "/lib"
	postgresShare    = "usr/share/postgresql/" + postgresMajor
	postgresData     = "var/lib/postgresql/data"
)

var (
	//go:embed postgres/entrypoint.sh
	postgresEntrypoint []byte
	//go:embed postgres/pg_hba.conf
	postgresHBA []byte
)

// postgresRoots are the packages that the image is for, and what the
// entrypoint works with. base-files says which Debian it is.
var postgresRoots = []string{"postgresql-" + postgresMajor, "base-files", "busybox", "dash", "libc-bin", "tzdata", "util-linux"}

// postgresWithout are dependencies of maintainer scripts, of Debian's cluster
// management and of the just-in-time compiler. What else a package may come to
// depend on is taken; what is missing is found by CheckLibraries.
var postgresWithout = []string{
	"adduser", "debconf", "debianutils", "dpkg", "gcc-12-base", "init-system-helpers", "libacl1", "libbz2-1.0", "libaudit-common", "libblkid1", "libc-l10n", "libdb5.3",
	"libfile-find-rule-perl", "libgdbm-compat4", "libgdbm6", "libjson-perl", "libllvm14", "libmount1", "libnumber-compare-perl", "libpam-modules",
	"libpam-modules-bin", "libperl5.36", "libsasl2-modules-db", "libsemanage-common", "libsemanage2", "libsepol2", "libsmartcols1", "libtext-glob-perl", "libudev1", "libz3-4", "locales",
	"lsb-base", "mawk", "netbase", "openssl", "passwd", "perl", "perl-base", "perl-modules-5.36", "postgresql-client-common",
	"postgresql-common", "readline-common", "sensible-utils", "ssl-cert", "sysvinit-utils", "tar", "ucf", "usrmerge", "util-linux-extra",
}

// postgresDrop are how the paths begin that are left out. PostgreSQL converts
// encodings by itself, without gconv. Copyright files stay.
var postgresDrop = []string{
	"etc/cron", "etc/default", "etc/dpkg", "etc/init.d", "etc/ldap", "etc/logrotate.d", "etc/motd", "etc/skel", "etc/update-motd.d",
	"usr/games", "usr/lib/init", "usr/lib/systemd", "usr/lib/tmpfiles.d", "usr/local/games", "usr/share/applications", "usr/share/base-files",
	"usr/share/bash-completion", "usr/share/bug", "usr/share/debianutils", "usr/share/doc-base", "usr/share/games", "usr/share/gcc", "usr/share/info",
	"usr/share/initramfs-tools", "usr/share/libc-bin", "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/menu",
	"usr/share/pam", "usr/share/pixmaps", "usr/share/tabset", "usr/share/xml", "usr/share/zoneinfo/posix", "usr/share/zoneinfo/right",
	postgresLibrary + "/bitcode", postgresLibrary + "/llvmjit", postgresLibrary + "/pgxs", postgresShare + "/man",
	"var/backups", "var/cache", "var/lib/dpkg/info", "var/local", "var/log", "var/mail", "var/spool",
}

// postgresTools are the applets of busybox that the entrypoint calls, and a few
// that help an admin who looks around.
var postgresTools = []string{"cat", "chmod", "cp", "date", "df", "env", "grep", "head", "id", "ls", "mkdir", "mv", "ps", "rm", "sed", "sleep", "stat", "sync", "tail", "touch", "tr", "wc"}

var postgres = image{name: "postgres", description: "The PostgreSQL that comes with a quicproquo messaging cell", plan: planPostgres}

func planPostgres(ctx context.Context, o options) (plan, error) {
	apt := o.apt()
	if err := apt.Check(); err != nil {
		return plan{}, err
	}
	if err := apt.Update(ctx); err != nil {
		return plan{}, err
	}
	list, err := apt.Resolve(ctx, postgresRoots, postgresWithout)
	if err != nil {
		return plan{}, err
	}
	inputs := string(postgresEntrypoint) + string(postgresHBA) + strings.Join(postgresDrop, ",") + strings.Join(postgresTools, ",")
	for _, p := range list {
		inputs += "\n" + p.File + " " + p.SHA256
	}
	tree := func() (layer.Tree, error) { return postgresTree(ctx, apt, list) }
	return plan{config: postgresConfig(list), inputs: inputs, tree: tree}, nil
}

func postgresConfig(list []debian.Package) v1.Config {
	c := v1.Config{
		Entrypoint:   []string{"/usr/local/bin/entrypoint"},
		Env:          []string{"PATH=/" + postgresPrograms + ":/usr/local/bin:/usr/bin", "PGDATA=/" + postgresData + "/pgdata", "LANG=C.UTF-8"},
		ExposedPorts: map[string]struct{}{"5432/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.licenses": "PostgreSQL AND Apache-2.0", "org.opencontainers.image.base.name": "debian:" + debian.Release},
	}
	for _, p := range list {
		if p.Name == postgresRoots[0] {
			c.Labels["dev.quicproquo.postgresql.version"] = p.Version
		}
	}
	return c
}

func postgresTree(ctx context.Context, apt *debian.Apt, list []debian.Package) (layer.Tree, error) {
	if err := apt.Fetch(ctx, list); err != nil {
		return nil, err
	}
	fmt.Fprintf(apt.Log, "unpacking %d packages\n", len(list))
	tree, err := apt.Root(ctx, list, keepForPostgres)
	if err != nil {
		return nil, err
	}
	finish(tree)
	return tree, debian.CheckLibraries(tree)
}

// keepForPostgres is whether a package's file is of use in the image.
func keepForPostgres(pkg, name string) bool {
	if pkg == "util-linux" && name != "usr/bin/flock" && name != "usr/share/doc/util-linux/copyright" {
		return false
	}
	dropped := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if slices.ContainsFunc(postgresDrop, dropped) || strings.Contains(name, "-linux-gnu/gconv/") {
		return false
	}
	doc, inDoc := strings.CutPrefix(name, "usr/share/doc/")
	return !inDoc || !strings.Contains(doc, "/") || path.Base(doc) == "copyright"
}

// finish does what maintainer scripts would do, and adds what is ours.
func finish(tree layer.Tree) {
	tree.Symlink("usr/bin/sh", "dash")
	for _, tool := range postgresTools {
		tree.Symlink("usr/bin/"+tool, "busybox")
	}
	account(tree, "postgres", "/var/lib/postgresql", "/bin/sh")
	tree.File("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
	tree.File("usr/local/bin/entrypoint", 0o755, postgresEntrypoint)
	tree.File("etc/postgresql/pg_hba.conf", 0o644, postgresHBA)
	tree.Dir("var/lib/postgresql", 0o755, user, user)
	tree.Dir(postgresData, 0o700, user, user)
	tree.Dir("run/postgresql", 0o755, user, user)
	tree.Symlink("var/run", "/run")
	tree.Dir("tmp", 0o1777, 0, 0)
}
