package keystore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Destroy deletes the profile with all its records and makes what was in them unreadable. It leaves the directory
// alone when something else lies in it. The Store is of no use afterwards.
func (s *Store) Destroy() error {
	err := s.Update(context.Background(), func(tx *Tx) error {
		names, err := tx.List("")
		for _, n := range names {
			err = errors.Join(err, tx.Delete(n))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.AbandonRekey(context.Background()); err != nil {
		return err
	}
	profile := s.profilePath()
	f, err := os.OpenFile(profile, os.O_WRONLY, 0) //nolint:gosec // our own.
	if err != nil {
		return err
	}
	if err := errors.Join(wipe(f), f.Close(), os.Remove(profile)); err != nil {
		return err
	}
	clear(s.key)
	for _, d := range []string{recordsDir, locksDir} {
		if err := os.RemoveAll(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	_ = os.Remove(s.dir) // Fails when it is not empty, which is as it should be.
	return nil
}
