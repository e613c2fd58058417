package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// previousCell is the path of the previous release's cell, built when it is first needed.
func previousCell(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("PREVIOUS")
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(b))
	if err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", commit+"^{commit}").Run(); err != nil { //nolint:gosec // The commit is ours.
		t.Skipf("NOT RUN: %s: the previous release, commit %s, is not in this clone (git fetch --unshallow gets it): %v", t.Name(), commit, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "quicproquo", "previous", commit)
	program := filepath.Join(dir, "cell")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if err := buildAt(t.Context(), commit, dir); err != nil {
		t.Fatal(err)
	}
	return program
}

// buildAt builds a commit's cell into dir. It appears there whole, or not at all.
func buildAt(ctx context.Context, commit, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // A cache.
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "building-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // A leftover costs room, nothing else.
	source := filepath.Join(work, "source")
	if err := os.Mkdir(source, 0o755); err != nil { //nolint:gosec // A cache.
		return err
	}
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	archive := filepath.Join(work, "source.tar")
	for _, step := range [][]string{
		{strings.TrimSpace(root), "git", "archive", "--output", archive, commit},
		{source, "tar", "-xf", archive},
		{source, "go", "build", "-buildvcs=false", "-o", filepath.Join(work, "cell"), "./cmd/cell"},
	} {
		if _, err := output(ctx, step[0], step[1:]...); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // A cache.
		return err
	}
	return os.Rename(filepath.Join(work, "cell"), filepath.Join(dir, "cell"))
}

func output(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // Our own commands.
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}
