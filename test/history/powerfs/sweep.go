//go:build linux

package powerfs

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sweep takes away the mounts of programs that were killed: nobody answers there any more.
func sweep() {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != fsName {
			continue
		}
		var st syscall.Stat_t
		if err := syscall.Stat(f[1], &st); errors.Is(err, syscall.ENOTCONN) {
			_ = unix.Unmount(f[1], unix.MNT_DETACH) // Somebody else may have done it.
		}
	}
}
