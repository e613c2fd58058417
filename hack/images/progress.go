package main

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// interval is how often a long step says how far it is.
const interval = 10 * time.Second

// tail counts the lines that a program writes, and keeps the last ones.
// It may be used from several goroutines.
type tail struct {
	mu    sync.Mutex
	lines int
	last  bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines += bytes.Count(b, []byte("\n"))
	const most = 8 << 10
	t.last.Write(b)
	t.last.Next(max(0, t.last.Len()-most))
	return len(b), nil
}

func (t *tail) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines
}

// runShowing runs a go command with -v and says every few seconds how many
// packages it has compiled. Its errors hold what it wrote last.
func runShowing(cmd *exec.Cmd, log io.Writer, label string) error {
	var said tail
	cmd.Stderr = &said
	fmt.Fprintln(log, label)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for begin := time.Now(); ; {
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("%s: %w: %s", label, err, strings.TrimSpace(said.last.String()))
			}
			return nil
		case <-tick.C:
			fmt.Fprintf(log, "%s: %d packages in %.0f s\n", label, said.count(), time.Since(begin).Seconds())
		}
	}
}
