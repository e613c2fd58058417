//go:build unix

package embeddedpg

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// quitGrace is how long a postmaster may take to end its children when it
// must stop at once; it kills them itself after 5 s.
const quitGrace = 10 * time.Second

// process is a started child that somebody waits for.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

// startProcess starts cmd such that it gets deathSig if the caller dies.
//
// Linux sends the parent-death signal when the *thread* that forked ends, and
// the Go runtime may end threads. So one goroutine holds one thread for as
// long as the child lives. onExit, if not nil, runs before done closes.
func startProcess(cmd *exec.Cmd, deathSig syscall.Signal, onExit func()) (*process, error) {
	dieWithParent(cmd, deathSig)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		if onExit != nil {
			onExit()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run waits for the process to end by itself; if ctx ends first, the whole
// process group is killed.
func (p *process) run(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // fails only if it is gone already
	<-p.done
	return context.Cause(ctx)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // fails only if it is gone already
}

// abort ends a postmaster at once: SIGQUIT lets it take its children along,
// SIGKILL is for one that does not listen.
func (p *process) abort() {
	p.signal(syscall.SIGQUIT)
	timer := time.NewTimer(quitGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

func processExists(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
