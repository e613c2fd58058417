// Package dev serves a MessagingCell on one machine without a cluster: the manifest is judged by the CRD's schema and
// rules, the policy comes from the operator's own builder, and the server is the one that pods run.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"quicproquo.dev/api/v1alpha1"
	"quicproquo.dev/cell/server"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/embeddedpg"
	"quicproquo.dev/internal/logging"
	"quicproquo.dev/internal/manifest"
	"quicproquo.dev/internal/pki"
	"quicproquo.dev/internal/version"
)

// Options say what to serve and where.
type Options struct {
	Manifest string
	Dir      string    // Empty: a folder of the cell's name in the user's data directory.
	Listen   string    // UDP address; empty: 127.0.0.1 and the manifest's port.
	Verbose  bool      // Show all of the cell's log, not only warnings and errors.
	Out, Log io.Writer // What people read; the log.
}

const stopPatience = 30 * time.Second

// Run serves until ctx ends, or something fails, and leaves nothing running.
func Run(ctx context.Context, o Options) (err error) {
	cell, err := manifest.Load(o.Manifest)
	if err != nil {
		return err
	}
	if o.Dir, err = directory(o.Dir, cell.Name); err != nil {
		return err
	}
	unlock, err := lock(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	secrets, err := prepareSecrets(o.Dir, cell.Name)
	if err != nil {
		return err
	}
	for _, note := range notes(cell, o.Dir) {
		fmt.Fprintln(o.Out, "note:", note)
	}
	pg, err := embeddedpg.Start(ctx, embeddedpg.Options{Dir: filepath.Join(o.Dir, databaseDir), Progress: o.Out})
	if err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	defer func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(err, pg.Stop(patience))
	}()
	return serve(ctx, o, cell, secrets, pg)
}

// directory makes and returns the absolute path of the folder that keeps everything.
func directory(dir, name string) (string, error) {
	if dir == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("there is no home directory; say where to keep data with --dir: %w", err)
			}
			base = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(base, "quicproquo", "dev", name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// notes says what of the manifest needs a cluster.
func notes(cell *v1alpha1.MessagingCell, dir string) []string {
	var list []string
	if cell.Spec.Endpoint.TLS.SecretName != "" {
		list = append(list, "spec.endpoint.tls.secretName needs a cluster; the cell's own CA is used instead")
	}
	if cell.Spec.Database.SecretRef != nil {
		list = append(list, "spec.database.secretRef needs a cluster; an embedded PostgreSQL is used instead")
	}
	if ref, _ := resources.ClientCARef(cell); ref.Kind != "" {
		list = append(list, "spec.access.clientCA"+ref.Kind+"Ref needs a cluster; the client CAs in "+filepath.Join(dir, clientCAFile)+" are used instead")
	}
	if cell.Spec.Replicas != nil && *cell.Spec.Replicas != 1 {
		list = append(list, "spec.replicas needs a cluster; one server runs here")
	}
	return list
}

func serve(ctx context.Context, o Options, cell *v1alpha1.MessagingCell, secrets *pki.CA, pg *embeddedpg.Server) error {
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelInfo
	}
	log := logging.New(o.Log, logging.Options{Level: level, Text: true})
	files, err := prepare(o, cell, secrets, pg.URL())
	if err != nil {
		return err
	}
	config, err := server.LoadConfig(files.config)
	if err != nil {
		return err
	}
	if err := server.Migrate(ctx, config, log); err != nil {
		return err
	}
	s, err := server.Start(ctx, config, server.Release{Name: "cell", Version: version.String()}, log)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; stop the program that has it, or choose another with --listen 127.0.0.1:PORT (0: any free one)", err)
	}
	if err != nil {
		return err
	}
	err = administered(ctx, o.Dir, log, func(ctx context.Context) error { return await(ctx, o, files, s, pg) })
	return errors.Join(err, forget(files.connection), s.Stop(context.WithoutCancel(ctx)))
}

// administered has admin tokens there while f runs.
func administered(ctx context.Context, dir string, log *slog.Logger, f func(context.Context) error) error {
	tokens, err := newAdminTokens(dir)
	if err != nil {
		return err
	}
	if err := tokens.write(time.Now()); err != nil {
		return errors.Join(err, tokens.remove())
	}
	keeping, stop := context.WithCancel(ctx)
	var kept sync.WaitGroup
	kept.Go(func() { tokens.keep(keeping, log) })
	err = f(ctx)
	stop()
	kept.Wait()
	return errors.Join(err, tokens.remove())
}

// await tells how to reach the cell and waits for the end.
func await(ctx context.Context, o Options, files files, s *server.Server, pg *embeddedpg.Server) error {
	c := connection{Endpoint: reachable(s.Addr()), CAFile: files.ca, Pin: files.pin, OpsURL: "http://" + s.OpsAddr().String(),
		AdminTokenFile: filepath.Join(o.Dir, adminTokenFile)}
	if err := c.write(files.connection); err != nil {
		return err
	}
	c.print(o.Out, o.Dir)
	select {
	case <-ctx.Done():
		fmt.Fprintln(o.Out, "stopping")
		return nil
	case err := <-s.Failed():
		return err
	case <-pg.Done():
		return fmt.Errorf("PostgreSQL ended by itself: %w", pg.Err())
	}
}
