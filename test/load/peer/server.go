package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopPatience is how long a server may take to end by itself.
const stopPatience = 30 * time.Second

// Server is a server process whose output is kept in a file.
type Server struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// StartServer starts a program whose output goes to the file log, and waits until ready has recognized a line of it.
func StartServer(ctx context.Context, log string, ready func(line []byte) bool, program string, args ...string) (*Server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...) //nolint:gosec // What the caller wants to run.
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // An interrupt from the keyboard is ours to pass on.
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	s := &Server{cmd: cmd, log: log, done: make(chan struct{})}
	up := make(chan struct{})
	go s.watch(r, ready, up)
	select {
	case <-up:
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("%s ended before it was ready; see %s", program, log)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.Stop())
	}
}

// watch copies the output, and closes up at the line that says that the server is ready.
func (s *Server) watch(r io.ReadCloser, ready func([]byte) bool, up chan struct{}) {
	defer close(s.done)
	defer r.Close()
	out, err := os.Create(s.log)
	if err != nil {
		out = os.Stderr
	}
	defer out.Close()
	lines := bufio.NewScanner(r)
	for waiting := true; lines.Scan(); {
		fmt.Fprintln(out, lines.Text())
		if waiting && ready(lines.Bytes()) {
			waiting = false
			close(up)
		}
	}
	_, _ = io.Copy(io.Discard, r) // A line too long: let it go on.
	_ = s.cmd.Wait()
}

// PID is the process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop asks the server to end, and kills it when it does not.
func (s *Server) Stop() error {
	select {
	case <-s.done:
		return fmt.Errorf("%s had ended by itself; see %s", s.cmd.Path, s.log)
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(stopPatience):
	}
	return errors.Join(fmt.Errorf("%s did not end", s.cmd.Path), s.cmd.Process.Kill())
}
