package keystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A passphrase is changed in two steps, so that it can be changed together with something elsewhere, such as an account's
// password: first the profile key is wrapped under the new passphrase in a second file, and either passphrase opens the
// profile; then that file takes the place of the first, and only the new one does. A crash leaves the profile in one of
// these two states.
const nextFile = "profile-next"

func (s *Store) profilePath() string { return filepath.Join(s.dir, profileFile) }
func (s *Store) nextPath() string    { return filepath.Join(s.dir, nextFile) }

// PrepareRekey lets a second passphrase open the profile too, at the same cost. It replaces one that was prepared before.
func (s *Store) PrepareRekey(ctx context.Context, passphrase []byte) error {
	if len(passphrase) == 0 {
		return ErrEmptyPassphrase
	}
	sealed := sealProfile(s.key, passphrase, s.kdf) // Takes a while: not under the lock.
	return s.Update(ctx, func(*Tx) error {
		if err := s.settleNext(); err != nil {
			return err
		}
		tmp, err := writeTemp(s.dir, nextFile, sealed)
		if err != nil {
			return err
		}
		if err := s.step("prepared"); err != nil {
			return err
		}
		return s.replace(tmp, s.nextPath(), nextFile)
	})
}

// settleNext makes the passphrase that the Store was opened with the first one, so that the second can be replaced.
func (s *Store) settleNext() error {
	if !s.byNext.Load() {
		return nil
	}
	if err := s.replace(s.nextPath(), s.profilePath(), profileFile); err != nil {
		return err
	}
	s.byNext.Store(false)
	return nil
}

// RekeyPending reports whether two passphrases open the profile.
func (s *Store) RekeyPending() (bool, error) {
	_, err := os.Stat(s.nextPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// CommitRekey makes the passphrase of PrepareRekey the only one. Without a prepared one it does nothing.
func (s *Store) CommitRekey(ctx context.Context) error {
	return s.Update(ctx, func(*Tx) error {
		if pending, err := s.RekeyPending(); err != nil || !pending {
			return err
		}
		if err := s.replace(s.nextPath(), s.profilePath(), profileFile); err != nil {
			return err
		}
		s.byNext.Store(false)
		return nil
	})
}

// AbandonRekey forgets the passphrase of PrepareRekey, if there is one.
func (s *Store) AbandonRekey(ctx context.Context) error {
	return s.Update(ctx, func(*Tx) error { return s.remove(s.nextPath(), nextFile) })
}

// SettleRekey ends a change of passphrase that was cut short, in favor of the passphrase that this Store was opened with.
func (s *Store) SettleRekey(ctx context.Context) error {
	if s.byNext.Load() {
		return s.CommitRekey(ctx)
	}
	return s.AbandonRekey(ctx)
}

// replace renames a finished file over another, which it destroys.
func (s *Store) replace(from, path, name string) error {
	old, err := s.keepOld(path, name)
	if err != nil {
		return err
	}
	defer old.close()
	if err := s.step("linked"); err != nil {
		return err
	}
	if err := os.Rename(from, path); err != nil {
		return fmt.Errorf("writing the profile: %w", err)
	}
	return s.finish(old, path)
}

// openEither opens the profile file, or else the one that is prepared to take its place.
func (s *Store) openEither(content, passphrase []byte) error {
	var err error
	if s.key, s.kdf, err = openProfile(s.profilePath(), content, passphrase); !errors.Is(err, ErrWrongPassphrase) {
		return err
	}
	next, readErr := os.ReadFile(s.nextPath())
	if readErr != nil {
		return err
	}
	key, kdf, nextErr := openProfile(s.nextPath(), next, passphrase)
	if nextErr != nil {
		return err
	}
	s.key, s.kdf = key, kdf
	s.byNext.Store(true)
	return nil
}
