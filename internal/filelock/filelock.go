//go:build unix

// Package filelock ends the locks that programs hold on files by flock(2).
package filelock

import (
	"os"
	"syscall"
)

// Release ends the lock on f and closes it; a second time it does nothing. f is
// one that nothing has to be written to any more. Closing alone would not end the
// lock: a child that another goroutine has forked, and that has not got as far as
// its program, holds a copy of the open file.
func Release(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // fails only if it is closed already
	_ = f.Close()
}
