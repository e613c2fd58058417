//go:build unix && !linux

package embeddedpg

import (
	"os/exec"
	"syscall"
)

const fdDir = "/dev/fd"

// dieWithParent does nothing: only Linux can tie a child to its parent. A
// caller that is killed leaves its server behind here; the next Start says so.
func dieWithParent(*exec.Cmd, syscall.Signal) {}

// serversIn trusts the process id that the server wrote down.
func serversIn(_ string, pid int) ([]int, error) {
	if processExists(pid) {
		return []int{pid}, nil
	}
	return nil, nil
}
