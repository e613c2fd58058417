package keystore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Put writes a record, new or over its old version, whole or not at all, and destroys the old version's key. It
// returns once the new version is on disk. content stays the caller's.
func (tx *Tx) Put(name string, content []byte) error {
	path, err := tx.writable(name)
	if err != nil {
		return err
	}
	s := tx.s
	tmp, err := writeTemp(filepath.Dir(path), name, sealRecord(s.key, name, content))
	if err != nil {
		return err
	}
	if err := s.step("written"); err != nil {
		return err
	}
	old, err := s.keepOld(path, name)
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	defer old.close()
	if err := s.step("linked"); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("writing a record: %w", errors.Join(err, os.Remove(tmp)))
	}
	return s.finish(old, path)
}

// Delete removes a record and destroys its key. Deleting what is not there is no error.
func (tx *Tx) Delete(name string) error {
	path, err := tx.writable(name)
	if err != nil {
		return err
	}
	return tx.s.remove(path, name)
}

// remove destroys a file, if it is there.
func (s *Store) remove(path, name string) (err error) {
	old := &oldFile{path: besides(path, oldPrefix, name)}
	if old.f, err = openToWipe(path); err != nil || old.f == nil {
		return err
	}
	defer old.close()
	if err := os.Rename(path, old.path); err != nil {
		return fmt.Errorf("deleting from the profile: %w", err)
	}
	return s.finish(old, path)
}

// finish makes a rename durable, then destroys the old version.
func (s *Store) finish(old *oldFile, path string) error {
	if err := s.step("renamed"); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := s.step("synced"); err != nil {
		return err
	}
	return old.destroy(s.step)
}

func (tx *Tx) writable(name string) (string, error) {
	if tx.readOnly {
		return "", ErrReadOnly
	}
	return tx.s.path(name)
}

func (s *Store) step(name string) error {
	if s.crash == nil {
		return nil
	}
	return s.crash(name)
}

// oldFile is the version that a write replaces: a descriptor opened before the rename, and a second name by which
// the next Open finds it if this process dies.
type oldFile struct {
	f    *os.File // Nil: there was none.
	path string
}

func (s *Store) keepOld(path, name string) (*oldFile, error) {
	f, err := openToWipe(path)
	if err != nil || f == nil {
		return &oldFile{}, err
	}
	old := &oldFile{f: f, path: besides(path, oldPrefix, name)}
	if err := os.Link(path, old.path); err != nil {
		if !linksUnsupported(err) {
			old.close()
			return nil, fmt.Errorf("replacing a record: %w", err)
		}
		old.path = ""
	}
	return old, nil
}

// openToWipe opens a file for overwriting; nil means that there is none.
func openToWipe(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // a checked name inside the profile.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("replacing a record: %w", err)
	}
	return f, nil
}

func linksUnsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM)
}

func (o *oldFile) destroy(step func(string) error) error {
	if o.f == nil {
		return nil
	}
	if err := wipe(o.f); err != nil {
		return err
	}
	if err := step("wiped"); err != nil || o.path == "" {
		return err
	}
	return os.Remove(o.path)
}

func (o *oldFile) close() {
	if o.f != nil {
		o.f.Close() //nolint:errcheck // what mattered was synced.
	}
}

// besides names a file next to path that List does not show.
func besides(path, prefix, name string) string {
	return filepath.Join(filepath.Dir(path), prefix+name+"-"+hex.EncodeToString(random(8)))
}

// writeTemp writes and syncs a file next to where it will go, and returns its path.
func writeTemp(dir, name string, content []byte) (string, error) {
	path := besides(filepath.Join(dir, name), tmpPrefix, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // as above.
	if err != nil {
		return "", fmt.Errorf("writing to the profile: %w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("writing to the profile: %w", errors.Join(err, os.Remove(path)))
	}
	return path, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // as above.
	if err != nil {
		return fmt.Errorf("syncing the profile: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing the profile: %w", err)
	}
	return nil
}

// sweep finishes the writes that a crash cut short: it destroys replaced versions and drops half-written ones.
func (s *Store) sweep() error {
	unlock, err := s.lockNow(profileLock)
	if err != nil || unlock == nil {
		return err // Somebody is at work: the next Open sweeps.
	}
	defer unlock()
	// The profile's directory was the user's before it was ours: touch nothing there that we cannot have made.
	return errors.Join(sweepDir(s.dir, tmpPrefix+profileFile+"-", tmpPrefix+nextFile+"-", oldPrefix+profileFile+"-", oldPrefix+nextFile+"-"),
		sweepDir(filepath.Join(s.dir, recordsDir), tmpPrefix, oldPrefix))
}

func sweepDir(dir string, prefixes ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the profile: %w", err)
	}
	for _, e := range entries {
		ours := func(prefix string) bool { return strings.HasPrefix(e.Name(), prefix) }
		if slices.ContainsFunc(prefixes, ours) {
			if err := sweepFile(dir, e.Name()); err != nil {
				return fmt.Errorf("cleaning the profile: %w", err)
			}
		}
	}
	return nil
}

// sweepFile removes a leftover. It overwrites it first, unless it is a second name of a file in use: a crash may
// have come between link and rename.
func sweepFile(dir, leftover string) error {
	path := filepath.Join(dir, leftover)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	live, err := os.Stat(filepath.Join(dir, liveName(leftover)))
	if err == nil && os.SameFile(info, live) {
		return os.Remove(path)
	}
	f, err := openToWipe(path)
	if err != nil || f == nil {
		return err
	}
	return errors.Join(wipe(f), f.Close(), os.Remove(path))
}

// liveName undoes besides.
func liveName(leftover string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(leftover, tmpPrefix), oldPrefix)
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		return name[:i]
	}
	return name
}
