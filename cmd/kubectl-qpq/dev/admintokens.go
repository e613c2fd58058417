package dev

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"quicproquo.dev/internal/admintoken"
	"quicproquo.dev/internal/cellkeys"
	"quicproquo.dev/internal/pki"
)

// adminTokenLife is how long an admin token of a cell without an operator is
// valid; a running cell renews it at half of it.
const adminTokenLife = 2 * time.Hour

// The files of the present admin tokens, beside connection.json.
const (
	adminTokenFile   = "admin-token"
	auditorTokenFile = "auditor-token"
)

// adminTokens keeps admin tokens in a folder, which nobody else may read.
type adminTokens struct {
	dir  string
	keys *admintoken.Keys
}

func newAdminTokens(dir string) (*adminTokens, error) {
	file, err := cellkeys.Load(filepath.Join(dir, keysFile))
	if err != nil {
		return nil, err
	}
	keys, err := admintoken.New(file.Tokens)
	return &adminTokens{dir, keys}, err
}

// write mints fresh ones.
func (a *adminTokens) write(now time.Time) error {
	for name, role := range map[string]admintoken.Role{adminTokenFile: admintoken.CellAdmin, auditorTokenFile: admintoken.Auditor} {
		token, err := a.keys.Mint(role, "dev/"+name, now, adminTokenLife)
		if err == nil {
			err = pki.WriteFile(filepath.Join(a.dir, name), []byte(admintoken.Format(token)+"\n"), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keep renews them in time, until ctx ends.
func (a *adminTokens) keep(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(adminTokenLife / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := a.write(now); err != nil {
				log.ErrorContext(ctx, "the admin tokens were not renewed", "error", err)
			}
		}
	}
}

// remove leaves none behind for a cell that does not run.
func (a *adminTokens) remove() error {
	return errors.Join(forget(filepath.Join(a.dir, adminTokenFile)), forget(filepath.Join(a.dir, auditorTokenFile)))
}
