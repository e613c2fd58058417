package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"quicproquo.dev/controllers"
	"quicproquo.dev/internal/logging"
	"quicproquo.dev/internal/version"
)

// options are what flags and the environment say. A flag wins.
type options struct {
	namespaces     []string
	home           string // The operator's own namespace.
	leaderElect    bool
	health         string
	metrics        string
	registry       string
	cell, postgres string
	logLevel       string
}

// podNamespace is where the kubelet says which namespace a pod is in.
const podNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func (o *options) register(flags *pflag.FlagSet, env func(string) string) {
	flags.StringSliceVar(&o.namespaces, "namespaces", splitList(env("WATCH_NAMESPACE")), "namespaces whose MessagingCells are looked after (default: the operator's own; environment WATCH_NAMESPACE)")
	flags.StringVar(&o.home, "home-namespace", env("POD_NAMESPACE"), "the operator's own namespace (default: the pod's; environment POD_NAMESPACE)")
	flags.BoolVar(&o.leaderElect, "leader-elect", false, "of several operators let one work at a time")
	flags.StringVar(&o.health, "health-address", ":8081", "TCP address of /healthz and /readyz")
	flags.StringVar(&o.metrics, "metrics-address", ":8080", "TCP address of /metrics; 0 for none")
	flags.StringVar(&o.registry, "image-registry", env("IMAGE_REGISTRY"), "what stands before the names of the default images, such as registry.example.org/quicproquo for a private mirror (environment IMAGE_REGISTRY)")
	flags.StringVar(&o.cell, "cell-image", env("CELL_IMAGE"), "image of delivery servers whose MessagingCell names none (default: this release's; environment CELL_IMAGE)")
	flags.StringVar(&o.postgres, "postgres-image", env("POSTGRES_IMAGE"), "image of the embedded PostgreSQL (default: this release's; environment POSTGRES_IMAGE)")
	flags.StringVar(&o.logLevel, "log-level", cmp.Or(env("LOG_LEVEL"), "info"), "debug, info, warn or error (environment LOG_LEVEL)")
}

func splitList(text string) []string {
	list := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	return slices.Compact(list)
}

// complete fills in what nobody said and reports what cannot be.
func (o *options) complete() error {
	if o.home == "" {
		if b, err := os.ReadFile(podNamespace); err == nil {
			o.home = strings.TrimSpace(string(b))
		}
	}
	if len(o.namespaces) == 0 && o.home != "" {
		o.namespaces = []string{o.home}
	}
	if len(o.namespaces) == 0 {
		return errors.New("no namespace to look after: give --namespaces NAME,… (outside a cluster there is no own one)")
	}
	if o.leaderElect && o.home == "" {
		return errors.New("no namespace for the lease: give --home-namespace NAME, or leave out --leader-elect")
	}
	for _, name := range o.namespaces {
		if len(validation.IsDNS1123Label(name)) > 0 {
			return fmt.Errorf("%q is not a namespace: name each one; looking after all of a cluster's would take access to all of its Secrets", name)
		}
	}
	return nil
}

func (o *options) images() controllers.Images {
	images := controllers.DefaultImages(version.Version, o.registry)
	if o.cell != "" {
		images.Cell = o.cell
		images.Version = "" // Its tag tells.
	}
	images.Postgres = cmp.Or(o.postgres, images.Postgres)
	return images
}

func (o *options) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, errors.New("--log-level: write debug, info, warn or error")
	}
	return logging.New(os.Stderr, logging.Options{Level: level, Open: true}), nil
}
