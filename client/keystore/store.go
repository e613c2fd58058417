package keystore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

const (
	recordsDir  = "records"
	locksDir    = "locks"
	profileLock = "profile"
	maxName     = 100
	tmpPrefix   = ".tmp-"
	oldPrefix   = ".old-"
)

// Store is an open profile. It is safe for concurrent use, by several processes too.
type Store struct {
	dir    string
	key    []byte
	kdf    KDF
	byNext atomic.Bool // It was opened with the passphrase that is prepared to take the other's place.
	// crash, when set, is asked after each step of a write; an error stops the write there and then, as the death of
	// the process would.
	crash func(step string) error
}

// Dir returns the profile's directory.
func (s *Store) Dir() string { return s.dir }

// Tx reads and writes records while the profile is locked. It must not be used after its function has returned.
type Tx struct {
	s        *Store
	readOnly bool
}

// View runs fn while other processes and goroutines can read the profile, but not change it. It waits for the lock
// until ctx ends.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	return s.locked(ctx, shared, &Tx{s: s, readOnly: true}, fn)
}

// Update runs fn while nobody else can read or change the profile. Each write in it is atomic by itself; the writes
// together are not. It waits for the lock until ctx ends.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.locked(ctx, exclusive, &Tx{s: s}, fn)
}

func (s *Store) locked(ctx context.Context, mode lockMode, tx *Tx, fn func(*Tx) error) error {
	unlock, err := s.lock(ctx, profileLock, mode)
	if err != nil {
		return err
	}
	defer unlock()
	return fn(tx)
}

// Get returns a record's content, which is the caller's. Errors: ErrNotFound, *CorruptError.
func (tx *Tx) Get(name string) ([]byte, error) {
	path, err := tx.s.path(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path) //nolint:gosec // a checked name inside the profile.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a record: %w", err)
	}
	return openRecord(tx.s.key, path, name, b)
}

// Version returns a record's version without decrypting it. Errors: ErrNotFound, *CorruptError.
func (tx *Tx) Version(name string) (Version, error) {
	path, err := tx.s.path(name)
	if err != nil {
		return Version{}, err
	}
	return readVersion(path)
}

// List returns the names of the records that begin with prefix, sorted.
func (tx *Tx) List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(tx.s.dir, recordsDir))
	if err != nil {
		return nil, fmt.Errorf("listing the profile: %w", err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); validName(n) && strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

func (s *Store) path(name string) (string, error) {
	if !validName(name) {
		return "", fmt.Errorf("%w: %q", ErrInvalidName, name)
	}
	return filepath.Join(s.dir, recordsDir, name), nil
}

func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
