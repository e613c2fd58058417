package dev

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"quicproquo.dev/internal/admintoken"
)

// The tokens of a cell that runs are valid at any time, and gone with it.
func TestAdminTokensAreKeptValid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := generateKeys(filepath.Join(dir, keysFile)); err != nil {
		t.Fatal(err)
	}
	a, err := newAdminTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	check := func() (text string) {
		for name, role := range map[string]admintoken.Role{adminTokenFile: admintoken.CellAdmin, auditorTokenFile: admintoken.Auditor} {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			token, err := admintoken.Parse(string(b))
			if err != nil {
				t.Fatal(err)
			}
			c, err := a.keys.Verify(token, time.Now())
			info, _ := os.Stat(path)
			if err != nil || c.Role != role || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %+v, %v, mode %v", name, c, err, info.Mode())
			}
			text += string(b)
		}
		return text
	}
	synctest.Test(t, func(t *testing.T) {
		if err := a.write(time.Now()); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		go a.keep(ctx, slog.New(slog.DiscardHandler))
		seen := map[string]bool{}
		for range 50 {
			seen[check()] = true
			time.Sleep(29 * time.Minute)
			synctest.Wait()
		}
		if len(seen) < 20 {
			t.Errorf("%d generations in a day", len(seen))
		}
		stop()
	})
	if err := a.remove(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{adminTokenFile, auditorTokenFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}
