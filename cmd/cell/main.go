// Command cell is the delivery server that runs in every pod of a MessagingCell.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"quicproquo.dev/cell/server"
	"quicproquo.dev/internal/secretflag"
	"quicproquo.dev/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // A second signal ends the process at once.
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cell:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "cell", Short: "The delivery server of a MessagingCell", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(serve(), migrate(), auditLog(), scrub(), sealingKeys(), printVersion())
	secretflag.Refuse(root, nil,
		secretflag.Hint{Words: "database uri url dsn connection pass", Text: "write the connection string into the file of databaseURIFile, or set QPQ_DATABASE_URI"},
		secretflag.Hint{Text: "keys stand in the files that the configuration names"})
	return root
}

func printVersion() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the release", Args: cobra.NoArgs, Run: func(c *cobra.Command, _ []string) {
		fmt.Fprintln(c.OutOrStdout(), "cell", version.String())
	}}
}

// garbagePercent is what GOGC is for a server, unless it is set: what lives in one is little and what passes through is
// much, so that at Go's 100 a tenth of its time went into collecting. GOMEMLIMIT, which the operator sets, bounds both.
const garbagePercent = 400

func serve() *cobra.Command {
	return withConfig("serve", "Serve until SIGTERM, then drain and stop", func(ctx context.Context, c *server.Config, log *slog.Logger) error {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(garbagePercent)
		}
		s, err := server.Start(ctx, c, server.Release{Name: "cell", Version: version.String()}, log)
		if err != nil {
			return err
		}
		var failed error
		select {
		case <-ctx.Done():
		case failed = <-s.Failed():
		}
		return errors.Join(failed, s.Stop(context.WithoutCancel(ctx)))
	})
}

func migrate() *cobra.Command {
	var role string
	var dry bool
	var out io.Writer
	c := withConfig("migrate", "Bring the database's schema up to this release", func(ctx context.Context, c *server.Config, log *slog.Logger) error {
		if !dry {
			if err := server.Migrate(ctx, c, log); err != nil || role == "" {
				return err
			}
		}
		statements, err := server.GrantServer(ctx, c, role, dry)
		if dry {
			for _, sql := range statements {
				fmt.Fprintln(out, sql+";")
			}
		}
		return err
	})
	c.Flags().StringVar(&role, "server-role", "", "a database role for cell serve: grant it what serving needs; of the audit log, to read and to add")
	c.Flags().BoolVar(&dry, "print-grants", false, "migrate nothing and grant nothing; print the grants of --server-role")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		out = c.OutOrStdout()
		if dry && role == "" {
			return errors.New("--print-grants needs --server-role")
		}
		return nil
	}
	return c
}

// withConfig is a command that reads --config and logs to standard error.
func withConfig(use, short string, run func(context.Context, *server.Config, *slog.Logger) error) *cobra.Command {
	var file string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		config, err := server.LoadConfig(file)
		if err != nil {
			return err
		}
		log := config.Logger(c.ErrOrStderr())
		slog.SetDefault(log) // What libraries log by themselves goes the same way.
		return run(c.Context(), config, log)
	}}
	c.Flags().StringVar(&file, "config", "", "configuration file (required)")
	_ = c.MarkFlagRequired("config")
	return c
}
