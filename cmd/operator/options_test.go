package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// parse reads flags and environment as the command does.
func parse(t *testing.T, env map[string]string, args ...string) (*options, error) {
	t.Helper()
	var o options
	flags := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	o.register(flags, func(name string) string { return env[name] })
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return &o, o.complete()
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  map[string]string
		args []string
		want []string
		fail string
	}{
		"own":              {env: map[string]string{"POD_NAMESPACE": "qpq"}, want: []string{"qpq"}},
		"environment":      {env: map[string]string{"POD_NAMESPACE": "qpq", "WATCH_NAMESPACE": "a, b"}, want: []string{"a", "b"}},
		"flag wins":        {env: map[string]string{"WATCH_NAMESPACE": "a"}, args: []string{"--namespaces=b,c"}, want: []string{"b", "c"}},
		"none":             {fail: "give --namespaces"},
		"all":              {args: []string{"--namespaces=*"}, fail: "name each one"},
		"no place to vote": {args: []string{"--namespaces=a", "--leader-elect"}, fail: "--home-namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := parse(t, tc.env, tc.args...)
			switch {
			case tc.fail != "":
				if err == nil || !strings.Contains(err.Error(), tc.fail) {
					t.Errorf("error %v, want one with %q", err, tc.fail)
				}
			case err != nil || !slices.Equal(o.namespaces, tc.want):
				t.Errorf("namespaces %q, error %v, want %q", o.namespaces, err, tc.want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args           []string
		cell, postgres string
	}{
		"default":          {nil, "localhost/quicproquo/cell:dev", "localhost/quicproquo/postgres:dev"},
		"mirror":           {[]string{"--image-registry=mirror.example.org/qpq"}, "mirror.example.org/qpq/cell:dev", "mirror.example.org/qpq/postgres:dev"},
		"one of one's own": {[]string{"--image-registry=mirror.example.org/qpq", "--cell-image=own/cell:v9"}, "own/cell:v9", "mirror.example.org/qpq/postgres:dev"},
	} {
		o, err := parse(t, nil, append(tc.args, "--namespaces=a")...)
		if err != nil {
			t.Fatal(err)
		}
		if got := o.images(); got.Cell != tc.cell || got.Postgres != tc.postgres {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	for level, good := range map[string]bool{"debug": true, "WARN": true, "loud": false} {
		o := &options{logLevel: level}
		if _, err := o.logger(); (err == nil) != good {
			t.Errorf("%s: %v", level, err)
		}
	}
}

// The operator's own manifest speaks this command's language.
func TestManifestIsUnderstood(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	c := d.Spec.Template.Spec.Containers[0]
	env, asked := map[string]string{}, map[string]bool{"GOMEMLIMIT": true}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	env["POD_NAMESPACE"] = "quicproquo" // As the kubelet fills it in.
	var o options
	flags := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	o.register(flags, func(name string) string { asked[name] = true; return env[name] })
	if err := flags.Parse(c.Args); err != nil {
		t.Fatal(err)
	}
	if err := o.complete(); err != nil || !o.leaderElect || !slices.Equal(o.namespaces, []string{"quicproquo"}) {
		t.Errorf("options %+v, error %v", o, err)
	}
	for name := range env {
		if !asked[name] {
			t.Errorf("nobody reads the variable %s", name)
		}
	}
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if o.health != ":8081" || ports["health"] != 8081 || o.metrics != ":8080" || ports["metrics"] != 8080 {
		t.Errorf("addresses %s and %s, ports %v", o.health, o.metrics, ports)
	}
}
