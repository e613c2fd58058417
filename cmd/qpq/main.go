// Command qpq sends and receives end-to-end encrypted messages through a quicproquo cell.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: takeEnv, prompt: askTerminal, ask: askVisibly}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// takeEnv reads a variable, and takes a secret out of the environment, where whoever looks at it later does not find it.
func takeEnv(name string) (string, bool) {
	value, ok := os.LookupEnv(name)
	switch name {
	case passphraseEnv, newPassphraseEnv, codeEnv:
		_ = os.Unsetenv(name) // It fails for names that are none.
	}
	return value, ok
}

// program is one run of qpq. Tests run it with streams and an environment of their own.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) (string, bool)
	prompt         func(question string) ([]byte, error)
	ask            func(question string) ([]byte, error) // As prompt, for what is no secret.

	flags flags
}

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	cmd := p.command()
	cmd.SetArgs(args)
	cmd.SetIn(p.stdin)
	cmd.SetOut(p.stdout)
	cmd.SetErr(p.stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		return p.report(err, args)
	}
	return exitOK
}
