// Command cell is the delivery server that runs in every pod of a MessagingCell.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"quicproquo.dev/cell/server"
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
	root.AddCommand(serve(), migrate(), printVersion())
	return root
}

func printVersion() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the release", Args: cobra.NoArgs, Run: func(c *cobra.Command, _ []string) {
		fmt.Fprintln(c.OutOrStdout(), "cell", version.String())
	}}
}

func serve() *cobra.Command {
	return withConfig("serve", "Serve until SIGTERM, then drain and stop", func(ctx context.Context, c *server.Config, log *slog.Logger) error {
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
	return withConfig("migrate", "Bring the database's schema up to this release", server.Migrate)
}

// withConfig is a command that reads --config and logs to standard error.
func withConfig(use, short string, run func(context.Context, *server.Config, *slog.Logger) error) *cobra.Command {
	var file string
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		config, err := server.LoadConfig(file)
		if err != nil {
			return err
		}
		return run(c.Context(), config, config.Logger(c.ErrOrStderr()))
	}}
	c.Flags().StringVar(&file, "config", "", "configuration file (required)")
	_ = c.MarkFlagRequired("config")
	return c
}
