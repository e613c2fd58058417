// Package debian makes the root of an image from Debian packages without
// running any of them: apt resolves, downloads and verifies signatures, the
// files are taken from the packages as they are. No root and no chroot is
// needed. What maintainer scripts would do is the caller's to add.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Release is the release of Debian whose packages are taken.
const Release = "bookworm"

// Apt resolves and downloads packages with a state of its own: what is
// installed on this machine plays no part. Several may work in one Dir.
type Apt struct {
	// Dir keeps package lists and packages between runs.
	Dir string
	// Arch is Debian's name of the architecture, such as amd64.
	Arch string
	// Mirror and SecurityMirror are the archives' URLs.
	Mirror, SecurityMirror string
	// MaxAge is how old package lists may be.
	MaxAge time.Duration
	// Log is told what happens.
	Log io.Writer
}

// Package is a package of one version.
type Package struct {
	Name, Version string
	// File is its base name once downloaded.
	File string
	// SHA256 is in hex.
	SHA256 string
}

// keyring holds the keys of Debian's archive.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func (a *Apt) lists() string { return filepath.Join(a.Dir, "lists") }

// Path is where a downloaded package lies.
func (a *Apt) Path(p Package) string { return filepath.Join(a.Dir, "packages", p.File) }

// Check tells what is missing on this machine.
func (a *Apt) Check() error {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: this needs Debian or a relative of it", program)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return errors.New("the keys of Debian's archive are missing: install the package debian-archive-keyring")
	}
	return nil
}

// Update fetches the package lists, if those at hand are too old. When that
// fails, old ones do: the archive may be out of reach for a while.
func (a *Apt) Update(ctx context.Context) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	stamp := filepath.Join(a.lists(), "updated")
	info, err := os.Stat(stamp)
	if err == nil && time.Since(info.ModTime()) < a.MaxAge {
		return nil
	}
	fmt.Fprintf(a.Log, "fetching the package lists of Debian %s\n", Release)
	if err := a.prepare(); err != nil {
		return err
	}
	if _, failed := a.run(ctx, a.Dir, "--error-on=any", "update"); failed != nil {
		if err != nil || ctx.Err() != nil {
			return failed
		}
		fmt.Fprintf(a.Log, "using the package lists of %s: %v\n", info.ModTime().Format(time.DateTime), failed)
		return nil
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// lock keeps others, also other processes, out of Dir until unlock.
func (a *Apt) lock() (unlock func(), _ error) {
	if err := os.MkdirAll(a.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(a.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil //nolint:errcheck,gosec // nothing was written; closing unlocks.
}

// prepare writes the files that apt wants to find.
func (a *Apt) prepare() error {
	for _, dir := range []string{"lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(a.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	var sources strings.Builder
	for _, s := range [][2]string{{a.Mirror, Release}, {a.Mirror, Release + "-updates"}, {a.SecurityMirror, Release + "-security"}} {
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s main\n", keyring, s[0], s[1])
	}
	return errors.Join(
		os.WriteFile(filepath.Join(a.Dir, "sources.list"), []byte(sources.String()), 0o644),
		os.WriteFile(filepath.Join(a.Dir, "status"), nil, 0o644),
	)
}

// options make apt work in Dir. The machine's own apt.conf still counts, for
// it may name a proxy.
func (a *Apt) options() []string {
	list := []string{"-q"}
	for _, o := range []string{
		"Dir::State=" + a.Dir, "Dir::State::Lists=" + a.lists(), "Dir::State::status=" + filepath.Join(a.Dir, "status"),
		"Dir::Cache=" + filepath.Join(a.Dir, "cache"), "Dir::Etc::SourceList=" + filepath.Join(a.Dir, "sources.list"),
		"Dir::Etc::SourceParts=/dev/null", "Dir::Etc::Preferences=/dev/null", "Dir::Etc::PreferencesParts=/dev/null",
		"APT::Architecture=" + a.Arch, "APT::Architectures::=" + a.Arch, "APT::Install-Recommends=false", "APT::Sandbox::User=root",
		"Acquire::Languages=none", "Acquire::ForceHash=SHA256", "Acquire::Retries=3", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	} {
		list = append(list, "-o", o)
	}
	return list
}

func (a *Apt) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	return output(ctx, dir, "apt-get", append(a.options(), args...)...)
}

// output runs a program and returns what it prints, or an error with its last words.
func output(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // programs are fixed, arguments ours.
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("%s: %w: %s", program, err, strings.Join(lines[max(0, len(lines)-5):], "; "))
	}
	return out.Bytes(), nil
}

// uriLine is a line of apt-get --print-uris.
var uriLine = regexp.MustCompile(`(?m)^'[^']+' ([^ ]+\.deb) \d+ SHA256:([0-9a-f]{64})$`)

// Resolve returns the named packages and what they depend on, sorted, without
// those left out: these are the ones that a caller knows not to need.
func (a *Apt) Resolve(ctx context.Context, names, without []string) ([]Package, error) {
	unlock, err := a.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	out, err := a.run(ctx, a.Dir, append([]string{"--print-uris", "-y", "install"}, names...)...)
	if err != nil {
		return nil, err
	}
	return parse(out, without)
}

func parse(out []byte, without []string) (list []Package, _ error) {
	for _, m := range uriLine.FindAllSubmatch(out, -1) {
		file := string(m[1])
		parts := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%s is not named as a package", file)
		}
		version, err := url.PathUnescape(parts[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if !slices.Contains(without, parts[0]) {
			list = append(list, Package{Name: parts[0], Version: version, File: file, SHA256: string(m[2])})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("apt-get names no package")
	}
	slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
