package embeddedpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const fdDir = "/proc/self/fd"

// dieWithParent makes the kernel send sig to the child when the thread that
// starts it ends; see process for why that is as good as the process.
func dieWithParent(cmd *exec.Cmd, sig syscall.Signal) { cmd.SysProcAttr.Pdeathsig = sig }

// serversIn returns the ids of all postgres processes whose working directory
// is dataDir, be they a postmaster or its orphaned children.
func serversIn(dataDir string, _ int) ([]int, error) {
	want, err := os.Stat(dataDir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking for running servers: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if isServerIn(pid, want) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func isServerIn(pid int, dataDir os.FileInfo) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || !strings.HasPrefix(string(comm), "post") {
		return false
	}
	// Stat follows the kernel's link even where its text could not be walked.
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	return err == nil && os.SameFile(cwd, dataDir)
}
