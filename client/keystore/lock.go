//go:build unix

package keystore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"quicproquo.dev/internal/filelock"
)

type lockMode int

const (
	shared    lockMode = syscall.LOCK_SH
	exclusive lockMode = syscall.LOCK_EX
)

const (
	firstLockWait = time.Millisecond
	maxLockWait   = 25 * time.Millisecond
)

// Lock takes the profile's lock of that name, apart from the one that View and Update take, for what must not be done
// twice at a time but takes too long for an Update. It waits until ctx ends. Call unlock once.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return s.lock(ctx, "x-"+name, exclusive)
}

// Share takes the lock of that name together with others that Share it.
func (s *Store) Share(ctx context.Context, name string) (unlock func(), err error) {
	return s.lock(ctx, "x-"+name, shared)
}

// TryLock is Lock without waiting: unlock is nil when somebody else holds the lock.
func (s *Store) TryLock(name string) (unlock func(), err error) { return s.lockNow("x-" + name) }

func (s *Store) lockNow(name string) (unlock func(), err error) {
	f, err := s.lockFile(name)
	if err != nil {
		return nil, err
	}
	ok, err := tryFlock(f, exclusive)
	if err != nil || !ok {
		return nil, errors.Join(err, f.Close())
	}
	return func() { filelock.Release(f) }, nil
}

// lock polls, because a blocked flock cannot be called off. Each call has a descriptor of its own, so goroutines of
// one process keep each other out like processes do.
func (s *Store) lock(ctx context.Context, name string, mode lockMode) (func(), error) {
	f, err := s.lockFile(name)
	if err != nil {
		return nil, err
	}
	for wait := firstLockWait; ; wait = min(2*wait, maxLockWait) {
		ok, err := tryFlock(f, mode)
		if ok {
			return func() { filelock.Release(f) }, nil
		}
		if err == nil {
			err = sleep(ctx, wait/2+rand.N(wait)) //nolint:gosec // jitter.
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
}

func (s *Store) lockFile(name string) (*os.File, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%w: %q", ErrInvalidName, name)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, locksDir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the profile: %w", err)
	}
	return f, nil
}

func tryFlock(f *os.File, mode lockMode) (bool, error) {
	err := syscall.Flock(int(f.Fd()), int(mode)|syscall.LOCK_NB)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, syscall.EINTR):
		return false, nil
	}
	return false, fmt.Errorf("locking the profile: %w", err)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the profile's lock: %w", ctx.Err())
	}
}
