// Command kubectl-qpq is the admin's tool; kubectl finds it as the plugin "kubectl qpq".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"quicproquo.dev/cmd/kubectl-qpq/admin"
	"quicproquo.dev/cmd/kubectl-qpq/dev"
	"quicproquo.dev/internal/secretflag"
	"quicproquo.dev/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // A second signal ends the process at once, and PostgreSQL with it.
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kubectl-qpq:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "kubectl-qpq", Short: "Administer quicproquo messaging cells", SilenceUsage: true, SilenceErrors: true}
	secretflag.Refuse(root, nil, secretflag.Hint{Text: "credentials stand in files: the Secret that --cell finds, --connection, or --client-cert and --client-key"})
	root.AddCommand(admin.Commands()...)
	root.AddCommand(devCommand(), &cobra.Command{Use: "version", Short: "Print the release", Args: cobra.NoArgs, Run: func(c *cobra.Command, _ []string) {
		fmt.Fprintln(c.OutOrStdout(), "kubectl-qpq", version.String())
	}})
	return root
}

func devCommand() *cobra.Command {
	o := dev.Options{}
	c := &cobra.Command{
		Use:   "dev -f MANIFEST [--dir DIR]",
		Short: "Serve a MessagingCell on this machine, without a cluster",
		Long: `Validates a MessagingCell manifest as a cluster would, and serves the cell on this
machine: an embedded PostgreSQL, a certificate of its own, the policy that the
operator would write. DIR keeps everything; a second start finds it again.
DIR/connection.json says how to reach the cell. SIGINT or SIGTERM stops it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Log = c.OutOrStdout(), c.ErrOrStderr()
			return dev.Run(c.Context(), o)
		},
	}
	c.Flags().StringVarP(&o.Manifest, "filename", "f", "", "manifest with one MessagingCell (required)")
	c.Flags().StringVar(&o.Dir, "dir", "", "where data and keys are kept (default: a folder of the cell's name in your data directory)")
	c.Flags().StringVar(&o.Listen, "listen", "", "UDP address of the cell (default: 127.0.0.1 and the manifest's endpoint port)")
	c.Flags().BoolVarP(&o.Verbose, "verbose", "v", false, "show all of the cell's log, not only warnings and errors")
	_ = c.MarkFlagRequired("filename")
	return c
}
