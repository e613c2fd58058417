//go:build linux

package bed

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that dies with this program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // Closed when it has ended and was waited for.
}

// spawn starts a child. The kernel tells it of the end of the *thread* that made it; so one goroutine keeps its thread.
func spawn(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // How it ended is in its log.
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) } // Fails when it has ended.

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// children are the living processes whose parent is pid.
func children(pid int) []int {
	var list []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // The pattern is well formed.
	for _, path := range stats {
		b, err := os.ReadFile(path) //nolint:gosec // of /proc.
		if err != nil {
			continue // It has just ended.
		}
		_, rest, _ := strings.Cut(string(b), ") ") // Behind the name, which may have spaces: state, parent.
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) && f[0] != "Z" {
			if n, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

const (
	killPatience = 10 * time.Second
	killPoll     = 2 * time.Millisecond
)

// killTree kills a process and its children so that none is left, and none is made meanwhile.
func killTree(pid int) error {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for end := time.Now().Add(killPatience); state(pid) != 'T' && state(pid) != 0 && time.Now().Before(end); {
		time.Sleep(killPoll) // Until it has stopped, it may make one more child.
	}
	kids := children(pid)
	for _, k := range append(kids, pid) {
		_ = syscall.Kill(k, syscall.SIGKILL)
	}
	for end := time.Now().Add(killPatience); ; time.Sleep(killPoll) {
		alive := false
		for _, k := range kids {
			alive = alive || running(k)
		}
		if !alive {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("processes that were killed are still there")
		}
	}
}

// state is a process's, as /proc has it: R, S, D, T, Z, …; 0: there is no such process.
func state(pid int) byte {
	b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, rest, ok := strings.Cut(string(b), ") ")
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}

// running says that a process can still do something.
func running(pid int) bool {
	s := state(pid)
	return s != 0 && s != 'Z' && s != 'X'
}
