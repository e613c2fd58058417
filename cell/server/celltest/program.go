package celltest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Program is a running process, with everything it printed.
type Program struct {
	*exec.Cmd
	printed  Log
	patience time.Duration
}

// RunSelf starts the test binary once more, with env added to its environment, by which its TestMain knows to be the
// program under test. It is killed when the test ends, or when Exit has waited for patience.
func RunSelf(t testing.TB, patience time.Duration, env []string, args ...string) *Program {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	p := &Program{Cmd: exec.CommandContext(context.WithoutCancel(t.Context()), self, args...), patience: patience} //nolint:gosec // The test itself.
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = &p.printed, &p.printed
	must(t, p.Start())
	secrets := SecretsOf(t)
	t.Cleanup(func() {
		_ = p.Process.Kill()
		secrets.CheckProgram(t, args, p.Printed())
	})
	return p
}

// Printed returns what the program has printed so far, on both of its outputs.
func (p *Program) Printed() string { return p.printed.String() }

// Exit waits for the end and returns the exit code.
func (p *Program) Exit(t testing.TB) int {
	t.Helper()
	timer := time.AfterFunc(p.patience, func() { _ = p.Process.Kill() })
	defer timer.Stop()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}
