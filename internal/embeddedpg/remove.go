//go:build unix

package embeddedpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"quicproquo.dev/internal/filelock"
)

// Remove deletes a server's directory with all its data. It fails if a server
// uses it.
func Remove(dir string) error {
	o, err := Options{Dir: dir}.withDefaults()
	if err != nil {
		return err
	}
	lock, err := lockDir(o)
	if err != nil {
		return fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	defer filelock.Release(lock)
	_, pids, err := users(o)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	if len(pids) > 0 {
		return fmt.Errorf("embedded PostgreSQL: %w", inUseError(o, joinInts(pids)))
	}
	return os.RemoveAll(dir)
}
