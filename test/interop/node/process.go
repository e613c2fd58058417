// Package node installs pinned npm packages outside the checkout and runs node processes that answer requests.
package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// ErrMissing says that npm or node is not installed.
var ErrMissing = errors.New("node is not available")

// answerTime is how long an answer of the process may take.
const answerTime = 60 * time.Second

// Install makes sure that the packages are installed which package-lock.json in folder
// names, and returns the directory that holds node_modules. It says what it does on
// progress. ErrMissing means that nothing was tried, because npm or node is missing;
// other errors mean that npm failed.
func Install(ctx context.Context, folder string, progress io.Writer) (string, error) {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(here(0), "install"), folder) //nolint:gosec // A script of this package.
	cmd.Stderr = io.MultiWriter(progress, &said)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		return "", fmt.Errorf("%w: %s", ErrMissing, strings.TrimSpace(said.String()))
	}
	if err != nil {
		return "", fmt.Errorf("installing what %s names: %w", folder, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Folder is the path of a file or folder beside the source file of the caller.
func Folder(name string) string { return filepath.Join(here(1), name) }

func here(skip int) string {
	_, file, _, _ := runtime.Caller(skip + 1)
	return filepath.Dir(file)
}

// Process is a node process that answers requests one at a time. It is not safe for
// concurrent use.
type Process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan []byte
}

// Start runs a script in node, with args after it. Close ends it.
func Start(script string, args ...string) (*Process, error) {
	// The context of a test would end the process without its being waited for.
	cmd := exec.CommandContext(context.Background(), "node", append([]string{script}, args...)...) //nolint:gosec // A script of this module.
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, in: in, lines: make(chan []byte)}
	go p.read(out)
	return p, nil
}

func (p *Process) read(out io.Reader) {
	defer close(p.lines)
	s := bufio.NewScanner(out)
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		p.lines <- bytes.Clone(s.Bytes())
	}
}

// Close ends the process by ending its input, and waits for it.
func (p *Process) Close() error {
	if err := p.in.Close(); err != nil {
		return err
	}
	for range p.lines { //nolint:revive // Until the process has closed its output.
	}
	return p.cmd.Wait()
}

// Call sends one request and decodes the answer into result, if that is not nil.
func (p *Process) Call(request map[string]any, result any) error {
	return p.CallWithin(answerTime, request, result)
}

// CallWithin is Call with a time limit of its own, after which the process is killed.
func (p *Process) CallWithin(limit time.Duration, request map[string]any, result any) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	var answer struct {
		OK    json.RawMessage
		Error string
	}
	select {
	case got, open := <-p.lines:
		if !open {
			return errors.New("node has ended")
		}
		if err := json.Unmarshal(got, &answer); err != nil {
			return fmt.Errorf("node answers: %w", err)
		}
	case <-time.After(limit):
		return errors.Join(fmt.Errorf("node has not answered for %s", limit), p.cmd.Process.Kill())
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.OK, result)
}
