package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"quicproquo.dev/controllers"
	"quicproquo.dev/controllers/podcheck"
	"quicproquo.dev/controllers/resources"
	"quicproquo.dev/internal/secretflag"
	"quicproquo.dev/internal/version"
)

func command(env func(string) string) *cobra.Command {
	var o options
	root := &cobra.Command{
		Use: "operator", Short: "Make a cluster what its MessagingCells ask for", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return run(c.Context(), &o)
		},
	}
	o.register(root.Flags(), env)
	root.Flags().AddGoFlag(flag.Lookup("kubeconfig")) // controller-runtime's.
	secretflag.Refuse(root, nil, secretflag.Hint{Text: "the operator's credentials are its ServiceAccount's, or stand in the file of --kubeconfig"})
	root.AddCommand(&cobra.Command{Use: "version", Short: "Print the release", Args: cobra.NoArgs, Run: func(c *cobra.Command, _ []string) {
		fmt.Fprintln(c.OutOrStdout(), "operator", version.String())
	}})
	return root
}

// run works until ctx ends.
func run(ctx context.Context, o *options) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	klog.SetSlogLogger(log)
	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	images := o.images()
	reconciler := &controllers.MessagingCellReconciler{
		Client:   mgr.GetClient(),
		Live:     mgr.GetAPIReader(),
		Recorder: mgr.GetEventRecorder(resources.Manager),
		Images:   images,
		Clock:    clock.RealClock{},
		Servers:  podcheck.Pods{QUICPort: resources.QUICPort, OpsPort: resources.OpsPort},
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("setting up: %w", err)
	}
	log.LogAttrs(ctx, slog.LevelInfo, "operator starts", slog.String("version", version.String()), slog.Any("namespaces", o.namespaces),
		slog.String("cellImage", images.Cell), slog.String("postgresImage", images.Postgres))
	return mgr.Start(ctx)
}

func newManager(o *options) (ctrl.Manager, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding a cluster (set --kubeconfig or KUBECONFIG outside one): %w", err)
	}
	scheme, err := controllers.Scheme()
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(o.namespaces),
		Client:                        controllers.ClientOptions(),
		HealthProbeBindAddress:        o.health,
		Metrics:                       metricsserver.Options{BindAddress: o.metrics},
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "operator.messaging.quicproquo.dev",
		LeaderElectionNamespace:       o.home,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, mgr.AddReadyzCheck("ping", healthz.Ping)
}
