//go:build linux

package history

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// root is the product's module.
func root() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..")
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "qpq-history-bin-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "cell")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", path, "./cmd/cell") //nolint:gosec // our own program.
	cmd.Dir = root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the cell: %w\n%s", err, out)
	}
	return path, nil
})

// Build builds the program cell, once, or takes the one that QPQ_CELL names.
func Build(context.Context) (string, error) {
	if path := os.Getenv("QPQ_CELL"); path != "" {
		return path, nil
	}
	return build()
}

// CleanUp removes what Build made.
func CleanUp() {
	if os.Getenv("QPQ_CELL") == "" {
		if path, err := build(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
}
